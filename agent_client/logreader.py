"""Reads on in one log: bytes to lines, lines to events; and says how far it has got."""

from __future__ import annotations

import dataclasses
import re
from typing import Iterable, Iterator, NamedTuple

from agent_client import logformats
from agent_client.logfiles import Content, File, Position, digest, fingerprinted
from agent_client.loglimit import Limiter
from agent_client.wire import LEVELS, MAX_MESSAGE

#: Bytes read at once, and of one file at most before it is another file's turn.
_CHUNK = 512 * 1024
_PER_FILE = 4 * 1024 * 1024
#: A longer line is cut; the rest of it is skipped and its length said.
MAX_LINE = 16 * 1024
#: Lines and characters of one event; further continuation lines are counted.
_MAX_LINES = 400
_MAX_EVENT = MAX_MESSAGE // 2
#: A file that has not been written for so long holds no half-written event.
_SETTLED_AFTER = 1.0
#: The same for a last line without its newline, in a file that was rotated away.
_ABANDONED_AFTER = 5.0


@dataclasses.dataclass(frozen=True)
class Entry:
    """One event as read; the report gives it its id."""

    at: float
    level: str
    message: str
    service: str
    component: str = ""
    request_id: str = ""
    pid: int | None = None
    path: str = ""


class Budget:
    """What one look may still read, in events and bytes."""

    def __init__(self, events: int, size: int) -> None:
        self.events = events
        self.size = size

    @property
    def spent(self) -> bool:
        """Nothing more may be read now."""
        return self.events <= 0 or self.size <= 0


class Outlet:
    """Where one log's events go: those of its levels, as many as its limit lets through."""

    def __init__(
        self,
        entries: list[Entry],
        budget: Budget,
        limiter: Limiter,
        service: str,
        path: str,
        level: str,
        limit: int,
    ) -> None:
        self._entries = entries
        self._begin = len(entries)
        self._budget = budget
        self._limiter = limiter
        self._service = service
        self._path = path
        self._lowest = LEVELS.index(level)
        self._limit = limit
        self._before = limiter.mark(path)

    def emit(self, event: Event) -> None:
        """Send one event, if it is to be sent at all."""
        head = event.head
        if LEVELS.index(head.level) > self._lowest:
            return
        message = event.message()
        if not message or not self._limiter.admits(self._path, self._limit, head.level, head.at):
            return
        self._budget.events -= 1
        self._entries.append(
            Entry(
                at=round(head.at, 3),
                level=head.level,
                message=message,
                service=self._service,
                component=head.component[:200],
                request_id=head.request_id[:200],
                pid=head.pid,
                path=self._path,
            )
        )

    def emit_all(self, events: Iterable[Event | None]) -> None:
        """Send what there is of them."""
        for event in events:
            if event is not None:
                self.emit(event)

    def take_back(self) -> None:
        """What was sent here cannot be relied on: it will be read again."""
        self._budget.events += len(self._entries) - self._begin
        del self._entries[self._begin :]
        self._limiter.reset(self._path, self._before)


