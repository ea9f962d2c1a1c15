"""The bounded buffer on disk: what was seen and not yet acknowledged, and how far logs are read.

One SQLite file holds both, so that a report and the positions up to which its log events were read
are one transaction: whatever kills the agent, a line is in the spool or still to be read, never
both and never neither. It is written with `synchronous = FULL`: at one commit a cycle the fsync
costs nothing that matters, and without it a power cut could take back a sequence number that the
server has already seen, so that the next report under it would be taken for a duplicate.

A disk that is full costs nothing that is in the spool, and does not end it: the journal and some
free pages have their place on the disk before they are needed, so that a server that answers is
still reported to; and the file takes no page for which the disk may have no place, since with a
journal that cannot be written back nothing could be let go of either.

The bound is one on the disk: it holds for the file with its journal. Where it is reached, the
oldest points go first, then the oldest log events, the least important level first; critical events
go last. All of it is counted.
"""

from __future__ import annotations

import contextlib
import dataclasses
import glob
import json
import logging
import os
import resource
import sqlite3
import threading
import time
import uuid
import zlib
from typing import Any, Callable, Iterable, Iterator, Mapping, Sequence

from agent_client.wire import LEVELS

log = logging.getLogger("sentinella.spool")

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS reports (
    sequence INTEGER PRIMARY KEY, at REAL NOT NULL, size INTEGER NOT NULL,
    points INTEGER NOT NULL, events INTEGER NOT NULL, plain INTEGER NOT NULL, body BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS reports_with_points ON reports (sequence) WHERE points > 0;
CREATE TABLE IF NOT EXISTS levels (
    level INTEGER NOT NULL, sequence INTEGER NOT NULL, PRIMARY KEY (level, sequence)
) WITHOUT ROWID;
CREATE TRIGGER IF NOT EXISTS report_gone AFTER DELETE ON reports BEGIN
    DELETE FROM levels WHERE level IN (0, 1, 2, 3, 4) AND sequence = OLD.sequence;
END;
CREATE TABLE IF NOT EXISTS positions (
    name TEXT PRIMARY KEY, value TEXT NOT NULL
) WITHOUT ROWID;
"""

#: Small, so that a report wastes little of its last page.
_PAGE_SIZE = 1024
#: Part of the bound that is kept for SQLite's journal, and the most that it may be, in bytes.
_JOURNAL_SHARE = 8
_LARGEST_JOURNAL = 1024 * 1024
#: Places where sequences may be missing; the server takes a thousand.
_MOST_GAPS = 400
#: What the journal's index takes beside it, in bytes.
_JOURNAL_INDEX = 32 * 1024
#: Part of the bound that the file keeps although nothing is in it, and the most of it, in bytes.
_KEPT_SHARE = 32
_LARGEST_KEPT = 256 * 1024


class SpoolUnusable(Exception):
    """The spool cannot be opened or written, for a reason that the operator must mend."""


class SpoolCorrupt(Exception):
    """The file is damaged; it has to be set aside and a new epoch begun."""


@dataclasses.dataclass(frozen=True)
class Waiting:
    """What is still to be sent."""

    reports: int
    bytes: int
    oldest_at: float | None


@dataclasses.dataclass(frozen=True)
class Losses:
    """What this spool had to give up, and what the server refused; running totals.

    `reports` are those of which nothing is left; the levels add up to `events`.
    """

    reports: int = 0
    points: int = 0
    events: int = 0
    rejected: int = 0
    critical: int = 0
    error: int = 0
    warning: int = 0
    info: int = 0
    debug: int = 0

    def told(self) -> str:
        """In words: what is gone, the worst last."""
        levels = [f"{getattr(self, level)} {level}" for level in reversed(LEVELS)]
        said = ", ".join(text for text in levels if not text.startswith("0 "))
        events = f"{self.events} log events" + (f" ({said})" if said else "")
        return f"{self.points} points and {events} were dropped, {self.reports} reports as a whole"


@dataclasses.dataclass(frozen=True)
class Stored:
    """One report as it waits. `plain` is its size as JSON text, in bytes."""

    sequence: int
    plain: int
    body: bytes
    epoch: str

    def json(self) -> bytes:
        """The report as JSON text."""
        return zlib.decompress(self.body)


class Spool:
    """Safe to use from several threads. Every method raises SpoolCorrupt or SpoolUnusable."""

    def __init__(
        self,
        directory: str,
        max_bytes: int = 64 * 1024**2,
        max_age: float = 3 * 86_400.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.path = os.path.join(directory, "spool.db")
        self.max_bytes = max_bytes
        self.max_age = max_age
        self._clock = clock
        self._lock = threading.RLock()
        #: True when a damaged file was found and set aside at opening.
        self.began_anew = False
        #: Reports that could be taken over from the damaged file.
        self.saved = 0
        #: What the host is was dropped with a report and has to be sent again.
        self.specs_lost = False
        #: Reports that are being sent: they are not touched.
        self._in_flight: tuple[int, int] | None = None
        try:
            os.makedirs(directory, mode=0o700, exist_ok=True)
        except OSError as error:
            raise SpoolUnusable(f"{directory}: {error.strerror}") from None
        try:
            self._db = self._open()
        except SpoolCorrupt as damage:
            aside = self._set_aside(damage)
            self._db = self._open()
            self._save_from(aside)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock, _translated(self.path):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    def _open(self) -> sqlite3.Connection:
        # Journal and index are made with the rights of the file.
        try:
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600))
            os.chmod(self.path, 0o600)
        except OSError as error:
            raise SpoolUnusable(f"{self.path}: {error.strerror}") from None
        with _translated(self.path):
            db = sqlite3.connect(
                self.path, timeout=10.0, isolation_level=None, check_same_thread=False
            )
            try:
                disk = os.statvfs(os.path.dirname(self.path))
                place = min(self.max_bytes, disk.f_blocks * disk.f_frsize)
                journal = min(_LARGEST_JOURNAL, place // _JOURNAL_SHARE)
                db.execute(f"PRAGMA page_size = {_PAGE_SIZE}")  # of a new file alone
                db.execute("PRAGMA auto_vacuum = INCREMENTAL")
                db.execute("PRAGMA journal_mode = WAL")
                db.execute("PRAGMA synchronous = FULL")
                self._page_size = int(db.execute("PRAGMA page_size").fetchone()[0])
                self._journal_bytes = journal
                db.execute(f"PRAGMA journal_size_limit = {journal}")
                db.execute(f"PRAGMA wal_autocheckpoint = {max(4, journal // 2 // self._page_size)}")
                db.execute("PRAGMA cache_size = -512")
                verdict = db.execute("PRAGMA quick_check(1)").fetchone()[0]
                if verdict != "ok":
                    raise SpoolCorrupt(verdict)
                db.executescript("BEGIN IMMEDIATE;" + _SCHEMA + "COMMIT;")
                self._kept_pages = min(_LARGEST_KEPT, place // _KEPT_SHARE) // self._page_size
                # On a full disk it is taken bit by bit.
                with contextlib.suppress(OSError), open(self.path + "-wal", "rb+") as file:
                    os.posix_fallocate(file.fileno(), 0, journal)
                self._take_place(db)
                made = uuid.uuid4().hex
                db.execute("INSERT OR IGNORE INTO meta VALUES ('epoch', ?)", (made,))
                row = db.execute("SELECT value FROM meta WHERE name = 'epoch'").fetchone()
                self.epoch: str = row[0]
                #: In how many places sequences are missing between those that wait, about.
                self._gaps = db.execute(
                    "SELECT count(*) FROM reports one WHERE NOT EXISTS"
                    " (SELECT 1 FROM reports two WHERE two.sequence = one.sequence - 1)"
                ).fetchone()[0]
                self._reports, self._bytes = db.execute(
                    "SELECT count(*), total(size) FROM reports"
                ).fetchone()
            except BaseException:
                db.close()
                raise
        self._bytes = int(self._bytes)
        return db

    def _take_place(self, db: sqlite3.Connection) -> None:
        """Have the disk set aside what a few reports need, as far as it has it."""
        missing = self._kept_pages - db.execute("PRAGMA freelist_count").fetchone()[0]
        if missing <= self._kept_pages // 2:
            return
        self._bound_by_disk(db)
        db.execute("BEGIN IMMEDIATE")
        try:
            size = missing * self._page_size
            db.execute("INSERT INTO meta VALUES ('place', zeroblob(?))", (size,))
            db.execute("DELETE FROM meta WHERE name = 'place'")
            db.execute("COMMIT")
        except sqlite3.OperationalError as error:
            log.debug("%s: no place is set aside: %s", self.path, error)
            if db.in_transaction:
                db.execute("ROLLBACK")
        self._write_back(db)

    def _write_back(self, db: sqlite3.Connection) -> None:
        """Give the file what it has grown by, while the disk has it."""
        # It stays in the journal where that cannot be done.
        with contextlib.suppress(sqlite3.OperationalError, FileNotFoundError):
            pages = db.execute("PRAGMA page_count").fetchone()[0]
            if os.stat(self.path).st_size < pages * self._page_size:
                db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def _bound_by_disk(self, db: sqlite3.Connection) -> None:
        """Let the file grow by no more than the disk has left beside the journal."""
        try:
            disk, file = os.statvfs(self.path), os.stat(self.path)
            journal = os.stat(self.path + "-wal")
        except FileNotFoundError:
            return  # somebody tidied up: what we hold open goes on until we end
        left = disk.f_bavail * disk.f_frsize + journal.st_blocks * 512
        most = file.st_blocks * 512 + max(0, left - self._journal_bytes - _JOURNAL_INDEX)
        limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
        if limit != resource.RLIM_INFINITY:
            most = min(most, limit)
        # One that is less than there are pages now means no more of them.
        db.execute(f"PRAGMA max_page_count = {max(1, most // self._page_size)}").fetchone()

    def _set_aside(self, damage: Exception) -> str:
        for old in glob.glob(glob.escape(self.path) + ".damaged-*"):
            os.unlink(old)
        aside = f"{self.path}.damaged-{int(self._clock())}"
        os.replace(self.path, aside)
        if os.path.exists(self.path + "-wal"):  # it may hold what the file does not yet
            os.replace(self.path + "-wal", aside + "-wal")
        if os.path.exists(self.path + "-shm"):
            os.unlink(self.path + "-shm")
        self.began_anew = True
        log.error("spool is damaged (%s): set aside as %s, a new one begins", damage, aside)
        return aside

    def begin_anew(self, damage: Exception) -> None:
        """Set a file aside that turned out damaged while running, and begin a new epoch."""
        with self._lock:
            self._db.close()
            aside = self._set_aside(damage)
            self._db = self._open()
            self._save_from(aside)

    def _save_from(self, aside: str) -> None:
        """Take over what can still be read of a damaged file.

        Reports keep the epoch and sequence that stand in them, so that one the server has already
        is still known to it; new ones are numbered after them.
        """
        self.saved = 0
        sequences: set[int] = set()
        kept: list[tuple[Any, ...]] = []
        positions: dict[str, str | None] = {}
        counts: dict[str, str] = {}

        def read(old: sqlite3.Connection, query: str) -> Iterator[Any]:
            try:
                yield from old.execute(query)
            except sqlite3.Error as error:
                log.warning("%s: not all could be read: %s", aside, error)

        with contextlib.closing(sqlite3.connect(aside)) as old:
            positions.update(read(old, "SELECT name, value FROM positions"))
            counts.update(read(old, "SELECT name, value FROM meta"))
            for direction in ("ASC", "DESC"):  # from both ends up to the damage
                query = f"SELECT sequence FROM reports ORDER BY sequence {direction}"  # noqa: S608
                sequences.update(row[0] for row in read(old, query))
            for sequence in sorted(sequences):
                with contextlib.suppress(sqlite3.Error, zlib.error, ValueError, TypeError):
                    row = old.execute(
                        "SELECT sequence, at, size, points, events, plain, body FROM reports"
                        " WHERE sequence = ?",
                        (sequence,),
                    ).fetchone()
                    report = json.loads(zlib.decompress(row[6]))
                    if report["sequence"] == sequence:
                        kept.append((row, report))
        with self._transaction() as db:
            for row, report in kept:
                self._insert(db, row, report)
            highest = max([int(counts.get("sequence", "0")), *(row[0] for row, _ in kept)])
            self._set_meta(db, "sequence", str(highest))
            self._set_positions(db, positions)
            for name, value in counts.items():
                if name.startswith(("dropped_", "untold_")) or name in ("rejected", "sent"):
                    self._set_meta(db, name, value)
        self.saved = len(kept)
        self._reports += len(kept)
        self._bytes += sum(row[2] for row, _ in kept)

    def append(
        self,
        at: float,
        build: Callable[[int], tuple[Mapping[str, Any], int, int]],
        positions: Mapping[str, str | None],
        told: Losses | None = None,
    ) -> int:
        """Store one report and the log positions that go with it; returns its sequence.

        `build` is given the sequence and returns the report with its numbers of points and
        events. A position that is None is forgotten; `told` are the losses that the report tells
        of. The oldest reports make room.
        """
        with self._lock:
            with _translated(self.path):
                self._take_place(self._db)
            with self._transaction() as db:
                sequence = int(self._meta(db, "sequence", "0")) + 1
                report, points, events = build(sequence)
                text = json.dumps(report, separators=(",", ":"), allow_nan=False).encode()
                body = zlib.compress(text, 6)
                if told is not None:
                    self._told(db, told)
                gone = self._make_room(db, len(body))
                self._bound_by_disk(db)
                row = (sequence, at, len(body), points, events, len(text), body)
                self._insert(db, row, report)
                self._set_meta(db, "sequence", str(sequence))
                self._set_positions(db, positions)
            self._reports += 1 - gone[0]
            self._bytes += len(body) - gone[1]
            self._write_back(self._db)
            return sequence

    def store_positions(self, positions: Mapping[str, str | None]) -> None:
        """Store log positions alone, where nothing was read that a report has to carry."""
        with self._transaction() as db:
            self._set_positions(db, positions)

    @staticmethod
    def _set_positions(db: sqlite3.Connection, positions: Mapping[str, str | None]) -> None:
        for name, value in positions.items():
            if value is None:
                db.execute("DELETE FROM positions WHERE name = ?", (_bound(name),))
            else:
                row = (_bound(name), _bound(value))
                db.execute("INSERT OR REPLACE INTO positions VALUES (?, ?)", row)

    @staticmethod
    def _insert(db: sqlite3.Connection, row: Sequence[Any], report: Mapping[str, Any]) -> None:
        db.execute("INSERT INTO reports VALUES (?, ?, ?, ?, ?, ?, ?)", row)
        _note_levels(db, row[0], report.get("events", ()))

    def _make_room(self, db: sqlite3.Connection, size: int) -> tuple[int, int]:
        """Drop what is too old, then the least important until `size` bytes more fit.

        Returns how many reports and bytes of them are gone; counts are in `meta`.
        """
        too_old = db.execute(
            "SELECT sequence, at, size, points, events FROM reports WHERE at < ?",
            (self._clock() - self.max_age,),
        ).fetchall()
        gone, freed = len(too_old), sum(row[2] for row in too_old)
        if too_old:
            self._give_up(db, too_old)
        needed = _ROW_COST * (size + self._page_size)
        share = self.max_bytes // _JOURNAL_SHARE
        room = self.max_bytes - min(_LARGEST_JOURNAL, share) - min(_JOURNAL_INDEX, share)
        room -= self._kept_pages * self._page_size
        while self._used(db) + needed > room:
            least = self._least_important(db)
            if least is None:
                break
            whole, bytes_less = self._thin_out(db, *least)
            gone, freed = gone + whole, freed + bytes_less
        return gone, freed

    def _used(self, db: sqlite3.Connection) -> int:
        """Bytes of the file that hold something."""
        pages = db.execute("PRAGMA page_count").fetchone()[0]
        return int(pages - db.execute("PRAGMA freelist_count").fetchone()[0]) * self._page_size

    def _least_important(self, db: sqlite3.Connection) -> tuple[int, int | None] | None:
        """The report to take from next, and the level of the events; None means its points."""
        first, last = self._in_flight or (0, 0)
        for sent_too in (False, True):  # those under way only where nothing else is left
            spared = "" if sent_too else f" AND sequence NOT BETWEEN {first} AND {last}"
            order = f"{spared} ORDER BY sequence LIMIT 1"
            row = db.execute(f"SELECT sequence FROM reports WHERE points > 0{order}").fetchone()  # noqa: S608
            if row is not None:
                return int(row[0]), None
            for level in range(len(LEVELS) - 1, -1, -1):
                row = db.execute(
                    f"SELECT sequence FROM levels WHERE level = ?{order}",  # noqa: S608
                    (level,),
                ).fetchone()
                if row is not None:
                    return int(row[0]), level
            row = db.execute(f"SELECT sequence FROM reports WHERE 1{order}").fetchone()  # noqa: S608
            if row is not None:
                return int(row[0]), None
        return None

    def _thin_out(
        self, db: sqlite3.Connection, sequence: int, level: int | None
    ) -> tuple[int, int]:
        """Take the points, or the events of one level, out of a report; drop it where none is left.

        Returns how many reports (0 or 1) and how many bytes are gone.
        """
        row = db.execute(
            "SELECT sequence, at, size, points, events, plain, body FROM reports"
            " WHERE sequence = ?",
            (sequence,),
        ).fetchone()
        report = json.loads(zlib.decompress(row[6]))
        events = report.get("events", [])
        if level is None:
            kept, lost = events, Losses(points=row[3])
        else:
            kept = [event for event in events if event["level"] != LEVELS[level]]
            lost = _losses_of_events(row[4] - len(kept), {LEVELS[level]: len(events) - len(kept)})
        points = 0 if level is None else row[3]
        if not kept and not points and "specs" in report:
            self.specs_lost = True
        was_empty = not row[3] and not row[4]
        if not kept and not points and (was_empty or self._may_go(db, sequence)):
            if level is None:
                lost = dataclasses.replace(lost, events=row[4])
            db.execute("DELETE FROM reports WHERE sequence = ?", (sequence,))
            self._count_lost(db, dataclasses.replace(lost, reports=1), row[1])
            return 1, row[2]
        left_out = ("events", "services", "specs") if not kept else ("events", "services")
        thin = {name: said for name, said in report.items() if name not in left_out}
        if level is None:
            thin.pop("points", None)
        elif "services" in report:
            thin["services"] = report["services"]
        thin["events"] = kept
        text = json.dumps(thin, separators=(",", ":"), allow_nan=False).encode()
        body = zlib.compress(text, 6)
        db.execute(
            "UPDATE reports SET size = ?, points = ?, events = ?, plain = ?, body = ?"
            " WHERE sequence = ?",
            (len(body), points, len(kept), len(text), body, sequence),
        )
        db.execute(
            "DELETE FROM levels WHERE level IN (0, 1, 2, 3, 4) AND sequence = ?", (sequence,)
        )
        _note_levels(db, sequence, kept)
        self._count_lost(db, lost, row[1])
        return 0, row[2] - len(body)

    def _may_go(self, db: sqlite3.Connection, sequence: int) -> bool:
        """Whether a report of which nothing is left goes, or stays as an empty one.

        The server remembers which sequences it has as ranges, and not any number of them: where
        many reports in between are missing, the empty ones keep the ranges together.
        """
        before, after, newest = db.execute(
            "SELECT sum(sequence = ?), sum(sequence = ?), max(sequence) FROM reports"
            " WHERE sequence IN (?, ?) OR sequence = (SELECT max(sequence) FROM reports)",
            (sequence - 1, sequence + 1, sequence - 1, sequence + 1),
        ).fetchone()
        if not before or not (after or newest == sequence):
            return True  # it begins what is left, or stands at a gap already
        if self._gaps >= _MOST_GAPS:
            return False
        self._gaps += 1
        return True

    def _give_up(self, db: sqlite3.Connection, rows: Sequence[tuple[Any, ...]]) -> None:
        """Delete reports (sequence, at, size, points, events) unsent and count them."""
        for sequence, at, _size, points, events in rows:
            levels: dict[str, int] = {}
            body = db.execute("SELECT body FROM reports WHERE sequence = ?", (sequence,)).fetchone()
            report = json.loads(zlib.decompress(body[0]))
            for event in report.get("events", ()):
                levels[event["level"]] = levels.get(event["level"], 0) + 1
            if "specs" in report:
                self.specs_lost = True
            lost = _losses_of_events(events, levels)
            self._count_lost(db, dataclasses.replace(lost, reports=1, points=points), at)
            db.execute("DELETE FROM reports WHERE sequence = ?", (sequence,))

    def _count_lost(self, db: sqlite3.Connection, lost: Losses, at: float) -> None:
        totals = {
            "dropped_" + name: number
            for name, number in dataclasses.asdict(lost).items()
            if name in _DROPPED
        }
        self._count(db, totals)
        self._count(db, {"untold_" + name: number for name, number in totals.items()})
        since = float(self._meta(db, "untold_since", "0")) or at
        self._set_meta(db, "untold_since", str(min(since, at)))
        until = float(self._meta(db, "untold_until", "0"))
        self._set_meta(db, "untold_until", str(max(until, at)))

    def untold_losses(self) -> tuple[Losses, float, float] | None:
        """What was dropped and not yet reported as an event: numbers, from when, until when."""
        with self._lock, _translated(self.path):
            losses = Losses(
                **{
                    name: int(self._meta(self._db, "untold_dropped_" + name, "0"))
                    for name in _DROPPED
                }
            )
            if losses == Losses():
                return None
            since = float(self._meta(self._db, "untold_since", "0"))
            return losses, since, float(self._meta(self._db, "untold_until", "0"))

    def _told(self, db: sqlite3.Connection, losses: Losses) -> None:
        numbers = dataclasses.asdict(losses)
        self._count(db, {"untold_dropped_" + name: -numbers[name] for name in _DROPPED})
        db.execute("DELETE FROM meta WHERE name IN ('untold_since', 'untold_until')")

    def newest(self, sequence: int) -> list[Stored]:
        """The report of this sequence if it still waits; it is under way until `release`."""
        self._in_flight = (sequence, sequence)
        return self._select("WHERE sequence = ?", (sequence,))

    def oldest(self, reports: int, plain_bytes: int) -> list[Stored]:
        """The oldest that wait, at least one if any, bounded in number and JSON size.

        They are under way until `release`, or until others are.
        """
        with self._lock, _translated(self.path):
            chosen: list[int] = []
            total = 0
            rows = self._db.execute("SELECT sequence, plain FROM reports ORDER BY sequence")
            for sequence, plain in rows:
                total += plain
                if chosen and (len(chosen) >= reports or total > plain_bytes):
                    break
                chosen.append(sequence)
            rows.close()
            if not chosen:
                return []
            self._in_flight = (chosen[0], chosen[-1])
            return self._select("WHERE sequence BETWEEN ? AND ?", (chosen[0], chosen[-1]))

    def release(self) -> None:
        """Nothing is under way any more."""
        self._in_flight = None

    def _select(self, where: str, values: Iterable[int]) -> list[Stored]:
        with self._lock, _translated(self.path):
            rows = self._db.execute(
                f"SELECT sequence, plain, body FROM reports {where} ORDER BY sequence",  # noqa: S608
                tuple(values),
            ).fetchall()
            return [Stored(row[0], row[1], row[2], self.epoch) for row in rows]

    def acknowledge(
        self, sequences: Sequence[int], rejected: int = 0, epoch: str | None = None
    ) -> None:
        """The server has these for good; `rejected` items of them it refused.

        Those of an `epoch` that ended while they were under way are gone already.
        """
        with self._lock:
            with self._transaction() as db:
                if epoch not in (None, self.epoch):
                    return
                sizes = self._remove(db, sequences)
                self._count(db, {"rejected": rejected, "sent": len(sequences)})
            self._reports -= len(sizes)
            self._bytes -= sum(sizes)
            if not self._reports:
                with self._lock, _translated(self.path):
                    free = self._db.execute("PRAGMA freelist_count").fetchone()[0]
                    if free > self._kept_pages:
                        pages = min(512, free - self._kept_pages)
                        self._db.execute(f"PRAGMA incremental_vacuum({pages})").fetchall()

    def refuse(self, sequence: int, epoch: str | None = None) -> None:
        """Drop a report that the server will never take, and count it as lost."""
        with self._lock:
            with self._transaction() as db:
                if epoch not in (None, self.epoch):
                    return
                rows = db.execute(
                    "SELECT sequence, at, size, points, events FROM reports WHERE sequence = ?",
                    (sequence,),
                ).fetchall()
                if rows:
                    self._give_up(db, rows)
            self._reports -= len(rows)
            self._bytes -= sum(row[2] for row in rows)

    @staticmethod
    def _remove(db: sqlite3.Connection, sequences: Sequence[int]) -> list[int]:
        sizes = []
        for sequence in sequences:
            row = db.execute("SELECT size FROM reports WHERE sequence = ?", (sequence,)).fetchone()
            if row is not None:
                sizes.append(int(row[0]))
                db.execute("DELETE FROM reports WHERE sequence = ?", (sequence,))
        return sizes

    def waiting(self) -> Waiting:
        """How much waits."""
        with self._lock, _translated(self.path):
            row = self._db.execute("SELECT at FROM reports ORDER BY sequence LIMIT 1").fetchone()
            return Waiting(self._reports, self._bytes, row[0] if row else None)

    def losses(self) -> Losses:
        """All that was lost since this spool was made."""
        with self._lock, _translated(self.path):
            return _losses(self._db)

    def sent(self) -> int:
        """Reports acknowledged since this spool was made."""
        with self._lock, _translated(self.path):
            return int(self._meta(self._db, "sent", "0"))

    def positions(self) -> dict[str, str]:
        """The log positions as stored with the last report."""
        with self._lock, _translated(self.path):
            rows = self._db.execute("SELECT name, value FROM positions").fetchall()
        return {_unbound(name): _unbound(value) for name, value in rows}

    def close(self) -> None:
        """Close the file; a later call of any other method is an error."""
        with self._lock:
            self._db.close()

    @staticmethod
    def _meta(db: sqlite3.Connection, name: str, default: str) -> str:
        row = db.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return str(row[0]) if row else default

    @staticmethod
    def _set_meta(db: sqlite3.Connection, name: str, value: str) -> None:
        db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))

    def _count(self, db: sqlite3.Connection, numbers: Mapping[str, int]) -> None:
        for name, number in numbers.items():
            if number:
                self._set_meta(db, name, str(int(self._meta(db, name, "0")) + number))


def peek(directory: str) -> tuple[Waiting, Losses, int] | None:
    """What waits, what was lost and how many reports were sent, read beside a running agent."""
    path = os.path.join(directory, "spool.db")
    if not os.path.exists(path):
        return None
    with _translated(path), contextlib.closing(sqlite3.connect(path, timeout=5.0)) as db:
        if db.execute("SELECT 1 FROM sqlite_master WHERE name = 'reports'").fetchone() is None:
            return None  # it is being made this moment
        count, size, oldest = db.execute(
            "SELECT count(*), total(size), min(at) FROM reports"
        ).fetchone()
        row = db.execute("SELECT value FROM meta WHERE name = 'sent'").fetchone()
        return Waiting(count, int(size), oldest), _losses(db), int(row[0]) if row else 0


def _losses(db: sqlite3.Connection) -> Losses:
    said = dict(db.execute("SELECT name, value FROM meta").fetchall())
    dropped = {name: int(said.get("dropped_" + name, 0)) for name in _DROPPED}
    return Losses(rejected=int(said.get("rejected", 0)), **dropped)


#: What is counted of what had to be dropped, by its name in `Losses`.
_DROPPED = ("reports", "points", "events", *LEVELS)
#: How much of the file a report takes at most, for each of its bytes.
_ROW_COST = 1.05


def _losses_of_events(events: int, levels: Mapping[str, int]) -> Losses:
    return dataclasses.replace(Losses(events=events), **levels)


def _note_levels(db: sqlite3.Connection, sequence: int, events: Iterable[Any]) -> None:
    """Remember which levels a report holds, so that the least important is found at once."""
    levels = {LEVELS.index(event["level"]) for event in events}
    db.executemany("INSERT INTO levels VALUES (?, ?)", [(level, sequence) for level in levels])


@contextlib.contextmanager
def _translated(path: str) -> Iterator[None]:
    """SQLite's errors as what they mean: a damaged file, or one that cannot be used now."""
    try:
        yield
    except sqlite3.OperationalError as error:
        if "malformed" in str(error):
            raise SpoolCorrupt(str(error)) from error
        raise SpoolUnusable(f"{path}: {error}") from error
    except (sqlite3.DatabaseError, zlib.error) as error:
        raise SpoolCorrupt(str(error)) from error


def _bound(text: str | bytes) -> str | bytes:
    """A text as SQLite takes it; a file's name may be bytes that are no text, and stays those."""
    if isinstance(text, str):
        try:
            text.encode()
        except UnicodeEncodeError:
            return text.encode("utf-8", "surrogateescape")
    return text


def _unbound(stored: str | bytes) -> str:
    return stored.decode("utf-8", "surrogateescape") if isinstance(stored, bytes) else stored
