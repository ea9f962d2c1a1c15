"""Follows log files through rotation, truncation and restarts: nothing lost, nothing twice.

A file is followed as a *generation*: what was written under one configured path between two
rotations. It is known by device and inode and recognised by its content: a digest of its first
bytes (head) and one of the bytes just before the position (anchor). So

- renamed (`log` becomes `log.1`): the inode stays, its rest is read under the new name;
- copied and truncated: the inode now holds other content, and a new file holds the old one: the
  generation moves over to the copy, and the old inode begins a new generation at its start. What
  was written between copy and truncation is in neither; that it may be is said;
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
import glob
import grp
import logging
import os
import re
import stat
from typing import Callable, Iterable, Mapping, Sequence

from agent_client import logfiles, logformats
from agent_client.config import LogSource
from agent_client.journal import Journal, JournalPoll, path_of
from agent_client.logfiles import (
    FINGERPRINT,
    Archive,
    Bomb,
    Content,
    File,
    Inode,
    Key,
    Position,
    fingerprinted,
)
from agent_client.loglimit import Buckets, Limiter
from agent_client.logreader import Budget, Entry, Outlet, Reader
from agent_client.wire import LEVELS

log = logging.getLogger("sentinella.tailer")

#: How long the position of a vanished file is kept, should the file come back.
_FORGET_AFTER = 3600.0
#: The same for files that nobody asks for any more: a service may come back.
_FORGET_UNFOLLOWED_AFTER = 7 * 86_400.0
#: How often to look again where a rotation goes on meanwhile.
_LOOKS = 5
#: Bytes that one look unpacks of archives before it comes to what is in them: some tenths of a
#: second. A larger archive is gone through over several looks.
UNPACKED_PER_LOOK = 64 * 1024**2
#: How exactly it is known when a pattern was last looked at, in seconds.
_LOOKED_EVERY = 60.0

#: Under which name the journal's cursor is stored.
_JOURNAL = "journal:cursor"

#: Where container runtimes keep the output of a container, by its id.
_CONTAINER_LOGS = (
    "/var/lib/docker/containers/{0}*/{0}*-json.log",
    "/var/lib/containers/storage/overlay-containers/{0}*/userdata/ctr.log",
)


@dataclasses.dataclass(frozen=True)
class Poll:
    """What one look brought. `changes` are to be stored in one transaction with the entries."""

    entries: list[Entry]
    changes: dict[str, str | None]
    #: There is more to read now than the budget allowed.
    more: bool
    positions: dict[Key, Position]
    looked: dict[str, float]
    drained: dict[Key, tuple[int, int]]
    buckets: Buckets
    told: dict[str, str]
    journal: JournalPoll
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
    dropped: int = 0


class Tailer:
    """All log files of one agent; only `follow` and `set_levels` may come from other threads."""

    def __init__(
        self,
        sources: Sequence[LogSource],
        stored: Mapping[str, str],
        journal_arguments: Sequence[str] = (),
    ) -> None:
        #: What is asked for, and what of it the last look took up: the same list, or another.
        self._wanted: Sequence[LogSource] = list(sources)
        self._taken: Sequence[LogSource] = []
        self._sources: list[LogSource] = []
        self._levels: Mapping[str, str] = {}
        self._clock = logformats.Clock()
        self._positions: dict[Key, Position] = {}
        #: When each pattern was last looked at, asked for now or not, to the minute.
        self._looked: dict[str, float] = {}
        #: What is known of files that no source asks for now.
        self._parked: dict[Key, Position] = {}
        self._taken_up: dict[str, str | None] = {}
        self._buckets: Buckets = {}
        #: What was said of files that cannot be read, by path; it is said once.
        self._told: dict[str, str] = {}
        self._journal = Journal(stored.get(_JOURNAL), journal_arguments)
        self._open: dict[Inode, Content] = {}
        self._drained: dict[Key, tuple[int, int]] = {}
        #: Archives that hold nothing for us, as they were when that was found.
        self._passed_over: dict[Inode, tuple[int, int]] = {}
        #: Patterns that name more files than are followed.
        self._too_many: set[str] = set()
        #: Archives that nobody knows yet, or that are copies; what was unpacked of them counts.
        self._unplaced: set[Inode] = set()
        self._turn = 0
        self._store_all = False
        self.states: dict[str, FileState] = {}
        self.gaps = 0
        for name, value in stored.items():
            kind, _, rest = name.partition(":")
            if kind == "pattern":
                self._looked[rest] = float(value)
            elif kind == "unreadable":
                self._told[rest] = value
            elif kind == "file":
                position = logfiles.read_position(value)
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
        if self._taken is not self._wanted:
            self._take_up(self._wanted, now)
        whole = self._store_all
        look = _Look(self._positions, self._looked, self._told, Limiter(self._buckets), now)
        budget = Budget(events, size)
        # An event or two of the looking itself may come on top: a gap is worth saying.
        groups = self._look(look)
        more = False
        paths = sorted(groups)
        self._turn = (self._turn + 1) % max(1, len(paths))
        for path in paths[self._turn :] + paths[: self._turn]:
            more |= self._read_group(groups[path], look, budget)
        journal = self._read_journal(look, budget)
        self._tell_copied(look)
        self._tell_dropped(look)
        taken_up = dict(self._taken_up)
        if whole:
            taken_up.update((p.name, p.stored()) for p in self._parked.values())
        changes: dict[str, str | None] = {
            **taken_up,
            **{logfiles.name_of(key): None for key in self._positions if key not in look.positions},
        }
        for key, position in look.positions.items():
            if whole or self._positions.get(key) != position:
                changes[position.name] = position.stored()
        changes.update(_changed("pattern:", self._looked, look.looked, whole))
        changes.update(_changed("unreadable:", self._told, look.told, whole))
        if (
            journal.cursor != self._journal.cursor
            or journal.held != self._journal.held
            or (whole and journal.cursor)
        ):
            changes[_JOURNAL] = journal.stored()
        return Poll(
            entries=look.entries,
            changes=changes,
            more=more or journal.more,
            positions=look.positions,
            looked=look.looked,
            drained=look.drained,
            buckets=look.limiter.buckets,
            told=look.told,
            journal=journal,
            whole=whole,
            taken_up=taken_up,
        )

    def accept(self, poll: Poll) -> None:
        """The poll is stored: go on from there."""
        self._positions = poll.positions
        self._looked = poll.looked
        self._told = poll.told
        self._buckets = poll.buckets
        self._journal.accept(poll.journal)
        for name, value in poll.taken_up.items():
            if self._taken_up.get(name, "") == value:
                del self._taken_up[name]
        self._store_all = self._store_all and not poll.whole
        for entry in poll.entries:
            if entry.path in self.states:
                self.states[entry.path].events += 1
        live = {(position.device, position.inode) for position in poll.positions.values()}
        live |= self._unplaced
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
        self._journal.close()

    # What is asked for

    def _take_up(self, sources: Sequence[LogSource], now: float) -> None:
        """Sort what is known by whether these sources ask for it, and forget what none did long."""
        self._taken = sources
        self._sources = [found for source in sources for found in _files_of(source)]
        known = {**self._parked, **self._positions}
        self._parked, self._positions = {}, {}
        for key, position in known.items():
            if self._source_of(position.path) is not None:
                self._positions[key] = kept = dataclasses.replace(position, unfollowed_at=None)
            else:
                since = now if position.unfollowed_at is None else position.unfollowed_at
                if now - since > _FORGET_UNFOLLOWED_AFTER:
                    self._taken_up[position.name] = None
                    continue
                self._parked[key] = kept = dataclasses.replace(position, unfollowed_at=since)
            if kept != position:
                self._taken_up[position.name] = kept.stored()
        self._journal.follow([source for source in sources if source.kind == "journal"])
        wanted = {source.pattern for source in self._sources}
        for pattern, looked_at in list(self._looked.items()):
            if pattern not in wanted and now - looked_at > _FORGET_UNFOLLOWED_AFTER:
                del self._looked[pattern]
                self._taken_up["pattern:" + pattern] = None
        for inode in {key[1:] for key in self._parked} & set(self._open):
            self._open.pop(inode).close()
        self._drained = {key: seen for key, seen in self._drained.items() if key in self._positions}
        self.states = {
            path: state
            for path, state in self.states.items()
            if path in wanted or self._source_of(path) is not None
        }
        for source in self._journal.sources:
            path = path_of(source)
            self.states.setdefault(path, FileState(path, source.service))

    def _source_of(self, path: str) -> LogSource | None:
        for source in self._sources:
            if logfiles.matches(path, source.pattern):
                return source
        return None

    # What is there

    def _find(self, positions: Mapping[Key, Position]) -> dict[Inode, File]:
        known = [position.path for position in positions.values()]
        files, self._too_many = logfiles.find(self._sources, known, self._source_of)
        return files

    def _look(self, look: _Look) -> dict[str, list[File]]:
        """Match what is on disk with what is known; returns the files to read, by path."""
        positions = look.positions
        files = self._find(positions)
        settled = False
        for _ in range(_LOOKS):
            gone, deleted, groups = self._match(files, look)
            heads = self._heads(files, look)
            if not heads and not any(position.gone_at is None for position in gone):
                settled = True
                break
            # A rotation may have gone on while we looked: believe what two looks agree on. A copy
            # is there before its original is truncated, so this one sees it.
            again = self._find(positions)
            settled = {inode: file.name for inode, file in again.items()} == {
                inode: file.name for inode, file in files.items()
            }
            if settled:
                break
            files = again
        if settled:
            wait = self._unpacking(files, gone + deleted, look)
            gone = [position for position in gone if not wait(position.path)]
            deleted = [position for position in deleted if not wait(position.path)]
            ready = {inode: file for inode, file in files.items() if not wait(file.path)}
            self._adopt(ready, gone, deleted, groups, heads, look)
            self._unplaced = {
                file.inode
                for file in files.values()
                if file.archive and file.position is None and not self._is_passed_over(file)
            }
            self._miss(gone, look)
            for source in self._sources:
                if self._may_list(source, look):
                    looked_at = look.looked.get(source.pattern, 0.0)
                    if not 0 <= look.now - looked_at < _LOOKED_EVERY:
                        look.looked[source.pattern] = look.now
        for position in deleted:
            self._read_deleted(position, groups, positions)
        for file in files.values():
            if file.main and file.path not in self.states:
                self.states[file.path] = FileState(file.path, file.source.service)
        return groups

    def _match(
        self, files: Mapping[Inode, File], look: _Look
    ) -> tuple[list[Position], list[Position], dict[str, list[File]]]:
        """Which known generations are where they were; which are gone, and which deleted."""
        gone: list[Position] = []
        deleted: list[Position] = []
        groups: dict[str, list[File]] = {}
        for position in list(look.positions.values()):
            file = files.get((position.device, position.inode))
            if file is not None and file.position is None and self._same(file, position, look):
                if position.gone_at is not None:
                    position = dataclasses.replace(position, gone_at=None)
                    look.positions[position.key] = position
                file.position = position
                groups.setdefault(position.path, []).append(file)
            elif file is None and (position.device, position.inode) in self._open:
                deleted.append(position)
            else:
                gone.append(position)
        return gone, deleted, groups

    def _heads(self, files: Mapping[Inode, File], look: _Look) -> dict[Inode, Position]:
        """How the files begin that nobody knows, by which they are known again when read."""
        heads = {}
        for file in files.values():
            if file.position is not None or self._is_passed_over(file):
                continue
            empty = Position(file.path, file.status.st_dev, file.status.st_ino)
            heads[file.inode] = empty
            content = None if file.archive else self._content(file, look)
            if content is None:
                continue
            try:
                size = min(FINGERPRINT, file.status.st_size)
                begun = fingerprinted(dataclasses.replace(empty, size=size), content)
                heads[file.inode] = dataclasses.replace(begun, size=0)
            except OSError as error:
                self._broken(file, error, look)
        return heads

    def _unpacking(
        self, files: Mapping[Inode, File], lost: Sequence[Position], look: _Look
    ) -> Callable[[str], bool]:
        """Tells by path what has to wait for an archive that is not gone through yet.

        Until it is known what the archive holds, it is not known either what the others are.
        """
        waiting = [
            file
            for file in files.values()
            if file.archive
            and file.position is None
            and not self._is_gone_through(file, lost, look)
        ]
        return lambda path: any(logfiles.is_related(path, file) for file in waiting)

    def _is_gone_through(self, file: File, lost: Sequence[Position], look: _Look) -> bool:
        """Whether an archive that nobody knows is unpacked as far as it takes to place it."""
        looked_at = look.looked.get(file.source.pattern)
        if looked_at is None or self._is_passed_over(file):
            return True  # it is left alone
        content = self._content(file, look)
        if not isinstance(content, Archive):
            return True
        related = [p for p in lost if p.head_length and logfiles.is_related(p.path, file)]
        if not related and file.status.st_mtime <= looked_at:
            return True
        try:
            begun = [
                p for p in related if logfiles.digest(content.read(0, p.head_length)) == p.head
            ]
            if any(_was_drained(position) for position in begun):
                return True  # how it begins is enough
            start = begun[0].offset - begun[0].anchor_length if begun else None
            return look.prepares(content, start)
        except OSError as error:
            self._broken(file, error, look)
            return True

    def _is_passed_over(self, file: File) -> bool:
        return file.archive and self._passed_over.get(file.inode) == file.seen

    def _may_list(self, source: LogSource, look: _Look) -> bool:
        """Whether the pattern's directory can be looked into; if not, it is said."""
        fixed = re.split(r"[*?\[]", source.pattern, maxsplit=1)[0]
        barrier = _barrier(os.path.dirname(fixed))
        if barrier is not None:
            self._say_unreadable(source.pattern, source.service, _mend(barrier), look)
            return False
        if source.pattern in self._too_many:
            detail = (
                f"{source.pattern} names more files than the {logfiles.most_files()} that are "
                "followed: narrow it, or raise LimitNOFILE"
            )
            self._say_unreadable(source.pattern, source.service, detail, look)
            return True
        if source.pattern != fixed:
            self.states.pop(source.pattern, None)
            look.told.pop(source.pattern, None)
        return True

    def _read_deleted(
        self,
        position: Position,
        groups: dict[str, list[File]],
        positions: dict[Key, Position],
    ) -> None:
        """A file without a name that we still hold open: read it until nobody writes to it."""
        content = self._open[(position.device, position.inode)]
        source = self._source_of(position.path)
        status = content.status()
        size = position.size if position.packed else status.st_size
        done = size <= position.offset and size <= position.size
        if status.st_nlink == 0 and (done or source is None):
            del positions[position.key]
        elif source is not None and size >= position.offset:
            groups.setdefault(position.path, []).append(
                File("", status, position.path, source, False, position)
            )

    def _adopt(
        self,
        files: Mapping[Inode, File],
        gone: list[Position],
        deleted: list[Position],
        groups: dict[str, list[File]],
        heads: Mapping[Inode, Position],
        look: _Look,
    ) -> None:
        """Give every file that nobody knows its place: a copy, an old one, or a new generation."""
        unknown = [file for file in files.values() if file.position is None]
        for file in unknown:
            if self._is_passed_over(file):
                continue
            looked_at = look.looked.get(file.source.pattern)
            if looked_at is not None and file.status.st_size == 0:
                continue  # nothing in it to recognise it by yet
            if file.archive and looked_at is None:
                self._passed_over[file.inode] = file.seen
                continue  # it was compressed before we were here
            if self._content(file, look) is None and looked_at is not None:
                continue  # unreadable, or rotated this instant
            try:
                moved = self._original(file, gone + deleted, look)
                if moved is not None:
                    position = self._moved(file, moved, look)
                    if moved in gone and moved.key[1:] in files:
                        look.copied[moved.path] = look.copied.get(moved.path, 0) + 1
                    (gone if moved in gone else deleted).remove(moved)
                    if look.positions.get(moved.key) is moved:
                        del look.positions[moved.key]
                    file.main = file.main and moved.path == file.path
                elif looked_at is None:
                    position = self._first_sight(file, look)
                elif file.archive and file.status.st_mtime <= looked_at:
                    self._passed_over[file.inode] = file.seen
                    self._open.pop(file.inode).close()
                    continue  # it had been read, or was there before us
                elif self._is_copy_of_a_live_one(file, groups, look):
                    continue  # it counts once its original is truncated
                else:
                    position = heads[file.inode]
            except OSError as error:
                self._broken(file, error, look)
                continue
            file.position = position
            groups.setdefault(position.path, []).append(file)
        for file in unknown:
            if file.position is not None:
                look.positions[file.position.key] = file.position

    def _moved(self, file: File, position: Position, look: _Look) -> Position:
        """The position in the file that its generation was copied to, or compressed into."""
        size, packed = file.status.st_size, 0
        content = self._content(file, look)
        if file.archive:
            packed = size
            # What was read to its end before is not unpacked just to learn its length.
            known = content is None or _was_drained(position)
            size = position.size if known or content is None else content.size()
        moved = dataclasses.replace(
            position,
            device=file.status.st_dev,
            inode=file.status.st_ino,
            size=size,
            packed=packed,
            gone_at=None,
        )
        if size < position.offset and content is not None:
            # Copied before the last of what we read was written: there is nothing new in it.
            moved = fingerprinted(dataclasses.replace(moved, offset=size, skipping=False), content)
        return moved

    def _first_sight(self, file: File, look: _Look) -> Position:
        """Where to begin with a file that was there before we were."""
        size = file.status.st_size
        start = max(0, size - file.source.tail) if file.main else size
        begin = max(0, start - 1)  # the byte before tells whether a line begins here
        position = Position(
            file.path, file.status.st_dev, file.status.st_ino, begin, skipping=start > 0, size=size
        )
        if not file.main:
            position = dataclasses.replace(position, offset=size, skipping=False)
        content = self._content(file, look)
        return position if content is None else fingerprinted(position, content)

    def _original(self, file: File, gone: Iterable[Position], look: _Look) -> Position | None:
        """The vanished generation whose content this file holds, at least as far as it was read."""
        for position in gone:
            if position.head_length and logfiles.is_related(position.path, file):
                content = self._content(file, look)
                if content is not None and (
                    _holds(file, content, position) or _holds_less(file, content, position)
                ):
                    return position
        return None

    def _is_copy_of_a_live_one(
        self, file: File, groups: Mapping[str, list[File]], look: _Look
    ) -> bool:
        """Copied and not yet truncated: what it holds is still read under its own name."""
        content = self._content(file, look)
        if content is None:
            return False
        others = [
            other
            for path, found in groups.items()
            if (not file.main or path != file.path) and logfiles.is_related(path, file)
            for other in found
            if other.inode != file.inode and not other.archive
        ]
        size = file.size(content)
        length = min(FINGERPRINT, size)
        for other in others:
            live = self._content(other, look)
            if live is None or other.status.st_size < size:
                continue
            if live.read(0, length) == content.read(0, length) and live.read(
                size - length, length
            ) == content.read(size - length, length):
                return True
        return False

    def _miss(self, gone: Iterable[Position], look: _Look) -> None:
        """Keep the positions of vanished files for a while, and say what may be lost by them."""
        for position in gone:
            if look.positions.get(position.key) is not position:
                # Its inode is a new generation already: truncated, or deleted and made anew.
                if position.gone_at is None:
                    self._gap(position, look)
                continue
            if position.gone_at is None:
                look.positions[position.key] = dataclasses.replace(position, gone_at=look.now)
                if position.main or position.offset < position.size:
                    self._gap(position, look)
            elif look.now - position.gone_at > _FORGET_AFTER:
                del look.positions[position.key]

    def _gap(self, position: Position, look: _Look) -> None:
        source = self._source_of(position.path)
        if source is None or not (position.offset or position.size):
            return
        self.gaps += 1
        text = (
            f"{position.path} was truncated or replaced, and its old content was not kept: "
            "lines written shortly before may be missing"
        )
        log.warning("%s", text)
        look.say(text, source.service, position.path)

    # Content

    def _content(self, file: File, look: _Look) -> Content | None:
        """The open file; None where it cannot be read, or is another one by now."""
        content = self._open.get(file.inode)
        if content is not None:
            return content
        try:
            content = file.open()
        except OSError as error:
            self._broken(file, error, look)
            return None
        if content is None:
            return None
        self._open[file.inode] = content
        state = self.states.get(file.path)
        if state is not None and not state.ok:
            state.ok, state.detail = True, ""
        look.told.pop(file.path, None)
        return content

    def _broken(self, file: File, error: OSError, look: _Look) -> None:
        """A file that cannot be read, now or at all."""
        content = self._open.pop(file.inode, None)
        if content is not None:
            content.close()
        if isinstance(error, FileNotFoundError):
            return  # rotated since it was listed
        if file.archive:
            # Still being written, or nothing that we can unpack: looked at again if it changes.
            self._passed_over[file.inode] = file.seen
            if isinstance(error, Bomb):
                text = f"{file.name} is not read: {error.strerror}; if it is a log, unpack it there"
                log.warning("%s", text)
                look.say(text, file.source.service, file.path)
            return
        detail = f"{file.name}: {error.strerror}"
        if isinstance(error, PermissionError):
            detail = _mend(file.name)
        self._say_unreadable(file.path, file.source.service, detail, look)

    def _say_unreadable(self, path: str, service: str, detail: str, look: _Look) -> None:
        state = self.states.setdefault(path, FileState(path, service))
        if state.ok or state.detail != detail:
            log.warning("log %s", detail)
        state.ok, state.detail = False, detail
        if look.told.get(path) != detail:
            look.told[path] = detail
            look.say(f"a log is not read: {detail}", service, path)

    def _same(self, file: File, position: Position, look: _Look) -> bool:
        """Whether the file still holds what was read of it."""
        if position.packed:
            return file.archive and file.status.st_size == position.packed
        if self._drained.get(position.key) == file.seen:
            return True
        if file.archive or file.status.st_size < max(position.offset, position.head_length):
            return False
        content = self._content(file, look)
        if content is None:
            # It cannot be looked into now, and there is no sign that it is another one.
            return True
        try:
            return logfiles.holds(content, position)
        except OSError as error:
            self._broken(file, error, look)
            return True

    # Reading

    def _read_group(self, files: list[File], look: _Look, budget: Budget) -> bool:
        """Read the generations of one path, oldest first; True if something is left for later."""
        files = logfiles.in_order(files)
        for at, file in enumerate(files):
            position = file.position
            if position is None or self._drained.get(position.key) == file.seen:
                continue
            if position.packed and position.offset >= position.size:
                continue
            if self._is_passed_over(file):
                continue
            content = self._content(file, look)
            if content is None:
                continue
            if isinstance(content, Archive):
                try:
                    if not look.prepares(content, max(0, position.offset - FINGERPRINT)):
                        return True
                except OSError as error:
                    self._broken(file, error, look)
                    continue
            rotated = at < len(files) - 1 or not file.main
            state = self.states.setdefault(
                position.path, FileState(position.path, file.source.service)
            )
            outlet = Outlet(
                look.entries,
                budget,
                look.limiter,
                file.source.service,
                position.path,
                self.level_of(file.source),
                file.source.limit,
            )
            try:
                reader = Reader(content, position, file, self._clock, look.now, rotated)
                after = reader.read(outlet, budget)
            except OSError as error:
                outlet.take_back()
                self._broken(file, error, look)
                continue
            if after is None:
                outlet.take_back()  # truncated while we read: the next look finds the copy
                continue
            look.positions[after.key] = after
            state.behind = max(0, reader.size - after.offset)
            if after.offset == reader.size and (after.packed or reader.size == file.seen[0]):
                look.drained[after.key] = file.seen
                if rotated and not file.main and file.name:
                    self._open.pop(file.inode).close()
            if reader.stopped_early:
                return True
        return False

    def _read_journal(self, look: _Look, budget: Budget) -> JournalPoll:
        """Read on in the journal; where that cannot be done, it is said once."""
        poll = self._journal.poll(look.entries, budget, look.limiter, self.level_of, look.now)
        for source in self._journal.sources:
            state = self.states[path_of(source)]
            state.ok, state.detail = not poll.problem, poll.problem
        if poll.problem and look.told.get("journal") != poll.problem:
            log.warning("%s", poll.problem)
            look.say(poll.problem, "sentinella", "journal")
        if poll.problem:
            look.told["journal"] = poll.problem
        else:
            look.told.pop("journal", None)
        return poll

    def _tell_copied(self, look: _Look) -> None:
        """Say where lines may be missing that nobody could read: a possible gap, and no more."""
        for path, times in look.copied.items():
            source = self._source_of(path)
            text = (
                f"{path} was rotated by copying and truncating"
                + (f" {times} times" if times > 1 else "")
                + ": what was written in between is in no file and may be missing"
            )
            look.say(text, source.service if source else "", path, "info")

    def _tell_dropped(self, look: _Look) -> None:
        """Say what the limits left out in this look."""
        for path, levels in look.limiter.dropped.items():
            in_journal = [s for s in self._journal.sources if path_of(s) == path]
            source = in_journal[0] if in_journal else self._source_of(path)
            if source is not None:
                look.say(look.limiter.told(path, source.limit), source.service, path)
                self.states[path].dropped += sum(levels.values())


