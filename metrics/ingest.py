"""The only way in: every door makes a `Batch`, and `accept` stores it or says what it refused."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Protocol

import structlog
from django.conf import settings
from django.db import InterfaceError, OperationalError, connection, transaction

from agent_client import wire
from clouds import servers, services
from clouds.history import LateReport
from metrics import committer, events, isolation, stores
from metrics.batch import Batch, Report
from metrics.committer import Prepared, Unavailable
from metrics.events import EventRow
from metrics.signals import stored
from metrics.stores import sets
from metrics.stores.base import Row
from sentinel_site.kit.tenancy import in_schema

log = structlog.get_logger(__name__)

AHEAD = timedelta(days=1)


class TenantLike(Protocol):
    """Whose data it is: an `accounts.models.Tenant`, or a `Holder` where only a key is known."""

    @property
    def id(self) -> int: ...

    @property
    def schema_name(self) -> str: ...


@dataclass(frozen=True)
class Holder:
    """A tenant as ingest needs it."""

    id: int
    schema_name: str


@dataclass(frozen=True, slots=True)
class _Known:
    """What is remembered of a source: which server it is and what it last said of itself."""

    server_id: int
    at: datetime
    facts: bytes
    specs_at: datetime | None = None


def accept(
    tenant: TenantLike, batch: Batch, within: float = committer.ACKNOWLEDGE_WITHIN
) -> wire.Answer:
    """Store a batch; when this returns, all but the rejects is committed.

    Waits for that at most `within` seconds.

    The same report again has no effect. Raises Busy or Unavailable (503 with Retry-After); then
    nothing is acknowledged, and sending all of it again is right.
    """
    reports = [_within_time(report, batch) for report in batch.reports]
    with database_or_unavailable():
        known, touched = _settle(tenant, reports, batch.received_at)
    prepared = [
        _prepare(tenant.id, report, known[report.source].server_id, batch.received_at)
        for report in reports
    ]
    committer.commit(prepared, within)
    duplicates = 0
    for report, result in zip(reports, prepared, strict=True):
        if result.outcome == "duplicate":
            duplicates += 1
        elif result.outcome != "stored":
            _not_stored(batch, report, result)
    _note_late(tenant, reports, prepared, known, batch.received_at)
    _tell(tenant, prepared, touched)
    accepted = sum(result.outcome == "stored" for result in prepared)
    return wire.Answer(accepted, duplicates, batch.all_rejects())


def forget(tenant_id: int, server_id: int | None = None) -> None:
    """Remove all that was measured and logged of a server, or of a whole tenant."""
    stores.current().forget(tenant_id, server_id)
    events.forget(tenant_id, server_id)
    with isolation.only(tenant_id) as cursor:
        cursor.execute(
            "DELETE FROM public.metrics_source WHERE tenant_id = %s"
            " AND (%s::bigint IS NULL OR server_id = %s)",
            [tenant_id, server_id, server_id],
        )


@contextmanager
def database_or_unavailable() -> Iterator[None]:
    """Turn a database that is away into a 503 that says when to come again."""
    try:
        yield
    except (OperationalError, InterfaceError) as error:
        if not connection.in_atomic_block:
            connection.close()
        log.warning("database away", error=str(error).partition("\n")[0])
        raise Unavailable("Send again after the given time.") from error


# -- time ---------------------------------------------------------------------


def _within_time(report: Report, batch: Batch) -> Report:
    """The report without what is too old to keep or too far ahead to be true."""
    events_kept = [
        event for event in report.events if _in_range(batch, report, event.item, event.at)
    ]
    if _in_range(batch, report, "at", report.at):
        return replace(report, events=events_kept)
    at = min(report.at, batch.received_at)
    return replace(report, at=at, points=[], services=[], events=events_kept)


def _in_range(batch: Batch, report: Report, item: str, at: datetime) -> bool:
    now = batch.received_at
    kept = settings.RETENTION_RAW if item == "at" else settings.RETENTION_EVENTS
    if at > now + AHEAD:
        batch.reject(
            report.number,
            item,
            "clock",
            f"{at:%Y-%m-%d %H:%M:%S} UTC is {_span(at - now)} ahead of the server's clock;"
            " at most 1 day is taken. Set the host's clock (NTP).",
        )
    elif at < now - kept:
        batch.reject(
            report.number,
            item,
            "too-old",
            f"{at:%Y-%m-%d %H:%M:%S} UTC is {_span(now - at)} ago; {kept.days} days are kept."
            " Check the host's clock (NTP).",
        )
    else:
        return True
    return False


def _span(span: timedelta) -> str:
    return f"{span.days} days" if span.days > 1 else f"{span.total_seconds() / 3600:.0f} hours"


# -- who it is, and what it says of itself ------------------------------------


def _settle(
    tenant: TenantLike, reports: Iterable[Report], now: datetime
) -> tuple[dict[str, _Known], set[int]]:
    """Which server each source is, registering new ones; and the servers that said news.

    A tenant's own schema is touched only where something changed.
    """
    by_source: dict[str, list[Report]] = defaultdict(list)
    for report in reports:
        by_source[report.source].append(report)
    known = _known_sources(tenant.id, by_source)
    touched: set[int] = set()
    for source, said in sorted(by_source.items()):
        before = known.get(source)
        news = _news(before, said, now)
        specs = _newest_specs(before, said)
        if news or specs or before is None:
            with in_schema(tenant.schema_name), transaction.atomic():
                server_id = _note(said, news, specs, now)
            touched.add(server_id)
            known[source] = _Known(server_id, now, b"")
    return known, touched


def _note_late(
    tenant: TenantLike,
    reports: Sequence[Report],
    prepared: Sequence[Prepared],
    known: Mapping[str, _Known],
    now: datetime,
) -> None:
    """Let uptime know of the times of reports that come in late: their servers were up then.

    Of a server whose reports are all of now, nothing is written. It comes after the commit: whoever
    sends again because we died in between finds duplicates, whose times are noted all the same.
    """
    late: dict[int, list[LateReport]] = defaultdict(list)
    for report, result in zip(reports, prepared, strict=True):
        if result.outcome not in ("stored", "duplicate") or report.at > now:
            continue
        if now - report.at > (3 * report.interval + timedelta(seconds=30)) / 2:
            before = known[report.source].at
            states = {one.name: one.state for one in report.services} if report.at < before else {}
            late[known[report.source].server_id].append(LateReport(report.at, states))
    for server_id, told in late.items():
        with database_or_unavailable(), in_schema(tenant.schema_name):
            servers.note_late(server_id, told)


def _said_at(report: Report, now: datetime) -> datetime:
    """When it was said: a clock that is ahead must not outdo what is said later."""
    return min(report.at, now)


def _news(known: _Known | None, said: Iterable[Report], now: datetime) -> list[Report]:
    """The reports that say something of their server that the one before did not, by time."""
    news = []
    at = known.at if known else None
    facts = known.facts if known else None
    for report in sorted(said, key=lambda report: report.at):
        said_at = _said_at(report, now)
        if at is not None and said_at < at:
            continue
        said_now = _facts(report)
        if said_now != facts:
            news.append(report)
        at, facts = said_at, said_now
    return news


def _newest_specs(known: _Known | None, said: Iterable[Report]) -> Report | None:
    """The report with the newest specs, if newer than those known.

    An agent sends them once, and the report that has them may arrive late.
    """
    given = [report for report in said if report.specs is not None]
    newest = max(given, key=lambda report: report.at, default=None)
    if newest and known and known.specs_at and newest.at < known.specs_at:
        return None
    return newest


def _note(said: list[Report], news: list[Report], specs: Report | None, now: datetime) -> int:
    """Write the news into the tenant's schema; older news never overwrite newer."""
    newest = max(news or said, key=lambda report: report.at)
    server = servers.register(
        newest.agent, newest.host, now, interval=newest.interval, version=newest.version
    )
    for report in news:
        if report.services or (report.services_are_all and _says_services(report)):
            services.note_states(
                server,
                report.services,
                _said_at(report, now),
                complete=report.services_are_all,
            )
    if news:
        servers.note_goodbye(server, newest.goodbye, _said_at(newest, now))
    if specs is not None and specs.specs is not None:
        servers.note_specs(server, specs.specs)
    return server.pk


