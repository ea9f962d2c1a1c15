"""Group commit: reports that arrive together are written in one transaction.

One thread a process with a connection of its own takes what waits in a bounded queue, for at most
3 ms or 256 reports, and commits it. Whoever waits is answered after the commit, never before. When
a batch fails for what is in it, it is halved until the bad report stands alone; a database that
refuses everybody (a standby, a missing right) is unavailable.
"""

from __future__ import annotations

import os
import queue
import re
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any, Literal

import psycopg2
import structlog
from django.conf import settings
from django.db import connections
from django.db.utils import DatabaseError as DjangoDatabaseError
from django.db.utils import DataError as DjangoDataError
from django.db.utils import IntegrityError as DjangoIntegrityError
from django.db.utils import InterfaceError as DjangoInterfaceError
from psycopg2 import errors

from metrics import events, isolation, partitions, stores
from metrics.events import EventRow
from metrics.stores.base import Row
from sentinel_site.kit.problems import Problem

log = structlog.get_logger(__name__)

BATCH_REPORTS = 256
WINDOW = 0.003
ACKNOWLEDGE_WITHIN = 15.0
TRY_AFTER = 5.0
MAX_GAPS = 1_000
RETRY_AFTER = "5"

Outcome = Literal["stored", "duplicate", "gaps", "refused"]


class Busy(Problem):
    status, code, title = 503, "busy", "More is coming in than can be written"
    headers = {"Retry-After": RETRY_AFTER}


class Unavailable(Problem):
    status, code, title = 503, "unavailable", "The database does not answer"
    headers = {"Retry-After": RETRY_AFTER}


@dataclass(slots=True)
class Prepared:
    """One report, ready to be written; `outcome` is set when its fate is committed."""

    tenant_id: int
    source: str
    epoch: str
    sequence: int | None
    server_id: int
    received_at: datetime
    at: datetime
    facts: bytes
    specs_at: datetime | None = None
    rows: list[Row] = field(default_factory=list)
    events: list[EventRow] = field(default_factory=list)
    joins_events: bool = False
    outcome: Outcome | None = None


class _Work:
    """The reports of one request, and the thread that waits for them."""

    __slots__ = ("done", "error", "reports")

    def __init__(self, reports: list[Prepared]) -> None:
        self.reports = reports
        self.done = threading.Event()
        self.error: Problem | None = None


def commit(reports: list[Prepared], within: float = ACKNOWLEDGE_WITHIN) -> None:
    """Return when every report's outcome is committed.

    Raises Busy when the queue is full or that takes longer than `within` seconds, and Unavailable
    when the database is away; then the reports may or may not be stored, and sending them again
    does no harm.
    """
    if not reports:
        return
    if settings.COMMIT_INLINE:
        _commit_inline(reports)
    else:
        _of_this_process().commit(reports, within)


# -- one transaction ----------------------------------------------------------

_LOCK_SOURCES = """
SELECT s.tenant_id, s.source, s.epoch, s.stored::text FROM public.metrics_source s
JOIN unnest(%s::bigint[], %s::text[], %s::text[]) AS g(tenant_id, source, epoch)
  USING (tenant_id, source, epoch)
ORDER BY 1, 2, 3 FOR UPDATE OF s
"""

_WRITE_SOURCES = """
INSERT INTO public.metrics_source AS s
  (tenant_id, source, epoch, server_id, received_at, at, facts, specs_at, stored)
SELECT * FROM unnest(%s::bigint[], %s::text[], %s::text[], %s::bigint[], %s::timestamptz[],
                     %s::timestamptz[], %s::bytea[], %s::timestamptz[], %s::int8multirange[])
ON CONFLICT (tenant_id, source, epoch) DO UPDATE SET
  server_id = excluded.server_id,
  received_at = greatest(s.received_at, excluded.received_at),
  facts = CASE WHEN excluded.at >= s.at THEN excluded.facts ELSE s.facts END,
  at = greatest(s.at, excluded.at),
  specs_at = greatest(s.specs_at, excluded.specs_at),
  stored = s.stored + excluded.stored
"""

_Key = tuple[int, str, str]


def write(reports: Sequence[Prepared], cursor: Any) -> None:
    """Write these reports in the cursor's transaction, each of them once, and set the outcomes."""
    isolation.name(cursor, sorted({report.tenant_id for report in reports}))
    keys = sorted({_key(report) for report in reports})
    cursor.execute(_LOCK_SOURCES, [list(column) for column in zip(*keys, strict=True)])
    stored = {(row[0], row[1], row[2]): _ranges(row[3]) for row in cursor.fetchall()}
    fresh = []
    new: dict[_Key, list[int]] = defaultdict(list)
    for report in reports:
        key = _key(report)
        report.outcome = _claim(report, stored.get(key, []), new[key])
        if report.outcome == "stored":
            fresh.append(report)
    stores.current().write([row for report in fresh for row in report.rows], cursor)
    events.append([row for r in fresh if not r.joins_events for row in r.events], cursor)
    events.join([row for r in fresh if r.joins_events for row in r.events], cursor)
    _write_sources(reports, new, cursor)


