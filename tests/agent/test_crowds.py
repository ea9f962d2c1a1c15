"""More than anybody meant: files in a folder, and bytes that nobody ever wrote."""

from __future__ import annotations

import itertools
import os
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import pytest

from agent_client import logfiles
from agent_client.config import LogSource
from agent_client.tailer import Tailer

LINE = "2026-11-22 10:00:{:02d}.000 1 ERROR nova [-] number {}\n"


def look(tailer: Tailer, size: int = 8 * 1024 * 1024) -> tuple[list[str], list[str]]:
    """What one look brings: messages of the logs, and what the agent tells of itself."""
    poll = tailer.poll(time.time(), size=size)
    tailer.accept(poll)
    own = [entry.message for entry in poll.entries if entry.component == "sentinella.tailer"]
    return [entry.message for entry in poll.entries if entry.message not in own], own


def lines(tailer: Tailer, size: int = 8 * 1024 * 1024) -> list[str]:
    """The messages of three looks: an event that was written just now waits for its end."""
    return [message for _ in range(3) for message in look(tailer, size)[0]]


# Files


def test_more_files_than_can_be_open_are_followed_in_part_and_that_is_said_once(
    logs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logfiles, "most_files", lambda: 20)
    for number in range(60):
        path = logs / f"{number}.log"
        path.write_text(LINE.format(number, number))
        os.utime(path, (1_000_000 + number, 1_000_000 + number))
    tailer = Tailer([LogSource(str(logs / "*.log"), "nova", "debug")], {})
    found, own = look(tailer)
    assert sorted(found) == sorted(f"number {number}" for number in range(40, 60))
    assert len(own) == 1
    assert "narrow it" in own[0]
    for _ in range(3):
        assert look(tailer) == ([], [])
    with (logs / "45.log").open("a") as file:
        file.write(LINE.format(1, "more"))
    os.utime(logs / "3.log")  # the newest by now, and still one too many
    assert lines(tailer) == ["number more"]
    for number in range(45):
        (logs / f"{number}.log").unlink()
    look(tailer)
    assert all(state.ok for state in tailer.states.values())


def calls(work: Callable[[], object]) -> int:
    """How many functions it calls."""
    count = 0

    def note(frame: FrameType, event: str, argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


def test_four_times_as_many_files_take_four_times_the_work(tmp_path: Path) -> None:
    taken = []
    for number in (200, 800):
        folder = tmp_path / str(number)
        folder.mkdir()
        for one in range(number):
            (folder / f"service-{one}.log").touch()
        tailer = Tailer([LogSource(str(folder / "*.log"), "nova", "debug")], {})
        look(tailer)
        taken.append(calls(lambda tailer=tailer: look(tailer)))  # type: ignore[misc]
    assert taken[1] < 6 * taken[0]


def test_whose_rotation_a_file_is_can_be_told_from_its_name() -> None:
    parts = ("", "a", ".log", "-1", ".1", "-20261122", ".old", ".gz", "-x", ".bak", "-2026-11-22")
    names = {"".join(some) for some in itertools.product(parts, repeat=4)}
    names = {name for name in names if name and len(name) < 20}
    bases = ("a", "a.log", "a-1.log", "a.log.1", ".log", "aa.log", "a-x.log", "a.1")
    found = Counter[bool]()
    for name, base in itertools.product(sorted(names), bases):
        told = f"/d/{base}" in set(logfiles._bases("/d", name))
        assert told == logfiles.is_rotated(base, name), (base, name)
        found[told] += 1
    assert min(found[True], found[False]) > 100


# Bytes that nobody wrote


@pytest.fixture
def sparse(logs: Path) -> tuple[Path, Tailer]:
    """A log that was truncated under a writer which goes on where it was: 10 GB further on."""
    path = logs / "a.log"
    path.write_text(LINE.format(0, "first"))
    tailer = Tailer([LogSource(str(path), "nova", "debug")], {})
    assert look(tailer)[0] == ["number first"]
    os.truncate(path, 0)
    look(tailer)
    with path.open("r+b") as file:
        file.seek(10 * 1024**3)
        file.write(LINE.format(1, "after the hole").encode())
    if path.stat().st_blocks * 512 > 1024**2:
        pytest.skip("this filesystem knows no holes")
    return path, tailer


def test_a_hole_of_ten_gigabytes_is_passed_at_once(sparse: tuple[Path, Tailer]) -> None:
    path, tailer = sparse
    assert lines(tailer, size=1024 * 1024) == ["number after the hole"]
    with path.open("ab") as file:
        file.write(LINE.format(2, "next").encode())
    assert lines(tailer) == ["number next"]
    assert tailer.states[str(path)].behind == 0


def test_a_hole_at_the_end_may_still_be_written(logs: Path) -> None:
    path = logs / "a.log"
    path.write_text(LINE.format(0, "first"))
    tailer = Tailer([LogSource(str(path), "nova", "debug")], {})
    look(tailer)
    end = path.stat().st_size
    os.truncate(path, 1024**3)  # set aside in advance, as some programs do
    assert [look(tailer) for _ in range(3)] == [([], [])] * 3
    with path.open("r+b") as file:
        file.seek(end)
        file.write(LINE.format(1, "second").encode())
    assert lines(tailer) == ["number second"]


def test_zeros_of_which_the_filesystem_knows_no_hole_are_passed_over_several_looks(
    logs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logfiles.Content, "written_from", lambda content, start: start)
    path = logs / "a.log"
    path.write_text(LINE.format(0, "first"))
    tailer = Tailer([LogSource(str(path), "nova", "debug")], {})
    assert look(tailer)[0] == ["number first"]
    with path.open("ab") as file:
        file.write(bytes(16 * 1024**2) + LINE.format(1, "second").encode())
    looks = [look(tailer, size=1024**2)[0] for _ in range(30)]
    assert not any(looks[:8]), "a look reads no more than it may"
    assert [message for found in looks for message in found] == ["number second"]
