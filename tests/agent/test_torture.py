"""Whatever kills the agent, rotates its logs or fails on the server: each line arrives once.

A real agent process against a real server. `make test` runs a short form, `make test-chaos` the
whole: 50,000 lines a rotation's kind, 10 rotations a second, 20 times kill -9.
"""

from __future__ import annotations

import collections
import dataclasses
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .conftest import ReportServer, problem, until

ROOT = Path(__file__).parents[2]
ROTATIONS_A_SECOND = 10


@dataclasses.dataclass(frozen=True)
class Torture:
    """How hard it is: so many lines, so many seconds of writing, so many kills."""

    lines: int
    seconds: float
    kills: int


SHORT = Torture(lines=4000, seconds=12.0, kills=4)
WHOLE = Torture(lines=50_000, seconds=75.0, kills=20)
DEGREES = [
    pytest.param(SHORT, id="short"),
    pytest.param(WHOLE, id="whole", marks=pytest.mark.chaos),
]


class Log:
    """A service's log file with its writer and its logrotate."""

    def __init__(self, path: Path, torture: Torture) -> None:
        self.path = path
        self._torture = torture
        self._lock = threading.Lock()
        self.written = 0
        self.rotations = 0
        self.done = threading.Event()

    def write(self) -> None:
        """All lines, evenly over the time."""
        began = time.monotonic()
        while self.written < self._torture.lines:
            share = min(1.0, (time.monotonic() - began) / self._torture.seconds)
            due = int(share * self._torture.lines) - self.written
            if due:
                self._append(due)
            threading.Event().wait(0.003)
        self.done.set()

    def _append(self, number: int) -> None:
        with self._lock, self.path.open("ab", buffering=0) as file:
            for _ in range(number):
                self.written += 1
                now = time.time()
                at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(now))
                line = f"{at}.{int(now % 1 * 1000):03d} 1 INFO nova [-] line {self.written}\n"
                file.write(line.encode())

    def rotate(self, how: Callable[[Log, Path], None]) -> None:
        """Ten times a second until the writer is done."""
        due = time.monotonic()
        while not self.done.is_set():
            due += 1 / ROTATIONS_A_SECOND
            self.done.wait(max(0.0, due - time.monotonic()))
            if self.path.exists():
                self.rotations += 1
                how(self, self.path.with_name(f"{self.path.name}-20261122-{self.rotations:06d}"))

    def rename(self, target: Path) -> None:
        with self._lock:  # a program that is told to reopen does so between two lines
            self.path.rename(target)

    def copy_and_truncate_in_a_pause(self, target: Path) -> None:
        with self._lock:
            shutil.copy(self.path, target)
            os.truncate(self.path, 0)

    def copy_and_truncate(self, target: Path) -> None:
        shutil.copy(self.path, target)
        os.truncate(self.path, 0)

    def kept(self) -> list[str]:
        """Every line that is in the file or in a rotated one, in order."""
        files = sorted(self.path.parent.glob(f"{self.path.name}-*"))
        if self.path.exists():
            files.append(self.path)
        text = b"".join(file.read_bytes() for file in files).decode()
        return [line.partition("[-] ")[2] for line in text.splitlines()]


class Unreliable:
    """A server that fails at random: 500, 503, or silence, also after it has stored."""

    def __init__(self, server: ReportServer) -> None:
        self._server = server
        self._dice = random.Random(11)  # noqa: S311 - the same torture each time
        self._released = threading.Event()
        self.failures: collections.Counter[str] = collections.Counter()
        server.refuse = self._refuse

    def _refuse(self, body: dict[str, Any]) -> Any:
        throw = self._dice.random()
        if throw < 0.15:
            self.failures["500"] += 1
            return problem(500)
        if throw < 0.3:
            self.failures["503"] += 1
            return problem(503, Retry_After="0")
        if throw < 0.37:
            self.failures["hanging"] += 1
            self._released.wait(3)  # longer than the agent waits; then it is stored all the same
        return None

    def end(self) -> None:
        """From now on it works."""
        self._server.refuse = lambda body: None
        self._released.set()


class Agents:
    """One agent after the other on the same state, each killed."""

    def __init__(self, config: Path) -> None:
        self._config = config
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "agent_client.cli", "run", "--config", str(self._config)],
            cwd=ROOT, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        assert self._process is not None
        self._process.terminate()
        self._process.wait(20)


def torment(
    log: Log, how: Callable[[Log, Path], None], torture: Torture, server: ReportServer, config: Path
) -> list[str]:
    """Write, rotate, kill and fail all at once; returns what arrived of the log, in order."""
    unreliable, agents = Unreliable(server), Agents(config)
    agents.start()
    status = config.parent / "state" / "status.json"
    until(status.exists)  # it has looked once: what is written now it must not miss
    threads = [
        threading.Thread(target=log.write, daemon=True),
        threading.Thread(target=log.rotate, args=(how,), daemon=True),
    ]
    for thread in threads:
        thread.start()
    dice = random.Random(5)  # noqa: S311 - the same torture each time
    each = torture.seconds / torture.kills
    for _ in range(torture.kills):
        log.done.wait(each * dice.uniform(0.5, 1.4))
        agents.kill()
        agents.start()
    for thread in threads:
        thread.join(torture.seconds * 4 + 60)
    assert log.written == torture.lines
    unreliable.end()
    agents.kill()  # and with it its back-off
    agents.start()
    expected = set(log.kept())
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not expected <= set(lines_of(server, log)):
        with server.arrived:
            server.arrived.wait(1)
    agents.stop()
    # A short one makes too few requests for each kind to come up.
    assert len(unreliable.failures) == 3 or (torture is SHORT and unreliable.failures)
    assert log.rotations >= torture.seconds * ROTATIONS_A_SECOND * 0.5
    ids = [(event["id"]) for event in server.events()]
    assert len(ids) == len(set(ids))
    return lines_of(server, log)


def lines_of(server: ReportServer, log: Log) -> list[str]:
    return [
        event["message"]
        for event in server.events()
        if event.get("path") == str(log.path) and event["message"].startswith("line ")
    ]


@pytest.fixture
def config(write_config: Callable[..., Path], server: ReportServer) -> Path:
    return write_config(server.url, extra="limit = 0\n[collectors]\nguests = false\n")


@pytest.mark.parametrize("torture", DEGREES)
@pytest.mark.parametrize(
    "how", [Log.rename, Log.copy_and_truncate_in_a_pause], ids=["rename", "copytruncate in a pause"]
)
def test_every_line_arrives_exactly_once_and_in_order(
    server: ReportServer, config: Path, logs: Path, torture: Torture,
    how: Callable[[Log, Path], None],
) -> None:  # fmt: skip
    log = Log(logs / "nova.log", torture)
    received = torment(log, how, torture, server, config)
    assert received == [f"line {number}" for number in range(1, torture.lines + 1)]


@pytest.mark.parametrize("torture", DEGREES)
def test_what_was_written_between_copy_and_truncation_is_all_that_may_be_missing(
    server: ReportServer, config: Path, logs: Path, torture: Torture
) -> None:
    log = Log(logs / "nova.log", torture)
    received = torment(log, Log.copy_and_truncate, torture, server, config)
    assert len(received) == len(set(received)), "a line came twice"
    kept = set(log.kept())
    assert kept <= set(received), "a line that is in a file was not sent"
    missing = torture.lines - len(set(received))
    said = [event["message"] for event in server.events() if "may be missing" in event["message"]]
    assert said, f"{missing} lines are missing and nothing was said"
    numbers = [int(line.partition(" ")[2]) for line in received]
    assert numbers == sorted(numbers)
