"""Following log files: nothing lost, nothing twice."""

from __future__ import annotations

import bz2
import grp
import gzip
import json
import lzma
import os
import re
import shutil
import tempfile
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from agent_client import logfiles, look
from agent_client.config import LogSource
from agent_client.logfiles import File
from agent_client.logreader import MAX_LINE
from agent_client.tailer import Poll, Tailer

LINE = "2026-11-22 10:{:02d}:{:02d}.000 1 {} nova [-] number {}\n"
HEAD = "2026-11-22 10:00:00.{:03d} 4711 ERROR nova.compute.manager [-] "


class Follower:
    """A tailer whose positions are kept as the spool keeps them, so that it can be restarted."""

    def __init__(self, directory: Path, pattern: str = "*.log", **source: object) -> None:
        settings = {"service": "nova", "level": "debug", **source}
        self.sources = [LogSource(pattern=str(directory / pattern), **settings)]  # type: ignore[arg-type]
        self.stored: dict[str, str] = {}
        #: How often it was said that lines between copy and truncation may be missing.
        self.copied = 0
        self.tailer = Tailer(self.sources, {})

    def poll(self, **budget: int) -> Poll:
        return self.tailer.poll(time.time(), **budget)

    def keep(self, poll: Poll) -> list[str]:
        for name, value in poll.changes.items():
            if value is None:
                self.stored.pop(name, None)
            else:
                self.stored[name] = value
        self.tailer.accept(poll)
        self.copied += sum("rotated by copying" in entry.message for entry in poll.entries)
        return [e.message for e in poll.entries if "rotated by copying" not in e.message]

    def look(self, **budget: int) -> list[str]:
        return self.keep(self.poll(**budget))

    def all(self) -> list[str]:
        """Everything there is: twice without news, so that half-written events end too."""
        found = self.look()
        quiet = 0
        while quiet < 2:
            more = self.look()
            quiet = 0 if more else quiet + 1
            found += more
        return found

    def restart(self) -> None:
        """As after kill -9: only what was stored is known."""
        self.tailer.close()
        self.tailer = Tailer(self.sources, dict(self.stored))


def append(path: Path, text: str) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(text)


@pytest.fixture
def follower(logs: Path) -> Follower:
    made = Follower(logs)
    made.look()  # it ran before the files of the tests came
    return made


def test_a_file_met_for_the_first_time_shows_its_last_lines_only(logs: Path) -> None:
    append(logs / "a.log", "".join(f"line {n:05d}\n" for n in range(1000)))
    follower = Follower(logs, tail=55)
    assert follower.all() == [f"line {n:05d}" for n in range(995, 1000)]


def test_a_tail_that_begins_within_a_line_leaves_the_torn_line_out(logs: Path) -> None:
    append(logs / "a.log", "first line\nsecond line\nthird line\n")
    assert Follower(logs, tail=15).all() == ["third line"]


def test_a_file_that_comes_later_is_read_from_its_first_line(
    follower: Follower, logs: Path
) -> None:
    append(logs / "late.log", "one\ntwo\n")
    assert follower.all() == ["one", "two"]


def test_a_line_is_sent_only_when_its_newline_is_there(follower: Follower, logs: Path) -> None:
    append(logs / "a.log", "whole\nhal")
    assert follower.all() == ["whole"]
    append(logs / "a.log", "f\n")
    assert follower.all() == ["half"]


def test_a_poll_that_was_not_stored_is_read_again(follower: Follower, logs: Path) -> None:
    append(logs / "a.log", "one\ntwo\n")
    old = time.time() - 60
    os.utime(logs / "a.log", (old, old))
    lost = follower.poll()
    assert [entry.message for entry in lost.entries] == ["one", "two"]
    assert follower.all() == ["one", "two"]
    assert follower.all() == []


def test_a_restart_goes_on_where_the_last_stored_poll_ended(follower: Follower, logs: Path) -> None:
    append(logs / "a.log", "one\n")
    assert follower.all() == ["one"]
    append(logs / "a.log", "two\n")
    follower.restart()
    assert follower.all() == ["two"]


