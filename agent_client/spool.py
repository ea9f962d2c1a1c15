"""The bounded buffer on disk: what was seen and not yet acknowledged, and how far logs are read.

One SQLite file holds both, so that a report and the positions up to which its log events were read
are one transaction: whatever kills the agent, a line is in the spool or still to be read, never
both and never neither. It is written with `synchronous = FULL`: at one commit a cycle the fsync
costs nothing that matters, and without it a power cut could take back a sequence number that the
server has already seen, so that the next report under it would be taken for a duplicate.
"""

from __future__ import annotations

import contextlib
import dataclasses
import glob
import json
import logging
import os
import sqlite3
import threading
import time
import uuid
import zlib
from typing import Any, Callable, Iterable, Iterator, Mapping, Sequence

log = logging.getLogger("sentinella.spool")

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS reports (
    sequence INTEGER PRIMARY KEY, at REAL NOT NULL, size INTEGER NOT NULL,
    points INTEGER NOT NULL, events INTEGER NOT NULL, plain INTEGER NOT NULL, body BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS positions (
    name TEXT PRIMARY KEY, value TEXT NOT NULL
) WITHOUT ROWID;
"""


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
    """What this spool had to give up, and what the server refused; running totals."""

    reports: int = 0
    points: int = 0
    events: int = 0
    rejected: int = 0


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
        try:
            os.makedirs(directory, mode=0o700, exist_ok=True)
        except OSError as error:
            raise SpoolUnusable(f"{directory}: {error.strerror}") from None
        try:
            self._db = self._open()
        except SpoolCorrupt as damage:
            self._set_aside(damage)
            self._db = self._open()

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
        with _translated(self.path):
            db = sqlite3.connect(
                self.path, timeout=10.0, isolation_level=None, check_same_thread=False
            )
            try:
                db.execute("PRAGMA auto_vacuum = INCREMENTAL")
                db.execute("PRAGMA journal_mode = WAL")
                db.execute("PRAGMA synchronous = FULL")
                db.execute("PRAGMA journal_size_limit = 1048576")
                db.execute("PRAGMA cache_size = -512")
                verdict = db.execute("PRAGMA quick_check(1)").fetchone()[0]
                if verdict != "ok":
                    raise SpoolCorrupt(verdict)
                db.executescript("BEGIN IMMEDIATE;" + _SCHEMA + "COMMIT;")
                made = uuid.uuid4().hex
                db.execute("INSERT OR IGNORE INTO meta VALUES ('epoch', ?)", (made,))
                row = db.execute("SELECT value FROM meta WHERE name = 'epoch'").fetchone()
                self.epoch: str = row[0]
                self._reports, self._bytes = db.execute(
                    "SELECT count(*), total(size) FROM reports"
                ).fetchone()
            except BaseException:
                db.close()
                raise
        os.chmod(self.path, 0o600)
        self._bytes = int(self._bytes)
        return db

    def _set_aside(self, damage: Exception) -> None:
        for old in glob.glob(glob.escape(self.path) + ".damaged-*"):
            os.unlink(old)
        aside = f"{self.path}.damaged-{int(self._clock())}"
        os.replace(self.path, aside)
        for suffix in ("-wal", "-shm"):
            if os.path.exists(self.path + suffix):
                os.unlink(self.path + suffix)
        self.began_anew = True
        log.error("spool is damaged (%s): set aside as %s, a new one begins", damage, aside)

    def begin_anew(self, damage: Exception) -> None:
        """Set a file aside that turned out damaged while running, and begin a new epoch."""
        with self._lock:
            self._db.close()
            self._set_aside(damage)
            self._db = self._open()

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
            with self._transaction() as db:
                sequence = int(self._meta(db, "sequence", "0")) + 1
                report, points, events = build(sequence)
                text = json.dumps(report, separators=(",", ":"), allow_nan=False).encode()
                body = zlib.compress(text, 6)
                if told is not None:
                    self._told(db, told)
                gone = self._make_room(db, len(body))
                db.execute(
                    "INSERT INTO reports VALUES (?, ?, ?, ?, ?, ?, ?)",
                    (sequence, at, len(body), points, events, len(text), body),
                )
                self._set_meta(db, "sequence", str(sequence))
                self._set_positions(db, positions)
            self._reports += 1 - gone[0]
            self._bytes += len(body) - gone[1]
            return sequence

    def store_positions(self, positions: Mapping[str, str | None]) -> None:
        """Store log positions alone, where nothing was read that a report has to carry."""
        with self._transaction() as db:
            self._set_positions(db, positions)

    @staticmethod
    def _set_positions(db: sqlite3.Connection, positions: Mapping[str, str | None]) -> None:
        for name, value in positions.items():
            if value is None:
                db.execute("DELETE FROM positions WHERE name = ?", (name,))
            else:
                db.execute("INSERT OR REPLACE INTO positions VALUES (?, ?)", (name, value))

    def _make_room(self, db: sqlite3.Connection, size: int) -> tuple[int, int]:
        """Drop what is too old, then the oldest until `size` bytes fit; counts in `meta`."""
        oldest_allowed = self._clock() - self.max_age
        gone: list[tuple[int, float, int, int, int]] = []
        held = self._bytes
        rows = db.execute(
            "SELECT sequence, at, size, points, events FROM reports ORDER BY sequence"
        )
        for row in rows:
            if row[1] >= oldest_allowed and held + size <= self.max_bytes:
                break
            gone.append(row)
            held -= row[2]
        rows.close()
        if not gone:
            return 0, 0
        self._give_up(db, gone)
        return len(gone), sum(row[2] for row in gone)

    def _give_up(self, db: sqlite3.Connection, rows: Sequence[tuple[Any, ...]]) -> None:
        """Delete reports (sequence, at, size, points, events) unsent and count them."""
        db.executemany("DELETE FROM reports WHERE sequence = ?", [(row[0],) for row in rows])
        totals = {
            "dropped_reports": len(rows),
            "dropped_points": sum(row[3] for row in rows),
            "dropped_events": sum(row[4] for row in rows),
        }
        self._count(db, totals)
        self._count(db, {"untold_" + name: number for name, number in totals.items()})
        since, until = min(row[1] for row in rows), max(row[1] for row in rows)
        untold_since = float(self._meta(db, "untold_since", "0")) or since
        self._set_meta(db, "untold_since", str(min(since, untold_since)))
        untold_until = float(self._meta(db, "untold_until", "0"))
        self._set_meta(db, "untold_until", str(max(until, untold_until)))

    def untold_losses(self) -> tuple[Losses, float, float] | None:
        """What was dropped and not yet reported as an event: numbers, from when, until when."""
        with self._lock, _translated(self.path):
            reports = int(self._meta(self._db, "untold_dropped_reports", "0"))
            if not reports:
                return None
            losses = Losses(
                reports,
                int(self._meta(self._db, "untold_dropped_points", "0")),
                int(self._meta(self._db, "untold_dropped_events", "0")),
            )
            since = float(self._meta(self._db, "untold_since", "0"))
            return losses, since, float(self._meta(self._db, "untold_until", "0"))

    def _told(self, db: sqlite3.Connection, losses: Losses) -> None:
        self._count(
            db,
            {
                "untold_dropped_reports": -losses.reports,
                "untold_dropped_points": -losses.points,
                "untold_dropped_events": -losses.events,
            },
        )
        db.execute("DELETE FROM meta WHERE name IN ('untold_since', 'untold_until')")

    def newest(self, sequence: int) -> list[Stored]:
        """The report of this sequence if it still waits."""
        return self._select("WHERE sequence = ?", (sequence,))

    def oldest(self, reports: int, plain_bytes: int) -> list[Stored]:
        """The oldest that wait, at least one if any, bounded in number and JSON size."""
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
            return self._select("WHERE sequence BETWEEN ? AND ?", (chosen[0], chosen[-1]))

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
                    self._db.execute("PRAGMA incremental_vacuum(512)").fetchall()

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
            return dict(self._db.execute("SELECT name, value FROM positions").fetchall())

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
    names = ("dropped_reports", "dropped_points", "dropped_events", "rejected")
    return Losses(*(int(said.get(name, 0)) for name in names))


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
