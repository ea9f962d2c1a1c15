"""The tailer against a model: whatever writers, rotations and crashes do, each line once."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from .test_tailer import Follower

_KEEP = 60  # rotated files are kept long enough here; deletion has tests of its own


class LogsUnderTheTailer(RuleBasedStateMachine):
    """One log file, its writer, its rotation, and an agent that may die at any moment."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="tailer-"))
        self.log = self.directory / "a.log"
        self.follower = Follower(self.directory)
        self.follower.look()
        self.written: list[str] = []  # every line, as it was finished
        self.half = ""
        self.count = 0
        self.received: list[str] = []
        self.may_miss: set[str] = set()
        self.unread: list[str] = []  # lines since the last stored look

    def teardown(self) -> None:
        try:
            for _ in range(4):
                self.received += self.follower.look()
            received = [line for line in self.received if "may be missing" not in line]
            assert len(received) == len(set(received)), "a line came twice"
            expected = [line for line in self.written if line not in self.may_miss]
            got = [line for line in received if line not in self.may_miss]
            assert got == expected
            assert set(received) <= set(self.written)
        finally:
            self.follower.tailer.close()
            shutil.rmtree(self.directory)

    def _line(self) -> str:
        self.count += 1
        return f"2026-11-22 10:00:00.000 1 INFO writer [-] line {self.count}"

    def _finish(self, text: str) -> None:
        line = text.split("[-] ", 1)[1]
        self.written.append(line)
        self.unread.append(line)

    @rule(lines=st.integers(1, 5))
    def write(self, lines: int) -> None:
        text = ""
        for _ in range(lines):
            line = self.half or self._line()
            text += line[len(self.half_on_disk) :] + "\n"
            self.half = ""
            self.half_on_disk = ""
            self._finish(line)
        with self.log.open("a") as file:
            file.write(text)

    half_on_disk = ""

    @rule()
    @precondition(lambda self: not self.half)
    def write_half_a_line(self) -> None:
        self.half = self._line()
        self.half_on_disk = self.half[: len(self.half) - 1]
        with self.log.open("a") as file:
            file.write(self.half_on_disk)

    def _end_half(self) -> None:
        """A writer that is told to reopen finishes its line first."""
        if self.half:
            with self.log.open("a") as file:
                file.write(self.half[len(self.half_on_disk) :] + "\n")
            self._finish(self.half)
            self.half = self.half_on_disk = ""

    def _shift(self) -> None:
        for number in range(_KEEP, 0, -1):
            older = self.directory / f"a.log.{number}"
            if older.exists():
                older.rename(self.directory / f"a.log.{number + 1}")

    @rule()
    @precondition(lambda self: self.log.exists())
    def rotate_by_rename(self) -> None:
        self._end_half()
        self._shift()
        self.log.rename(self.directory / "a.log.1")

    @rule(look_between=st.booleans())
    @precondition(lambda self: self.log.exists())
    def rotate_by_copy(self, look_between: bool) -> None:
        self._end_half()
        self._shift()
        shutil.copy(self.log, self.directory / "a.log.1")
        if look_between:
            self.look()
        os.truncate(self.log, 0)

    @rule()
    @precondition(lambda self: self.log.exists())
    def truncate(self) -> None:
        """Without a copy, what was written since the last look may be lost; nothing else."""
        self._end_half()
        os.truncate(self.log, 0)
        self.may_miss.update(self.unread)

    @rule()
    def look(self) -> None:
        found = self.follower.look()
        self.received += found
        seen = set(found)
        # What is held back as possibly unfinished stays unread.
        self.unread = [line for line in self.unread if line not in seen]

    @rule(events=st.integers(1, 3))
    def look_a_little(self, events: int) -> None:
        found = self.follower.look(events=events)
        self.received += found
        seen = set(found)
        self.unread = [line for line in self.unread if line not in seen]

    @rule()
    def die_before_storing(self) -> None:
        self.follower.poll()
        self.follower.restart()

    @rule()
    def fail_to_store(self) -> None:
        self.follower.poll()

    @rule()
    def restart(self) -> None:
        self.follower.restart()

    @invariant()
    def nothing_comes_twice(self) -> None:
        received = [line for line in self.received if "may be missing" not in line]
        assert len(received) == len(set(received))


LogsUnderTheTailer.TestCase.settings = settings(
    max_examples=120,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestEveryLineComesOnceInOrder = LogsUnderTheTailer.TestCase