@pytest.mark.parametrize("restarted", [False, True], ids=["running", "restarted"])
def test_a_renamed_file_is_read_to_its_end_before_the_new_one(
    follower: Follower, logs: Path, restarted: bool
) -> None:
    append(logs / "a.log", "one\n")
    assert follower.all() == ["one"]
    append(logs / "a.log", "two\n")
    (logs / "a.log").rename(logs / "a.log.1")
    append(logs / "a.log", "three\n")
    if restarted:
        follower.restart()
    assert follower.all() == ["two", "three"]


def test_several_rotations_between_two_looks_lose_nothing(follower: Follower, logs: Path) -> None:
    append(logs / "a.log", "line 0\n")
    assert follower.all() == ["line 0"]
    for turn in range(1, 6):
        append(logs / "a.log", f"line {turn}a\nline {turn}b\n")
        for number in range(turn, 0, -1):
            older = logs / (f"a.log.{number - 1}" if number > 1 else "a.log")
            older.rename(logs / f"a.log.{number}")
    append(logs / "a.log", "last\n")
    expected = [f"line {turn}{half}" for turn in range(1, 6) for half in "ab"]
    assert follower.all() == [*expected, "last"]


@pytest.mark.parametrize("restarted", [False, True], ids=["running", "restarted"])
def test_copytruncate_reads_the_rest_from_the_copy(
    follower: Follower, logs: Path, restarted: bool
) -> None:
    append(logs / "a.log", "one\ntwo\n")
    assert follower.all() == ["one", "two"]
    append(logs / "a.log", "three\n")
    shutil.copy(logs / "a.log", logs / "a.log.1")
    os.truncate(logs / "a.log", 0)
    append(logs / "a.log", "four, and more than there was before, so that size tells nothing\n")
    if restarted:
        follower.restart()
    found = follower.all()
    assert found == [
        "three",
        "four, and more than there was before, so that size tells nothing",
    ]