def _key(report: Prepared) -> _Key:
    return report.tenant_id, report.source, report.epoch


def _claim(report: Prepared, stored: list[tuple[int, int]], new: list[int]) -> Outcome:
    if report.sequence is None:
        return "stored"
    if report.sequence in new or any(a <= report.sequence < b for a, b in stored):
        return "duplicate"
    if len(stored) + len(new) > MAX_GAPS and not any(
        report.sequence in (a - 1, b) for a, b in stored
    ):
        return "gaps"
    new.append(report.sequence)
    return "stored"


def _write_sources(reports: Iterable[Prepared], new: dict[_Key, list[int]], cursor: Any) -> None:
    newest: dict[_Key, Prepared] = {}
    heard: dict[_Key, datetime] = {}
    specs: dict[_Key, datetime | None] = {}
    for report in reports:
        key = _key(report)
        specs[key] = max(filter(None, (specs.get(key), report.specs_at)), default=None)
        known = newest.get(key)
        if known is None or report.at >= known.at:
            newest[key] = report
        heard[key] = max(heard.get(key, report.received_at), report.received_at)
    rows = [
        (
            *key,
            newest[key].server_id,
            heard[key],
            newest[key].at,
            psycopg2.Binary(newest[key].facts),
            specs[key],
            "{" + ",".join(f"[{number},{number + 1})" for number in new[key]) + "}",
        )
        for key in sorted(newest)
    ]
    cursor.execute(_WRITE_SOURCES, [list(column) for column in zip(*rows, strict=True)])


def _ranges(text: str) -> list[tuple[int, int]]:
    """The half-open ranges in PostgreSQL's text of an int8multirange."""
    return [(int(a), int(b)) for a, b in re.findall(r"\[(\d+),(\d+)\)", text)]


