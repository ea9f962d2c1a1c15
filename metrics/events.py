"""Log events: append, search, count."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg2
from django.db import OperationalError

from agent_client import wire
from metrics import isolation
from metrics.batch import Event
from sentinel_site.kit.problems import Problem

PAGE = 100
MAX_PAGE = 500
MAX_WORDS = 16
#: Lines of one traceback arrive one by one; the next is looked for this long.
JOIN_WITHIN = timedelta(minutes=2)
SEARCH_WITHIN = "10s"
#: What is asked while an organization's alerts are judged, and others wait for that.
SORT_WITHIN = "5s"
#: Characters of a message that tell what sort it is of.
SAID = 3000


class BadCursor(Problem):
    status, code, title = 422, "bad-cursor", "This page cannot be continued from here"


class TooMuchToSearch(Problem):
    status, code, title = 422, "too-much-to-search", "The search took too long"


@dataclass(frozen=True, slots=True)
class EventRow:
    """A log event and whose it is."""

    tenant_id: int
    server_id: int
    received_at: datetime
    event: Event


@dataclass(frozen=True, slots=True)
class Found:
    """One stored log event. `written` is the time as the host wrote it, where it had no zone."""

    id: int
    at: datetime
    received_at: datetime
    server_id: int
    level: str
    service: str
    component: str
    request_id: str
    pid: int | None
    path: str
    written: str
    message: str
    fingerprint: int


@dataclass(frozen=True)
class Page:
    """Events, newest first; `next` continues behind the last, None at the end."""

    events: list[Found]
    next: str | None


@dataclass(frozen=True)
class Matcher:
    """Which events: every word in it, at least this bad, of these services and servers."""

    words: tuple[str, ...] = ()
    levels: tuple[str, ...] = ()
    services: tuple[str, ...] = ()
    server_ids: tuple[int, ...] = ()
    fingerprint: int | None = None
    request_id: str = ""
    start: datetime | None = None
    end: datetime | None = None
    #: Asked of each message that all else lets through; of `met` only.
    test: Callable[[str], bool] | None = None

    @classmethod
    def parse(cls, text: str, **others: Any) -> Matcher:
        """The words of a search box; "quoted words" stay together."""
        found = re.findall(r'"([^"]+)"|(\S+)', text)
        words = tuple(word for pair in found for word in pair if word)
        return cls(words=words[:MAX_WORDS], **others)


@dataclass(frozen=True)
class Hour:
    """How many events of each level began in one hour (or another step) of time."""

    at: datetime
    counts: dict[str, int] = field(default_factory=dict)


# -- writing ------------------------------------------------------------------

_COLUMNS = (
    "tenant_id, server_id, received_at, at, level, service, component, request_id, pid, path,"
    " written, message, fingerprint, key"
)

_APPEND = f"""
INSERT INTO public.metrics_event ({_COLUMNS})
SELECT * FROM unnest(%s::bigint[], %s::bigint[], %s::timestamptz[], %s::timestamptz[],
  %s::smallint[], %s::text[], %s::text[], %s::text[], %s::bigint[], %s::text[], %s::text[],
  %s::text[], %s::bigint[], %s::bytea[])
ON CONFLICT DO NOTHING
"""  # noqa: S608  nothing in it comes from outside

_JOIN = f"""
UPDATE public.metrics_event SET message = left(message || E'\\n' || %s, {wire.MAX_MESSAGE})
WHERE (tenant_id, at, id) = (
  SELECT tenant_id, at, id FROM public.metrics_event
  WHERE tenant_id = %s AND server_id = %s AND key = %s AND at >= %s
  ORDER BY at DESC LIMIT 1)
"""  # noqa: S608


def append(rows: Sequence[EventRow], cursor: Any) -> None:
    """Write into the cursor's transaction; an event that is there already is left alone."""
    if not rows:
        return
    ordered = sorted(rows, key=lambda row: (row.tenant_id, row.server_id, row.event.at))
    columns = [list(column) for column in zip(*map(_values, ordered), strict=True)]
    cursor.execute(_APPEND, columns)