def test_a_copy_that_is_behind_what_was_read_is_not_read_again(
    follower: Follower, logs: Path
) -> None:
    first = "".join(LINE.format(0, 0, "ERROR", n) for n in range(20))
    append(logs / "a.log", first)
    assert len(follower.all()) == 20
    for copied in (5, 3):  # also one that is shorter than what content is recognised by
        shutil.copy(logs / "a.log", logs / f"a.log.{copied}")
        os.truncate(logs / f"a.log.{copied}", len(first) * copied // 20)
        os.truncate(logs / "a.log", 0)
        append(logs / "a.log", "".join(LINE.format(copied, 0, "ERROR", n) for n in range(20)))
        first = (logs / "a.log").read_text()
        assert follower.all() == [f"number {n}" for n in range(20)]
    assert follower.copied == 2, "what was written in between may be missing"


def test_a_look_between_copy_and_truncation_reads_nothing_twice(
    follower: Follower, logs: Path
) -> None:
    append(logs / "a.log", "one\n")
    assert follower.all() == ["one"]
    append(logs / "a.log", "two\n")
    shutil.copy(logs / "a.log", logs / "a.log.1")
    assert follower.all() == ["two"]
    os.truncate(logs / "a.log", 0)
    append(logs / "a.log", "three\n")
    assert follower.all() == ["three"]


def test_a_truncation_without_a_copy_is_said(follower: Follower, logs: Path) -> None:
    append(logs / "a.log", "one\n")
    assert follower.all() == ["one"]
    os.truncate(logs / "a.log", 0)
    append(logs / "a.log", "two\n")
    found = follower.all()
    assert found[-1] == "two"
    assert len(found) == 2
    assert "may be missing" in found[0]


def test_a_deleted_file_is_read_to_its_end_while_the_agent_runs(
    follower: Follower, logs: Path
) -> None:
    append(logs / "a.log", "one\n")
    assert follower.all() == ["one"]
    with (logs / "a.log").open("a") as writer:
        (logs / "a.log").unlink()
        writer.write("two\n")
        writer.flush()
        assert follower.all() == ["two"]


def test_a_file_rewritten_by_an_editor_is_not_read_again(follower: Follower, logs: Path) -> None:
    append(logs / "a.log", "one\ntwo\n")
    assert follower.all() == ["one", "two"]
    shutil.copy(logs / "a.log", logs / "new")
    append(logs / "new", "three\n")
    (logs / "new").rename(logs / "a.log")
    assert follower.all() == ["three"]


def test_a_traceback_is_one_event_with_its_cause(follower: Follower, logs: Path) -> None:
    head = HEAD.format(184)
    prefix = "2026-11-22 10:00:00.184 4711 ERROR nova.compute.manager "
    append(
        logs / "a.log",
        f"{head}Instance failed\n{prefix}Traceback (most recent call last):\n"
        f'{prefix}  File "manager.py", line 1872, in _allocate\n'
        f"{prefix}nova.exception.PortBindingFailed: no port\n{prefix}\n"
        f"{HEAD.format(185)}Next\n",
    )
    first, second = follower.all()
    assert first == (
        "Instance failed\nTraceback (most recent call last):\n"
        '  File "manager.py", line 1872, in _allocate\nnova.exception.PortBindingFailed: no port'
    )
    assert second == "Next"


def test_a_traceback_still_being_written_waits_for_its_end(follower: Follower, logs: Path) -> None:
    append(logs / "a.log", HEAD.format(1) + "Failed\n")
    # Written this very moment: more of it may come.
    assert follower.look() == []
    append(logs / "a.log", "Traceback (most recent call last):\n  File x\nValueError: 3\n")
    assert follower.look() == []
    assert follower.all() == ["Failed\nTraceback (most recent call last):\n  File x\nValueError: 3"]


def test_a_bare_traceback_in_a_file_without_heads_is_one_error(
    follower: Follower, logs: Path
) -> None:
    append(
        logs / "a.log",
        "starting\nTraceback (most recent call last):\n  File x\n    y()\nValueError: 3\nstopped\n",
    )
    poll = follower.poll()
    follower.keep(poll)
    entries = poll.entries + follower.poll().entries
    assert [entry.message for entry in entries] == [
        "starting",
        "Traceback (most recent call last):\n  File x\n    y()\nValueError: 3",
        "stopped",
    ]
    assert entries[1].level == "error"


def test_a_megabyte_in_one_line_is_cut_and_its_length_said(follower: Follower, logs: Path) -> None:
    append(logs / "a.log", "x" * 3_000_000 + "\nafter\n")
    found = follower.all()
    assert found[-1] == "after"
    assert len(found) == 2
    assert len(found[0]) < MAX_LINE + 50
    assert found[0].endswith("more bytes]")


def test_bytes_that_are_no_utf8_are_kept_readable(follower: Follower, logs: Path) -> None:
    (logs / "a.log").write_bytes("inválido\n".encode("latin-1") + "gültig\n".encode() + b"a\0b\n")
    assert follower.all() == ["inválido", "gültig", "a\ufffdb"]


def test_events_below_the_level_are_passed_over(logs: Path) -> None:
    follower = Follower(logs, level="warning")
    follower.look()
    append(
        logs / "a.log",
        "2026-11-22 10:00:00.000 1 INFO nova [-] fine\n"
        "2026-11-22 10:00:00.001 1 WARNING nova [-] careful\n"
        "2026-11-22 10:00:00.002 1 DEBUG nova [-] detail\n",
    )
    assert follower.all() == ["careful"]


def test_a_flood_is_read_in_parts_and_in_order(follower: Follower, logs: Path) -> None:
    lines = [f"line {n:06d}" for n in range(5000)]
    append(logs / "a.log", "\n".join(lines) + "\n")
    first = follower.poll(events=700)
    assert first.more
    assert len(first.entries) == 700
    found = follower.keep(first)
    while len(found) < len(lines):
        found += follower.look(events=700)
    assert found == lines


def test_two_patterns_read_one_file_once(logs: Path) -> None:
    follower = Follower(logs)
    follower.sources.append(LogSource(str(logs / "a*"), "other", "debug"))
    follower.restart()
    follower.look()
    append(logs / "a.log", "one\n")
    assert follower.all() == ["one"]


def test_compressed_and_strange_neighbours_are_left_alone(follower: Follower, logs: Path) -> None:
    append(logs / "a.log", "one\n")
    assert follower.all() == ["one"]
    (logs / "a.log.2.gz").write_bytes(b"\x1f\x8b junk\n")
    append(logs / "a.log.swp", "junk\n")
    append(logs / "another.txt", "junk\n")
    assert follower.all() == []


def test_other_sources_may_be_followed_while_running(follower: Follower, logs: Path) -> None:
    other = LogSource(str(logs / "b.txt"), "glance", "debug")
    append(logs / "a.log", "one\n")
    assert follower.all() == ["one"]
    append(logs / "b.txt", "".join(f"old {n}\n" for n in range(3)))
    follower.tailer.follow([other])
    append(logs / "a.log", "not asked for\n")
    assert follower.all() == ["old 0", "old 1", "old 2"]
    assert set(follower.tailer.states) == {str(logs / "b.txt")}
    append(logs / "b.txt", "two\n")
    follower.tailer.follow([*follower.sources, other])
    assert follower.all() == ["not asked for", "two"]


def test_what_is_asked_for_again_goes_on_where_it_was_left(follower: Follower, logs: Path) -> None:
    append(logs / "a.log", "one\n")
    assert follower.all() == ["one"]
    follower.tailer.follow([])
    assert follower.all() == []
    append(logs / "a.log", "two\n")
    append(logs / "new.log", "three\n")
    follower.tailer.close()
    follower.tailer = Tailer([], dict(follower.stored))  # until discovery has found them again
    assert follower.all() == []
    follower.tailer.follow(follower.sources)
    assert sorted(follower.all()) == ["three", "two"]


def test_what_nobody_asked_for_in_a_week_is_forgotten(follower: Follower, logs: Path) -> None:
    append(logs / "a.log", "one\n")
    assert follower.all() == ["one"]
    follower.tailer.follow([])
    follower.look()
    assert len(follower.stored) == 2
    follower.tailer.close()
    follower.tailer = Tailer([], dict(follower.stored))
    follower.keep(follower.tailer.poll(time.time() + 8 * 86_400))
    assert follower.stored == {}


def test_positions_survive_a_lost_spool_also_of_what_is_not_followed(
    follower: Follower, logs: Path
) -> None:
    append(logs / "a.log", "one\n")
    assert follower.all() == ["one"]
    follower.tailer.follow([])
    follower.look()
    before = dict(follower.stored)
    follower.stored.clear()
    follower.tailer.store_all()
    follower.look()
    assert follower.stored == before


def test_levels_may_change_for_a_while(follower: Follower, logs: Path) -> None:
    line = "2026-11-22 10:00:00.000 1 {} nova [-] {}\n"
    follower.tailer.set_levels({"": "warning", "nova": "error"})
    append(logs / "a.log", line.format("WARNING", "left out") + line.format("ERROR", "sent"))
    assert follower.all() == ["sent"]
    follower.tailer.set_levels({})
    append(logs / "a.log", line.format("DEBUG", "all of it"))
    assert follower.all() == ["all of it"]
    with pytest.raises(ValueError, match="loud"):
        follower.tailer.set_levels({"nova": "loud"})


PACKERS = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}


