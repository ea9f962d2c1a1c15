"""Follows log files through rotation, truncation and restarts: nothing lost, nothing twice.

A file is followed as a *generation*: what was written under one configured path between two
rotations. It is known by device and inode and recognised by its content: a digest of its first
bytes (head) and one of the bytes just before the position (anchor). So

- renamed (`log` becomes `log.1`): the inode stays, its rest is read under the new name;
- copied and truncated: the inode now holds other content, and a new file holds the old one: the
  generation moves over to the copy, and the old inode begins a new generation at its start;
- several rotations between two looks: rotated files that were not there before are generations of
  their own, read whole, oldest first;
- an inode reused for another file: its content differs, so it is another generation;
- deleted while the agent runs: the open file is read to its end.

Where the old content is nowhere to be found, what was written since the last look is gone; that is
said as an event, a *gap*.

Nothing is remembered before it is stored: `poll` returns events and positions, the caller puts both
into the spool in one transaction and then calls `accept`. An event whose continuation (a traceback)
may still be coming is not consumed: the position stays at its beginning.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import glob
import hashlib
import json
import logging
import os
import re
import stat
from typing import BinaryIO, Iterable, Mapping, Sequence, Tuple

from agent_client import logformats
from agent_client.config import LogSource
from agent_client.wire import LEVELS, MAX_MESSAGE

log = logging.getLogger("sentinella.tailer")

#: Bytes by which content is recognised.
_FINGERPRINT = 256
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
#: How long the position of a vanished file is kept, should the file come back.
_FORGET_AFTER = 3600.0
#: The same for files that nobody asks for any more: a service may come back.
_FORGET_UNFOLLOWED_AFTER = 7 * 86_400.0

_ROTATED = re.compile(r"[.-](?:\d[\dT:._Z-]*|old|bak|prev)$")
_ROTATED_DATE = re.compile(r"[.-](?:\d{8}[\dT:._Z-]*|\d{1,3})$")

Key = Tuple[str, int, int]


@dataclasses.dataclass(frozen=True)
class Position:
    """How far one generation is read, and by what it is recognised."""

    path: str  # the configured path it was written under
    device: int
    inode: int
    offset: int = 0
    head: str = ""
    head_length: int = 0
    anchor: str = ""
    anchor_length: int = 0
    #: The bytes up to the next newline belong to a line that is already dealt with.
    skipping: bool = False
    #: Size when last looked at: a file that stopped growing holds no half-written event.
    size: int = 0
    #: It had the configured name itself when last looked at; it was not rotated away yet.
    main: bool = True
    #: When the file was found to be gone; None while it is there.
    gone_at: float | None = None
    #: Since when no source asks for it; None while one does.
    unfollowed_at: float | None = None

    @property
    def key(self) -> Key:
        """What names it among all positions."""
        return (self.path, self.device, self.inode)


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


@dataclasses.dataclass(frozen=True)
class Poll:
    """What one look brought. `changes` are to be stored in one transaction with the entries."""

    entries: list[Entry]
    changes: dict[str, str | None]
    #: There is more to read now than the budget allowed.
    more: bool
    positions: dict[Key, Position]
    patterns: set[str]
    drained: dict[Key, tuple[int, int]]
    #: `changes` holds every position, not only the changed ones.
    whole: bool
    #: The part of `changes` that comes of following other sources.
    taken_up: Mapping[str, str | None]


@dataclasses.dataclass
class FileState:
    """How one followed path fares, as `sentinella status` shows it."""

    path: str
    service: str
    ok: bool = True
    detail: str = ""
    events: int = 0
    behind: int = 0


@dataclasses.dataclass
class _File:
    """A file found on disk in this look."""

    name: str
    status: os.stat_result
    path: str
    source: LogSource
    main: bool
    position: Position | None = None

    @property
    def inode(self) -> tuple[int, int]:
        return (self.status.st_dev, self.status.st_ino)


class _Listings:
    """Directories as they are in this look, each listed once."""

    def __init__(self) -> None:
        self._names: dict[str, list[str]] = {}

    def of(self, directory: str) -> list[str]:
        """The names in a directory; none where it cannot be listed."""
        if directory not in self._names:
            try:
                self._names[directory] = os.listdir(directory)
            except OSError:
                self._names[directory] = []
        return self._names[directory]


class _Budget:
    def __init__(self, events: int, size: int) -> None:
        self.events = events
        self.size = size

    @property
    def spent(self) -> bool:
        return self.events <= 0 or self.size <= 0


class Tailer:
    """All log files of one agent; only `follow` and `set_levels` may come from other threads."""

    def __init__(self, sources: Sequence[LogSource], stored: Mapping[str, str]) -> None:
        #: What is asked for, and what of it the last look took up: the same list, or another.
        self._wanted: Sequence[LogSource] = list(sources)
        self._sources: Sequence[LogSource] = []
        self._levels: Mapping[str, str] = {}
        self._clock = logformats.Clock()
        self._positions: dict[Key, Position] = {}
        self._patterns: set[str] = set()
        #: What is known of files and patterns that no source asks for now.
        self._parked: dict[Key, Position] = {}
        self._parked_patterns: dict[str, float | None] = {}
        self._taken_up: dict[str, str | None] = {}
        self._open: dict[tuple[int, int], BinaryIO] = {}
        self._drained: dict[Key, tuple[int, int]] = {}
        self._turn = 0
        self._store_all = False
        self.states: dict[str, FileState] = {}
        self.gaps = 0
        for name, value in stored.items():
            kind, _, rest = name.partition(":")
            if kind == "pattern":
                self._parked_patterns[rest] = None if value == "1" else float(value)
            elif kind == "file":
                position = Position(**json.loads(value))
                self._parked[position.key] = position

    def follow(self, sources: Sequence[LogSource]) -> None:
        """Follow these sources from the next look on, and no others.

        Positions stay: a file that is asked for again within a week goes on where it was left.
        Where several sources name one file, the first counts.
        """
        self._wanted = list(sources)

    def set_levels(self, levels: Mapping[str, str]) -> None:
        """Send other levels than the sources say, by service; "" means every service.

        What was set before ends, so `set_levels({})` goes back to what the sources say. Only lines
        read from now on count. Raises ValueError on a level that is none.
        """
        for level in levels.values():
            if level not in LEVELS:
                raise ValueError(f"level {level!r} is none of {', '.join(LEVELS)}")
        self._levels = dict(levels)

    def level_of(self, source: LogSource) -> str:
        """The level that counts for a source now."""
        levels = self._levels
        return levels.get(source.service) or levels.get("") or source.level

    def poll(self, now: float, events: int = 2000, size: int = 8 * 1024 * 1024) -> Poll:
        """Read what is new, at most so many events and bytes. `now` is in Unix seconds."""
        if self._sources is not self._wanted:
            self._take_up(self._wanted, now)
        whole = self._store_all
        budget = _Budget(events, size)
        entries: list[Entry] = []
        positions = dict(self._positions)
        patterns = set(self._patterns)
        drained: dict[Key, tuple[int, int]] = {}
        # An event or two of the looking itself may come on top: a gap is worth saying.
        groups = self._look(positions, patterns, entries, now)
        more = False
        paths = sorted(groups)
        self._turn = (self._turn + 1) % max(1, len(paths))
        for path in paths[self._turn :] + paths[: self._turn]:
            more |= self._read_group(groups[path], positions, drained, entries, budget, now)
        changes: dict[str, str | None] = {
            _name(key): None for key in self._positions if key not in positions
        }
        taken_up = dict(self._taken_up)
        if whole:
            taken_up.update(self._parked_as_stored())
        changes = {**taken_up, **changes}
        for key, position in positions.items():
            if whole or self._positions.get(key) != position:
                changes[_name(key)] = _stored(position)
        met = patterns if whole else patterns - self._patterns
        changes.update({"pattern:" + pattern: "1" for pattern in met})
        return Poll(entries, changes, more, positions, patterns, drained, whole, taken_up)

    def accept(self, poll: Poll) -> None:
        """The poll is stored: go on from there."""
        self._positions = poll.positions
        self._patterns = poll.patterns
        for name, value in poll.taken_up.items():
            if self._taken_up.get(name, "") == value:
                del self._taken_up[name]
        self._store_all = self._store_all and not poll.whole
        for entry in poll.entries:
            if entry.path in self.states:
                self.states[entry.path].events += 1
        live = {(position.device, position.inode) for position in poll.positions.values()}
        for inode in [inode for inode in self._open if inode not in live]:
            self._open.pop(inode).close()
        self._drained.update(poll.drained)
        self._drained = {key: seen for key, seen in self._drained.items() if key in self._positions}

    def store_all(self) -> None:
        """What was stored is lost: the next poll brings every position again."""
        self._store_all = True

    def close(self) -> None:
        """Close all files."""
        for file in self._open.values():
            file.close()
        self._open.clear()

    # What is asked for

    def _take_up(self, sources: Sequence[LogSource], now: float) -> None:
        """Sort what is known by whether these sources ask for it, and forget what none did long."""
        self._sources = sources
        known, patterns = {**self._parked, **self._positions}, dict(self._parked_patterns)
        patterns.update(dict.fromkeys(self._patterns))
        self._parked, self._positions = {}, {}
        self._parked_patterns, self._patterns = {}, set()
        for key, position in known.items():
            if self._source_of(position.path) is not None:
                self._positions[key] = kept = dataclasses.replace(position, unfollowed_at=None)
            else:
                since = now if position.unfollowed_at is None else position.unfollowed_at
                if now - since > _FORGET_UNFOLLOWED_AFTER:
                    self._taken_up[_name(key)] = None
                    continue
                self._parked[key] = kept = dataclasses.replace(position, unfollowed_at=since)
            if kept != position:
                self._taken_up[_name(key)] = _stored(kept)
        wanted = {source.pattern for source in sources}
        for pattern, left_at in patterns.items():
            if pattern in wanted:
                self._patterns.add(pattern)
                self._taken_up.pop("pattern:" + pattern, None)
                if left_at is not None:
                    self._taken_up["pattern:" + pattern] = "1"
            elif left_at is not None and now - left_at > _FORGET_UNFOLLOWED_AFTER:
                self._taken_up["pattern:" + pattern] = None
            else:
                self._parked_patterns[pattern] = now if left_at is None else left_at
                if left_at is None:
                    self._taken_up["pattern:" + pattern] = str(now)
        for inode in {key[1:] for key in self._parked} & set(self._open):
            self._open.pop(inode).close()
        self._drained = {key: seen for key, seen in self._drained.items() if key in self._positions}
        self.states = {
            path: state
            for path, state in self.states.items()
            if path in wanted or self._source_of(path) is not None
        }

    def _parked_as_stored(self) -> dict[str, str | None]:
        stored: dict[str, str | None] = {
            _name(key): _stored(position) for key, position in self._parked.items()
        }
        for pattern, left_at in self._parked_patterns.items():
            stored["pattern:" + pattern] = "1" if left_at is None else str(left_at)
        return stored

    # What is there

    def _source_of(self, path: str) -> LogSource | None:
        for source in self._sources:
            if _matches(path, source.pattern):
                return source
        return None

    def _list(self) -> dict[tuple[int, int], _File]:
        """Every file of every source, rotated ones too, by inode; a current file comes first."""
        found: dict[tuple[int, int], _File] = {}
        mains: dict[str, LogSource] = {}
        for source in self._sources:
            for path in glob.glob(source.pattern, recursive=True):
                if not path.endswith(_COMPRESSED):
                    mains.setdefault(path, source)
        for path, source in mains.items():
            self._found(found, path, path, source, main=True)
        followed = dict(mains)
        for position in self._positions.values():
            if position.path not in followed:
                known = self._source_of(position.path)
                if known is not None:
                    followed[position.path] = known
        listings = _Listings()
        for path in [*followed, *self._rotated_away(listings)]:
            known = followed.get(path) or self._source_of(path)
            if known is None:
                continue
            directory, base = os.path.split(path)
            for name in listings.of(directory):
                full = os.path.join(directory, name)
                if full not in mains and _is_rotated(base, name):
                    self._found(found, full, path, known, main=False)
        return found

    def _rotated_away(self, listings: _Listings) -> set[str]:
        """Paths whose file was made and rotated away before anybody looked."""
        paths = set()
        for source in self._sources:
            where, wanted = os.path.split(source.pattern)
            for directory in glob.glob(where, recursive=True):
                for name in listings.of(directory):
                    base = _ROTATED.sub("", name)
                    if base != name and fnmatch.fnmatchcase(base, wanted):
                        paths.add(os.path.join(directory, base))
        return paths

    @staticmethod
    def _found(
        found: dict[tuple[int, int], _File], name: str, path: str, source: LogSource, main: bool
    ) -> None:
        try:
            status = os.stat(name)
        except OSError:
            return  # gone since it was listed
        if stat.S_ISREG(status.st_mode):
            found.setdefault(
                (status.st_dev, status.st_ino), _File(name, status, path, source, main)
            )

    def _look(
        self,
        positions: dict[Key, Position],
        patterns: set[str],
        entries: list[Entry],
        now: float,
    ) -> dict[str, list[_File]]:
        """Match what is on disk with what is known; returns the files to read, by path."""
        files = self._list()
        known = {(position.device, position.inode) for position in positions.values()}
        settled = True
        if set(files) != known:
            # A rotation may have gone on while we looked: believe what two looks agree on.
            for _ in range(5):
                again = self._list()
                settled = {key: file.name for key, file in again.items()} == {
                    key: file.name for key, file in files.items()
                }
                files = again
                if settled:
                    break
        gone: list[Position] = []
        deleted: list[Position] = []
        groups: dict[str, list[_File]] = {}
        for position in list(positions.values()):
            file = files.get((position.device, position.inode))
            if file is not None and file.position is None and self._same(file, position):
                file.position = position
                groups.setdefault(position.path, []).append(file)
                if position.gone_at is not None:
                    positions[position.key] = dataclasses.replace(position, gone_at=None)
                    file.position = positions[position.key]
            elif file is None and (position.device, position.inode) in self._open:
                deleted.append(position)
            else:
                gone.append(position)
        if settled:
            self._adopt(files, gone, deleted, groups, positions, patterns)
            self._miss(gone, positions, entries, now)
            patterns.update(source.pattern for source in self._sources if self._may_list(source))
        for position in deleted:
            self._read_deleted(position, groups, positions)
        for file in files.values():
            if file.main and file.path not in self.states:
                self.states[file.path] = FileState(file.path, file.source.service)
        return groups

    def _may_list(self, source: LogSource) -> bool:
        """Whether the pattern's directory can be looked into; if not, it is said."""
        fixed = re.split(r"[*?\[]", source.pattern, maxsplit=1)[0]
        directory = os.path.dirname(fixed)
        if os.path.isdir(directory) and not os.access(directory, os.R_OK | os.X_OK):
            state = self.states.setdefault(
                source.pattern, FileState(source.pattern, source.service)
            )
            if state.ok:
                log.warning("log directory %s may not be read", directory)
            state.ok, state.detail = False, f"{directory}: may not be read by the agent's user"
            return False
        self.states.pop(source.pattern if source.pattern != fixed else "", None)
        return True

    def _read_deleted(
        self,
        position: Position,
        groups: dict[str, list[_File]],
        positions: dict[Key, Position],
    ) -> None:
        """A file without a name that we still hold open: read it until nobody writes to it."""
        handle = self._open[(position.device, position.inode)]
        source = self._source_of(position.path)
        status = os.fstat(handle.fileno())
        done = status.st_size <= position.offset and status.st_size <= position.size
        if status.st_nlink == 0 and (done or source is None):
            del positions[position.key]
        elif source is not None and status.st_size >= position.offset:
            groups.setdefault(position.path, []).append(
                _File("", status, position.path, source, False, position)
            )

    def _adopt(
        self,
        files: Mapping[tuple[int, int], _File],
        gone: list[Position],
        deleted: list[Position],
        groups: dict[str, list[_File]],
        positions: dict[Key, Position],
        patterns: set[str],
    ) -> None:
        """Give every file that nobody knows its place: a copy, an old one, or a new generation."""
        unknown = [file for file in files.values() if file.position is None]
        for file in unknown:
            if file.status.st_size == 0 and file.source.pattern in patterns:
                continue  # nothing in it to recognise it by yet
            fresh = file.source.pattern not in patterns
            if self._handle(file) is None and not fresh:
                continue  # unreadable, or rotated this instant
            moved = self._original(file, gone + deleted)
            if moved is not None:
                (gone if moved in gone else deleted).remove(moved)
                if positions.get(moved.key) is moved:
                    del positions[moved.key]
                file.position = dataclasses.replace(
                    moved,
                    device=file.status.st_dev,
                    inode=file.status.st_ino,
                    size=file.status.st_size,
                    gone_at=None,
                )
                file.main = file.main and moved.path == file.path
                groups.setdefault(moved.path, []).append(file)
            elif fresh:
                file.position = self._first_sight(file)
                groups.setdefault(file.path, []).append(file)
            elif self._is_copy_of_a_live_one(file, groups):
                continue  # it counts once its original is truncated
            else:
                file.position = Position(file.path, file.status.st_dev, file.status.st_ino)
                groups.setdefault(file.path, []).append(file)
        for file in unknown:
            if file.position is not None:
                positions[file.position.key] = file.position

    def _first_sight(self, file: _File) -> Position:
        """Where to begin with a file that was there before we were."""
        size = file.status.st_size
        start = max(0, size - file.source.tail) if file.main else size
        begin = max(0, start - 1)  # the byte before tells whether a line begins here
        position = Position(
            file.path, file.status.st_dev, file.status.st_ino, begin, skipping=start > 0, size=size
        )
        if not file.main:
            position = dataclasses.replace(position, offset=size, skipping=False)
        handle = self._handle(file)
        return position if handle is None else _fingerprinted(position, handle)

    def _original(self, file: _File, gone: Iterable[Position]) -> Position | None:
        """The vanished generation whose content this file holds, at least as far as it was read."""
        for position in gone:
            if not position.head_length or not _is_related(position.path, file):
                continue
            if file.status.st_size >= position.offset and self._same(file, position):
                return position
        return None

    def _is_copy_of_a_live_one(self, file: _File, groups: Mapping[str, list[_File]]) -> bool:
        """Copied and not yet truncated: what it holds is still read under its own name."""
        handle = self._handle(file)
        if handle is None:
            return False
        others = [
            other
            for path, found in groups.items()
            if (not file.main or path != file.path) and _is_related(path, file)
            for other in found
            if other.inode != file.inode
        ]
        size = file.status.st_size
        length = min(_FINGERPRINT, size)
        for other in others:
            live = self._handle(other)
            if live is None or other.status.st_size < size:
                continue
            if _bytes(live, 0, length) == _bytes(handle, 0, length) and _bytes(
                live, size - length, length
            ) == _bytes(handle, size - length, length):
                return True
        return False

    def _miss(
        self,
        gone: Iterable[Position],
        positions: dict[Key, Position],
        entries: list[Entry],
        now: float,
    ) -> None:
        """Keep the positions of vanished files for a while, and say what may be lost by them."""
        for position in gone:
            if positions.get(position.key) is not position:
                # Its inode is a new generation already: truncated, or deleted and made anew.
                if position.gone_at is None:
                    self._gap(position, entries, now)
                continue
            if position.gone_at is None:
                positions[position.key] = dataclasses.replace(position, gone_at=now)
                if position.main or position.offset < position.size:
                    self._gap(position, entries, now)
            elif now - position.gone_at > _FORGET_AFTER:
                del positions[position.key]

    def _gap(self, position: Position, entries: list[Entry], now: float) -> None:
        source = self._source_of(position.path)
        if source is None:
            return
        self.gaps += 1
        text = (
            f"{position.path} was truncated or replaced, and its old content was not kept: "
            "lines written shortly before may be missing"
        )
        log.warning("%s", text)
        entries.append(
            Entry(now, "warning", text, source.service, "sentinella.tailer", path=position.path)
        )

    # Content

    def _handle(self, file: _File) -> BinaryIO | None:
        """The open file; None where it cannot be read, or is another one by now."""
        handle = self._open.get(file.inode)
        if handle is not None:
            return handle
        try:
            handle = open(file.name, "rb", buffering=0)  # noqa: SIM115
        except OSError as error:
            self._unreadable(file, error)
            return None
        status = os.fstat(handle.fileno())
        if (status.st_dev, status.st_ino) != file.inode:
            handle.close()
            return None
        self._open[file.inode] = handle
        state = self.states.get(file.path)
        if state is not None and not state.ok:
            state.ok, state.detail = True, ""
        return handle

    def _unreadable(self, file: _File, error: OSError) -> None:
        if isinstance(error, FileNotFoundError):
            return  # rotated since it was listed
        state = self.states.setdefault(file.path, FileState(file.path, file.source.service))
        detail = f"{file.name}: {error.strerror}"
        if isinstance(error, PermissionError):
            detail += "; let the agent's user read it (its group, or setfacl -m u:sentinella:r)"
        if state.ok or state.detail != detail:
            log.warning("log file %s", detail)
        state.ok, state.detail = False, detail

    def _same(self, file: _File, position: Position) -> bool:
        """Whether the file still holds what was read of it."""
        unchanged = (file.status.st_size, file.status.st_mtime_ns)
        if self._drained.get(position.key) == unchanged and file.inode == position.key[1:]:
            return True
        if file.status.st_size < max(position.offset, position.head_length):
            return False
        handle = self._handle(file)
        if handle is None:
            # It cannot be looked into now, and there is no sign that it is another one.
            return file.inode == (position.device, position.inode)
        start = position.offset - position.anchor_length
        return (
            _digest(_bytes(handle, 0, position.head_length)) == position.head
            and _digest(_bytes(handle, start, position.anchor_length)) == position.anchor
        )

    def _read_group(
        self,
        files: list[_File],
        positions: dict[Key, Position],
        drained: dict[Key, tuple[int, int]],
        entries: list[Entry],
        budget: _Budget,
        now: float,
    ) -> bool:
        """Read the generations of one path, oldest first; True if something is left for later."""
        files.sort(key=lambda file: (file.main, file.status.st_mtime_ns, -_number(file.name)))
        for at, file in enumerate(files):
            position = file.position
            if position is None:
                continue
            seen = (file.status.st_size, file.status.st_mtime_ns)
            if self._drained.get(position.key) == seen:
                continue
            handle = self._handle(file)
            if handle is None:
                continue
            rotated = at < len(files) - 1 or not file.main
            lowest = LEVELS.index(self.level_of(file.source))
            reader = _Reader(handle, position, file, self._clock, now, rotated, lowest)
            before = len(entries)
            try:
                after = reader.read(entries, budget)
            except OSError as error:
                del entries[before:]
                self._unreadable(file, error)
                self._open.pop(file.inode).close()
                continue
            if after is None:
                del entries[before:]  # truncated while we read: the next look finds the copy
                continue
            positions[after.key] = after
            state = self.states.setdefault(
                position.path, FileState(position.path, file.source.service)
            )
            state.behind = max(0, reader.size - after.offset)
            if after.offset == reader.size == file.status.st_size:
                drained[after.key] = seen
                if rotated and not file.main and file.name:
                    self._open.pop(file.inode).close()
            if reader.stopped_early:
                return True
        return False


