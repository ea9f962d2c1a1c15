"""How long after a breach is stored somebody is told: 40 servers breach at random moments, and each
breach is sent at the same time to an instance of ours and to a Prometheus with an Alertmanager.
Both call a Slack webhook; counted is from the acknowledged report to that call.

Once as they come: ours looks every 5 s, a Prometheus every minute, and an Alertmanager waits 30 s
for more of a group. And once as fast as they go: ours looks every second; so does a Prometheus, and
its Alertmanager waits for nothing. Each of its alerts is a group of its own, which spares it the
five minutes between messages about one group. It takes some six minutes; without `prometheus` and
`prometheus-alertmanager` only our half is measured.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from agent_client import wire
from benchmarks import prometheus, waiting
from sentinel_site.embedded.process import free_port

BREACHES = 40
#: Seconds between a breach and the next: over the minute in which a Prometheus looks once.
BETWEEN = (0.5, 2.5)
LIMIT = 60
LONGEST = 150.0  # seconds within which the last one must have been told
START = 180.0
REPOSITORY = Path(__file__).resolve().parent.parent

Send = Callable[[str, float], None]


@dataclass(frozen=True)
class Pace:
    """How often each of them looks, and how long an Alertmanager waits for more."""

    name: str
    tick: str
    evaluation: str
    group_wait: str
    group_interval: str


PACES = (
    Pace("as they come", "5", "1m", "30s", "5m"),
    Pace("at their fastest", "1", "1s", "0s", "1s"),
)


def run() -> None:
    programs = ("prometheus", "prometheus-alertmanager")
    missing = [name for name in programs if shutil.which(name) is None]
    if missing:
        print(f"latency   no {' and no '.join(missing)} to compare with; apt install it")
    for pace in PACES:
        with contextlib.ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sentinella-")))
            slack = stack.enter_context(_Slack().open())
            sends = {"Sentinella": stack.enter_context(_ours(folder, slack, pace))}
            if not missing:
                sends["Prometheus"] = stack.enter_context(_theirs(folder, slack, pace))
            found = _measure(sends, slack)
        p95 = {name: _p95(latencies) for name, latencies in found.items()}
        for name, latencies in found.items():
            print(
                f"latency   {pace.name:17} {name:12} p50 {statistics.median(latencies):6.2f} s"
                f"  p95 {p95[name]:6.2f} s  worst {max(latencies):6.2f} s"
                f"  ({len(latencies)} of {BREACHES} told)"
            )
        if not missing:
            print(f"latency   {pace.name:17} ratio {p95['Prometheus'] / p95['Sentinella']:8.1f} x")


def _p95(latencies: list[float]) -> float:
    return statistics.quantiles(latencies, n=100, method="inclusive")[94]


def _measure(sends: dict[str, Send], slack: _Slack) -> dict[str, list[float]]:
    """Seconds from stored to told, of each contender; who loses a breach is shown with fewer."""
    dice = random.Random(4)
    hosts = [f"breach-{number}" for number in range(BREACHES)]
    stored: dict[str, list[tuple[str, Future[float]]]] = {name: [] for name in sends}
    with ThreadPoolExecutor(len(sends)) as pool:
        for host in hosts:
            for one in [pool.submit(send, host, 5.0) for send in sends.values()]:
                one.result()
        for host in hosts:
            began = time.monotonic()
            for name, send in sends.items():
                stored[name].append((host, pool.submit(_stored, send, host)))
            time.sleep(max(0.0, began + dice.uniform(*BETWEEN) - time.monotonic()))
    waiting.until(lambda: len(slack.called) == BREACHES * len(sends), LONGEST)
    return {
        name: [
            slack.called[name, host] - at.result()
            for host, at in rows
            if (name, host) in slack.called
        ]
        for name, rows in stored.items()
    }


def _stored(send: Send, host: str) -> float:
    """Send a breach; when it was acknowledged."""
    send(host, 95.0)
    return time.monotonic()


# -- who is called ------------------------------------------------------------


@dataclass
class _Slack:
    """An incoming webhook: when each contender, by path, first told of each host."""

    called: dict[tuple[str, str], float] = field(default_factory=dict)
    port: int = 0

    @contextlib.contextmanager
    def open(self) -> Iterator[_Slack]:
        slack = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                at = time.monotonic()
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                for host in set(re.findall(r"breach-\d+", body)):
                    slack.called.setdefault((self.path.strip("/"), host), at)
                self.send_response(200)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"ok")

            def log_message(self, format: str, *args: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield self
        finally:
            server.shutdown()
            thread.join()
            server.server_close()

    def url(self, contender: str) -> str:
        return f"http://127.0.0.1:{self.port}/{contender}"


# -- ours ---------------------------------------------------------------------


@contextlib.contextmanager
def _ours(folder: Path, slack: _Slack, pace: Pace) -> Iterator[Send]:
    """An instance as `make run` starts it, with a channel, and one rule on the newest value."""
    state, port = folder / "state", free_port()
    taken = {"DATABASE_URL", "REDIS_URL", "PUBLIC_URL", "PORT", "HOST"}
    environ = {name: value for name, value in os.environ.items() if name not in taken} | {
        "STATE_DIR": str(state),
        "TICK_SECONDS": pace.tick,
        "OUTGOING_PRIVATE_NETWORKS": "127.0.0.0/8",
    }
    log = folder / "ours.log"
    with log.open("wb") as output:
        command = [sys.executable, "manage.py", "up", "--port", str(port), "--no-agent"]
        program = subprocess.Popen(  # noqa: S603
            command, cwd=REPOSITORY, env=environ, stdout=output, stderr=output, process_group=0
        )
    try:
        _wait_until_live(program, log)
        said = subprocess.run(  # noqa: S603
            [
                *(sys.executable, "manage.py", "bootstrap", "--slug", "bench", "--name", "Bench"),
                *("--email", "bench@example.org", "--password-stdin"),
            ],
            cwd=REPOSITORY,
            env=environ,
            input=uuid.uuid4().hex,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        made = json.loads(said.splitlines()[-1])
        api, keys = f"{made['url']}api/v1/", made["keys"]
        _post(
            f"{api}channels/",
            keys["admin"],
            {"name": "Slack", "kind": "slack", "config": {"url": slack.url("Sentinella")}},
        )
        _post(
            f"{api}rules/",
            keys["admin"],
            {
                "name": "Busy",
                "kind": "metric",
                "measurement": "cpu",
                "field": "percent",
                "aggregation": "last",
                "window": 300,
                "hold": 0,
                "comparison": ">",
                "thresholds": {"error": LIMIT},
            },
        )
        agents: dict[str, str] = {}
        numbers = iter(range(10**6))

        def send(host: str, value: float) -> None:
            report = wire.Report(
                agent=agents.setdefault(host, str(uuid.uuid4())),
                epoch="bench",
                sequence=next(numbers),
                host=host,
                at=round(time.time(), 3),
                interval=600.0,
                points=[wire.Point("cpu", {"percent": value})],
            )
            answer = _post(
                f"http://127.0.0.1:{port}{wire.REPORTS_PATH}", keys["ingest"], [report.to_json()]
            )
            assert not answer["rejected"], answer

        yield send
    finally:
        program.terminate()
        program.wait(60)


def _wait_until_live(program: subprocess.Popen[bytes], log: Path) -> None:
    def is_live() -> bool:
        return "is live at" in log.read_text(errors="replace")

    waiting.until(lambda: is_live() or program.poll() is not None, START)
    if not is_live():
        raise OSError(log.read_text(errors="replace")[-2000:])


def _post(url: str, key: str, body: Any) -> Any:
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)  # noqa: S310
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
        return json.loads(answer.read())


# -- Prometheus and Alertmanager ----------------------------------------------


@contextlib.contextmanager
def _theirs(folder: Path, slack: _Slack, pace: Pace) -> Iterator[Send]:
    routes = f"""