class Reader:
    """Reads on in one generation. Raises OSError where it cannot be read."""

    def __init__(
        self,
        content: Content,
        position: Position,
        file: File,
        clock: logformats.Clock,
        now: float,
        rotated: bool,
    ) -> None:
        self._content = content
        self._position = position
        self._main = file.main
        self._packed = file.status.st_size if file.archive else 0
        self._clock = clock
        self._now = now
        self._format = file.source.format
        self._contained = file.source.kind == "container"
        self.size = content.size()
        still = self.size == position.size
        age = now - content.status().st_mtime
        self._settled = rotated or still or age >= _SETTLED_AFTER
        self._abandoned = rotated and (still or age >= _ABANDONED_AFTER or file.archive)
        self.stopped_early = False

    def read(self, outlet: Outlet, budget: Budget) -> Position | None:
        """Send what is complete; returns the position after it.

        None if the file was truncated meanwhile, so that what was read cannot be relied on.
        """
        offset, skipping = self._position.offset, self._position.skipping
        limit = min(self.size, offset + _PER_FILE)
        while offset < self.size:
            if budget.spent or offset >= limit:
                self.stopped_early = True
                break
            data = self._content.read(offset, min(_CHUNK, self.size - offset))
            if not data:
                break  # truncated this instant; the next look sees it
            if not data.strip(b"\0"):
                # Truncated under a writer that does not append: it went on where it was before.
                written = self._content.written_from(offset + len(data))
                if written is None:
                    break  # room that was made in advance, so far
                budget.size -= len(data)  # a filesystem that does not tell is read all through
                offset, limit = written, min(self.size, written + _PER_FILE)
                continue
            at_end = offset + len(data) >= self.size
            consumed, skipping = self._chunk(data, skipping, at_end, outlet, budget)
            budget.size -= len(data)
            offset += consumed
            if not consumed or (at_end and consumed < len(data)):
                if budget.spent and not at_end:
                    self.stopped_early = True
                break
        moved = dataclasses.replace(
            self._position,
            offset=offset,
            skipping=skipping,
            size=self.size,
            main=self._main,
            gone_at=None,
            packed=self._packed,
        )
        if self._packed:
            return fingerprinted(moved, self._content)  # nobody writes into an archive
        after = fingerprinted(moved, self._content)
        old_head = digest(self._content.read(0, self._position.head_length))
        if old_head != self._position.head or self._content.size() < self.size:
            return None
        return after

    def _chunk(
        self, data: bytes, skipping: bool, at_end: bool, outlet: Outlet, budget: Budget
    ) -> tuple[int, bool]:
        """Read one chunk; returns how much of it is dealt with and whether a line is skipped."""
        lines = Lines(data, self._contained, skipping, self._now, at_end)
        joiner = Joiner(self._format)
        for line in lines:
            finished = joiner.add(line, self._clock)
            if finished is not None:
                outlet.emit(finished)
                if budget.events <= 0:
                    self.stopped_early = True
                    return joiner.start, False
        if lines.skipping:
            return lines.ended_at or (0 if at_end else len(data)), True
        whole = lines.rest and not at_end and lines.rest[0].start == 0
        if whole or (lines.rest and at_end and self._abandoned):
            # One line fills the whole chunk: send its beginning, skip the rest of it. Or nobody
            # will write its end any more.
            outlet.emit_all(joiner.add(line, self._clock) for line in lines.rest)
            outlet.emit_all((joiner.flush(),))
            return (lines.whole_until or len(data)) if whole else len(data), not at_end
        if joiner.holds and not (self._settled if at_end else joiner.start == 0):
            return joiner.start, False
        # Nothing more will follow, or the event alone fills the chunk.
        outlet.emit_all((joiner.flush(),))
        return lines.ended_at, False


class Line(NamedTuple):
    """One line as text, where it begins in its chunk, and when it was written, at the latest.

    The rest is what is known of it though it may not say it itself. One whose level is known
    continues no other.
    """

    text: str
    start: int
    at: float
    level: str = ""
    component: str = ""
    pid: int | None = None


class Lines:
    """The whole lines of a chunk; containers' lines without their wrapping and put together."""

    def __init__(
        self, data: bytes, contained: bool, skipping: bool, now: float, at_end: bool
    ) -> None:
        self._data = data
        self._at_end = at_end
        self._contained = contained
        self._now = now
        #: What comes first belongs to a line that is already dealt with.
        self.skipping = skipping
        #: Up to where all lines were given out, or skipped.
        self.ended_at = 0
        #: Where the last newline stood.
        self.whole_until = 0
        #: What has no end yet, after iteration.
        self.rest: list[Line] = []
        #: A container's lines, oldest first, from the first on that is not whole yet.
        self._waiting: list[_Parts] = []
        if skipping and not contained:
            newline = data.find(b"\n")
            self.skipping = newline < 0
            self.ended_at = len(data) if newline < 0 else newline + 1

    def __iter__(self) -> Iterator[Line]:
        data, start = self._data, self.ended_at
        while start < len(data):
            newline = data.find(b"\n", start)
            if newline < 0:
                break
            raw, begun = data[start:newline], start
            start = self.whole_until = newline + 1
            if not self._contained:
                self.ended_at = start
                yield Line(text_of(raw), begun, self._now)
                continue
            self._take(raw, begun)
            while self._waiting and self._waiting[0].whole:
                yield self._waiting.pop(0).line()
            self.ended_at = self._waiting[0].start if self._waiting else start
        if not self._contained:
            if start < len(data):
                self.rest.append(Line(text_of(data[start:]), start, self._now))
        elif not self.skipping:
            if start < len(data) and (self._at_end or not self.whole_until):
                self._take(data[start:], start)
            self.rest.extend(parts.line() for parts in self._waiting)
        if self.skipping:
            self.ended_at = start

    def _take(self, raw: bytes, start: int) -> None:
        piece = logformats.unwrapped(text_of(raw, 4 * MAX_LINE), self._now)
        if self.skipping:
            self.skipping = piece.partial
            return
        open_parts = [p for p in self._waiting if p.stream == piece.stream and not p.whole]
        parts = open_parts[0] if open_parts else _Parts(start, piece.at, piece.stream)
        if not open_parts:
            self._waiting.append(parts)
        parts.add(piece.text)
        parts.whole = not piece.partial


