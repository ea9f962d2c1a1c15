"""Metric rules of one tenant at one instant: read all their numbers at once."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import numpy as np

from accounts.models import Tenant
from alerts import live
from alerts.fleet import Fleet, Mask
from alerts.models import Alert, Pending, Rule
from alerts.sheets import Reading, Sheet
from alerts.wording import span, subject_of
from clouds import servers
from clouds.models import Server
from metrics import queries
from metrics.queries import Ask
from metrics.windows import Windows

OPEN_LOOK = timedelta(minutes=1)  # how often a tenant with something open is looked at anyway


def sheets(tenant: Tenant, scopes: Mapping[Rule, Mask], fleet: Fleet) -> dict[Rule, Sheet]:
    """What the metric and silence rules look at; servers that fall silent are marked on the way.

    Of a silent server only its silence is judged: the rest of its alerts stay as they are.
    """
    _note_silence(fleet)
    speaking = fleet.overdue <= 0
    metric = [rule for rule in scopes if rule.kind == Rule.Kind.METRIC]
    answers = queries.windows(tenant.pk, [ask_of(rule) for rule in metric], fleet.at)
    found = {
        rule: measured(rule, answers[ask_of(rule)], fleet, scopes[rule] & speaking)
        for rule in metric
    }
    for rule, mask in scopes.items():
        if rule.kind == Rule.Kind.SILENCE:
            found[rule] = _silence(fleet, mask)
    return found


def ask_of(rule: Rule) -> Ask:
    """What a metric rule asks of the store; rules that ask the same share one answer."""
    return Ask(rule.measurement, rule.field, rule.aggregation, rule.window)


def measured(rule: Rule, answer: Windows, fleet: Fleet, mask: Mask) -> Sheet:
    """The numbers of the servers and tags that the rule is for."""
    wanted = set(rule.tags.items())
    of_series = np.array([wanted.issubset(tags) for tags in answer.tags], np.bool_)
    chosen = fleet.chosen(mask, answer.servers)
    if len(of_series) and not of_series.all():
        chosen &= of_series[answer.series]
    places = np.flatnonzero(chosen)
    values = answer.values[places]
    unit = queries.unit_of(rule.measurement, rule.field, rule.aggregation)

    def reading(number: int) -> Reading:
        place = places[number]
        tags = dict(answer.tags[answer.series[place]])
        return Reading(
            server=int(answer.servers[place]),
            value=float(values[number]),
            service=tags.get("service", "system"),
            subject=subject_of(rule.measurement, rule.field, tags),
            unit=unit,
            tags=tags,
            taken_at=datetime.fromtimestamp(int(answer.lasts[place]) / 1000, UTC),
        )

    return Sheet(answer.servers[places], values, reading)


def _note_silence(fleet: Fleet) -> None:
    """Give the servers that fell silent, or are heard again, that status."""
    turned = (fleet.overdue > 0) != fleet.silent
    if turned.any():
        for server in servers.note_silence(fleet.heard_at(turned), fleet.at):
            live.announce_on_commit("server", server.pk)


def _silence(fleet: Fleet, mask: Mask) -> Sheet:
    """How long each server's report is overdue, in seconds."""
    places = np.flatnonzero(mask)
    values = fleet.overdue[places]

    def reading(number: int) -> Reading:
        place = places[number]
        server = Server.objects.only("host", "goodbye").get(pk=int(fleet.ids[place]))
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

    return Sheet(fleet.ids[places], values, reading)


def _why(server: Server) -> str:
    """What its agent said when it stopped, if it said anything."""
    return f"; its agent stopped: {server.goodbye}" if server.goodbye else ""


def next_look(fleet: Fleet) -> datetime | None:
    """Without new data: when a server becomes silent, or soon while something is open."""
    times = [fleet.next_overdue()]
    if Alert.objects.filter(resolved_at=None).exists() or Pending.objects.exists():
        times.append(fleet.at + OPEN_LOOK)
    return min((one for one in times if one), default=None)
