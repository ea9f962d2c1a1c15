"""A disk that is full: what is in the spool stays, a server that answers is reported to."""

from __future__ import annotations

import dataclasses
import logging
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from agent_client.agent import Agent
from agent_client.config import Config, LogSource
from agent_client.inbox import Inbox
from agent_client.spool import Spool, SpoolUnusable

from .conftest import ReportServer

ROOT = Path(__file__).parents[2]
NOISE = random.Random(3)  # noqa: S311 - it need not be secret


def build(sequence: int) -> tuple[Mapping[str, Any], int, int]:
    """A report that does not compress much."""
    return {"n": sequence, "pad": NOISE.randbytes(4000).hex()}, 1, 0


def fill(spool: Spool) -> int:
    """Store until nothing goes any more; how many reports wait then."""
    for _ in range(3):  # a smaller one may still go where a larger one did not
        try:
            for _ in range(10_000):
                spool.append(time.time(), build, {"file:a": "x"})
        except SpoolUnusable:
            continue
        raise AssertionError("the disk was never full")
    return spool.waiting().reports


def drain(spool: Spool) -> list[int]:
    """Let go of everything, as a server's answers make it; the sequences in order."""
    sent = []
    while batch := spool.oldest(10, 10**6):
        spool.acknowledge([stored.sequence for stored in batch])
        sent += [stored.sequence for stored in batch]
    return sent


class Disk:
    """A filesystem of its own that others fill."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self._others = place / "others"

    def fill(self) -> None:
        descriptor = os.open(self._others, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            while True:
                os.write(descriptor, bytes(4096))
        except OSError:
            pass  # full
        finally:
            os.close(descriptor)

    def free(self) -> None:
        self._others.unlink()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[str], Disk]]:
    places: list[Path] = []

    def make(size: str) -> Disk:
        place = tmp_path / f"disk-{size}"
        place.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
        if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode:
            pytest.skip("only root mounts a small disk")
        places.append(place)
        return Disk(place)

    yield make
    for place in places:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_a_disk_that_the_spool_filled_itself_is_emptied_again(disk: Callable[[str], Disk]) -> None:
    place = str(disk("1m").place / "state")
    spool = Spool(place)
    waiting = fill(spool)
    assert waiting > 20
    spool.close()
    spool = Spool(place)  # as after a kill
    assert not spool.began_anew
    assert drain(spool) == list(range(1, waiting + 1))
    assert spool.append(time.time(), build, {}) == waiting + 1
    assert spool.losses().reports == 0
    spool.close()


def test_on_a_disk_that_others_filled_reports_come_and_go(disk: Callable[[str], Disk]) -> None:
    there = disk("8m")
    spool = Spool(str(there.place / "state"))
    for _ in range(3):
        spool.append(time.time(), build, {})
    there.fill()
    for number in range(4, 400):
        assert spool.append(time.time(), build, {}) == number
        spool.acknowledge([number])
    waiting = fill(spool)
    there.free()
    sent = drain(spool)
    assert len(sent) == waiting
    assert sent[:3] == [1, 2, 3]
    spool.append(time.time(), build, {})
    spool.close()


_FILLED = """
import resource, sys
sys.path.insert(0, sys.argv[2])
from agent_client.spool import Spool
from tests.agent.test_full_disk import drain, fill
resource.setrlimit(resource.RLIMIT_FSIZE, (1_500_000, 1_500_000))
spool = Spool(sys.argv[1])
waiting = fill(spool)
assert waiting > 20, waiting
assert drain(spool) == list(range(1, waiting + 1))
print(spool.append(1e12, lambda n: ({"n": n}, 1, 0), {}) - waiting)
"""


def test_a_file_that_may_not_grow_is_emptied_again(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _FILLED, str(tmp_path / "state"), str(ROOT)],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert (done.stdout, done.returncode) == ("1\n", 0), done.stderr


# What the agent makes of it


def test_it_is_said_once_and_told_with_what_it_cost(
    make_config: Callable[..., Config],
    server: ReportServer,
    logs: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    config = dataclasses.replace(
        make_config(server.url), logs=(LogSource(str(logs / "*.log"), "nova", "debug"),)
    )
    (logs / "a.log").touch()
    now = 1_800_000_000.0
    agent = Agent(config, clock=lambda: now)

    def full(*arguments: object) -> int:
        raise SpoolUnusable("spool.db: database or disk is full")

    def unwritable(*arguments: object, **more: object) -> object:
        raise OSError(28, "No space left on device")

    try:
        agent.cycle()
        agent.cycle()
        with monkeypatch.context() as broken, caplog.at_level(logging.INFO):
            broken.setattr(agent.spool, "append", full)
            broken.setattr("agent_client.agent.os.replace", unwritable)
            for number in range(5):
                now += 60
                with (logs / "a.log").open("a") as file:
                    file.write(f"2027-01-15 08:{number:02d}:00.000 1 ERROR nova [-] {number}\n")
                agent.cycle()
        now += 60
        agent.cycle()
        now += 60
        agent.cycle()
        agent.sender.work(None, 10)
    finally:
        agent.close()
    said = [record.getMessage() for record in caplog.records if "disk" in record.getMessage()]
    assert len(said) == 1
    assert sum("No space left" in record.getMessage() for record in caplog.records) == 1
    events = server.messages()
    assert sorted(text for text in events if text.isdigit()) == list("01234")
    (told,) = [text for text in events if "could not be stored" in text]
    assert "the points of 5 cycles" in told
    assert "2027-01-15 08:01:00Z to 2027-01-15 08:06:00Z" in told
    assert "disk is full" in told


def test_scripts_are_answered_and_the_log_is_not_flooded(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*arguments: object) -> None:
        raise SpoolUnusable("disk is full")

    inbox = Inbox(str(tmp_path), full)
    answers: list[dict[str, Any]] = []
    inbox._answer = lambda connection, answer: answers.append(dict(answer))  # type: ignore[method-assign,assignment]
    try:
        for _ in range(5):
            inbox._take([(inbox._listener, b'{"message": "x"}')])
    finally:
        inbox.close()
    assert answers == [{"error": "not stored: disk is full"}] * 5
    assert sum("disk is full" in record.getMessage() for record in caplog.records) == 1
