"""Which generation of a log is in which file, through rotation, truncation and restarts.

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
"""

from __future__ import annotations

import dataclasses
import logging
from typing import Callable, Container, Iterable, Mapping, Sequence

from agent_client import logfiles
from agent_client.config import LogSource
from agent_client.logaccess import Access, FileState
from agent_client.logfiles import (
    FINGERPRINT,
    Archive,
    Content,
    File,
    Inode,
    Key,
    Position,
    fingerprinted,
)
from agent_client.look import Look

log = logging.getLogger("sentinella.tailer")

#: How long the position of a vanished file is kept, should the file come back.
_FORGET_AFTER = 3600.0
#: How often to look again where a rotation goes on meanwhile.
_LOOKS = 5
#: How exactly it is known when a pattern was last looked at, in seconds.
_LOOKED_EVERY = 60.0


class Generations:
    """Matches what is on disk with what is known of the sources' files."""

    def __init__(self, access: Access) -> None:
        self.access = access
        self.sources: Sequence[LogSource] = []
        #: What was read to its end, as it was then.
        self.drained: dict[Key, tuple[int, int]] = {}
        #: Archives that nobody knows yet, or that are copies; what was unpacked of them counts.
        self.unplaced: set[Inode] = set()
        self.gaps = 0

    def note_drained(self, more: Mapping[Key, tuple[int, int]], known: Container[Key]) -> None:
        """These were read to their end, too; of what is not known any more nothing is kept."""
        self.drained.update(more)
        self.drained = {key: seen for key, seen in self.drained.items() if key in known}

    def source_of(self, path: str) -> LogSource | None:
        """The first source that asks for a file of this path."""
        for source in self.sources:
            if logfiles.matches(path, source.pattern):
                return source
        return None

    def place(self, look: Look) -> dict[str, list[File]]:
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
            self.unplaced = {
                file.inode
                for file in files.values()
                if file.archive and file.position is None and not self.access.is_passed_over(file)
            }
            self._miss(gone, look)
            for source in self.sources:
                if self.access.may_list(source, look):
                    looked_at = look.looked.get(source.pattern, 0.0)
                    if not 0 <= look.now - looked_at < _LOOKED_EVERY:
                        look.looked[source.pattern] = look.now
        for position in deleted:
            self._read_deleted(position, groups, positions)
        for file in files.values():
            if file.main and file.path not in self.access.states:
                self.access.states[file.path] = FileState(file.path, file.source.service)
        return groups

    def _find(self, positions: Mapping[Key, Position]) -> dict[Inode, File]:
        known = [position.path for position in positions.values()]
        files, self.access.too_many = logfiles.find(self.sources, known, self.source_of)
        return files

    def _match(
        self, files: Mapping[Inode, File], look: Look
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
            elif file is None and self.access.holds((position.device, position.inode)):
                deleted.append(position)
            else:
                gone.append(position)
        return gone, deleted, groups

    def _heads(self, files: Mapping[Inode, File], look: Look) -> dict[Inode, Position]:
        """How the files begin that nobody knows, by which they are known again when read."""
        heads = {}
        for file in files.values():
            if file.position is not None or self.access.is_passed_over(file):
                continue
            empty = Position(file.path, file.status.st_dev, file.status.st_ino)
            heads[file.inode] = empty
            content = None if file.archive else self.access.content(file, look)
            if content is None:
                continue
            try:
                size = min(FINGERPRINT, file.status.st_size)
                begun = fingerprinted(dataclasses.replace(empty, size=size), content)
                heads[file.inode] = dataclasses.replace(begun, size=0)
            except OSError as error:
                self.access.broken(file, error, look)
        return heads

    def _unpacking(
        self, files: Mapping[Inode, File], lost: Sequence[Position], look: Look
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

    def _is_gone_through(self, file: File, lost: Sequence[Position], look: Look) -> bool:
        """Whether an archive that nobody knows is unpacked as far as it takes to place it."""
        looked_at = look.looked.get(file.source.pattern)
        if looked_at is None or self.access.is_passed_over(file):
            return True  # it is left alone
        content = self.access.content(file, look)
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
            self.access.broken(file, error, look)
            return True

    def _same(self, file: File, position: Position, look: Look) -> bool:
        """Whether the file still holds what was read of it."""
        if position.packed:
            return file.archive and file.status.st_size == position.packed
        if self.drained.get(position.key) == file.seen:
            return True
        if file.archive or file.status.st_size < max(position.offset, position.head_length):
            return False
        content = self.access.content(file, look)
        if content is None:
            # It cannot be looked into now, and there is no sign that it is another one.
            return True
        try:
            return logfiles.holds(content, position)
        except OSError as error:
            self.access.broken(file, error, look)
            return True

    def _read_deleted(
        self,
        position: Position,
        groups: dict[str, list[File]],
        positions: dict[Key, Position],
    ) -> None:
        """A file without a name that we still hold open: read it until nobody writes to it."""
        content = self.access.held((position.device, position.inode))
        source = self.source_of(position.path)
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
        look: Look,
    ) -> None:
        """Give every file that nobody knows its place: a copy, an old one, or a new generation."""
        unknown = [file for file in files.values() if file.position is None]
        for file in unknown:
            if self.access.is_passed_over(file):
                continue
            looked_at = look.looked.get(file.source.pattern)
            if looked_at is not None and file.status.st_size == 0:
                continue  # nothing in it to recognise it by yet
            if file.archive and looked_at is None:
                self.access.pass_over(file)
                continue  # it was compressed before we were here
            if self.access.content(file, look) is None and looked_at is not None:
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
                    self.access.pass_over(file)
                    self.access.close(file.inode)
                    continue  # it had been read, or was there before us
                elif self._is_copy_of_a_live_one(file, groups, look):
                    continue  # it counts once its original is truncated
                else:
                    position = heads[file.inode]
            except OSError as error:
                self.access.broken(file, error, look)
                continue
            file.position = position
            groups.setdefault(position.path, []).append(file)
        for file in unknown:
            if file.position is not None:
                look.positions[file.position.key] = file.position

    def _moved(self, file: File, position: Position, look: Look) -> Position:
        """The position in the file that its generation was copied to, or compressed into."""
        size, packed = file.status.st_size, 0
        content = self.access.content(file, look)
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

    def _first_sight(self, file: File, look: Look) -> Position:
        """Where to begin with a file that was there before we were."""
        size = file.status.st_size
        start = max(0, size - file.source.tail) if file.main else size
        begin = max(0, start - 1)  # the byte before tells whether a line begins here
        position = Position(
            file.path, file.status.st_dev, file.status.st_ino, begin, skipping=start > 0, size=size
        )
        if not file.main:
            position = dataclasses.replace(position, offset=size, skipping=False)
        content = self.access.content(file, look)
        return position if content is None else fingerprinted(position, content)

    def _original(self, file: File, gone: Iterable[Position], look: Look) -> Position | None:
        """The vanished generation whose content this file holds, at least as far as it was read."""
        for position in gone:
            if position.head_length and logfiles.is_related(position.path, file):
                content = self.access.content(file, look)
                if content is not None and (
                    _holds(file, content, position) or _holds_less(file, content, position)
                ):
                    return position
        return None

    def _is_copy_of_a_live_one(
        self, file: File, groups: Mapping[str, list[File]], look: Look
    ) -> bool:
        """Copied and not yet truncated: what it holds is still read under its own name."""
        content = self.access.content(file, look)
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
            live = self.access.content(other, look)
            if live is None or other.status.st_size < size:
                continue
            if live.read(0, length) == content.read(0, length) and live.read(
                size - length, length
            ) == content.read(size - length, length):
                return True
        return False

    def _miss(self, gone: Iterable[Position], look: Look) -> None:
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

    def _gap(self, position: Position, look: Look) -> None:
        source = self.source_of(position.path)
        if source is None or not (position.offset or position.size):
            return
        self.gaps += 1
        text = (
            f"{position.path} was truncated or replaced, and its old content was not kept: "
            "lines written shortly before may be missing"
        )
        log.warning("%s", text)
        look.say(text, source.service, position.path)


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
