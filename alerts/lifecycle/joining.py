"""Alerts come together: where new ones go, which incidents become one, what their cause is."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from alerts import bulk
from alerts.dispatching import dispatch
from alerts.lifecycle import evidence, gathering, history
from alerts.lifecycle.gathering import Cluster, Picture, Row
from alerts.lifecycle.history import Line
from alerts.models import Alert, Event, Incident, Notification, Severity
from alerts.push import live

#: So many of what joined are named in the history.
NAMED = 3


class Home(NamedTuple):
    """The incident that a new alert goes to, and what it is there."""

    incident: Incident
    part: str


@dataclass
class Placed:
    """Where new alerts go, the incidents to be made for them, and what is to be told."""

    homes: dict[int, Home] = field(default_factory=dict)
    new: list[Incident] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)


def place(fresh: Sequence[Row], at: datetime) -> Placed:
    """Find the incident of each new alert: that of its cause, or one of its own.

    Only what can have its cause elsewhere, or be one, is compared with others.
    """
    placed = Placed()
    relevant, founded = [], []
    for row in fresh:
        if gathering.is_relevant(row):
            relevant.append(row)
        else:
            founded.append(Cluster(None, [row]))
    picture = gathering.picture(relevant, at) if relevant else Picture([], {}, [])
    for cluster in picture.clusters:
        joining = [row for row in cluster.rows if not row.incident]
        if not joining and not _has_news(cluster):
            continue
        if not cluster.incidents:
            founded.append(cluster)
            continue
        incident, lines = _settle(cluster, joining, picture, at)
        placed.lines += lines
        for row in joining:
            placed.homes[row.key] = Home(incident, _part(row, cluster))
    for cluster, pk in zip(founded, bulk.take_ids(Incident, len(founded)), strict=True):
        incident, line = _found(pk, cluster, picture, at)
        placed.new.append(incident)
        placed.lines.append(line)
        for row in cluster.rows:
            placed.homes[row.key] = Home(incident, _part(row, cluster))
    return placed


def look_again(at: datetime) -> None:
    """Settle what was open before its cause could be known; call it in a transaction."""
    if not gathering.has_unsettled(at):
        return
    picture = gathering.picture([], at)
    lines: list[Line] = []
    free: list[int] = []
    for cluster in picture.clusters:
        if _has_news(cluster):
            lines += _settle(cluster, [], picture, at)[1]
        elif cluster.hold is None:
            free += cluster.incidents
    history.write(lines, at)
    dispatch.hasten(free, at)


def _has_news(cluster: Cluster) -> bool:
    """Whether incidents are to become one, or one has a cause that it did not have."""
    if len(cluster.incidents) > 1:
        return True
    return any(_is_better(cluster, cluster.keys.get(pk, "")) for pk in cluster.incidents)


def _is_better(cluster: Cluster, known: str) -> bool:
    """Whether a cluster's cause says more than the one that its incident has."""
    cause = cluster.cause
    if cause is None or cause.key == known:
        return False
    if not known:
        return True
    if cause.kind == "common":
        return False
    return bool(cause.signals) or cause.kind == "group" or known.startswith("common:")


def _part(row: Row, cluster: Cluster) -> str:
    if cluster.cause is None:
        return ""
    return str(Alert.Part.CAUSE if row.key in cluster.signals else Alert.Part.SYMPTOM)


def _found(pk: int, cluster: Cluster, picture: Picture, at: datetime) -> tuple[Incident, Line]:
    """A new incident, not yet stored, and the line by which it begins."""
    first = _first(cluster)
    incident = _blank()
    incident.id, incident.opened_at = pk, at
    incident.title = bulk.fit(gathering.title(cluster, picture.hosts) or first.called, 300)
    incident.severity = gathering.severity_of(cluster.rows)
    if cluster.cause is not None:
        _name_cause(incident, cluster, picture)
    text = first.text
    if len(cluster.rows) > 1:
        text = f"{text}; {_counted(cluster.rows, but=first)}"
    not_before = at + cluster.hold if cluster.hold else None
    return incident, Line(incident, Event.Kind.OPENED, text, f"opened:{pk}", not_before)


def _blank() -> Incident:
    """An incident of which nothing is known; an evaluation may find thousands, so it is quick."""
    incident = Incident.from_db(None, *_fields())
    incident.evidence = {}
    return incident


@functools.cache
def _fields() -> tuple[list[str], list[Any]]:
    fields = Incident._meta.concrete_fields
    return [field.attname for field in fields], [field.get_default() for field in fields]