def pack(path: Path, target: Path) -> None:
    """Compress as logrotate does: the time of the last line stays."""
    status = path.stat()
    with PACKERS[target.suffix](target, "wb") as file:
        file.write(path.read_bytes())
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
    path.unlink()


@pytest.mark.parametrize("suffix", sorted(PACKERS))
@pytest.mark.parametrize("restarted", [False, True], ids=["running", "restarted"])
def test_what_was_compressed_before_anybody_looked_is_unpacked(
    follower: Follower, logs: Path, restarted: bool, suffix: str
) -> None:
    append(logs / "a.log", "one\n")
    assert follower.all() == ["one"]
    if restarted:
        follower.tailer.close()
    append(logs / "a.log", "two\n")
    pack(logs / "a.log", logs / f"a.log.3{suffix}")
    append(logs / "a.log", "three\n" * 3 + "four\n")
    pack(logs / "a.log", logs / f"a.log.2{suffix}")
    append(logs / "a.log", "five\n")
    (logs / "a.log").rename(logs / "a.log.1")
    append(logs / "a.log", "six\n")
    if restarted:
        follower.restart()
    assert follower.all() == ["two", "three", "three", "three", "four", "five", "six"]
    pack(logs / "a.log.1", logs / f"a.log.4{suffix}")
    (logs / f"a.log.2{suffix}").rename(logs / f"a.log.5{suffix}")
    follower.restart()
    assert follower.all() == []


