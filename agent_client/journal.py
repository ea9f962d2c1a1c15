"""Follows systemd's journal: some of its units, each entry once, through restarts of either side.

`journalctl` runs beside the agent and waits when nobody reads what it prints. What is remembered is
its cursor and, where a traceback may still be coming, the event in the making: both are stored in
one transaction with the events that were read, so a kill loses nothing and repeats nothing.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import subprocess
from typing import Any, Callable, Mapping, Sequence

from agent_client import logformats
from agent_client.bell import is_ready
from agent_client.config import LogSource
from agent_client.logfiles import user_name
from agent_client.logformats import Head
from agent_client.loglimit import Limiter
from agent_client.logreader import MAX_LINE, Budget, Entry, Event, Joiner, Line, Outlet

log = logging.getLogger("sentinella.journal")

#: Entries of the time before the agent that are sent when it meets the journal.
FIRST_ENTRIES = 100
#: How long to wait for more of what journalctl prints, and for the first of it, in seconds.
_MORE_WITHIN = 0.05
_FIRST_WITHIN = 0.5
#: An event whose last line is so old is whole.
_SETTLED_AFTER = 1.0
_MOST_AT_ONCE = 2 * 1024 * 1024
#: An entry of more bytes, as journalctl prints it, is left out and said.
_LONGEST_ENTRY = 1024 * 1024
_LONGEST_COMPLAINT = 2000
_RESTART_AFTER = 30.0


@dataclasses.dataclass(frozen=True)
class JournalPoll:
    """What one look at the journal took, and what is to be stored with it."""

    consumed: int = 0
    cursor: str = ""
    held: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    more: bool = False
    #: Why it is not read; empty where it is.
    problem: str = ""

    def stored(self) -> str:
        """As it is stored."""
        return json.dumps({"cursor": self.cursor, "held": self.held})


class Journal:
    """The units that are asked for, read through one `journalctl`."""

    def __init__(self, stored: str | None, arguments: Sequence[str] = ()) -> None:
        said = json.loads(stored) if stored else {}
        self.cursor: str = said.get("cursor", "")
        self.held: Mapping[str, Any] = said.get("held", {})
        self._arguments = tuple(arguments)
        self._sources: dict[str, LogSource] = {}
        self._child: subprocess.Popen[bytes] | None = None
        self._buffer = b""
        #: What comes up to the next newline belongs to an entry that is left out.
        self._skipping = False
        self._left_out = 0
        self._complaint = ""
        self._fresh = False
        self._caught_up = False
        self._not_before = 0.0
        self._clock = logformats.Clock()

    @property
    def sources(self) -> Sequence[LogSource]:
        """What is followed now."""
        return list(self._sources.values())

    def follow(self, sources: Sequence[LogSource]) -> None:
        """Follow these units from now on, and no others."""
        wanted = {_match(source.pattern): source for source in reversed(sources)}
        if set(wanted) != set(self._sources):
            self.close()
            self._not_before = 0.0
        self._sources = wanted

    def poll(
        self,
        entries: list[Entry],
        budget: Budget,
        limiter: Limiter,
        level_of: Callable[[LogSource], str],
        now: float,
    ) -> JournalPoll:
        """Append what is new and whole to `entries`."""
        if not self._sources:
            return JournalPoll(cursor=self.cursor, held=self.held)
        problem = self._ensure_child(now)
        if not problem:
            self._read(budget)
            problem = self._complaint_said(now)
        if self._left_out:
            text = f"{self._left_out} entries of the journal are longer than {_LONGEST_ENTRY} bytes"
            entries.append(
                Entry(now, "warning", f"{text} and are left out", "sentinella",
                      "sentinella.journal", path="journal")
            )  # fmt: skip
        outlets = {
            match: Outlet(
                entries, budget, limiter, source.service, path_of(source),
                level_of(source), source.limit,
            )
            for match, source in self._sources.items()
        }  # fmt: skip
        joiners = {key: _restored(said) for key, said in self.held.items()}
        written = {key: said["at"] for key, said in self.held.items()}
        cursor, consumed = self.cursor, 0
        while budget.events > 0:
            newline = self._buffer.find(b"\n", consumed)
            if newline < 0:
                break
            said = _parsed(self._buffer[consumed:newline])
            consumed = newline + 1
            if said is None:
                continue
            cursor = said.get("__CURSOR", cursor)
            match = self._match_of(said)
            if match is None:
                continue
            key = f"{match}/{said.get('_PID', '')}"
            joiner = joiners.setdefault(key, Joiner(self._sources[match].format))
            for line in _lines(said):
                written[key] = line.at
                finished = joiner.add(line, self._clock)
                if finished is not None:
                    outlets[match].emit(finished)
        budget.size -= consumed
        more = b"\n" in self._buffer[consumed:]
        held = {}
        for key, joiner in joiners.items():
            event, match = joiner.flush(), key.rpartition("/")[0]
            if event is None or match not in outlets:
                continue
            if more or now - written[key] < _SETTLED_AFTER:
                held[key] = _as_stored(event, written[key])
            else:
                outlets[match].emit(event)
        return JournalPoll(consumed, cursor, held, more, problem)

    def accept(self, poll: JournalPoll) -> None:
        """The poll is stored: go on from there."""
        self._buffer = self._buffer[poll.consumed :]
        self._left_out = 0
        self.cursor, self.held = poll.cursor, poll.held

    def close(self) -> None:
        """End journalctl; what it printed and nobody took is read again."""
        self._end_child()
        self._buffer = b""
        self._caught_up = False

    def _end_child(self) -> None:
        """End journalctl; the lines that it printed whole are good."""
        self._buffer = self._buffer[: self._buffer.rfind(b"\n") + 1]
        self._skipping = False
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            child.wait()
            for pipe in (child.stdout, child.stderr):
                if pipe is not None:
                    pipe.close()

    # The child

    def _command(self) -> list[str]:
        fields = {"MESSAGE", "PRIORITY", "_PID", "SYSLOG_IDENTIFIER", "_SYSTEMD_UNIT", "UNIT"}
        fields.update(match.partition("=")[0] for match in self._sources)
        cursor = self._read_up_to()
        if not cursor:
            since = ["--follow", f"--lines={FIRST_ENTRIES}"]
        elif self._caught_up:
            since = ["--follow", "--no-tail", f"--after-cursor={cursor}"]
        else:  # `--follow` shows this boot alone, and the agent may have been down before it
            since = [f"--after-cursor={cursor}"]
        matches: list[str] = []
        for match in self._sources:
            matches += ["+"] if matches else []
            matches.append(match)
            name, _, unit = match.partition("=")
            if name == "_SYSTEMD_UNIT":  # and what systemd itself says of it
                matches += ["+", f"UNIT={unit}", "_PID=1"]
        return [
            "journalctl", "--output=json", "--all", "--no-pager",
            "--output-fields=" + ",".join(sorted(fields)),
            *self._arguments, *since, *matches,
        ]  # fmt: skip

    def _read_up_to(self) -> str:
        """The cursor of the last entry that journalctl printed whole."""
        end = self._buffer.rfind(b"\n")
        if end < 0:
            return self.cursor
        said = _parsed(self._buffer[self._buffer.rfind(b"\n", 0, end) + 1 : end])
        return said.get("__CURSOR", self.cursor) if said else self.cursor

    def _ensure_child(self, now: float) -> str:
        if self._child is not None or now < self._not_before:
            return self._complaint if self._child is None else ""
        self._complaint = ""
        # Not the agent's own surroundings, which may hold its key.
        surroundings = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"}
        try:
            self._child = subprocess.Popen(  # noqa: S603 - our own arguments
                self._command(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.PIPE, env=surroundings,
            )  # fmt: skip
        except OSError as error:
            self._not_before = now + _RESTART_AFTER
            self._complaint = f"the journal cannot be read: journalctl: {error.strerror}"
            return self._complaint
        self._fresh = True
        for pipe in (self._child.stdout, self._child.stderr):
            assert pipe is not None  # noqa: S101 - they were asked for
            os.set_blocking(pipe.fileno(), False)
        return ""

    def _read(self, budget: Budget) -> None:
        """Take what journalctl has printed, up to what may be read at once."""
        assert self._child is not None  # noqa: S101
        assert self._child.stdout is not None  # noqa: S101
        output = self._child.stdout.fileno()
        most = min(_MOST_AT_ONCE, max(0, budget.size))
        within = _FIRST_WITHIN if self._fresh else 0.0
        taken = 0
        while taken < _MOST_AT_ONCE and self._wants_more(most) and is_ready(output, within):
            data = os.read(output, 256 * 1024)
            taken += len(data)
            if not data:
                self._child.wait()
                return
            self._fresh = False
            if self._skipping:
                _, newline, data = data.partition(b"\n")
                self._skipping = not newline
            self._buffer += data
            if len(self._buffer) > _LONGEST_ENTRY and b"\n" not in self._buffer:
                self._buffer, self._skipping = b"", True
                self._left_out += 1
            within = _MORE_WITHIN
        self._fresh = False

    def _wants_more(self, most: int) -> bool:
        """Whether to read on: up to what may be read, and an entry that has begun to its end."""
        begun = bool(self._buffer) and b"\n" not in self._buffer
        return begun or self._skipping or len(self._buffer) < most

    def _complaint_said(self, now: float) -> str:
        """What journalctl says is wrong; it is started again later where it has ended."""
        assert self._child is not None  # noqa: S101
        assert self._child.stderr is not None  # noqa: S101
        try:
            said = os.read(self._child.stderr.fileno(), 65536).decode("utf-8", "replace")
        except BlockingIOError:
            said = ""
        self._complaint = (self._complaint + said)[-_LONGEST_COMPLAINT:]
        ended = self._child.poll()
        if ended == 0 and not self._caught_up:
            self._end_child()
            self._caught_up = True
            return self._ensure_child(now)
        if "not seeing messages" in self._complaint or "permission" in self._complaint.lower():
            user = user_name()
            problem = (
                f"the journal of other users may not be read by {user}: "
                f"`usermod -aG systemd-journal {user}`, then restart the agent"
            )
        elif ended is not None:
            last = self._complaint.strip().splitlines()[-1:] or [f"exit code {ended}"]
            problem = f"the journal cannot be read: {last[0]}"
        else:
            return ""
        if ended is not None:
            self._end_child()
            self._caught_up = False
            self._not_before = now + _RESTART_AFTER
            self._complaint = problem
        return problem

    def _match_of(self, said: Mapping[str, Any]) -> str | None:
        for match in self._sources:
            name, _, value = match.partition("=")
            if said.get(name) == value:
                return match
            if name == "_SYSTEMD_UNIT" and said.get("UNIT") == value:
                return match
        return None


def path_of(source: LogSource) -> str:
    """What an event of the journal says where it comes from."""
    return f"journal:{source.pattern}"


def _match(pattern: str) -> str:
    """journalctl's match for a unit's name, or for a field and value as they are."""
    if "=" in pattern:
        return pattern
    return f"_SYSTEMD_UNIT={pattern if '.' in pattern else pattern + '.service'}"


def _parsed(raw: bytes) -> dict[str, Any] | None:
    try:
        said = json.loads(raw)
    except ValueError:
        return None
    return said if isinstance(said, dict) else None


def _lines(said: Mapping[str, Any]) -> list[Line]:
    """The lines of one entry."""
    message = _text(said.get("MESSAGE"))
    at = int(said.get("__REALTIME_TIMESTAMP", "0")) / 1e6
    priority = str(said.get("PRIORITY", "6"))
    # What a service prints comes with priority 6, whatever it is; a lower one was meant.
    level = logformats.level_of_priority(priority) if priority in tuple("0123457") else ""
    pid = str(said.get("_PID", ""))
    return [
        Line(
            logformats.without_colour(line),
            0,
            at,
            level,
            _text(said.get("SYSLOG_IDENTIFIER")),
            int(pid) if pid.isdigit() else None,
        )
        for line in message.splitlines() or [""]
    ]


def _text(value: object) -> str:
    """A field's text; journalctl prints what is not UTF-8 as a list of bytes."""
    if isinstance(value, list):
        if all(isinstance(byte, int) for byte in value):
            return bytes(value[:MAX_LINE]).decode("utf-8", "replace")
        return _text(value[0]) if value else ""
    text = value if isinstance(value, str) else ""
    cut = len(text) - MAX_LINE
    return f"{text[:MAX_LINE]} [{cut} more bytes]" if cut > 0 else text


def _as_stored(event: Event, at: float) -> dict[str, Any]:
    return {
        "at": at,
        "head": dataclasses.asdict(event.head),
        "lines": event.lines,
        "formed": event.formed,
        "traceback": event.traceback,
    }


def _restored(said: Mapping[str, Any]) -> Joiner:
    event = Event(Head(**said["head"]), 0, said["formed"])
    for line in said["lines"][1:]:
        event.add(line)
    event.traceback = said["traceback"]
    return Joiner(event=event)