def join(rows: Sequence[EventRow], cursor: Any) -> None:
    """Write events that come line by line: a line with the key of an earlier one continues it."""
    for row in rows:
        since = row.event.at - JOIN_WITHIN
        cursor.execute(
            _JOIN,
            [
                row.event.message,
                row.tenant_id,
                row.server_id,
                psycopg2.Binary(row.event.key),
                since,
            ],
        )
        if not cursor.rowcount:
            append([row], cursor)


def _values(row: EventRow) -> tuple[Any, ...]:
    event = row.event
    return (
        row.tenant_id,
        row.server_id,
        row.received_at,
        event.at,
        event.level,
        event.service,
        event.component,
        event.request_id,
        event.pid,
        event.path,
        event.written,
        event.message,
        fingerprint(event.service, event.component, event.message),
        psycopg2.Binary(event.key),
    )


_CONTEXT = re.compile(r"\[(?:None )?(?:req-[^\]]*|-|instance: [^\]]*)\]")
_VARIABLE = re.compile(
    r"\b[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}\b"
    r"|\b0x[0-9a-f]+\b|\d+",
    re.IGNORECASE,
)


def fingerprint(service: str, component: str, message: str) -> int:
    """Equal for messages that differ in request context, ids and numbers only."""
    first = message.partition("\n")[0][:1000]
    text = "\0".join((service, component, _VARIABLE.sub("#", _CONTEXT.sub("", first)).strip()))
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


# -- reading ------------------------------------------------------------------


def search(
    tenant_id: int, matcher: Matcher, *, cursor: str | None = None, limit: int = PAGE
) -> Page:
    """The newest events that match, a page at a time. Raises BadCursor or TooMuchToSearch."""
    conditions, arguments = _conditions(tenant_id, matcher)
    if cursor:
        conditions.append("(at, id) < (%s, %s)")
        arguments.extend(_read_cursor(cursor))
    limit = max(1, min(limit, MAX_PAGE))
    with _in_time(tenant_id, SEARCH_WITHIN) as database:
        database.execute(
            "SELECT id, at, received_at, server_id, level, service, component, request_id, pid,"  # noqa: S608
            " path, written, message, fingerprint FROM public.metrics_event"
            f" WHERE {' AND '.join(conditions)} ORDER BY at DESC, id DESC LIMIT %s",
            [*arguments, limit + 1],
        )
        rows = database.fetchall()
    found = [Found(*(*row[:4], wire.LEVELS[row[4]], *row[5:])) for row in rows[:limit]]
    more = len(rows) > limit
    return Page(found, _write_cursor(found[-1]) if more else None)


@contextmanager
def _in_time(tenant_id: int, within: str) -> Iterator[Any]:
    """A cursor that sees this tenant's events, each statement of which may take so long.

    Leaves the outer transaction, if there is one, with the limit that it had before.
    """
    try:
        with isolation.only(tenant_id) as database:
            database.execute(_LIMIT, [within])
            before = database.fetchone()[0]
            yield database
            database.execute(_LIMIT, [before])
    except OperationalError as error:
        if isinstance(error.__cause__, psycopg2.errors.QueryCanceled):
            raise TooMuchToSearch("Choose a shorter time, a server or a level.") from error
        raise


#: Sets the limit of this transaction, and answers what it was.
_LIMIT = (
    "SELECT was.said, set_config('statement_timeout', %s, true)"
    " FROM (SELECT current_setting('statement_timeout') AS said OFFSET 0) AS was"
)


