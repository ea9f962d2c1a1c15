"""Alerts of other tools: accepted, de-duplicated and recorded, one a request, beside alerta-server,
which stores them in the same PostgreSQL; then 10,000 breaches of one evaluation at
once, and their end.

CLIENTS connections send the same alerts to both, by turns: half of them new, half repeated. CPU is
user and system time of the server's processes and of PostgreSQL's. alerta-server runs under
gunicorn in a virtual environment of its own, which is made at the first run (needs the network), or
is named by ALERTA_VENV.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote
from uuid import uuid4

import psutil
import psycopg2
from django.db import connection as django_connection
from django.utils import timezone

from accounts import keys
from accounts.models import Key
from alerts.engines import evaluation
from alerts.lifecycle import incidents
from alerts.models import Alert, Rule
from benchmarks import measuring, rules, waiting
from clouds.models import Server
from sentinel_site.embedded.process import free_port
from sentinel_site.kit.tenancy import in_schema

CLIENTS = 64
ALERTS = 960
ROUNDS = 3
BREACHES = 10_000
START = 60.0  # seconds
ALERTA = ("alerta-server==9.*", "gunicorn", "psycopg2-binary")


@dataclass(frozen=True)
class Contender:
    """Where alerts are posted to, and whose CPU it takes."""

    name: str
    port: int
    path: str
    key: str
    process: psutil.Process

    def post(self, numbers: list[int], run: str) -> None:
        """One connection's alerts, one a request; each must be acknowledged."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        headers = {"Content-Type": "application/json", "Authorization": f"Key {self.key}"}
        for number in numbers:
            body = {
                "resource": f"host-{number % 500}",
                "event": f"{run}-{number}",
                "environment": "Production",
                "severity": "major",
                "service": ["Web"],
                "group": "OS",
                "value": f"{number % 100}%",
                "text": "The load is too high.",
                "tags": ["rack:7"],
            }
            connection.request("POST", self.path, json.dumps(body), headers)
            answer = connection.getresponse()
            said = answer.read()
            assert answer.status == 201, said
        connection.close()


def run() -> None:
    # first, for PostgreSQL tidies up after the others for a while
    opened, ended = map(
        statistics.median,
        zip(*[_of_one_evaluation() for _ in range(ROUNDS + 1)][1:], strict=True),
    )
    with tempfile.TemporaryDirectory(prefix="sentinella-bench-") as folder:
        postgres = measuring.postgres()
        with contextlib.ExitStack() as stack:
            ours = stack.enter_context(_ours(Path(folder)))
            found = [ours]
            try:
                found.append(stack.enter_context(_alerta(Path(folder))))
            except (OSError, subprocess.CalledProcessError) as error:
                print(f"alerts    no alerta-server to compare with: {error}")
            rates: dict[str, list[float]] = {one.name: [] for one in found}
            for number in range(ROUNDS + 1):  # the first warms up
                for one in found:
                    rates[one.name].append(_rate(one, postgres, f"r{number}"))
        medians = {name: statistics.median(rate[1:]) for name, rate in rates.items()}
        for name, median in medians.items():
            print(f"alerts    one a request, {name:14} {median:8.0f} alerts per CPU-second")
        if len(found) == 2:
            pairs = zip(*(rates[one.name][1:] for one in found), strict=True)
            ratio = statistics.median(a / b for a, b in pairs)
            print(f"alerts    ratio                         {ratio:8.1f} x")
    print(f"alerts    of one evaluation             {opened:8.0f} alerts per CPU-second")
    print(f"alerts    that end at once              {ended:8.0f} alerts per CPU-second")


def _rate(one: Contender, postgres: psutil.Process, run: str) -> float:
    """Alerts per second of CPU: each is sent, and sent again."""
    numbers = [list(range(n, ALERTS, CLIENTS)) for n in range(CLIENTS)]
    before = measuring.cpu(one.process) + measuring.cpu(postgres)
    with ThreadPoolExecutor(CLIENTS) as pool:
        for part in [pool.submit(one.post, some + some, run) for some in numbers]:
            part.result()
    return 2 * ALERTS / (measuring.cpu(one.process) + measuring.cpu(postgres) - before)


@contextlib.contextmanager
def _ours(folder: Path) -> Iterator[Contender]:
    tenant = measuring.tenant("alerts")
    _, key = keys.issue(tenant, Key.Scope.INGEST)
    port = free_port()
    command = [
        *(sys.executable, "-m", "uvicorn", "sentinel_site.asgi:application", "--port", str(port)),
        *("--no-access-log", "--log-level", "error"),
    ]
    with _started(command, {}, port, "/healthz", folder / "ours.log") as process:
        yield Contender("Sentinella", port, "/alerta/alert", key, process)


