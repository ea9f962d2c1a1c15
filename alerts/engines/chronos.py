"""Metric rules of one tenant at one instant: read all their numbers at once."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any

import numpy as np

from accounts.models import Tenant
from alerts.engines import forecasts
from alerts.engines.fleet import Fleet, Mask
from alerts.engines.forecasts import Course
from alerts.engines.judging import Terms, as_far_as_known
from alerts.engines.left_out import LeftOut
from alerts.engines.sheets import Reading, Sheet, terms_of
from alerts.models import Alert, Pending, Rule
from alerts.push import live
from alerts.values import sentences
from alerts.values.selectors import matches
from alerts.values.sentences import clock
from alerts.values.thresholds import Limits
from alerts.values.wording import span, subject_of
from clouds import servers
from clouds.models import Server
from metrics import queries, stores
from metrics.batch import Tags
from metrics.queries import Ask
from metrics.windows import Windows

OPEN_LOOK = timedelta(minutes=1)  # how often a tenant with something open is looked at anyway
#: A series is missing when it has not come for this long, or for its rule's window if longer.
MISSING_AFTER = timedelta(minutes=3)
#: One that has been missing for this long is taken for removed.
FORGOTTEN = timedelta(days=1)


def sheets(
    tenant: Tenant, scopes: Mapping[Rule, Mask], fleet: Fleet, left_out: LeftOut
) -> list[Sheet]:
    """What all rules but those of log events look at.

    Of a silent server only its silence is judged: the rest of its alerts stay as they are.
    """
    speaking = fleet.overdue <= 0
    found = at_slot(tenant, scopes, fleet, speaking, fleet.at, left_out)
    for rule, mask in scopes.items():
        with left_out.around(rule):
            if rule.kind == Rule.Kind.SILENCE:
                found.append(_silence(rule, fleet, mask))
            elif rule.kind == Rule.Kind.FORECAST:
                found.append(_forecast(tenant, rule, fleet, mask & speaking))
            if rule.no_data == Rule.NoData.ALERT and rule.measurement:
                found.append(_missing(tenant, rule, fleet, mask & speaking))
    return found


def at_slot(
    tenant: Tenant,
    scopes: Mapping[Rule, Mask],
    fleet: Fleet,
    speaking: Mask,
    at: datetime,
    left_out: LeftOut,
) -> list[Sheet]:
    """What metric and service rules look at, of the servers that speak, at any slot."""
    asking = [rule for rule in scopes if rule.kind in (Rule.Kind.METRIC, Rule.Kind.SERVICE)]
    answers = queries.windows(tenant.pk, [ask_of(rule) for rule in asking], at)
    found = []
    for rule in asking:
        with left_out.around(rule):
            answer = answers[ask_of(rule)]
            chosen = _chosen(rule, answer, fleet, scopes[rule] & speaking)
            found.append(measured(rule, answer, chosen))
    return found


def ask_of(rule: Rule) -> Ask:
    """What a rule asks of the store; rules that ask the same share one answer."""
    agg = _ASKED_OF_SERVICES.get(rule.aggregation, rule.aggregation)
    return Ask(rule.measurement, rule.field, agg, rule.window)


_ASKED_OF_SERVICES = {"down": "last", "flapping": "changes", "restarts": "delta"}


def selector_of(rule: Rule) -> dict[str, Any]:
    """The tags that a series must have; a service rule's service is one of them."""
    named = {"service": rule.service} if rule.kind == Rule.Kind.SERVICE and rule.service else {}
    return {**rule.tags, **named}


def _chosen(rule: Rule, answer: Windows | Course, fleet: Fleet, mask: Mask) -> Mask:
    """Which numbers are of servers and series that the rule is for."""
    chosen = fleet.chosen(mask, answer.servers)
    return chosen & of_series(rule, answer.tags)[answer.series] if len(chosen) else chosen


def of_series(rule: Rule, tags: list[Tags]) -> Mask:
    """Which tag sets the rule is for."""
    selector = selector_of(rule)
    return np.array([matches(selector, dict(one)) for one in tags], np.bool_)


def measured(rule: Rule, answer: Windows, chosen: Mask) -> Sheet:
    """The chosen numbers of an answer."""
    places = np.flatnonzero(chosen)
    values = answer.values[places]
    unit = queries.unit_of(rule.measurement, rule.field, ask_of(rule).agg)

    @functools.cache
    def named(series: int) -> tuple[str, str, Mapping[str, str]]:
        """Service, subject and tags: of all servers alike."""
        tags = dict(answer.tags[series])
        subject = subject_of(rule.measurement, rule.field, tags)
        return tags.get("service", "system"), subject, MappingProxyType(tags)

    def reading(number: int) -> Reading:
        place = places[number]
        service, subject, tags = named(int(answer.series[place]))
        return Reading(
            server=int(answer.servers[place]),
            value=float(values[number]),
            service=service,
            subject=subject,
            unit=unit,
            tags=tags,
            taken_at=_time(answer.lasts[place]),
        )

    return Sheet(rule, terms_of(rule), answer.servers[places], values, reading)