class _Parts:
    """A container's line in the making; its runtime cuts long lines into pieces."""

    def __init__(self, start: int, at: float, stream: str) -> None:
        self.start = start
        self.at = at
        self.stream = stream
        self.whole = False
        self._texts: list[str] = []
        self._length = 0
        self._left_out = 0

    def add(self, text: str) -> None:
        room = MAX_LINE - self._length
        self._texts.append(text[:room])
        self._length += len(text[:room])
        self._left_out += len(text) - len(text[:room])

    def line(self) -> Line:
        text = "".join(self._texts)
        if self._left_out:
            text = f"{text} [{self._left_out} more bytes]"
        return Line(text, self.start, self.at)


def text_of(raw: bytes, longest: int = MAX_LINE) -> str:
    """A line as text, whatever its encoding; of a longer one its beginning and what is left out."""
    raw = raw.lstrip(b"\0")  # the end of a hole in the file
    cut = len(raw) - longest
    if cut > 0:
        raw = raw[:longest]
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        if cut > 0 and error.start >= longest - 4:
            text = raw.decode("utf-8", "ignore")  # cut within a character
        else:
            text = raw.decode("latin-1")
    text = logformats.without_colour(text.rstrip("\r"))
    return f"{text} [{cut} more bytes]" if cut > 0 else text


class Event:
    """One event in the making."""

    def __init__(self, head: logformats.Head, start: int, formed: bool) -> None:
        self.head = head
        self.start = start
        self.formed = formed
        self.traceback = False
        self.lines = [head.message]
        self._length = len(head.message)
        self._left_out = 0

    def add(self, line: str) -> None:
        """A further line of it."""
        if len(self.lines) < _MAX_LINES and self._length + len(line) < _MAX_EVENT:
            self.lines.append(line)
            self._length += len(line) + 1
        else:
            self._left_out += 1

    def message(self) -> str:
        """All its lines."""
        text = "\n".join(self.lines).strip("\n").rstrip()
        return f"{text}\n[{self._left_out} more lines]" if self._left_out else text


_TRACEBACK = "Traceback (most recent call last):"
_CHAINED = ("During handling of the above exception", "The above exception was the direct cause")
_OWN_LINE = re.compile(r"\[pid: \d+\||DAMN ! worker |\*\*\* ")  # uwsgi, between oslo.log's lines


class Joiner:
    """Joins a traceback, and what else has no head of its own, to the event before it."""

    def __init__(self, form: str = "", event: Event | None = None) -> None:
        self._form = form
        self._event = event

    @property
    def holds(self) -> bool:
        """An event waits for its end."""
        return self._event is not None

    @property
    def start(self) -> int:
        """Where the event that waits begins."""
        return self._event.start if self._event else 0

    def add(self, line: Line, clock: logformats.Clock) -> Event | None:
        """Take one line; returns the event that it ended."""
        current, text = self._event, line.text
        head = logformats.head(text, clock, line.at, self._form)
        if head is None:
            if current is not None and not line.level and _continues(current, text):
                current.traceback |= text.startswith(_TRACEBACK)
                current.add(text)
                return None
            level = line.level or logformats.guessed_level(text)
            if text.startswith(_TRACEBACK):
                level = "error"
            at = line.at
            if current is not None and current.formed and not line.level:
                at = current.head.at
            bare = logformats.Head(at, level, text, line.component, pid=line.pid)
            self._event = Event(bare, line.start, formed=False)
            self._event.traceback = text.startswith(_TRACEBACK)
            return current
        if current is not None and head.group and head.group == current.head.group:
            if head.more:
                current.add(head.message)
                return None
            if head.explains and current.lines[-1].endswith(":"):
                current.add(head.message)
                return None
        self._event = Event(head, line.start, formed=True)
        return current

    def flush(self) -> Event | None:
        """The event that waits, as complete."""
        event, self._event = self._event, None
        return event


def _continues(event: Event, line: str) -> bool:
    """Whether a line without a head belongs to the event before it."""
    if _OWN_LINE.match(line):
        return False
    if event.formed:
        return True  # a file whose lines have heads: everything else continues one
    if line[:1] in (" ", "\t"):
        return True
    if event.traceback:
        # The exception's own line ends a traceback; blank lines and a chained one may follow.
        if not line or line.startswith((_TRACEBACK, *_CHAINED)):
            return True
        return event.lines[-1][:1] in (" ", "\t") or event.lines[-1].startswith(_TRACEBACK)
    return False