def _days(reports: Iterable[Prepared]) -> tuple[set[date], set[date]]:
    points = {datetime.fromtimestamp(row.ts // 1000, UTC).date() for r in reports for row in r.rows}
    return points, {row.event.at.astimezone(UTC).date() for r in reports for row in r.events}


def _make_partitions(
    reports: Iterable[Prepared], cursor: Any, known: set[tuple[str, date]]
) -> None:
    reports = list(reports)
    for table, days in zip((partitions.POINTS, partitions.EVENTS), _days(reports), strict=True):
        missing = {day for day in days if (table.table, day) not in known}
        partitions.make(cursor, table, missing)
        known.update((table.table, day) for day in missing)


# -- on the caller's connection -----------------------------------------------


def _commit_inline(reports: list[Prepared]) -> None:
    """What tests use: the same writing and halving, in the caller's own transaction."""
    try:
        with isolation.only(*{report.tenant_id for report in reports}) as cursor:
            _make_partitions(reports, cursor, set())
            write(reports, cursor)
    except (DjangoDataError, DjangoIntegrityError) as error:
        if len(reports) == 1:
            _refuse(reports[0], error)
            return
        half = len(reports) // 2
        _commit_inline(reports[:half])
        _commit_inline(reports[half:])
    except (DjangoDatabaseError, DjangoInterfaceError) as error:
        raise Unavailable from error


def _refuse(report: Prepared, error: Exception) -> None:
    report.outcome = "refused"
    log.error(
        "report refused by the database",
        tenant_id=report.tenant_id,
        source=report.source,
        sequence=report.sequence,
        error=str(error).partition("\n")[0],
    )


# -- the committer ------------------------------------------------------------


class Committer:
    """The thread that writes for all others of its process."""

    def __init__(self, size: int) -> None:
        self.process = os.getpid()
        self._queue: queue.Queue[_Work | None] = queue.Queue(maxsize=size)
        self._connection: Any = None
        self._used_at = 0.0
        self._known_days: set[tuple[str, date]] = set()
        self._thread = threading.Thread(target=self._run, name="committer", daemon=True)
        self._started = threading.Lock()

    def commit(self, reports: list[Prepared], within: float = ACKNOWLEDGE_WITHIN) -> None:
        """Queue the reports and wait for their commit. Raises Busy or Unavailable."""
        work = _Work(reports)
        try:
            self._queue.put_nowait(work)
        except queue.Full:
            raise Busy("The queue of reports is full. Send again after the given time.") from None
        self.start()
        if not work.done.wait(within):
            raise Busy(f"No commit within {within:g} s. Send again after the given time.")
        if work.error is not None:
            raise work.error

    @property
    def waiting(self) -> int:
        """How many requests are in the queue now."""
        return self._queue.qsize()

    def start(self) -> None:
        with self._started:
            if not self._thread.is_alive():  # not begun yet, or ended by what nobody foresaw
                self._thread = threading.Thread(target=self._run, name="committer", daemon=True)
                self._thread.start()

    def stop(self) -> None:
        """Write what is queued, then end the thread and close its connection."""
        self._queue.put(None)
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        while (first := self._queue.get()) is not None:
            batch, last = self._gather(first)
            try:
                self._commit([report for work in batch for report in work.reports])
            except (psycopg2.OperationalError, psycopg2.InterfaceError) as error:
                log.warning("committer lost the database", error=str(error).partition("\n")[0])
                self._fail(batch, Unavailable("Send again after the given time."))
            except Exception:
                log.exception("committer failed")
                self._fail(batch, Unavailable("The reports could not be written. Send again."))
            for work in batch:
                work.done.set()
            if last:
                break
        self._disconnect()

    def _gather(self, first: _Work) -> tuple[list[_Work], bool]:
        """What else arrives within the window; true if it is told to stop."""
        batch, reports = [first], len(first.reports)
        until = time.monotonic() + WINDOW
        while reports < BATCH_REPORTS:
            try:
                work = self._queue.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                break
            if work is None:
                return batch, True
            batch.append(work)
            reports += len(work.reports)
        return batch, False

    def _fail(self, batch: list[_Work], problem: Problem) -> None:
        self._disconnect()
        for work in batch:
            if any(report.outcome is None for report in work.reports):
                work.error = problem

    def _commit(self, reports: list[Prepared], again: bool = True) -> None:
        try:
            self._write(reports)
        except (psycopg2.OperationalError, psycopg2.InterfaceError) as error:
            _forget_outcomes(reports)
            retryable = isinstance(error, errors.DeadlockDetected | errors.SerializationFailure)
            if not (retryable and again):
                raise
            self._commit(reports, again=False)
        except (psycopg2.InternalError, psycopg2.ProgrammingError):
            _forget_outcomes(reports)  # a standby, a missing right or table: no report's fault
            raise
        except Exception as error:
            _forget_outcomes(reports)
            self._known_days.clear()  # a partition may have been dropped since
            if len(reports) == 1:
                if again:
                    self._commit(reports, again=False)
                else:
                    _refuse(reports[0], error)
                return
            half = len(reports) // 2
            self._commit(reports[:half])
            self._commit(reports[half:])

    def _write(self, reports: list[Prepared]) -> None:
        database = self._connected()
        try:
            with database.cursor() as cursor:
                _make_partitions(reports, cursor, self._known_days)
                if database.status != psycopg2.extensions.STATUS_READY:
                    database.commit()
                write(reports, cursor)
            database.commit()
        except BaseException:
            if not database.closed:
                database.rollback()
            raise

    def _connected(self) -> Any:
        """The connection; after a pause it is tried first, for the server may have restarted."""
        idle = time.monotonic() - self._used_at > TRY_AFTER
        if self._connection is None or (idle and not _works(self._connection)):
            self._disconnect()
            self._connection = psycopg2.connect(**_parameters())
        self._used_at = time.monotonic()
        return self._connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _works(database: Any) -> bool:
    try:
        with database.cursor() as cursor:
            cursor.execute("SELECT 1")
        database.rollback()
    except psycopg2.Error:
        return False
    return True


def _forget_outcomes(reports: Iterable[Prepared]) -> None:
    for report in reports:
        report.outcome = None


def _parameters() -> dict[str, Any]:
    """How to connect: as Django does, with a time limit and an acknowledgement that means disk."""
    known = connections["default"].get_connection_params()
    djangos = ("isolation_level", "assume_role", "server_side_binding", "cursor_factory", "pool")
    return {
        **{name: value for name, value in known.items() if name not in djangos},
        "client_encoding": "UTF8",
        "application_name": "sentinella committer",
        "options": "-c synchronous_commit=on -c statement_timeout=30s -c TimeZone=UTC",
    }


def _of_this_process() -> Committer:
    """The one committer; a forked child makes its own."""
    global _committer
    with _lock:
        if _committer is None or _committer.process != os.getpid():
            _committer = Committer(settings.COMMIT_QUEUE)
        return _committer


def waiting() -> int:
    """How many requests wait in this process for their commit."""
    return _committer.waiting if _committer is not None else 0


_lock = threading.Lock()
_committer: Committer | None = None