def _says_services(report: Report) -> bool:
    """A report in which the agent tells of itself but of no service: none is watched any more.

    What a script or plugin hands to the agent comes in reports that say nothing of services.
    """
    return any(point.measurement == "agent" for point in report.points)


def _facts(report: Report) -> bytes:
    """A digest of what a report says of its server besides points and events."""
    said = (
        report.host,
        report.version,
        report.interval,
        report.services_are_all and _says_services(report),
        report.goodbye,
        sorted((s.name, s.project, s.state, s.workers, s.detail) for s in report.services),
    )
    return hashlib.blake2b(repr(said).encode("utf-8", "replace"), digest_size=16).digest()


def _known_sources(tenant_id: int, sources: Iterable[str]) -> dict[str, _Known]:
    with isolation.only(tenant_id) as cursor:
        cursor.execute(
            "SELECT DISTINCT ON (source) source, server_id, at, facts, specs_at"
            " FROM public.metrics_source"
            " WHERE tenant_id = %s AND source = ANY(%s) ORDER BY source, at DESC",
            [tenant_id, list(sources)],
        )
        return {row[0]: _Known(row[1], row[2], bytes(row[3]), row[4]) for row in cursor.fetchall()}


# -- rows ---------------------------------------------------------------------


def _prepare(tenant_id: int, report: Report, server_id: int, received_at: datetime) -> Prepared:
    ts = round(report.at.timestamp() * 1000)
    rows = [
        Row(tenant_id, server_id, ts, sets.set_id(columns), columns, values)
        for columns, values in sets.widen(report.points)
    ]
    return Prepared(
        tenant_id=tenant_id,
        source=report.source,
        epoch=report.epoch,
        sequence=report.sequence,
        server_id=server_id,
        received_at=received_at,
        at=_said_at(report, received_at),
        facts=_facts(report),
        specs_at=report.at if report.specs is not None else None,
        rows=rows,
        events=[EventRow(tenant_id, server_id, received_at, event) for event in report.events],
        joins_events=report.joins_events,
    )


def _not_stored(batch: Batch, report: Report, result: Prepared) -> None:
    if result.outcome == "gaps":
        detail = (
            f"More than {committer.MAX_GAPS} sequences of this epoch are missing in between."
            " Count by one, or begin a new epoch."
        )
        batch.reject(report.number, "sequence", "too-many-gaps", detail)
    else:
        detail = "The database refused it; the server's log says why."
        batch.reject(report.number, "report", "not-stored", detail)


def _tell(tenant: TenantLike, prepared: list[Prepared], touched: set[int]) -> None:
    """Say what was stored, so that open pages look again."""
    kinds = {"server"} if touched else set()
    server_ids = set(touched)
    for result in prepared:
        if result.outcome == "stored":
            server_ids.add(result.server_id)
            if result.rows:
                kinds.add("points")
            if result.events:
                kinds.add("events")
    if kinds:
        stored.send_robust(
            sender=None,
            tenant_id=tenant.id,
            schema=tenant.schema_name,
            kinds=frozenset(kinds),
            server_ids=frozenset(server_ids),
        )