def _forecast(tenant: Tenant, rule: Rule, fleet: Fleet, mask: Mask) -> Sheet:
    """How long each series takes to its target."""
    spans = forecasts.spans(rule.window, fleet.at)
    [points] = queries.points(tenant.pk, [(rule.measurement, rule.field)], spans)
    found = forecasts.course(points, rule.window, fleet.at)
    return forecast(rule, found, _chosen(rule, found, fleet, mask))


def forecast(rule: Rule, found: Course, chosen: Mask) -> Sheet:
    """The chosen series of a course, judged by the time they have left."""
    left = forecasts.seconds_left(rule, found.samples)
    places = np.flatnonzero(chosen & ~np.isnan(left))
    values = left[places]
    unit = queries.unit_of(rule.measurement, rule.field)

    def reading(number: int) -> Reading:
        place = places[number]
        tags = dict(found.tags[found.series[place]])
        server, level = int(found.servers[place]), float(found.samples[place, -1])
        return Reading(
            server=server,
            value=float(values[number]),
            service=tags.get("service", "system"),
            subject=subject_of(rule.measurement, rule.field, tags),
            unit="seconds",
            explained=sentences.forecast(rule, tags, level, float(values[number]), unit),
            recovered=sentences.no_forecast(rule, tags, level, unit),
            tags=tags,
            taken_at=_time(found.lasts[place]),
        )

    return Sheet(rule, terms_of(rule), found.servers[places], values, reading)


def _missing(tenant: Tenant, rule: Rule, fleet: Fleet, mask: Mask) -> Sheet:
    """How long each series that was measured within a day has been missing, past the window."""
    ids = fleet.ids[mask].tolist()
    latest = stores.current().latest(tenant.pk, ids, [rule.measurement])
    selector, now = selector_of(rule), fleet.at.timestamp()
    rows = [
        one
        for one in latest
        if one.column.field == rule.field
        and now - one.ts / 1000 < FORGOTTEN.total_seconds()
        and matches(selector, dict(one.column.tags))
    ]
    allowed = max(rule.window, MISSING_AFTER).total_seconds()
    severity = rule.limits[0][0]
    terms = Terms(Limits(">", {severity: 0.0}), rule.hold)
    late = np.array([now - one.ts / 1000 - allowed for one in rows], np.float64)
    values = as_far_as_known(terms.limits, late, fleet.heard_for - allowed)

    def reading(number: int) -> Reading:
        one = rows[number]
        tags = dict(one.column.tags)
        what = sentences.what(rule.measurement, rule.field, tags)
        return Reading(
            server=one.server_id,
            value=float(values[number]),
            service=tags.get("service", "system"),
            subject=subject_of(rule.measurement, rule.field, tags),
            unit="seconds",
            explained=f"No {what} came from {{host}} since {clock(_time(one.ts), fleet.at)}",
            recovered=f"{what} comes from {{host}} again.",
            title=f"No data: {rule.name}",
            tags={**tags, "": "no data"},
        )

    return Sheet(rule, terms, np.array([one.server_id for one in rows], np.int64), values, reading)


def _time(ms: int | np.int64) -> datetime:
    return datetime.fromtimestamp(int(ms) / 1000, UTC)


def note_silence(fleet: Fleet) -> None:
    """Give the servers that fell silent, or are heard again, that status."""
    turned = (fleet.overdue > 0) != fleet.silent
    if turned.any():
        for server in servers.note_silence(fleet.heard_at(turned), fleet.at):
            live.announce_on_commit("server", server.pk)


def _silence(rule: Rule, fleet: Fleet, mask: Mask) -> Sheet:
    """How long each server's report is overdue, in seconds."""
    places = np.flatnonzero(mask)
    values = fleet.overdue[places]

    @functools.cache
    def named() -> dict[int, Server]:
        """Those that are looked at: silent now, or until now."""
        some = fleet.ids[mask & ((fleet.overdue > 0) | fleet.silent)]
        return Server.objects.only("host", "goodbye").in_bulk(some.tolist())

    def reading(number: int) -> Reading:
        place = places[number]
        key = int(fleet.ids[place])
        server = named().get(key) or Server.objects.only("host", "goodbye").get(pk=key)
        quiet = timedelta(seconds=fleet.at.timestamp() - float(fleet.heard[place]))
        return Reading(
            server=server.pk,
            value=float(values[number]),
            service="agent",
            subject="reports",
            unit="seconds",
            explained=f"{server.host} has sent no report for {span(quiet)}{_why(server)}",
            recovered=f"{server.host} reports again.",
        )

    return Sheet(rule, terms_of(rule), fleet.ids[places], values, reading)


def _why(server: Server) -> str:
    """What its agent said when it stopped, if it said anything."""
    return f"; its agent stopped: {server.goodbye}" if server.goodbye else ""


def next_look(fleet: Fleet) -> datetime | None:
    """Without new data: when a server becomes silent, or soon while something is open."""
    times = [fleet.next_overdue()]
    if Alert.objects.filter(resolved_at=None).exists() or Pending.objects.exists():
        times.append(fleet.at + OPEN_LOOK)
    return min((one for one in times if one), default=None)
