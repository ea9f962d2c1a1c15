"""Rules: 20 of them over 10,000 servers, each the average of five minutes against a limit, with one
series in a hundred past it. One whole evaluation, from claiming the tenant to the commit, beside
Prometheus with the same series, sent by remote-write, and the same limits.

CPU is user and system time of all processes: of ours this one and PostgreSQL's, of Prometheus's
its own. It prints the first evaluation, which opens an alert for each breach, and those after it.
Without a `prometheus` program (apt install prometheus) only our half is measured.
"""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import socket
import statistics
import struct
import subprocess
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from uuid import uuid4

import psutil
from django.utils import timezone

from accounts.models import Tenant
from alerts.engines import evaluation
from alerts.models import Alert, Rule
from benchmarks import measuring
from clouds.models import Server
from metrics import isolation, partitions
from metrics.stores import sets
from metrics.stores.base import Column
from sentinel_site.kit.tenancy import connection, in_schema

SERVERS = 10_000
RULES = 20
BREACHING = 0.01
LIMIT = 90.0
STEP = timedelta(seconds=60)
WINDOW = timedelta(minutes=5)
HISTORY = timedelta(hours=1)
ROUNDS = 7


def run() -> None:
    values = _values()
    first, steady, breaches = _ours(values)
    print(f"rules     {SERVERS} servers x {RULES} rules, {breaches} breaches")
    print(f"rules     all of them new                {first * 1000:8.0f} ms of CPU")
    print(f"rules     one evaluation                 {steady * 1000:8.0f} ms of CPU")
    if shutil.which("prometheus") is None:
        print("rules     no `prometheus` to compare with; apt install prometheus")
        return
    theirs, firing = _prometheus(values)
    print(f"rules     Prometheus, {firing} firing          {theirs * 1000:8.0f} ms of CPU")
    print(f"rules     ratio                          {theirs / steady:8.1f} x")


def _values() -> list[list[float]]:
    """Each server's usual value of each field; one in a hundred is past the limit."""
    dice = random.Random(4)
    return [
        [
            dice.uniform(LIMIT + 2, 100) if dice.random() < BREACHING else dice.uniform(1, 85)
            for _ in range(RULES)
        ]
        for _ in range(SERVERS)
    ]


# -- ours ---------------------------------------------------------------------


def _ours(values: list[list[float]]) -> tuple[float, float, int]:
    """CPU seconds of the first evaluation and of one after it, and how many alerts are open."""
    tenant = measuring.tenant("rules")
    now = timezone.now()
    with in_schema(tenant.schema_name):
        Rule.objects.all().delete()
        for number in range(RULES):
            Rule.objects.create(
                name=f"Rule {number}",
                measurement=f"bench{number}",
                field="value",
                thresholds={"warning": LIMIT},
                window=WINDOW,
            )
        rows = [
            Server(host=f"host-{n}", agent_id=uuid4(), interval=STEP, registered_at=now)
            for n in range(SERVERS)
        ]
        servers = [row.pk for row in Server.objects.bulk_create(rows, batch_size=2000)]
        store(tenant, servers, values, now)
        postgres = measuring.postgres()
        costs = []
        for number in range(1 + ROUNDS):
            at = timezone.now() + number * timedelta(seconds=1)
            before = measuring.own_cpu() + measuring.cpu(postgres)
            evaluation.evaluate(at)
            costs.append(measuring.own_cpu() + measuring.cpu(postgres) - before)
        breaches = Alert.objects.filter(resolved_at=None).count()
    expected = sum(value > LIMIT for row in values for value in row)
    assert breaches == expected, (breaches, expected)
    return costs[0], statistics.median(costs[1:]), breaches


def store(tenant: Tenant, servers: list[int], values: list[list[float]], now: datetime) -> None:
    """An hour of wide rows, as reports would have left them."""
    columns = tuple(
        sorted(Column(f"bench{number}", "value", (("kind", "b"),)) for number in range(RULES))
    )
    order = [int(column.measurement.removeprefix("bench")) for column in columns]
    set_id = sets.set_id(columns)
    last = int(now.timestamp() * 1000)
    step = int(STEP.total_seconds() * 1000)
    dice = random.Random(5)
    with isolation.only(tenant.pk) as cursor:
        days = {(now - HISTORY).date(), now.date()}
        partitions.make(cursor, partitions.POINTS, days)
        cursor.execute(
            "INSERT INTO public.metrics_set VALUES (%s, %s, %s, %s)",
            [tenant.pk, set_id, [c.measurement for c in columns], sets.encode(columns)],
        )
        for ts in range(last - int(HISTORY.total_seconds() * 1000), last + 1, step):
            cursor.execute(
                "INSERT INTO public.metrics_points"
                " SELECT %s, s, %s, %s + s %% 1000 - 1000,"
                " ARRAY(SELECT v::float8 FROM unnest(string_to_array(t, ',')) AS v)"
                " FROM unnest(%s::bigint[], %s::text[]) AS g(s, t)",
                [
                    tenant.pk,
                    set_id,
                    ts,
                    servers,
                    [",".join(str(row[n] + dice.uniform(-1, 1)) for n in order) for row in values],
                ],
            )
        cursor.execute(
            "INSERT INTO public.metrics_source (tenant_id, source, epoch, server_id, received_at,"
            " at, facts) SELECT %s, s::text, 'bench', s, %s, %s, '' FROM unnest(%s::bigint[]) AS s",
            [tenant.pk, now, now, servers],
        )
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE public.metrics_points, public.metrics_source")


