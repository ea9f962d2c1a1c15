"""A server to report to, and an agent's surroundings, all real and on this machine."""

from __future__ import annotations

import gzip
import http.server
import json
import logging
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard

from agent_client.config import Config, load
from agent_client.wire import ENROL_PATH

from .plugin_host import as_agent as as_agent
from .plugin_host import configure as configure
from .plugin_host import folder as folder
from .plugin_host import supervise as supervise

KEY = "snt_test_0123456789"


class ReportServer:
    """Answers as the product does: a report is known by (agent, epoch, sequence)."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        #: The server's clock as its answers tell it; None: they tell none, as older ones.
        self.clock: Callable[[], float] | None = None
        self.reports: dict[tuple[str, str, int], dict[str, Any]] = {}
        self.arrivals: list[int] = []
        self.requests: list[dict[str, Any]] = []
        #: Of each request in turn.
        self.packings: list[str] = []
        self.duplicates = 0
        self.connections = 0
        #: Called with the parsed body; returns None to accept or (status, headers, body) to refuse.
        self.refuse: Callable[[dict[str, Any]], Any] = lambda body: None
        self.rejected: list[dict[str, Any]] = []
        #: What it says it unpacks; nothing, as older ones.
        self.accepts = ""
        #: Answers to a packing: (status, headers, body), instead of unpacking it.
        self.unpacks_not: dict[str, Any] = {}
        #: What agents are asked for, if anything.
        self.settings: dict[str, Any] | None = None
        self.arrived = threading.Condition()
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                super().setup()
                outer.connections += 1

            def do_POST(self) -> None:
                raw = self.rfile.read(int(self.headers["Content-Length"]))
                packing = self.headers.get("Content-Encoding", "")
                if packing in outer.unpacks_not:
                    outer.packings.append(packing)
                    status, headers, answer = outer.unpacks_not[packing]
                else:
                    if packing == "gzip":
                        raw = gzip.decompress(raw)
                    elif packing == "zstd":
                        raw = zstandard.ZstdDecompressor().decompressobj().decompress(raw)
                    outer.packings.append(packing)
                    status, headers, answer = outer.answer(self.path, dict(self.headers), raw)
                self.send_response(status)
                if outer.accepts:
                    self.send_header("Accept-Encoding", outer.accepts)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, format: str, *args: object) -> None:
                """Quiet."""

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False

            def handle_error(self, request: object, client_address: object) -> None:
                """A client that hangs up is part of the tests."""

        self._server = Server(("127.0.0.1", 0), Handler)
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )
        self._thread.start()

    def answer(
        self, path: str, headers: dict[str, str], raw: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        body = json.loads(raw)
        self.requests.append({"path": path, "headers": headers, "body": body})
        refusal = self.refuse(body)
        if refusal is not None:
            return refusal
        as_json = {"Content-Type": "application/json"}
        if path == ENROL_PATH:
            return 201, as_json, json.dumps({"key": KEY}).encode()
        accepted = duplicates = 0
        with self.arrived:
            for report in body["reports"]:
                name = (report["agent"], report["epoch"], report["sequence"])
                if name in self.reports:
                    duplicates += 1
                else:
                    accepted += 1
                    self.reports[name] = report
                    self.arrivals.append(report["sequence"])
            self.duplicates += duplicates
            self.arrived.notify_all()
        answer = {"accepted": accepted, "duplicates": duplicates, "rejected": self.rejected}
        if self.settings is not None:
            answer["settings"] = self.settings
        if self.clock is not None:
            answer["server_time"] = self.clock()
        return 200, as_json, json.dumps(answer).encode()

    def wait_for(self, condition: Callable[[], bool], seconds: float = 20.0) -> bool:
        with self.arrived:
            return self.arrived.wait_for(condition, seconds)

    def events(self) -> list[dict[str, Any]]:
        """All events in the order of the reports that brought them."""
        ordered = sorted(self.reports.values(), key=lambda report: report["sequence"])
        return [event for report in ordered for event in report.get("events", [])]

    def messages(self) -> list[str]:
        return [event["message"] for event in self.events()]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def problem(
    status: int, code: str = "refused", **headers: str
) -> tuple[int, dict[str, str], bytes]:
    """A refusal as the product words it."""
    body = json.dumps({"type": f"/problems/{code}", "title": code, "status": status}).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return status, {"Content-Type": "application/problem+json", **named}, body


def until(condition: Callable[[], object], seconds: float = 30.0) -> None:
    """Go on as soon as the condition holds; fail where it does not hold in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that in time"
        threading.Event().wait(0.01)


@pytest.fixture
def server() -> Iterator[ReportServer]:
    made = ReportServer()
    yield made
    made.close()


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    path = tmp_path / "log"
    path.mkdir()
    return path


@pytest.fixture
def write_config(tmp_path: Path, logs: Path) -> Callable[..., Path]:
    """Writes a configuration that watches `logs` and reports to a server.

    What else runs on this machine is no part of a test: discovery is off unless asked for.
    """

    def write(
        server_url: str, interval: float = 1, extra: str = "", discovery: bool = False
    ) -> Path:
        path = tmp_path / "agent.toml"
        path.write_text(
            f'[agent]\nserver = "{server_url}"\nkey = "{KEY}"\nstate_dir = "{tmp_path}/state"\n'
            f"interval = {interval}\ntimeout = 2\ndiscovery = {str(discovery).lower()}\n"
            f'[logs.nova]\npath = ["{logs}/*.log"]\nlevel = "debug"\n{extra}'
        )
        path.chmod(0o600)
        return path

    return write


@pytest.fixture
def make_config(write_config: Callable[..., Path]) -> Callable[..., Config]:
    def make(server_url: str = "http://127.0.0.1:9", **more: Any) -> Config:
        return load(str(write_config(server_url, **more)), {})

    return make


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """A verb that runs in this process sets up logging for good; its stream ends with the test."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
