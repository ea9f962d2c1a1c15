"""Metric rules of one tenant at one instant: read, judge, open or resolve."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import redis
import structlog

from accounts.models import Tenant
from alerts import breaches, live
from alerts.breaches import Reading
from alerts.models import Alert, Pending, Rule
from alerts.wording import span, subject_of
from clouds import servers
from clouds.models import Server
from metrics import queries
from sentinel_site.kit import listening

log = structlog.get_logger(__name__)

OPEN_LOOK = timedelta(minutes=1)  # how often a tenant with something open is looked at anyway


def evaluate(
    tenant: Tenant, rules: list[Rule], watched: list[Server], at: datetime
) -> dict[int, datetime]:
    """Judge the metric and silence rules at this slot; call it in a transaction.

    Returns when each server was last heard.
    """
    heard = _heard(tenant, watched, at)
    silent = _silence(watched, heard, at)
    quiet = {reading.server for reading in silent if reading.value > 0}
    speaking = [server for server in watched if server.pk not in quiet]
    measured = functools.cache(functools.partial(_measured, tenant.pk, at))
    readings: dict[Rule, Iterable[Reading]] = {}
    for rule in rules:
        if rule.kind == Rule.Kind.SILENCE:
            readings[rule] = _in_scope(rule, watched, silent)
        elif rule.kind == Rule.Kind.METRIC:
            readings[rule] = _in_scope(rule, speaking, measured(question_of(rule)))
    breaches.settle(readings, at)
    return heard


@dataclass(frozen=True)
class Question:
    """What a metric rule asks of the store; rules that ask the same share one answer."""

    measurement: str
    field: str
    tags: tuple[tuple[str, str], ...]
    aggregation: str
    window: timedelta


def question_of(rule: Rule) -> Question:
    tags = tuple(sorted(rule.tags.items()))
    return Question(rule.measurement, rule.field, tags, rule.aggregation, rule.window)


def _measured(tenant_id: int, at: datetime, ask: Question) -> list[Reading]:
    """One query of the store for all servers of the tenant."""
    found = queries.window(
        tenant_id,
        ask.measurement,
        ask.field,
        since=at - ask.window,
        until=at + timedelta(milliseconds=1),
        agg=ask.aggregation,
        tags=dict(ask.tags),
    )
    unit = queries.unit_of(ask.measurement, ask.field, ask.aggregation)
    return [
        Reading(
            server=one.server_id,
            value=one.value,
            service=dict(one.tags).get("service", "system"),
            subject=subject_of(ask.measurement, ask.field, dict(one.tags)),
            unit=unit,
            tags=dict(one.tags),
            taken_at=datetime.fromtimestamp(one.last / 1000, UTC),
        )
        for one in found
    ]


def _silence(watched: list[Server], heard: dict[int, datetime], at: datetime) -> list[Reading]:
    """How long each server's report is overdue, in seconds; sets its status on the way."""
    readings = []
    for server in servers.note_silence(heard, at):
        live.announce_on_commit("server", server.pk)
    for server in watched:
        quiet = at - heard[server.pk]
        readings.append(
            Reading(
                server=server.pk,
                value=(quiet - server.silent_after).total_seconds(),
                service="agent",
                subject="reports",
                unit="seconds",
                explained=f"{server.host} has sent no report for {span(quiet)}{_why(server)}",
                recovered=f"{server.host} reports again.",
            )
        )
    return readings


def _why(server: Server) -> str:
    """What its agent said when it stopped, if it said anything."""
    return f"; its agent stopped: {server.goodbye}" if server.goodbye else ""


def _heard(tenant: Tenant, watched: list[Server], at: datetime) -> dict[int, datetime]:
    """When each server was last heard. Who is not silent yet has the time since we listen again."""
    heard = queries.last_seen(tenant.pk)
    began = _listening_since(at)
    return {
        server.pk: real if server.status == Server.Status.SILENT else max(real, began)
        for server in watched
        for real in [heard.get(server.pk, server.registered_at)]
    }


def _listening_since(at: datetime) -> datetime:
    """Since when reports can have come in without a break: now, while nobody listens."""
    try:
        run = listening.last()
    except redis.RedisError as error:
        log.warning("not known whether anybody listens", error=str(error))
        return datetime.min.replace(tzinfo=UTC)
    if run is None:
        return datetime.min.replace(tzinfo=UTC)
    return at if run.is_over(at) else run.since


def _in_scope(rule: Rule, watched: list[Server], found: Iterable[Reading]) -> list[Reading]:
    wanted = {
        server.pk
        for server in watched
        if rule.server_id in (None, server.pk) and rule.group_id in (None, server.group_id)
    }
    return [reading for reading in found if reading.server in wanted]


def next_look(watched: list[Server], heard: dict[int, datetime], at: datetime) -> datetime | None:
    """Without new data: when a server becomes silent, or soon while something is open."""
    deadlines = (heard[server.pk] + server.silent_after for server in watched)
    times = [deadline for deadline in deadlines if deadline >= at]
    if Alert.objects.filter(resolved_at=None).exists() or Pending.objects.exists():
        times.append(at + OPEN_LOOK)
    return min(times, default=None)
