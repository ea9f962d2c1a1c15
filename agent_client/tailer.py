"""Follows log files through rotation, truncation and restarts: nothing lost, nothing twice.

Which of them is where after a rotation, `generations` finds out, and `logaccess` holds them open.

Nothing is remembered before it is stored: `poll` returns events and positions, the caller puts both
into the spool in one transaction and then calls `accept`. An event whose continuation (a traceback)
may still be coming is not consumed: the position stays at its beginning.
"""

from __future__ import annotations

import dataclasses
import glob
import logging
from typing import Iterable, Mapping, Sequence

from agent_client import logfiles, logformats
from agent_client.config import LogSource
from agent_client.generations import Generations
from agent_client.journal import Journal, JournalPoll, path_of
from agent_client.logaccess import Access, FileState
from agent_client.logfiles import FINGERPRINT, Archive, File, Key, Position
from agent_client.loglimit import Buckets, Limiter
from agent_client.logreader import Budget, Entry, Outlet, Reader
from agent_client.look import Look
from agent_client.wire import LEVELS

log = logging.getLogger("sentinella.tailer")

#: How long the position of a file that nobody asks for is kept: a service may come back.
_FORGET_UNFOLLOWED_AFTER = 7 * 86_400.0

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
        self._access = Access()
        self._generations = Generations(self._access)
        self._turn = 0
        self._store_all = False
        for name, value in stored.items():
            kind, _, rest = name.partition(":")
            if kind == "pattern":
                self._looked[rest] = float(value)
            elif kind == "unreadable":
                self._told[rest] = value
            elif kind == "file":
                position = logfiles.read_position(value)
                self._parked[position.key] = position

    @property
    def states(self) -> dict[str, FileState]:
        """How each followed path fares."""
        return self._access.states

    @property
    def gaps(self) -> int:
        """How often lines may have been lost."""
        return self._generations.gaps

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
        look = Look(self._positions, self._looked, self._told, Limiter(self._buckets), now)
        budget = Budget(events, size)
        # An event or two of the looking itself may come on top: a gap is worth saying.
        groups = self._generations.place(look)
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
        live |= self._generations.unplaced
        self._access.close_all_but(live)
        self._generations.note_drained(poll.drained, self._positions)

    def store_all(self) -> None:
        """What was stored is lost: the next poll brings every position again."""
        self._store_all = True

    def close(self) -> None:
        """Close all files."""
        self._access.close_all_but(())
        self._journal.close()

    def _take_up(self, sources: Sequence[LogSource], now: float) -> None:
        """Sort what is known by whether these sources ask for it, and forget what none did long."""
        self._taken = sources
        self._generations.sources = [found for source in sources for found in _files_of(source)]
        known = {**self._parked, **self._positions}
        self._parked, self._positions = {}, {}
        for key, position in known.items():
            if self._generations.source_of(position.path) is not None:
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
        wanted = {source.pattern for source in self._generations.sources}
        for pattern, looked_at in list(self._looked.items()):
            if pattern not in wanted and now - looked_at > _FORGET_UNFOLLOWED_AFTER:
                del self._looked[pattern]
                self._taken_up["pattern:" + pattern] = None
        for inode in {key[1:] for key in self._parked}:
            self._access.close(inode)
        self._generations.note_drained({}, self._positions)
        self._access.states = {
            path: state
            for path, state in self.states.items()
            if path in wanted or self._generations.source_of(path) is not None
        }
        for source in self._journal.sources:
            path = path_of(source)
            self.states.setdefault(path, FileState(path, source.service))

    def _read_group(self, files: list[File], look: Look, budget: Budget) -> bool:
        """Read the generations of one path, oldest first; True if something is left for later."""
        files = logfiles.in_order(files)
        for at, file in enumerate(files):
            position = file.position
            if position is None or self._generations.drained.get(position.key) == file.seen:
                continue
            if position.packed and position.offset >= position.size:
                continue
            if self._access.is_passed_over(file):
                continue
            content = self._access.content(file, look)
            if content is None:
                continue
            if isinstance(content, Archive):
                try:
                    if not look.prepares(content, max(0, position.offset - FINGERPRINT)):
                        return True
                except OSError as error:
                    self._access.broken(file, error, look)
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
                self._access.broken(file, error, look)
                continue
            if after is None:
                outlet.take_back()  # truncated while we read: the next look finds the copy
                continue
            look.positions[after.key] = after
            state.behind = max(0, reader.size - after.offset)
            if after.offset == reader.size and (after.packed or reader.size == file.seen[0]):
                look.drained[after.key] = file.seen
                if rotated and not file.main and file.name:
                    self._access.close(file.inode)
            if reader.stopped_early:
                return True
        return False

    def _read_journal(self, look: Look, budget: Budget) -> JournalPoll:
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

    def _tell_copied(self, look: Look) -> None:
        """Say where lines may be missing that nobody could read: a possible gap, and no more."""
        for path, times in look.copied.items():
            source = self._generations.source_of(path)
            text = (
                f"{path} was rotated by copying and truncating"
                + (f" {times} times" if times > 1 else "")
                + ": what was written in between is in no file and may be missing"
            )
            look.say(text, source.service if source else "", path, "info")

    def _tell_dropped(self, look: Look) -> None:
        """Say what the limits left out in this look."""
        for path, levels in look.limiter.dropped.items():
            in_journal = [s for s in self._journal.sources if path_of(s) == path]
            source = in_journal[0] if in_journal else self._generations.source_of(path)
            if source is not None:
                look.say(look.limiter.told(path, source.limit), source.service, path)
                self.states[path].dropped += sum(levels.values())


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