def per_hour(
    tenant_id: int,
    start: datetime,
    end: datetime,
    server_id: int | None = None,
    step: timedelta = timedelta(hours=1),
) -> list[Hour]:
    """Events by level for each hour (or `step`) that touches [start, end), empty ones included."""
    seconds = int(step.total_seconds())
    first = int(start.timestamp()) // seconds * seconds
    matcher = Matcher(
        server_ids=(server_id,) if server_id is not None else (),
        start=datetime.fromtimestamp(first, UTC),
        end=end,
    )
    conditions, arguments = _conditions(tenant_id, matcher)
    with isolation.only(tenant_id) as database:
        database.execute(
            "SELECT floor(extract(epoch FROM at) / %s)::bigint, level, count(*)"  # noqa: S608
            f" FROM public.metrics_event WHERE {' AND '.join(conditions)} GROUP BY 1, 2",
            [seconds, *arguments],
        )
        counts: dict[int, dict[str, int]] = {}
        for slot, level, count in database.fetchall():
            counts.setdefault(slot * seconds, {})[wire.LEVELS[level]] = count
    return [
        Hour(datetime.fromtimestamp(at, UTC), counts.get(at, {}))
        for at in range(first, -int(-end.timestamp() // 1), seconds)
    ]


@dataclass(frozen=True, slots=True)
class Met:
    """Events of one pattern on one server that match: how many, and the first of them."""

    server_id: int
    service: str
    fingerprint: int
    count: int
    first_at: datetime
    last_at: datetime
    message: str


#: Messages that a matcher's test looks at, the newest; more are not counted.
MOST_TESTED = 20_000


def met(tenant_id: int, matcher: Matcher) -> list[Met]:
    """What matches, by server, service and pattern: what event rules ask. Raises TooMuchToSearch.

    With a `test` at most MOST_TESTED messages are looked at.
    """
    conditions, arguments = _conditions(tenant_id, matcher)
    where = " AND ".join(conditions)
    with _in_time(tenant_id, SEARCH_WITHIN) as database:
        if matcher.test is None:
            database.execute(
                "SELECT server_id, service, fingerprint, count(*), min(at), max(at),"  # noqa: S608
                " (array_agg(left(message, 400) ORDER BY at))[1] FROM public.metrics_event"
                f" WHERE {where} GROUP BY 1, 2, 3",
                arguments,
            )
            found = [Met(*row) for row in database.fetchall()]
        else:
            database.execute(
                "SELECT server_id, service, fingerprint, at, message"  # noqa: S608
                f" FROM public.metrics_event WHERE {where} ORDER BY at DESC LIMIT %s",
                [*arguments, MOST_TESTED],
            )
            found = _tested(database.fetchall(), matcher.test)
    return found


def _tested(rows: list[tuple[Any, ...]], test: Callable[[str], bool]) -> list[Met]:
    """Those that pass, together by server, service and pattern; the rows are newest first."""
    together: dict[tuple[int, str, int], Met] = {}
    for server, service, pattern, at, message in rows:
        if test(message):
            known = together.get((server, service, pattern))
            count, last = (known.count, known.last_at) if known else (0, at)
            together[server, service, pattern] = Met(
                server, service, pattern, count + 1, at, last, message[:400]
            )
    return list(together.values())


def times(
    tenant_id: int, matcher: Matcher, limit: int = MOST_TESTED
) -> list[tuple[int, str, int, datetime, str]]:
    """Server, service, pattern, time and first words of the newest that match, oldest first.

    What previews of event rules are drawn from. Raises TooMuchToSearch.
    """
    conditions, arguments = _conditions(tenant_id, matcher)
    with _in_time(tenant_id, SEARCH_WITHIN) as database:
        database.execute(
            "SELECT server_id, service, fingerprint, at, message FROM public.metrics_event"  # noqa: S608
            f" WHERE {' AND '.join(conditions)} ORDER BY at DESC LIMIT %s",
            [*arguments, limit],
        )
        rows = database.fetchall()
    rows.reverse()
    return [row for row in rows if matcher.test is None or matcher.test(row[4])]


@dataclass(frozen=True, slots=True)
class Sort:
    """Events of one server and service that differ in ids and numbers only, and one message."""

    server_id: int
    service: str
    first: datetime
    last: datetime
    count: int
    level: str
    message: str


def sorts(tenant_id: int, matcher: Matcher, limit: int) -> list[Sort]:
    """What was said in the events that match, the most frequent first. Raises TooMuchToSearch."""
    conditions, arguments = _conditions(tenant_id, matcher)
    with _in_time(tenant_id, SORT_WITHIN) as database:
        database.execute(
            "SELECT server_id, service, min(at), max(at), count(*), min(level),"  # noqa: S608
            f" min(left(message, {SAID})) FROM public.metrics_event"
            f" WHERE {' AND '.join(conditions)} GROUP BY server_id, service, fingerprint"
            " ORDER BY count(*) DESC, min(at) LIMIT %s",
            [*arguments, limit],
        )
        return [
            Sort(server, service, first, last, count, wire.LEVELS[level], message)
            for server, service, first, last, count, level, message in database.fetchall()
        ]


def services(tenant_id: int, start: datetime) -> list[str]:
    """The services that logged since then, for a filter."""
    with isolation.only(tenant_id) as database:
        database.execute(
            "SELECT DISTINCT service FROM public.metrics_event"
            " WHERE tenant_id = %s AND at >= %s AND service <> '' ORDER BY 1 LIMIT 500",
            [tenant_id, start],
        )
        return [row[0] for row in database.fetchall()]


def forget(tenant_id: int, server_id: int | None = None) -> None:
    """Remove a server's events, or all of a tenant's."""
    with isolation.only(tenant_id) as database:
        database.execute(
            "DELETE FROM public.metrics_event WHERE tenant_id = %s"
            " AND (%s::bigint IS NULL OR server_id = %s)",
            [tenant_id, server_id, server_id],
        )


def levels_from(worst_allowed: str) -> tuple[str, ...]:
    """This level and all that are worse: `error` means error and critical."""
    return wire.LEVELS[: wire.LEVELS.index(worst_allowed) + 1]


def _conditions(tenant_id: int, matcher: Matcher) -> tuple[list[str], list[Any]]:
    conditions, arguments = ["tenant_id = %s"], [tenant_id]  # type: tuple[list[str], list[Any]]

    def add(condition: str, *values: Any) -> None:
        conditions.append(condition)
        arguments.extend(values)

    if matcher.start:
        add("at >= %s", matcher.start)
    if matcher.end:
        add("at < %s", matcher.end)
    if matcher.levels:
        add("level = ANY(%s)", [wire.LEVELS.index(level) for level in matcher.levels])
    if matcher.services:
        add("service = ANY(%s)", list(matcher.services))
    if matcher.server_ids:
        add("server_id = ANY(%s)", list(matcher.server_ids))
    if matcher.fingerprint is not None:
        add("fingerprint = %s", matcher.fingerprint)
    if matcher.request_id:
        add("request_id = %s", matcher.request_id)
    for word in matcher.words:
        pattern = "%" + re.sub(r"([\\%_])", r"\\\1", word.replace("\0", "�")) + "%"
        add("concat_ws(' ', service, component, request_id, message) ILIKE %s", pattern)
    return conditions, arguments


def _write_cursor(last: Found) -> str:
    micros = round((last.at - _EPOCH) / timedelta(microseconds=1))
    return base64.urlsafe_b64encode(f"{micros}.{last.id}".encode()).decode().rstrip("=")


def _read_cursor(text: str) -> tuple[datetime, int]:
    try:
        padded = text + "=" * (-len(text) % 4)
        micros, _, number = base64.urlsafe_b64decode(padded).decode("ascii").partition(".")
        return _EPOCH + timedelta(microseconds=int(micros)), _bigint(int(number))
    except (ValueError, OverflowError, binascii.Error) as error:
        raise BadCursor("Take the cursor from the page before, unchanged.") from error


def _bigint(number: int) -> int:
    if not -(2**63) <= number < 2**63:
        raise OverflowError
    return number


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def joined_key(parts: Iterable[str]) -> bytes:
    """A key that is equal for equal parts, 16 bytes."""
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=16).digest()