@contextlib.contextmanager
def _alerta(folder: Path) -> Iterator[Contender]:
    home = Path(os.environ.get("ALERTA_VENV", "")) if "ALERTA_VENV" in os.environ else None
    if home is None:
        home = folder / "alerta"
        venv.create(home, with_pip=True)
        subprocess.run(  # noqa: S603
            [home / "bin" / "pip", "install", "--quiet", *ALERTA], check=True
        )
    port, name = free_port(), f"alerta_{time.time_ns()}"
    settings = django_connection.settings_dict
    with contextlib.closing(psycopg2.connect(**measuring.parameters())) as database:
        database.autocommit = True
        with database.cursor() as cursor:
            cursor.execute(f"CREATE DATABASE {name}")
    user = f"{settings['USER']}:{quote(settings['PASSWORD'])}"
    environ = {
        "DATABASE_URL": f"postgres://{user}@{settings['HOST']}:{settings['PORT']}/{name}",
        "AUTH_REQUIRED": "True",
        "ADMIN_USERS": "admin@example.org",
        "ADMIN_KEY": "benchmark-key",
        "SECRET_KEY": "benchmark",
        "AUDIT_TRAIL": "",
    }
    command = [
        *(str(home / "bin" / "gunicorn"), "--bind", f"127.0.0.1:{port}", "--workers", "2"),
        *("--threads", str(CLIENTS // 2), "--keep-alive", "60", "--log-level", "error"),
        "alerta:create_app()",
    ]
    subprocess.run(  # noqa: S603  makes the key
        [
            *(str(home / "bin" / "alertad"), "--app", "alerta", "key"),
            *("--username", "admin@example.org", "--key", "benchmark-key"),
        ],
        env={**os.environ, **environ},
        check=True,
        capture_output=True,
    )
    with _started(command, environ, port, "/management/gtg", folder / "alerta.log") as process:
        yield Contender("alerta-server", port, "/alert", "benchmark-key", process)


@contextlib.contextmanager
def _started(
    command: list[str], environ: dict[str, str], port: int, path: str, log: Path
) -> Iterator[psutil.Process]:
    with log.open("wb") as file:
        program = subprocess.Popen(  # noqa: S603
            command, env={**os.environ, **environ}, stdout=file, stderr=file
        )
    try:
        _wait(port, path, program, log)
        yield psutil.Process(program.pid)
    finally:
        program.terminate()
        program.wait(30)


def _wait(port: int, path: str, program: subprocess.Popen[bytes], log: Path) -> None:
    def answers() -> bool:
        with contextlib.suppress(OSError):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", path)
            return connection.getresponse().status < 500
        return False

    waiting.until(lambda: answers() or program.poll() is not None, START)
    if not answers():
        raise OSError(log.read_text(errors="replace")[-2000:])


def _of_one_evaluation() -> tuple[float, float]:
    """Alerts per second of CPU where one evaluation finds all of them, and where all end.

    It stores no more than the rule looks at, so that PostgreSQL does not still tidy up after that.
    """
    tenant, now = measuring.tenant("breaches"), timezone.now()
    with in_schema(tenant.schema_name):
        Rule.objects.all().delete()
        Rule.objects.create(
            name="Rule 0",
            measurement="bench0",
            field="value",
            thresholds={"warning": rules.LIMIT},
            window=rules.WINDOW,
        )
        rows = [
            Server(host=f"host-{n}", agent_id=uuid4(), interval=rules.STEP, registered_at=now)
            for n in range(BREACHES)
        ]
        servers = [row.pk for row in Server.objects.bulk_create(rows, batch_size=2000)]
        values = [[rules.LIMIT + 5] * rules.RULES] * BREACHES
        rules.store(tenant, servers, values, now, 2 * rules.WINDOW)
        opened = _spent(lambda: evaluation.evaluate(timezone.now()))
        alerts = list(Alert.objects.filter(resolved_at=None))
        assert len(alerts) == BREACHES
        over = [incidents.Recovered(alert, 0.0, "It is over.") for alert in alerts]
        ended = _spent(lambda: incidents.recover_all(over, timezone.now()))
        assert not Alert.objects.filter(resolved_at=None).exists()
    return BREACHES / opened, BREACHES / ended


def _spent(work: Callable[[], None]) -> float:
    """Seconds of CPU, of this process and of PostgreSQL."""
    postgres = measuring.postgres()
    before = measuring.own_cpu() + measuring.cpu(postgres)
    work()
    return measuring.own_cpu() + measuring.cpu(postgres) - before