def test_archives_of_the_time_before_the_agent_are_left_alone(logs: Path) -> None:
    append(logs / "a.log", "long ago\n")
    os.utime(logs / "a.log", (1_700_000_000, 1_700_000_000))
    pack(logs / "a.log", logs / "a.log.1.gz")
    append(logs / "a.log", "one\n")
    follower = Follower(logs)
    assert follower.all() == ["one"]
    follower.restart()
    assert follower.all() == []


def test_an_archive_that_is_still_being_written_waits(follower: Follower, logs: Path) -> None:
    append(logs / "a.log", "one\n")
    assert follower.all() == ["one"]
    append(logs / "a.log", "".join(f"line {n} {os.urandom(20).hex()}\n" for n in range(500)))
    lines = (logs / "a.log").read_text().splitlines()[1:]
    packed = gzip.compress((logs / "a.log").read_bytes())
    (logs / "a.log").rename(logs / "a.log.1")
    (logs / "a.log.1.gz").write_bytes(packed[: len(packed) // 2])
    assert follower.all() == lines
    (logs / "a.log.1.gz").write_bytes(packed)
    (logs / "a.log.1").unlink()
    assert follower.all() == []


def test_copied_truncated_and_compressed_at_once_is_read_from_the_archive(
    follower: Follower, logs: Path
) -> None:
    append(logs / "a.log", "one\n")
    assert follower.all() == ["one"]
    append(logs / "a.log", "two\n")
    shutil.copy2(logs / "a.log", logs / "a.log.1")
    os.truncate(logs / "a.log", 0)
    pack(logs / "a.log.1", logs / "a.log.1.gz")
    append(logs / "a.log", "three\n")
    assert follower.all() == ["two", "three"]


def test_a_large_archive_is_read_in_parts_over_several_looks(
    follower: Follower, logs: Path
) -> None:
    append(logs / "a.log", "line 0\n")
    assert follower.all() == ["line 0"]
    lines = [f"line {n} {'x' * 300}" for n in range(1, 8000)]
    append(logs / "a.log", "\n".join(lines) + "\n")
    pack(logs / "a.log", logs / "a.log.1.gz")
    found: list[str] = []
    while len(found) < len(lines):
        more = follower.look(size=600_000)
        assert more
        found += more
        follower.restart()  # the position within the archive is kept, too
    assert found == lines


def unpacked(monkeypatch: pytest.MonkeyPatch, per_look: int, most: int = 1 << 40) -> list[int]:
    """Let looks unpack so little, and count how much each preparation of an archive unpacked."""
    spent = []
    monkeypatch.setattr(look, "UNPACKED_PER_LOOK", per_look)
    monkeypatch.setattr(logfiles, "MOST_UNPACKED", most)
    prepare = logfiles.Archive.prepare

    def counted(archive: logfiles.Archive, start: int | None, allowed: int) -> tuple[bool, int]:
        before = archive._end
        try:
            enough, cost = prepare(archive, start, allowed)
        except OSError:
            spent.append(archive._end - before)
            raise
        spent.append(cost)
        return enough, cost

    monkeypatch.setattr(logfiles.Archive, "prepare", counted)
    return spent


@pytest.mark.parametrize("suffix", sorted(PACKERS))
@pytest.mark.parametrize("restarted", [False, True], ids=["running", "restarted"])
def test_an_archive_that_holds_much_is_gone_through_over_several_looks_and_in_order(
    follower: Follower,
    logs: Path,
    monkeypatch: pytest.MonkeyPatch,
    restarted: bool,
    suffix: str,
) -> None:
    spent = unpacked(monkeypatch, 200_000)
    append(logs / "a.log", "line 0\n")
    assert follower.all() == ["line 0"]
    lines = [f"line {n} {'x' * 300}" for n in range(1, 6000)]
    append(logs / "a.log", "\n".join(lines) + "\n")
    pack(logs / "a.log", logs / f"a.log.1{suffix}")
    append(logs / "a.log", "new\n")
    append(logs / "b.log", "another\n")
    found, others, waited = [], [], 0
    for turn in range(400):
        more = follower.look(size=100_000)
        others += [line for line in more if line == "another"]
        found += [line for line in more if line != "another"]
        waited += not more
        if restarted and turn in (3, 12, 14):
            follower.restart()
        if found and found[-1] == "new":
            break
    assert found == [*lines, "new"]
    assert others == ["another"]
    assert waited > 5
    assert max(spent) < 200_000 + 2 * 65_536


@pytest.mark.parametrize("suffix", sorted(PACKERS))
def test_a_bomb_among_the_archives_holds_nobody_up_and_is_said_once(
    follower: Follower, logs: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    spent = unpacked(monkeypatch, 1 << 20, most=8 << 20)
    append(logs / "a.log", "one\n")
    append(logs / "b.log", "one of b\n")
    assert sorted(follower.all()) == ["one", "one of b"]
    with PACKERS[suffix](logs / f"a.log.1{suffix}", "wb") as file:
        for _ in range(64):
            file.write(bytes(1 << 20))
    append(logs / "b.log", "two of b\n")
    found = follower.look() + follower.look()
    assert found == ["two of b"]
    append(logs / "a.log", "two\n")
    found = [message for _ in range(30) for message in follower.look()]
    follower.restart()
    found += follower.all()
    assert found.count("two") == 1
    (said,) = (message for message in found if "is not read" in message)
    assert f"a.log.1{suffix}" in said
    assert "it unpacks to more than" in said
    assert max(spent) < (1 << 20) + 2 * 65_536


def test_an_archive_that_is_kept_beside_its_original_is_unpacked_once(
    follower: Follower, logs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [f"line {n} {os.urandom(50).hex()}" for n in range(5000)]
    append(logs / "a.log", "\n".join(lines) + "\n")
    size = (logs / "a.log").stat().st_size
    assert follower.all() == lines
    spent = unpacked(monkeypatch, 200_000)
    (logs / "a.log").rename(logs / "a.log.1")
    (logs / "a.log.1.gz").write_bytes(gzip.compress((logs / "a.log.1").read_bytes()))
    append(logs / "a.log", "new\n")
    assert [line for _ in range(30) for line in follower.look()] == ["new"]
    assert sum(spent) == size


def test_an_archive_that_asks_for_much_memory_is_not_unpacked(
    follower: Follower, logs: Path
) -> None:
    append(logs / "a.log", "one\n")
    assert follower.all() == ["one"]
    packed = bytearray(lzma.compress(b"some lines\n" * 100))
    header = slice(12, 12 + (packed[12] + 1) * 4 - 4)
    packed[16] = 38  # a dictionary of 2 GiB
    packed[header.stop : header.stop + 4] = zlib.crc32(packed[header]).to_bytes(4, "little")
    (logs / "a.log.1.xz").write_bytes(packed)
    append(logs / "a.log", "two\n")
    found = follower.all()
    assert "two" in found
    (said,) = (message for message in found if "is not read" in message)
    assert "memory" in said


def test_an_xz_of_several_streams_is_read_whole(follower: Follower, logs: Path) -> None:
    append(logs / "a.log", "one\n")
    assert follower.all() == ["one"]
    (logs / "a.log.1.xz").write_bytes(
        lzma.compress(b"two\n") + bytes(4) + lzma.compress((b"x" * 300 + b"\n") * 1000)
    )
    assert follower.all() == ["two", *["x" * 300] * 1000]


def docker(text: str, stream: str = "stdout") -> str:
    said = {"log": text, "stream": stream, "time": "2026-11-22T10:00:00.123456789Z"}
    return json.dumps(said) + "\n"


def test_a_containers_lines_lose_their_wrapping_and_long_ones_their_cuts(logs: Path) -> None:
    follower = Follower(logs, pattern="*-json.log", kind="container")
    follower.look()
    oslo = "2026-11-22 10:00:01.000 7 ERROR nova.compute [req-{0} - - - - -] no \x1b[00m\n"
    request = "0b1c2d3e-0b1c-4d3e-8b1c-0b1c2d3e4f50"
    append(
        logs / "abc-json.log",
        docker("plain text\n")
        + docker("first half, ")
        + docker("oops: error: between\n", "stderr")
        + docker("second half\n")
        + docker(oslo.format(request))
        + docker("Traceback (most recent call last):\n")
        + docker("  File x\n"),
    )
    poll = follower.poll()
    follower.keep(poll)
    entries = poll.entries + follower.poll().entries
    assert [entry.message for entry in entries] == [
        "plain text",
        "first half, second half",
        "oops: error: between",
        "no \nTraceback (most recent call last):\n  File x",
    ]
    assert entries[0].at == pytest.approx(1795341600.123)
    assert entries[2].level == "error"
    assert entries[3].request_id == f"req-{request}"


def test_cri_lines_are_put_together_and_a_half_one_waits(logs: Path) -> None:
    follower = Follower(logs, pattern="0.log", kind="container")
    follower.look()
    at = "2026-11-22T10:00:00.000000001+01:00"
    append(logs / "0.log", f"{at} stdout F whole\n{at} stdout P be\n{at} stdout P gin")
    assert follower.all() == ["whole"]
    follower.restart()
    append(logs / "0.log", f"ning\n{at} stdout F  and end\n")
    assert follower.all() == ["beginning and end"]


def test_a_megabyte_in_one_container_line_is_cut(logs: Path) -> None:
    follower = Follower(logs, pattern="*-json.log", kind="container")
    follower.look()
    pieces = "".join(docker("y" * 16384) for _ in range(100))
    append(logs / "a-json.log", pieces + docker("end\n") + docker("after\n"))
    found = follower.all()
    assert found[-1] == "after"
    assert len(found) == 2
    assert found[0].endswith("more bytes]")


def test_a_container_may_be_named_by_its_id(monkeypatch: pytest.MonkeyPatch, logs: Path) -> None:
    place = str(logs / "{0}*" / "{0}*-json.log")
    monkeypatch.setattr("agent_client.tailer._CONTAINER_LOGS", (place,))
    (logs / "abcdef0123").mkdir()
    append(logs / "abcdef0123" / "abcdef0123-json.log", docker("hello\n"))
    follower = Follower(logs)
    follower.tailer.follow([LogSource("abcdef", "nova-api", "debug", kind="container")])
    assert follower.all() == ["hello"]


def lines_of(messages: list[str]) -> list[str]:
    return [message for message in messages if "lines dropped" not in message]


def dropped_of(messages: list[str]) -> dict[str, int]:
    """What the events say was left out, by level."""
    said: Counter[str] = Counter()
    for message in messages:
        if "lines dropped" in message:
            total, parts = re.search(r"(\d+) lines dropped \((.*?)\)", message).groups()  # type: ignore[union-attr]
            named = {level: int(number) for number, level in re.findall(r"(\d+) (\w+)", parts)}
            assert sum(named.values()) == int(total)
            said.update(named)
    return dict(said)


def test_a_flood_is_cut_at_the_limit_and_what_was_left_out_is_said(logs: Path) -> None:
    follower = Follower(logs, limit=100)
    follower.look()
    append(logs / "a.log", "".join(LINE.format(0, 0, "ERROR", n) for n in range(250)))
    append(logs / "b.log", LINE.format(0, 0, "ERROR", 0))
    found = follower.all()
    assert lines_of(found) == [f"number {n}" for n in range(100)] + ["number 0"]
    assert dropped_of(found) == {"error": 150}
    assert follower.tailer.states[str(logs / "a.log")].dropped == 150
    # A minute later, by the lines' own time, there is room again.
    append(logs / "a.log", "".join(LINE.format(1, 0, "ERROR", n) for n in range(90)))
    assert follower.all() == [f"number {n}" for n in range(90)]


def test_critical_lines_are_left_out_last(logs: Path) -> None:
    follower = Follower(logs, limit=10)
    follower.look()
    append(logs / "a.log", "".join(LINE.format(0, 0, "WARNING", n) for n in range(50)))
    append(logs / "a.log", "".join(LINE.format(0, 0, "CRITICAL", 100 + n) for n in range(15)))
    found = follower.all()
    assert lines_of(found) == [f"number {n}" for n in [*range(10), *range(100, 110)]]
    assert dropped_of(found) == {"warning": 40, "critical": 5}


def test_a_days_backlog_read_at_once_is_no_flood(logs: Path) -> None:
    follower = Follower(logs, limit=60)
    follower.look()
    lines = [LINE.format(n // 60, n % 60, "ERROR", n) for n in range(600)]
    append(logs / "a.log", "".join(lines))
    assert follower.all() == [f"number {n}" for n in range(600)]


def test_what_the_limit_left_out_is_counted_once_though_it_is_read_twice(logs: Path) -> None:
    follower = Follower(logs, limit=10)
    follower.look()
    append(logs / "a.log", "".join(LINE.format(0, 0, "ERROR", n) for n in range(30)))
    follower.poll()  # not stored
    found = follower.all()
    assert len(lines_of(found)) == 10
    assert dropped_of(found) == {"error": 20}


def as_nobody(act: Callable[[], object]) -> object:
    """What it returns when done by a user without rights."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            os.write(writing, json.dumps(act()).encode())
        finally:
            os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    with os.fdopen(reading) as answer:
        return json.load(answer)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize(
    ("mode", "group", "mend"),
    [(0o640, 4, "usermod -aG {group} nobody"), (0o600, 0, "setfacl -m u:nobody:r {path}")],
    ids=["by its group", "by an access list"],
)
def test_a_file_that_may_not_be_read_is_told_once_with_its_mend(
    mode: int, group: int, mend: str
) -> None:
    logs = Path(tempfile.mkdtemp(dir="/tmp"))  # nobody may not enter pytest's own directories
    try:
        logs.chmod(0o755)
        append(logs / "a.log", "secret\n")
        os.chown(logs / "a.log", 0, group)
        (logs / "a.log").chmod(mode)
        follower = Follower(logs)

        def look() -> list[list[str]]:
            first = follower.all()
            second = follower.all()
            follower.restart()
            return [first, second, follower.all()]

        first, second, third = as_nobody(look)  # type: ignore[misc]
    finally:
        shutil.rmtree(logs)
    (said,) = first
    assert mend.format(path=logs / "a.log", group=grp.getgrgid(group).gr_name) in said
    assert second == third == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_directory_that_may_not_be_entered_is_told_with_its_mend() -> None:
    logs = Path(tempfile.mkdtemp(dir="/tmp"))
    try:
        logs.chmod(0o755)
        (logs / "nova").mkdir(mode=0o700)
        append(logs / "nova" / "a.log", "secret\n")
        by_name = LogSource(str(logs / "nova" / "a.log"), "nova", "debug")
        follower = Follower(logs, pattern="nova/*.log")
        follower.tailer.follow([*follower.sources, by_name])
        found = as_nobody(follower.all)
    finally:
        shutil.rmtree(logs)
    assert isinstance(found, list)
    assert len(found) == 2
    assert all(f"{logs}/nova may not be entered by nobody: `setfacl" in said for said in found)


def test_rabbitmqs_lines_that_belong_together_are_one_event(follower: Follower, logs: Path) -> None:
    at = "2026-11-22 10:59:36.690849+00:00 [warning] "
    append(
        logs / "a.log",
        f"{at}<0.2786.0> closing AMQP connection <0.2786.0>:\n"
        f"{at}<0.2786.0> client unexpectedly closed TCP connection\n"
        f"{at}<0.9.0> another one\n"
        "=ERROR REPORT==== 24-Jun-2026::14:02:11 ===\nError on AMQP connection <0.1.0>:\nbad\n",
    )
    assert follower.all() == [
        "<0.2786.0> closing AMQP connection <0.2786.0>:\n"
        "<0.2786.0> client unexpectedly closed TCP connection",
        "<0.9.0> another one",
        "Error on AMQP connection <0.1.0>:\nbad",
    ]


def test_a_pipe_that_takes_a_files_place_holds_nobody_up(tmp_path: Path) -> None:
    path = tmp_path / "nova.log"
    path.write_text("x\n")
    source = LogSource(pattern=str(path), service="nova")
    found = File(str(path), path.stat(), str(path), source, main=True)
    path.unlink()
    os.mkfifo(path)
    opened: list[object] = []
    opening = threading.Thread(target=lambda: opened.append(found.open()), daemon=True)
    opening.start()
    opening.join(20)
    assert opened == [None]