class _Reader:
    """Reads on in one generation: bytes to lines, lines to events."""

    def __init__(
        self,
        handle: BinaryIO,
        position: Position,
        file: _File,
        clock: logformats.Clock,
        now: float,
        rotated: bool,
        lowest: int,
    ) -> None:
        self._handle = handle
        self._position = position
        self._source = file.source
        self._main = file.main
        self._clock = clock
        self._now = now
        self._rotated = rotated
        status = os.fstat(handle.fileno())
        self.size = status.st_size
        still = self.size == position.size
        age = now - status.st_mtime
        self._settled = rotated or still or age >= _SETTLED_AFTER
        self._abandoned = rotated and (still or age >= _ABANDONED_AFTER)
        self._lowest = lowest
        self.stopped_early = False

    def read(self, entries: list[Entry], budget: _Budget) -> Position | None:
        """Append what is complete to `entries`; returns the position after it.

        None if the file was truncated meanwhile, so that what was read cannot be relied on.
        """
        offset, skipping = self._position.offset, self._position.skipping
        limit = min(self.size, offset + _PER_FILE)
        while offset < self.size:
            if budget.spent or offset >= limit:
                self.stopped_early = True
                break
            data = _bytes(self._handle, offset, min(_CHUNK, self.size - offset))
            if not data:
                break  # truncated this instant; the next look sees it
            at_end = offset + len(data) >= self.size
            consumed, skipping = self._chunk(data, skipping, at_end, entries, budget)
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
        )
        after = _fingerprinted(moved, self._handle)
        old_head = _digest(_bytes(self._handle, 0, self._position.head_length))
        if old_head != self._position.head or os.fstat(self._handle.fileno()).st_size < self.size:
            return None
        return after

    def _chunk(
        self, data: bytes, skipping: bool, at_end: bool, entries: list[Entry], budget: _Budget
    ) -> tuple[int, bool]:
        """Read one chunk; returns how much of it is dealt with and whether a line is skipped."""
        start = 0
        if skipping:
            newline = data.find(b"\n")
            if newline < 0:
                return len(data), True
            start, skipping = newline + 1, False
        joiner = _Joiner()
        done = start
        while start < len(data):
            newline = data.find(b"\n", start)
            if newline < 0:
                break
            raw, end = data[start:newline], newline + 1
            finished = joiner.add(self._text(raw), start, self._clock, self._now)
            if finished is not None:
                self._emit(finished, entries, budget)
                done = joiner.start
                if budget.events <= 0:
                    self.stopped_early = True
                    return done, False
            start = end
        rest = len(data) - start
        if rest and not at_end and start == 0:
            # One line fills the whole chunk: send its beginning, skip the rest of it.
            finished = joiner.add(self._text(data), 0, self._clock, self._now)
            self._emit_all((finished, joiner.flush()), entries, budget)
            return len(data), True
        if rest and at_end and self._abandoned:
            finished = joiner.add(self._text(data[start:]), start, self._clock, self._now)
            self._emit_all((finished, joiner.flush()), entries, budget)
            return len(data), False
        if joiner.holds and (self._settled if at_end else done == 0):
            # Either nothing more will follow, or the event alone fills the chunk.
            self._emit_all((joiner.flush(),), entries, budget)
            done = start
        elif not joiner.holds:
            done = start
        return done, False

    def _text(self, raw: bytes) -> str:
        cut = len(raw) - MAX_LINE
        if cut > 0:
            raw = raw[:MAX_LINE]
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError as error:
            if cut > 0 and error.start >= MAX_LINE - 4:
                text = raw.decode("utf-8", "ignore")  # cut within a character
            else:
                text = raw.decode("latin-1")
        text = logformats.without_colour(text.rstrip("\r"))
        return f"{text} [{cut} more bytes]" if cut > 0 else text

    def _emit_all(
        self, events: Iterable[_Event | None], entries: list[Entry], budget: _Budget
    ) -> None:
        for event in events:
            if event is not None:
                self._emit(event, entries, budget)

    def _emit(self, event: _Event, entries: list[Entry], budget: _Budget) -> None:
        message = event.message()
        if not message or LEVELS.index(event.head.level) > self._lowest:
            return
        budget.events -= 1
        entries.append(
            Entry(
                at=round(event.head.at, 3),
                level=event.head.level,
                message=message,
                service=self._source.service,
                component=event.head.component[:200],
                request_id=event.head.request_id[:200],
                pid=event.head.pid,
                path=self._position.path,
            )
        )


