"""`manage.py up`: one command and everything runs; whatever is killed comes back, or goes."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import psycopg2
import pytest

from sentinel_site import instance
from sentinel_site.embedded.process import free_port

REPOSITORY = Path(__file__).resolve().parents[2]
CHILDREN = ["postgres", "valkey", "web", "worker", "notifier", "beat", "agent"]
SECONDS_TO_START = 120.0
SECONDS_TO_START_AGAIN = 15.0
SECONDS_TO_NOTICE = 1.0
SECONDS_TO_STOP = 10.0

pytestmark = [pytest.mark.e2e, pytest.mark.alone]


class Instance:
    """One `manage.py up`, as started from a shell that knows nothing of these tests' servers."""

    def __init__(self, state_dir: Path, port: int, *options: str) -> None:
        self.state_dir = state_dir
        self.port = port
        self.options = options
        self.environ: dict[str, str] = {}
        self.screen = state_dir.with_suffix(".screen")

    def start(self) -> None:
        foreign = {"DATABASE_URL", "REDIS_URL", "STATE_DIR", "PORT", "PUBLIC_URL"}
        environ = {k: v for k, v in os.environ.items() if k not in foreign}
        command = [sys.executable, "manage.py", "up", "--state-dir", str(self.state_dir)]
        with self.screen.open("w") as screen:
            self.process = subprocess.Popen(
                [*command, "--port", str(self.port), *self.options],
                cwd=REPOSITORY,
                env={**environ, "ENVIRONMENT": "test", **self.environ},
                stdout=screen,
                stderr=screen,
                process_group=0,
            )

    def wait(self) -> None:
        ended = eventually(
            lambda: "is live at" in self.shown or self.process.poll() is not None, SECONDS_TO_START
        )
        assert ended, self.shown
        assert self.process.poll() is None, self.shown

    @property
    def shown(self) -> str:
        return self.screen.read_text()

    @property
    def pids(self) -> dict[str, int]:
        described = instance.running(self.state_dir)
        return {} if described is None else described["pids"]

    def processes(self) -> set[int]:
        """All that belongs to it: by what it was told, or by where it works."""
        found = set()
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if process.status() == psutil.STATUS_ZOMBIE:
                    continue
                told = process.environ().get("STATE_DIR") == str(self.state_dir)
                if told or Path(process.cwd()).is_relative_to(self.state_dir):
                    found.add(process.pid)
        return found

    def get(self, path: str) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        with contextlib.closing(connection):
            connection.request("GET", path)
            return connection.getresponse().status

    def is_healthy(self) -> bool:
        try:
            return self.get("/healthz") == 200
        except OSError:
            return False

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        self.process.send_signal(number)
        return self.process.wait(40)


def eventually(holds: Callable[[], object], seconds: float = 60.0) -> bool:
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


@contextlib.contextmanager
def started(state_dir: Path, port: int | None = None, *options: str) -> Iterator[Instance]:
    it = Instance(state_dir, port or free_port(), *options)
    it.start()
    try:
        it.wait()
        yield it
    finally:
        if it.process.poll() is None:
            it.stop()


@pytest.fixture(scope="module")
def running(tmp_path_factory) -> Iterator[Instance]:
    with started(tmp_path_factory.mktemp("up") / "state") as it:
        yield it


def can_query(it: Instance) -> bool:
    try:
        psycopg2.connect(instance.environment(it.state_dir)["DATABASE_URL"]).close()
    except psycopg2.OperationalError:
        return False
    return True