class _Look:
    """What one look changes; it counts once it is stored."""

    def __init__(
        self,
        positions: Mapping[Key, Position],
        looked: Mapping[str, float],
        told: Mapping[str, str],
        limiter: Limiter,
        now: float,
    ) -> None:
        self.positions: dict[Key, Position] = dict(positions)
        self.looked: dict[str, float] = dict(looked)
        self.told: dict[str, str] = dict(told)
        self.limiter = limiter
        self.now = now
        self.entries: list[Entry] = []
        self.drained: dict[Key, tuple[int, int]] = {}
        #: How often each path was found copied and truncated.
        self.copied: dict[str, int] = {}
        #: Bytes that may still be unpacked before anything of them is read.
        self.to_unpack = UNPACKED_PER_LOOK

    def prepares(self, archive: Archive, start: int | None) -> bool:
        """Whether an archive is unpacked as far as need be. Raises OSError."""
        enough, spent = archive.prepare(start, self.to_unpack)
        self.to_unpack -= spent
        return enough

    def say(self, text: str, service: str, path: str, level: str = "warning") -> None:
        """Tell as an event what befell a log."""
        self.entries.append(Entry(self.now, level, text, service, "sentinella.tailer", path=path))


def _changed(
    prefix: str, before: Mapping[str, object], after: Mapping[str, object], whole: bool
) -> dict[str, str | None]:
    """What has to be stored anew of a table of plain values."""
    changes: dict[str, str | None] = {prefix + name: None for name in before if name not in after}
    for name, value in after.items():
        if whole or before.get(name) != value:
            changes[prefix + name] = str(value)
    return changes