class _Event:
    """One event in the making."""

    def __init__(self, head: logformats.Head, start: int, formed: bool) -> None:
        self.head = head
        self.start = start
        self.formed = formed
        self.traceback = False
        self._lines = [head.message]
        self._length = len(head.message)
        self._left_out = 0

    def add(self, line: str) -> None:
        """A further line of it."""
        if len(self._lines) < _MAX_LINES and self._length + len(line) < _MAX_EVENT:
            self._lines.append(line)
            self._length += len(line) + 1
        else:
            self._left_out += 1

    def message(self) -> str:
        """All its lines."""
        text = "\n".join(self._lines).rstrip()
        return f"{text}\n[{self._left_out} more lines]" if self._left_out else text


_TRACEBACK = "Traceback (most recent call last):"
_CHAINED = ("During handling of the above exception", "The above exception was the direct cause")
_OWN_LINE = re.compile(r"\[pid: \d+\||DAMN ! worker |\*\*\* ")  # uwsgi, between oslo.log's lines


class _Joiner:
    """Joins a traceback, and what else has no head of its own, to the event before it."""

    def __init__(self) -> None:
        self._event: _Event | None = None

    @property
    def holds(self) -> bool:
        """An event waits for its end."""
        return self._event is not None

    @property
    def start(self) -> int:
        """Where the event that waits begins."""
        return self._event.start if self._event else 0

    def add(self, line: str, start: int, clock: logformats.Clock, now: float) -> _Event | None:
        """Take one line; returns the event that it ended."""
        current = self._event
        head = logformats.head(line, clock, now)
        if head is None:
            if current is not None and _continues(current, line):
                current.traceback |= line.startswith(_TRACEBACK)
                current.add(line)
                return None
            at = current.head.at if current is not None else now
            level = "error" if line.startswith(_TRACEBACK) else logformats.guessed_level(line)
            self._event = _Event(logformats.Head(at, level, line), start, formed=False)
            self._event.traceback = line.startswith(_TRACEBACK)
            return current
        if current is not None and head.more and head.group == current.head.group:
            current.add(head.message)
            return None
        self._event = _Event(head, start, formed=True)
        return current

    def flush(self) -> _Event | None:
        """The event that waits, as complete."""
        event, self._event = self._event, None
        return event