# -- Prometheus ---------------------------------------------------------------


def _prometheus(values: list[list[float]]) -> tuple[float, int]:
    """CPU seconds of one evaluation of its rules, and how many alerts fire."""
    with tempfile.TemporaryDirectory() as folder, _running(Path(folder)) as (server, url):
        now = time.time()
        batch = 500
        for start in range(0, SERVERS, batch):
            rows = enumerate(values[start : start + batch], start)
            _push(url, _write_request(rows, now))
        groups = "prometheus_rule_group_iterations_total"
        begun = _counter(url, groups)
        while _counter(url, groups) < begun + 2:  # the load of writing is over, alerts are open
            time.sleep(0.2)
        cpu, done = measuring.cpu(server), _counter(url, groups)
        while _counter(url, groups) < done + 4:
            time.sleep(0.2)
        cost = (measuring.cpu(server) - cpu) / (_counter(url, groups) - done)
        return cost, _firing(url)


@contextlib.contextmanager
def _running(folder: Path) -> Iterator[tuple[psutil.Process, str]]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    rules = "".join(
        f"  - alert: Rule{n}\n    expr: avg_over_time(bench{n}[5m]) > {LIMIT}\n"
        for n in range(RULES)
    )
    (folder / "rules.yml").write_text(f"groups:\n- name: bench\n  interval: 10s\n  rules:\n{rules}")
    (folder / "prometheus.yml").write_text(f"rule_files: ['{folder}/rules.yml']\n")
    command = [
        "prometheus",
        f"--config.file={folder}/prometheus.yml",
        f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address=127.0.0.1:{port}",
        "--web.enable-remote-write-receiver",
        "--log.level=error",
    ]
    with subprocess.Popen(command) as process:  # noqa: S603
        try:
            url = f"http://127.0.0.1:{port}"
            _wait(f"{url}/-/ready")
            yield psutil.Process(process.pid), url
        finally:
            process.terminate()


def _wait(url: str) -> None:
    until = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5):  # noqa: S310
                return
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.2)


def _get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=60) as answer:  # noqa: S310
        return str(answer.read().decode())


def _counter(url: str, name: str) -> float:
    """One counter of its own /metrics; 0 before it exists."""
    for line in _get(f"{url}/metrics").splitlines():
        if line.startswith((f"{name} ", f"{name}{{")):
            return float(line.rpartition(" ")[2])
    return 0.0


def _firing(url: str) -> int:
    query = urllib.parse.quote('count(ALERTS{alertstate="firing"})')
    found = json.loads(_get(f"{url}/api/v1/query?query={query}"))["data"]["result"]
    return int(found[0]["value"][1]) if found else 0


def _push(url: str, body: bytes) -> None:
    request = urllib.request.Request(  # noqa: S310
        f"{url}/api/v1/write",
        _snappy(body),
        {
            "Content-Type": "application/x-protobuf",
            "Content-Encoding": "snappy",
            "X-Prometheus-Remote-Write-Version": "0.1.0",
        },
    )
    with urllib.request.urlopen(request, timeout=60):  # noqa: S310
        pass


def _write_request(rows: Iterable[tuple[int, list[float]]], now: float) -> bytes:
    """A remote-write 1.0 request: each series with the samples of the last six minutes."""
    times = [int((now - 60 * back) * 1000) for back in range(5, -1, -1)]
    series = []
    for server, values in rows:
        for number, value in enumerate(values):
            labels = [("__name__", f"bench{number}"), ("instance", f"host-{server}"), ("kind", "b")]
            body = b"".join(
                _field(1, _field(1, name.encode()) + _field(2, text.encode()))
                for name, text in labels
            )
            for ts in times:
                sample = b"\x09" + struct.pack("<d", value + random.uniform(-1, 1))
                body += _field(2, sample + b"\x10" + _varint(ts))
            series.append(_field(1, body))
    return b"".join(series)


def _field(number: int, body: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(body)) + body


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def _snappy(data: bytes) -> bytes:
    """The block format with literals only: valid, though nothing becomes smaller."""
    parts = [_varint(len(data))]
    for start in range(0, len(data), 65_536):
        chunk = data[start : start + 65_536]
        parts += [b"\xf4", struct.pack("<H", len(chunk) - 1), chunk]
    return b"".join(parts)
