"""Unmodified tools of others: Alerta's command line, and a Prometheus that alerts through us."""

from __future__ import annotations

import http.server
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sentinel_site.embedded.process import free_port
from tests.e2e.product import until

PROMETHEUS = shutil.which("prometheus")
DELIVERY = 15.0  # seconds within which something is told


@pytest.fixture
def alerta(organization, tmp_path):
    """Runs Alerta's command line as its documentation has it; what it printed."""

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [Path(sys.executable).parent / "alerta", *arguments],
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(tmp_path),
                "ALERTA_ENDPOINT": f"{organization.product.url}/alerta",
                "ALERTA_API_KEY": organization.admin_key,
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


def test_the_command_line_of_alerta_sends_queries_acknowledges_and_closes(
    alerta, organization, slack
):
    load = ("--resource", "web01", "--event", "HttpDown", "--environment", "Production")
    sent = alerta("send", *load, "--severity", "major", "--service", "Web", "--text", "No answer.")
    number = sent.split()[0]
    (alert,) = organization.alerts("HttpDown")
    assert (alert["severity"], alert["host"], alert["service"]) == ("error", "web01", "Web")
    until(lambda: slack.got(organization.slug, "HttpDown"), DELIVERY, "a Slack message")

    assert "1 duplicates" in alerta("send", *load, "--severity", "major", "--service", "Web")
    shown = alerta("query", "--filter", "resource=web01")
    assert number[:8] in shown
    assert "HttpDown" in shown
    assert "No answer." not in alerta("query", "--query", "severity:critical")
    assert "HttpDown" in alerta("history", "--ids", number)
    assert organization.slug in alerta("whoami")
    assert "alerta" in alerta("version")

    alerta("ack", "--ids", number, "--text", "on it")
    assert "ack" in alerta("query", "--ids", number[:8])
    incident = organization.get(f"incidents/{alert['incident']}/")
    assert incident["acknowledged_at"]

    alerta("close", "--filter", "event=HttpDown")
    assert organization.get(f"incidents/{alert['incident']}/")["resolved_at"]
    assert "closed" in alerta("query", "--ids", number)

    alerta("heartbeat", "--origin", "backup/db01", "--timeout", "600")
    assert "backup/db01" in alerta("heartbeats")


@contextmanager
def exporter(value: list[float]) -> Iterator[int]:
    """One number for a Prometheus to read; its port."""

    class Metrics(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = f"queue_length {value[0]}\n".encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Metrics)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


CONFIGURATION = """
global: {{scrape_interval: 1s, evaluation_interval: 1s}}
rule_files: [rules.yml]
scrape_configs:
  - job_name: broker
    static_configs: [{{targets: ["127.0.0.1:{exporter}"]}}]
    relabel_configs: [{{target_label: instance, replacement: "ctl-9:9100"}}]
alerting:
  alertmanagers:
    - path_prefix: /alertmanager
      static_configs: [{{targets: ["127.0.0.1:{port}"]}}]
      authorization: {{credentials: "{key}"}}
"""
RULES = """
groups:
  - name: queues
    rules:
      - alert: QueueLong
        expr: queue_length > 100
        labels: {severity: critical}
        annotations: {summary: "{{ $value }} messages wait on {{ $labels.instance }}"}
"""


@contextmanager
def prometheus(folder: Path, configuration: str) -> Iterator[None]:
    assert PROMETHEUS is not None, "needs Debian's package prometheus"
    (folder / "prometheus.yml").write_text(configuration)
    (folder / "rules.yml").write_text(RULES)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                PROMETHEUS,
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{free_port()}",
            ],
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)


def test_a_prometheus_takes_us_as_its_alertmanager(organization, slack, tmp_path):
    value = [7.0]
    port = organization.product.instance.port
    with exporter(value) as number:
        configuration = CONFIGURATION.format(
            exporter=number, port=port, key=organization.ingest_key
        )
        with prometheus(tmp_path, configuration):
            value[0] = 500.0
            (alert,) = until(lambda: organization.alerts("QueueLong"), 60, "its alert")
            assert (alert["origin"], alert["severity"]) == ("alertmanager", "critical")
            assert (alert["host"], alert["service"]) == ("ctl-9", "broker")
            until(lambda: slack.got(organization.slug, "QueueLong"), DELIVERY, "a Slack message")
            incident = organization.get(f"incidents/{alert['incident']}/")
            assert incident["events"][0]["text"] == "500 messages wait on ctl-9:9100"
            value[0] = 3.0
            until(
                lambda: organization.get(f"incidents/{alert['incident']}/")["resolved_at"],
                60,
                "its end",
            )