def _continues(event: _Event, line: str) -> bool:
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
        return event._lines[-1][:1] in (" ", "\t") or event._lines[-1].startswith(_TRACEBACK)
    return False


_COMPRESSED = (".gz", ".xz", ".bz2", ".zst", ".lz4", ".zip")


def _is_rotated(base: str, name: str) -> bool:
    """Whether a file is a rotated one of `base`: log.1, log-20261122, or app-20261122.log."""
    if name.startswith(base):
        return _ROTATED.match(name[len(base) :]) is not None
    stem, extension = os.path.splitext(base)
    if extension and name.startswith(stem) and name.endswith(extension):
        return _ROTATED_DATE.match(name[len(stem) : -len(extension)]) is not None
    return False


def _matches(path: str, pattern: str) -> bool:
    """Whether glob would find `path` by `pattern`."""
    if "**" in pattern:
        return fnmatch.fnmatchcase(path, pattern)
    parts, wanted = path.split("/"), pattern.split("/")
    return len(parts) == len(wanted) and all(map(fnmatch.fnmatchcase, parts, wanted))


def _is_related(path: str, file: _File) -> bool:
    """Whether `file` may hold what was written under `path`."""
    if path == file.path:
        return True
    directory, name = os.path.split(file.path)
    return os.path.dirname(path) == directory and _is_rotated(os.path.basename(path), name)


def _number(name: str) -> int:
    """The number of a rotation, where the name ends in one: the greater, the older."""
    match = re.search(r"[.-](\d{1,6})$", name)
    return int(match.group(1)) if match else 0


def _name(key: Key) -> str:
    return f"file:{key[0]}:{key[1]}:{key[2]}"


def _stored(position: Position) -> str:
    return json.dumps(dataclasses.asdict(position))


def _bytes(handle: BinaryIO, start: int, length: int) -> bytes:
    if length <= 0:
        return b""
    data = os.pread(handle.fileno(), length, start)
    while data and len(data) < length:
        further = os.pread(handle.fileno(), length - len(data), start + len(data))
        if not further:
            break
        data += further
    return data


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=8).hexdigest() if data else ""


def _fingerprinted(position: Position, handle: BinaryIO) -> Position:
    """The position with digests of the content as it is now."""
    head = _bytes(handle, 0, min(_FINGERPRINT, max(position.size, position.offset)))
    length = min(_FINGERPRINT, position.offset)
    anchor = _bytes(handle, position.offset - length, length)
    return dataclasses.replace(
        position,
        head=_digest(head),
        head_length=len(head),
        anchor=_digest(anchor),
        anchor_length=len(anchor),
    )
