"""No secret shows: in no log, process list, spool, status or crash output."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from .conftest import ReportServer, problem, until

ROOT = Path(__file__).parents[2]

#: Everything that nobody may see, by where it comes from.
CANARIES = {
    "key": "snt_canary_k3yk3yk3yk3y",
    "OpenStack password": "canary-0penstack",
    "proxy password": "canary-pr0xy",
    "password in a log": "canary-l0gpass",
    "token in a log": "canary-t0ken-1234567890",
    "fernet token in a log": "gAAAAABcanary1234567890_abcdefghijklmnop",
    "password in a URL": "canary-ur1pass",
    "own pattern": "canary-customer-4711",
}
LINES = [
    "connecting with password={password in a log} as nova",
    "-H 'X-Auth-Token: {token in a log}' returned 401",
    "Could not recognize Fernet token {fernet token in a log}",
    "transport_url rabbit://openstack:{password in a URL}@10.0.0.5:5672/ unreachable",
    "customer {own pattern} complains",
    "somebody wrote {key} and {OpenStack password} and {proxy password} into a log",
]


def canaries_in(text: str | bytes) -> list[str]:
    if isinstance(text, bytes):
        text = text.decode("latin-1")
    return [name for name, secret in CANARIES.items() if secret in text]


class Guarded:
    """An agent with secrets in all its places, which works through a proxy."""

    def __init__(self, directory: Path, proxy: ReportServer) -> None:
        self.directory = directory
        (directory / "log").mkdir()
        (directory / "secret").write_text(CANARIES["OpenStack password"])
        (directory / "secret").chmod(0o600)
        self.config = directory / "agent.toml"
        port = proxy.url.rpartition(":")[2]
        self.config.write_text(
            f"""
            [agent]
            server = "http://sentinella.invalid"
            key = "{CANARIES["key"]}"
            state_dir = "{directory}/state"
            interval = 1
            timeout = 2
            log_level = "debug"
            log_file = "{directory}/agent.log"
            proxy = "http://me:{CANARIES["proxy password"]}@127.0.0.1:{port}"
            discovery = false
            [openstack]
            enabled = false
            auth_url = "http://127.0.0.1:9/v3"
            user = "nova"
            project = "admin"
            password_file = "{directory}/secret"
            [masking]
            patterns = ["canary-customer-[0-9]+"]
            [logs.nova]
            path = "{directory}/log/*.log"
            level = "debug"
            """
        )
        self.config.chmod(0o600)

    def start(self, code: str = "") -> subprocess.Popen[bytes]:
        """Start it; `code` runs before, in the same process."""
        begin = f"import sys\nfrom agent_client import cli\n{code}\n"
        program = begin + "sys.exit(cli.main(sys.argv[1:]))"
        return subprocess.Popen(
            [sys.executable, "-c", program, "run", "--config", str(self.config)],
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def write(self) -> None:
        with (self.directory / "log" / "nova.log").open("a") as file:
            for line in LINES:
                file.write(f"2026-11-22 10:00:00.000 1 ERROR nova [-] {line.format(**CANARIES)}\n")

    def files(self) -> Iterator[Path]:
        """All that it left behind, but for where the secrets were given to it."""
        for path in self.directory.rglob("*"):
            given = {"secret", "agent.toml", "nova.log"}
            if path.is_file() and path.name not in given:
                yield path


@pytest.fixture
def guarded(tmp_path: Path, server: ReportServer) -> Guarded:
    return Guarded(tmp_path, server)


def test_no_secret_shows_anywhere(guarded: Guarded, server: ReportServer) -> None:
    echoed: list[str] = []

    def echo_what_it_was_given(body: object) -> object:
        headers = server.requests[-1]["headers"]
        if len(server.requests) > 3:
            return None
        said = f"not now, {headers['Authorization']} by {headers['Proxy-Authorization']}"
        echoed.append(said)
        return problem(503, said, Retry_After="0")

    server.refuse = echo_what_it_was_given
    process = guarded.start()
    try:
        until((guarded.directory / "state" / "spool.db").exists)
        guarded.write()
        assert server.wait_for(lambda: len(server.events()) >= len(LINES), 30)
        seen = psutil.Process(process.pid)
        for one in [seen, *seen.children(recursive=True)]:
            assert canaries_in(" ".join(one.cmdline())) == []
        limits = Path(f"/proc/{process.pid}/limits").read_text()
        core = next(line for line in limits.splitlines() if "core file" in line)
        assert core.split()[4:6] == ["0", "0"], "a core dump would hold the key"
        status = subprocess.run(
            [sys.executable, "-m", "agent_client.cli", "status", "--config", str(guarded.config)],
            cwd=ROOT, capture_output=True, check=False,
        )  # fmt: skip
        assert canaries_in(status.stdout + status.stderr) == []
    finally:
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=20)
    assert echoed
    assert CANARIES["key"] in echoed[0], "the server must be the one that sees the key"
    assert canaries_in(output) == []
    messages = server.messages()
    assert canaries_in("\n".join(messages)) == []
    assert any("connecting with password=*** as nova" in message for message in messages)
    left = list(guarded.files())
    assert {path.name for path in left} >= {"agent.log", "spool.db", "status.json"}
    for path in left:
        assert canaries_in(path.read_bytes()) == [], path
    assert "503" in (guarded.directory / "agent.log").read_text()


def test_no_secret_waits_in_the_spool(guarded: Guarded, server: ReportServer) -> None:
    from agent_client.spool import Spool

    server.refuse = lambda body: problem(503)
    process = guarded.start()
    try:
        until(lambda: server.requests)
        guarded.write()
        status = guarded.directory / "state" / "status.json"
        cycles = json.loads(status.read_text())["cycles"]
        until(lambda: json.loads(status.read_text())["cycles"] >= cycles + 3)
    finally:
        process.kill()
        process.communicate(timeout=20)
    waiting = Spool(str(guarded.directory / "state")).oldest(1000, 10**9)
    texts = b"".join(stored.json() for stored in waiting)
    assert b"connecting with password=***" in texts
    assert canaries_in(texts) == []


def test_no_secret_shows_when_it_crashes(guarded: Guarded, server: ReportServer) -> None:
    crash = (
        "from agent_client.agent import Agent\n"
        "def cycle(self):\n"
        "    raise RuntimeError(f'{self.config!r} {self.config.key} {self.config.proxy}'\n"
        "                       f'{self.config.openstack.password}')\n"
        "Agent.cycle = cycle\n"
    )
    process = guarded.start(crash)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 1
    assert b"RuntimeError" in output
    assert canaries_in(output) == []
    for path in guarded.files():
        assert canaries_in(path.read_bytes()) == [], path
    assert not [name for name in os.listdir(ROOT) if name.startswith("core")]