def _files_of(source: LogSource) -> Iterable[LogSource]:
    """The files that a source means."""
    if source.kind == "journal":
        return
    if source.kind == "container" and not source.pattern.startswith("/"):
        for place in _CONTAINER_LOGS:
            yield dataclasses.replace(source, pattern=place.format(glob.escape(source.pattern)))
    else:
        yield source


def _was_drained(position: Position) -> bool:
    """It was rotated away and read to its end when last looked at."""
    return not position.main and position.offset >= position.size


def _holds(file: File, content: Content, position: Position) -> bool:
    """Whether a file that is not known yet holds a generation, at least as far as it was read."""
    if not file.archive:
        longest = max(position.offset, position.head_length)
        return file.status.st_size >= longest and logfiles.holds(content, position)
    if logfiles.digest(content.read(0, position.head_length)) != position.head:
        return False
    if _was_drained(position):
        return True
    return content.size() >= position.offset and logfiles.holds(content, position)


def _holds_less(file: File, content: Content, position: Position) -> bool:
    """Whether a file that is not known yet is a copy that was made before all of it was written."""
    if file.main:
        return False  # written anew: what begins alike is new all the same
    size = file.size(content)
    return 0 < size < position.offset and logfiles.begins_alike(content, size, position)


def _barrier(directory: str) -> str | None:
    """The first directory on the way that may not be entered, or at its end not be listed."""
    parts = directory.split("/")
    for length in range(2, len(parts) + 1):
        way = "/".join(parts[:length])
        if not os.path.isdir(way):
            return None
        needed = os.X_OK if length < len(parts) else os.X_OK | os.R_OK
        if not os.access(way, needed):
            return way
    return None


def _mend(path: str) -> str:
    """What lets the agent's user read a file or enter a directory."""
    user = logfiles.user_name()
    try:
        status = os.stat(path)
    except OSError as error:
        return f"{path}: {error.strerror}"
    directory = stat.S_ISDIR(status.st_mode)
    needed = stat.S_IRGRP | stat.S_IXGRP if directory else stat.S_IRGRP
    said = f"{path} may not be {'entered' if directory else 'read'} by {user}"
    if status.st_mode & needed == needed and status.st_gid != 0:
        try:
            group = grp.getgrgid(status.st_gid).gr_name
        except KeyError:
            group = str(status.st_gid)
        return f"{said}: `usermod -aG {group} {user}`, then restart the agent"
    return f"{said}: `setfacl -m u:{user}:{'rx' if directory else 'r'} {path}`"