route:
  receiver: slack
  group_by: ['...']
  group_wait: {pace.group_wait}
  group_interval: {pace.group_interval}
receivers:
- name: slack
  slack_configs:
  - api_url: {slack.url("Prometheus")}
    title: '{{{{ .CommonLabels.alertname }}}} on {{{{ .CommonLabels.instance }}}}'
"""
    rules = f"""
groups:
- name: bench
  rules:
  - alert: Busy
    expr: cpu_percent > {LIMIT}
"""
    with prometheus.alertmanager(folder, routes) as port:
        config = f"""
global:
  evaluation_interval: {pace.evaluation}
alerting:
  alertmanagers:
  - static_configs:
    - targets: ['127.0.0.1:{port}']
"""
        with prometheus.running(folder, config, rules) as (_, url):
            _wait_until_found(url)

            def send(host: str, value: float) -> None:
                labels = {"__name__": "cpu_percent", "instance": host}
                prometheus.push(url, [(labels, [(int(time.time() * 1000), value)])])

            yield send


def _wait_until_found(url: str) -> None:
    """Until the Prometheus knows its Alertmanager; what fires before is sent a minute later."""

    def is_found() -> bool:
        answer = json.loads(prometheus.get(f"{url}/api/v1/alertmanagers"))
        return bool(answer["data"]["activeAlertmanagers"])

    if not waiting.until(is_found, prometheus.START):
        raise OSError("Prometheus does not find its Alertmanager")
