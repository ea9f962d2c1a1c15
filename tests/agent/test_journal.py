"""systemd's journal: each entry once. Needs a journald of its own, so root and systemd."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent_client import journal
from agent_client.config import LogSource
from agent_client.tailer import Poll, Tailer

JOURNALD = "/lib/systemd/systemd-journald"

# Runs in a mount namespace where /run is its own; the journal itself lies outside, in $1.
_SURROUNDINGS = f"""
set -e
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/journal /run/log/journal
mount --bind "$1" /run/log/journal
{JOURNALD} & journald=$!
"$2" -c '
import base64, json, os, socket, sys, time
path = "/run/systemd/journal/socket"
deadline = time.monotonic() + 20
while not os.path.exists(path) and time.monotonic() < deadline:
    time.sleep(0.02)
to = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
to.connect(path)
print("ready", flush=True)
for line in sys.stdin:
    to.send(base64.b64decode(line))
'
kill $journald
wait $journald || true
"""


PATIENCE = 60.0  # seconds


class Journald:
    """A journald, and programs that log to it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._process = subprocess.Popen(
            ["unshare", "--mount", "bash", "-c", _SURROUNDINGS, "-", str(directory),
             sys.executable],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        assert self._process.stdout is not None
        self.works = self._process.stdout.readline() == "ready\n"
        if self.works:
            self.log("the journal begins", unit="test")
            ask = ["journalctl", "--directory", str(directory), "SYSLOG_IDENTIFIER=test", "-q"]
            deadline = time.monotonic() + PATIENCE
            while not subprocess.run(ask, capture_output=True, check=False).stdout:
                assert time.monotonic() < deadline

    def log(self, message: str | bytes, unit: str = "nova-compute", priority: int = 6) -> None:
        """As a program of that name would; who it is journald would find out for a real unit."""
        raw = message.encode() if isinstance(message, str) else message
        entry = b"SYSLOG_IDENTIFIER=%b\nPRIORITY=%d\n" % (unit.encode(), priority)
        entry += b"MESSAGE\n" + len(raw).to_bytes(8, "little") + raw + b"\n"
        assert self._process.stdin is not None
        self._process.stdin.write(base64.b64encode(entry).decode() + "\n")
        self._process.stdin.flush()

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(20)
        self._process.stdout.close()


@pytest.fixture
def journald(tmp_path: Path) -> Iterator[Journald]:
    if os.geteuid() != 0 or not os.path.exists(JOURNALD) or not shutil.which("journalctl"):
        pytest.skip("no journald can be started here")
    directory = tmp_path / "journal"
    directory.mkdir()
    made = Journald(directory)
    if not made.works:
        made.close()
        pytest.skip("no journald can be started here")
    yield made
    made.close()


class Reader:
    """A tailer that follows units, with its positions kept as the spool keeps them."""

    def __init__(self, journald: Journald, *units: str, **settings: object) -> None:
        given = {"level": "debug", "kind": "journal", **settings}
        self.sources = [
            LogSource(f"SYSLOG_IDENTIFIER={unit}", unit, **given)  # type: ignore[arg-type]
            for unit in units
        ]
        self.arguments = ["--directory", str(journald.directory)]
        self.stored: dict[str, str] = {}
        self.restart()

    def restart(self) -> None:
        """As after kill -9: only what was stored is known."""
        if hasattr(self, "tailer"):
            self.tailer.close()
        self.tailer = Tailer(self.sources, dict(self.stored), self.arguments)

    def poll(self, later: float = 0.0) -> Poll:
        return self.tailer.poll(time.time() + later)

    def keep(self, poll: Poll) -> list[str]:
        for name, value in poll.changes.items():
            if value is None:
                self.stored.pop(name, None)
            else:
                self.stored[name] = value
        self.tailer.accept(poll)
        return [entry.message for entry in poll.entries]

    def holds(self, text: str) -> None:
        """Wait until this line is kept for its continuation, as one that was just written is."""
        deadline = time.monotonic() + PATIENCE
        while text not in json.dumps(self.stored):
            assert time.monotonic() < deadline
            assert self.keep(self.poll(-60)) == []

    def until(self, number: int, later: float = 60.0) -> list[str]:
        """The next so many messages; `later` makes what waits for its continuation whole."""
        found: list[str] = []
        deadline = time.monotonic() + PATIENCE
        while len(found) < number and time.monotonic() < deadline:
            found += self.keep(self.poll(later))
        return found


@pytest.fixture
def reader(journald: Journald) -> Iterator[Reader]:
    made = Reader(journald, "nova-compute", "neutron-agent")
    yield made
    made.tailer.close()


def test_each_entry_of_the_units_comes_once_through_restarts(
    journald: Journald, reader: Reader
) -> None:
    journald.log("before anybody looked")
    assert reader.until(1) == ["before anybody looked"]
    journald.log("not asked for", unit="cron")
    journald.log("one")
    journald.log("two", unit="neutron-agent")
    found = reader.until(2)
    reader.restart()
    journald.log("three")
    assert [*found, *reader.until(1)] == ["one", "two", "three"]
    unkept = reader.poll(60)
    reader.restart()
    assert unkept.entries == []
    journald.log("four")
    seen: list[str] = []
    while not seen:
        seen = [entry.message for entry in reader.poll(60).entries]  # never stored
    assert seen == ["four"]
    assert reader.until(1) == ["four"]


def test_an_entry_says_what_it_is(journald: Journald, reader: Reader) -> None:
    request = "req-896b884d-533d-4875-bfcc-d8d9a4d57a33"
    journald.log(
        f"2026-11-22 10:30:25.027 20144 ERROR nova.compute.manager [None {request} a b] "
        "broken\x1b[00m"
    )
    journald.log("printed by mistake", priority=4)
    journald.log("caf\xe9".encode("latin-1"), priority=3)
    deadline = time.monotonic() + PATIENCE
    entries = []
    while len(entries) < 3 and time.monotonic() < deadline:
        poll = reader.poll(60)
        reader.keep(poll)
        entries += poll.entries
    oslo, warning, odd = entries
    assert (oslo.level, oslo.component) == ("error", "nova.compute.manager")
    assert (oslo.request_id, oslo.pid, oslo.message) == (request, 20144, "broken")
    assert (warning.level, warning.service) == ("warning", "nova-compute")
    assert warning.component == "nova-compute"
    assert abs(warning.at - time.time()) < 60
    assert odd.message.startswith("caf")
    assert odd.level == "error"


def test_a_traceback_is_one_event_though_the_agent_dies_in_the_middle_of_it(
    journald: Journald, reader: Reader
) -> None:
    prefix = "2026-11-22 10:29:44.184 1 ERROR nova "
    for line in (f"{prefix}[-] Failed", f"{prefix}Traceback (most recent call last):"):
        journald.log(line)
    reader.holds("Traceback")
    reader.restart()
    journald.log("another unit's", unit="neutron-agent")
    journald.log(f"{prefix}ValueError: 3")
    reader.holds("ValueError: 3")
    found = reader.until(2)
    assert sorted(found) == [
        "Failed\nTraceback (most recent call last):\nValueError: 3",
        "another unit's",
    ]


def test_a_flood_is_read_in_parts(journald: Journald, reader: Reader) -> None:
    journald.log("first")
    assert reader.until(1) == ["first"]
    for number in range(3000):
        journald.log(f"line {number}")
    found: list[str] = []
    deadline = time.monotonic() + 30
    while len(found) < 3000 and time.monotonic() < deadline:
        poll = reader.tailer.poll(time.time() + 60, events=700)
        assert len(poll.entries) <= 701
        found += reader.keep(poll)
    assert found == [f"line {number}" for number in range(3000)]


def test_a_host_without_journalctl_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    tailer = Tailer([LogSource("nova-compute", "nova", kind="journal")], {})
    poll = tailer.poll(1000.0)
    (said,) = poll.entries
    assert "journalctl: No such file" in said.message
    state = tailer.states["journal:nova-compute"]
    assert not state.ok
    tailer.accept(poll)
    again = Tailer(
        [LogSource("nova-compute", "nova", kind="journal")],
        {name: value for name, value in poll.changes.items() if value is not None},
    )
    assert again.poll(2000.0).entries == []


def test_an_entry_too_long_is_left_out_and_said_and_what_follows_is_read(
    journald: Journald, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "_LONGEST_ENTRY", 50_000)
    journald.log(b"\xff" * 30_000)  # printed as a list of numbers
    journald.log("after it")
    said, after = reader.until(2)
    assert said == "1 entries of the journal are longer than 50000 bytes and are left out"
    assert after == "after it"


def test_an_entry_longer_than_one_look_may_read_is_read_all_the_same(
    journald: Journald, reader: Reader
) -> None:
    journald.log("x" * 30_000)
    found: list[str] = []
    deadline = time.monotonic() + PATIENCE
    while not found and time.monotonic() < deadline:
        found += reader.keep(reader.tailer.poll(time.time() + 60, size=10_000))
    assert found[0].startswith("x" * 10_000)