def _first(cluster: Cluster) -> Row:
    """The alert by which an incident is called: its cause's, else the first."""
    if len(cluster.rows) == 1:
        return cluster.rows[0]
    return min(cluster.rows, key=lambda row: (row.key not in cluster.signals, row.at, row.key))


def _settle(
    cluster: Cluster, joining: Sequence[Row], picture: Picture, at: datetime
) -> tuple[Incident, list[Line]]:
    """The one incident of a cluster that has some: others are merged into it."""
    found = list(
        Incident.objects.select_for_update().filter(pk__in=cluster.incidents).order_by("pk")
    )
    rows = Notification.objects.filter(incident__in=found)
    queued = set(rows.values_list("incident", flat=True))
    told = set(rows.filter(attempts__gt=0).values_list("incident", flat=True))
    incident = min(found, key=lambda one: (one.acknowledged_at is None, one.pk not in told, one.pk))
    lines = [line for one in found if one is not incident for line in _merge(one, incident, at)]
    severity = Severity(incident.severity)
    worse = max((severity, gathering.severity_of(cluster.rows)), key=lambda one: one.rank)
    incident.severity = worse
    if _is_better(cluster, incident.cause_key):
        lines.append(_change_cause(incident, cluster, picture))
    elif cluster.cause is not None:
        _name_cause(incident, cluster, picture)
    incident.save()
    if joining or len(found) > 1:
        rows_ = joining or cluster.rows
        text = _counted(rows_).capitalize()
        is_told = incident.pk in queued and worse == severity
        transition = "" if is_told else f"opened:{incident.pk}"
        not_before = at + cluster.hold if cluster.hold else None
        if joining or transition:
            lines.append(Line(incident, Event.Kind.JOINED, text, transition, not_before))
    if cluster.hold is None:
        dispatch.hasten([incident.pk], at)
    live.announce_on_commit("incident", incident.pk)
    return incident, lines


def _merge(one: Incident, into: Incident, at: datetime) -> list[Line]:
    """All alerts of one incident go to another; what was not yet told of it never is."""
    one.alert_set.update(incident=into)
    dispatch.withdraw(one)
    into.assigned_to = into.assigned_to or one.assigned_to
    one.merged_into, one.resolved_at = into, max(at, one.opened_at)
    one.flapping_until = one.calm_after = one.shelved_until = None  # time changes it no more
    one.untold = False
    one.save(
        update_fields=[
            *("merged_into", "resolved_at", "flapping_until", "calm_after", "shelved_until"),
            "untold",
        ]
    )
    Incident.objects.filter(merged_into=one).update(merged_into=into)
    return [Line(one, Event.Kind.MERGED, f"It belongs to incident {into.pk}: {into.title}")]


def _name_cause(incident: Incident, cluster: Cluster, picture: Picture) -> None:
    if cluster.cause is None:
        return
    if not incident.cause_key or incident.cause_key == cluster.cause.key:
        incident.cause_key = bulk.fit(cluster.cause.key, 200)
        incident.cause = bulk.fit(cluster.label, 200)
        title = gathering.title(cluster, picture.hosts)
        incident.title = bulk.fit(title, 300) or incident.title
    incident.evidence = evidence.snapshot(cluster, picture) or incident.evidence


def _change_cause(incident: Incident, cluster: Cluster, picture: Picture) -> Line:
    """A cause that says more than what was known."""
    incident.cause_key = ""
    first = _first(cluster)
    if first.key in cluster.signals:
        incident.title = bulk.fit(first.called or first.title, 300)
    _name_cause(incident, cluster, picture)
    of_it = Alert.objects.filter(incident=incident)
    of_it.filter(pk__in=cluster.signals).update(part=Alert.Part.CAUSE)
    of_it.exclude(pk__in=cluster.signals).update(part=Alert.Part.SYMPTOM)
    why = evidence.in_words(incident.evidence)
    text = f"{incident.cause} is the probable cause" + (f": {why}" if why else "")
    return Line(incident, Event.Kind.CAUSE, text)


def _counted(rows: Sequence[Row], but: Row | None = None) -> str:
    """`12 more alerts: nova-compute is down (10), heat-engine is down (2)`."""
    others = Counter(row.called or row.title for row in rows if row is not but)
    named = [
        f"{name} ({count})" if count > 1 else name for name, count in others.most_common(NAMED)
    ]
    more = " …" if len(others) > NAMED else ""
    total = others.total()
    amount = "one more alert" if total == 1 else f"{total} more alerts"
    return f"{amount}: {', '.join(named)}{more}"
