"""Rules: 20 of them over 10,000 servers, each the average of five minutes against a limit, with one
series in a hundred past it. One whole evaluation, from claiming the tenant to the commit, beside
Prometheus with the same series, sent by remote-write, and the same limits.

CPU is user and system time of all processes: of ours this one and PostgreSQL's, of Prometheus's
its own. It prints the first evaluation, which opens an alert for each breach, and those after it.
Without a `prometheus` program (apt install prometheus) only our half is measured.
"""

from __future__ import annotations

import json
import random
import shutil
import statistics
import tempfile
import time
import urllib.parse
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from uuid import uuid4

from django.utils import timezone

from accounts.models import Tenant
from alerts.engines import evaluation
from alerts.models import Alert, Rule
from benchmarks import measuring, prometheus, waiting
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


def store(
    tenant: Tenant,
    servers: list[int],
    values: list[list[float]],
    now: datetime,
    history: timedelta = HISTORY,
) -> None:
    """Wide rows of so long a time, as reports would have left them."""
    columns = tuple(
        sorted(Column(f"bench{number}", "value", (("kind", "b"),)) for number in range(RULES))
    )
    order = [int(column.measurement.removeprefix("bench")) for column in columns]
    set_id = sets.set_id(columns)
    last = int(now.timestamp() * 1000)
    step = int(STEP.total_seconds() * 1000)
    dice = random.Random(5)
    with isolation.only(tenant.pk) as cursor:
        days = {(now - history).date(), now.date()}
        partitions.make(cursor, partitions.POINTS, days)
        cursor.execute(
            "INSERT INTO public.metrics_set VALUES (%s, %s, %s, %s)",
            [tenant.pk, set_id, [c.measurement for c in columns], sets.encode(columns)],
        )
        for ts in range(last - int(history.total_seconds() * 1000), last + 1, step):
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
    rules = "".join(
        f"  - alert: Rule{n}\n    expr: avg_over_time(bench{n}[5m]) > {LIMIT}\n"
        for n in range(RULES)
    )
    rules = f"groups:\n- name: bench\n  interval: 10s\n  rules:\n{rules}"
    with (
        tempfile.TemporaryDirectory() as folder,
        prometheus.running(Path(folder), "", rules) as (server, url),
    ):
        now = time.time()
        batch = 500
        for start in range(0, SERVERS, batch):
            rows = enumerate(values[start : start + batch], start)
            prometheus.push(url, _series(rows, now))
        begun = prometheus.counter(url, _ITERATIONS)
        _until(url, begun + 2)  # the load of writing is over, alerts are open
        cpu, done = measuring.cpu(server), prometheus.counter(url, _ITERATIONS)
        _until(url, done + 4)
        spent = measuring.cpu(server) - cpu
        return spent / (prometheus.counter(url, _ITERATIONS) - done), _firing(url)


_ITERATIONS = "prometheus_rule_group_iterations_total"
#: Seconds within which a few of them are done on the slowest machine.
_LONGEST = 600.0


def _until(url: str, iterations: float) -> None:
    if not waiting.until(lambda: prometheus.counter(url, _ITERATIONS) >= iterations, _LONGEST):
        raise OSError("Prometheus evaluates nothing")


def _firing(url: str) -> int:
    query = urllib.parse.quote('count(ALERTS{alertstate="firing"})')
    answer = prometheus.get(f"{url}/api/v1/query?query={query}")
    found = json.loads(answer)["data"]["result"]
    return int(found[0]["value"][1]) if found else 0


def _series(rows: Iterable[tuple[int, list[float]]], now: float) -> Iterator[prometheus.Series]:
    """Each server's fields with the samples of the last six minutes."""
    times = [int((now - 60 * back) * 1000) for back in range(5, -1, -1)]
    for server, values in rows:
        for number, value in enumerate(values):
            labels = {"__name__": f"bench{number}", "instance": f"host-{server}", "kind": "b"}
            yield labels, [(ts, value + random.uniform(-1, 1)) for ts in times]