class TestRunning:
    def test_it_ends_with_the_address_and_a_link_that_signs_in(self, running):
        assert running.get("/healthz") == 200
        last = running.shown.strip().splitlines()
        url = f"http://127.0.0.1:{running.port}"
        live = [line for line in last if "is live at" in line]
        assert len(live) == 1
        assert re.search(rf"live at {url} .*Sign in, once: {url}/\S+$", live[0])

    def test_every_part_runs(self, running):
        assert sorted(running.pids) == sorted(CHILDREN)
        assert all(psutil.pid_exists(pid) for pid in running.pids.values())

    def test_progress_is_numbered_to_the_end(self, running):
        steps = re.findall(r"^\[(\d)/9\] .*\d s$", running.shown, re.MULTILINE)
        assert steps == [str(number) for number in range(1, 10)]

    def test_a_second_shell_finds_it_and_others_cannot_read_where(self, running):
        found = instance.environment(running.state_dir)
        assert found["PUBLIC_URL"] == f"http://127.0.0.1:{running.port}"
        assert {"DATABASE_URL", "REDIS_URL", "SECRET_KEY", "KEY_PEPPER"} <= set(found)
        assert can_query(running)
        for name in ("instance.json", "secrets.json", "agent/agent.toml"):
            assert stat.S_IMODE((running.state_dir / name).stat().st_mode) == 0o600

    def test_it_is_reached_from_this_machine_only(self, running):
        listening = {
            connection.laddr.ip
            for pid in running.processes()
            for connection in psutil.Process(pid).net_connections()
            if connection.status == psutil.CONN_LISTEN
        }
        assert listening == {"127.0.0.1"}

    @pytest.mark.parametrize("name", CHILDREN)
    def test_a_killed_child_is_noticed_within_a_second_and_comes_back(self, running, name):
        assert eventually(lambda: name in running.pids)
        before = running.pids[name]
        process = psutil.Process(before)
        if name in ("postgres", "worker"):  # those that have children of their own
            assert eventually(process.children)
        below = process.children(recursive=True)
        os.kill(before, signal.SIGKILL)
        assert eventually(
            lambda: f"{name} (pid {before}) was killed" in running.shown, SECONDS_TO_NOTICE
        )
        assert eventually(lambda: running.pids.get(name, before) != before)
        assert eventually(running.is_healthy)
        assert eventually(lambda: can_query(running))
        assert eventually(lambda: not any(process.is_running() for process in below))

    def test_a_second_one_on_the_same_state_is_refused_and_told_of_the_first(self, running):
        second = Instance(running.state_dir, free_port())
        second.screen = running.state_dir.with_suffix(".second")
        second.start()
        assert second.process.wait(60) == 1
        assert f"at http://127.0.0.1:{running.port} (pid {running.process.pid})" in second.shown
        assert running.is_healthy()


def test_it_survives_its_own_kill_and_leaves_nothing_when_stopped(tmp_path):
    """The port is taken, too; and both starts leave nobody behind."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        it = Instance(tmp_path / "state", port, "--no-agent")
        it.start()
        it.wait()
        assert f"Port {port} is taken; using" in it.shown
        first = it.processes()
        it.process.kill()
        it.process.wait()
        assert instance.environment(it.state_dir) == {}

        began = time.monotonic()
        it.start()
        it.wait()
        assert time.monotonic() - began < SECONDS_TO_START_AGAIN
        assert not first & it.processes()
        assert "agent" not in it.pids

        began = time.monotonic()
        assert it.stop() == 0
        assert time.monotonic() - began < SECONDS_TO_STOP
    assert it.processes() == set()
    assert not (it.state_dir / "instance.json").exists()


def test_a_start_that_fails_says_why_and_leaves_nothing(tmp_path):
    it = Instance(tmp_path / "state", free_port(), "--no-agent")
    it.environ = {"DATABASE_URL": f"postgres://nobody@127.0.0.1:{free_port()}/none"}
    it.start()
    assert it.process.wait(60) == 1
    assert "Connection refused" in it.shown
    assert it.shown.strip().splitlines()[-1].startswith("error: Setting up failed")
    assert it.processes() == set()


def test_ctrl_c_while_it_starts_stops_what_has_been_started(tmp_path):
    it = Instance(tmp_path / "state", free_port(), "--no-agent")
    it.start()
    assert eventually(lambda: "[2/8]" in it.shown)
    assert it.stop() == 0
    assert "is live at" not in it.shown
    assert it.processes() == set()


def test_what_is_no_instance_any_more_is_not_found(tmp_path):
    assert instance.environment(tmp_path) == {}
    gone = {"pid": os.getpid(), "started": "1", "environment": {"DATABASE_URL": "postgres:"}}
    instance.write(tmp_path, gone)
    assert instance.environment(tmp_path) == {}
