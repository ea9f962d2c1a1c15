"""Alerts and incidents: open, count, raise, acknowledge, recover, resolve."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import transaction
from django.db.models import Count, Q

from accounts.models import User
from alerts import bulk, dispatch, live
from alerts.models import Alert, Event, Incident, Rule, Severity
from clouds import servers, suppression
from clouds.suppression import NO_SERVER
from sentinel_site.kit.problems import Problem
from sentinel_site.kit.tenancy import connection, current_schema


class AlreadyAcknowledged(Problem):
    status, code, title = 409, "already-acknowledged", "Incident is taken"


class AlreadyResolved(Problem):
    status, code, title = 409, "already-resolved", "Incident is resolved already"


@dataclass(frozen=True)
class Found:
    """A breach that has held long enough, with all that an alert of it must say.

    `rule` is None where another tool judged; `origin` then names it. What is on no server of ours
    says in `resource` what it is on.
    """

    rule: Rule | None
    fingerprint: str
    reading: float | None
    limit: float | None
    severity: Severity
    server: int | None
    service: str
    subject: str
    unit: str
    text: str
    held_since: datetime
    title: str
    origin: str = ""
    resource: str = ""


@dataclass(frozen=True)
class Recovered:
    """An alert that is over; `text` says why. A value of None leaves the one last judged."""

    alert: Alert
    value: float | None
    text: str


@dataclass(frozen=True)
class Outcome:
    """What became of one that was found: a new alert, or a count on the open one."""

    alert: int
    incident: int
    is_new: bool


def open_all(founds: Sequence[Found], at: datetime) -> dict[str, Outcome]:
    """See to it that each of these has its one open alert; the outcome by fingerprint.

    An alert is made, opened again, or counted once more. One that was resolved by hand while it
    held all along opens again with its incident. The number of statements is the same for any
    number of founds, but for those opened again.
    """
    if not founds:
        return {}
    with transaction.atomic():
        return _open_or_count(founds, at)


def _open_or_count(founds: Sequence[Found], at: datetime) -> dict[str, Outcome]:
    _one_at_a_time()
    wanted = {found.fingerprint: found for found in founds}
    known = _known(wanted)
    outcomes: dict[str, Outcome] = {}
    counted, again, new = [], [], []
    for name, found in wanted.items():
        alert = known.get(name)
        if alert is None:
            new.append(found)
            continue
        outcomes[name] = Outcome(alert.pk, alert.incident_id, is_new=False)
        if alert.resolved_at is None:
            counted.append({"id": alert.pk, "value": found.reading, "breached_at": at})
        else:
            again.append((alert, found))
    bulk.update(
        Alert,
        counted,
        "count = row.count + 1, value = given.value, breached_at = given.breached_at",
    )
    for alert, found in again:
        _reopen(alert, found, at)
    outcomes |= _open(new, at)
    changed = [*new, *(found for _, found in again)]
    if changed:
        _settle_health(_servers(found.server for found in changed))
        live.announce_on_commit("alert")
        live.announce_on_commit("incident")
    return outcomes


def _one_at_a_time() -> None:
    """Alerts of a tenant are opened and ended by one transaction after the other.

    Taken before any of their rows is, so that nobody waits for it while holding one.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_advisory_xact_lock(%s, hashtext(%s))", [_INCIDENTS, current_schema()]
        )


_INCIDENTS = 0x5E28


def _known(wanted: Mapping[str, Found]) -> dict[str, Alert]:
    """The open alert of each fingerprint, or the one that was resolved by hand while it held."""
    found: dict[str, Alert] = {}
    rows = Alert.objects.select_related("incident").extra(  # one parameter for any number
        where=["alerts_alert.fingerprint = ANY(%s)"], params=[list(wanted)]
    )
    for alert in rows.filter(Q(resolved_at=None) | Q(resolved_by_hand=True)).order_by("pk"):
        ended = alert.resolved_at
        if ended is None or ended >= wanted[alert.fingerprint].held_since:
            found[alert.fingerprint] = alert
    return found


def _open(founds: Sequence[Found], at: datetime) -> dict[str, Outcome]:
    """New alerts, each in an incident of its own."""
    if not founds:
        return {}
    muted = suppression.active_for({found.server or NO_SERVER for found in founds}, at)
    incidents = [
        Incident(
            pk=pk, title=bulk.fit(found.title, 300), severity=str(found.severity), opened_at=at
        )
        for pk, found in zip(bulk.take_ids(Incident, len(founds)), founds, strict=True)
    ]
    alerts: list[dict[str, Any]] = [
        {
            "id": pk,
            "incident_id": incident.pk,
            "rule_id": found.rule.pk if found.rule else None,
            "server_id": found.server,
            "fingerprint": found.fingerprint,
            "severity": str(found.severity),
            "service": bulk.fit(found.service, 200) or "system",
            "subject": bulk.fit(found.subject or _name(found), 300),
            "title": bulk.fit(_name(found), 300),
            "value": found.reading,
            "limit": found.limit,
            "unit": bulk.fit(found.unit, 20),
            "count": 1,
            "opened_at": at,
            "breached_at": at,
            "resolved_by_hand": False,
            "suppressed": muted[found.server or NO_SERVER].kind
            if (found.server or NO_SERVER) in muted
            else "",
            "origin": found.origin,
            "resource": bulk.fit(found.resource, 255),
        }
        for pk, incident, found in zip(
            bulk.take_ids(Alert, len(founds)), incidents, founds, strict=True
        )
    ]
    bulk.insert(
        Incident,
        [
            {
                "id": incident.pk,
                "title": incident.title,
                "severity": incident.severity,
                "opened_at": at,
            }
            for incident in incidents
        ],
    )
    bulk.insert(Alert, alerts)
    _tell_all(
        [
            Line(incident, Event.Kind.OPENED, found.text, f"opened:{incident.pk}")
            for incident, found in zip(incidents, founds, strict=True)
        ],
        at,
    )
    return {
        found.fingerprint: Outcome(alert["id"], incident.pk, is_new=True)
        for alert, incident, found in zip(alerts, incidents, founds, strict=True)
    }


def _name(found: Found) -> str:
    return found.rule.name if found.rule else found.title


def _reopen(alert: Alert, found: Found, at: datetime) -> None:
    alert.resolved_at, alert.resolved_by_hand = None, False
    alert.severity, alert.value, alert.breached_at = found.severity, found.reading, at
    alert.count += 1
    alert.save()
    incident = alert.incident
    incident.resolved_at = incident.acknowledged_at = incident.taken_by = None
    incident.severity = found.severity
    incident.save()
    times = incident.event_set.filter(kind=Event.Kind.REOPENED).count() + 1
    text = f"It was resolved by hand, but still holds. {found.text}"
    _tell_all([Line(incident, Event.Kind.REOPENED, text, f"reopened:{times}")], at)


def note_severity(alert: Alert, severity: Severity, at: datetime, explained: str = "") -> None:
    """A change of severity updates the open alert, and is told when it became worse."""
    if alert.severity == severity:
        return
    worse = severity.rank > Severity(alert.severity).rank
    Alert.objects.filter(pk=alert.pk).update(severity=severity)
    alert.severity = severity
    incident = alert.incident
    incident.severity = severity
    incident.save(update_fields=["severity"])
    text = f"Now {severity.label.lower()}. {explained}".strip()
    if worse:
        times = incident.event_set.filter(kind=Event.Kind.RAISED).count() + 1
        _tell_all([Line(incident, Event.Kind.RAISED, text, f"raised:{times}")], at)
    else:
        incident.event_set.create(kind=Event.Kind.LOWERED, at=at, text=text, severity=severity)
    _settle_health(_servers([alert.server_id]))
    live.announce_on_commit("alert", alert.pk)


def recover_all(
    recovered: Sequence[Recovered],
    at: datetime,
    by: User | None = None,
    by_hand: bool = False,
) -> None:
    """End these alerts, and each incident with the last of its alerts.

    A slot may lie a little ahead of the clock, so that a person can be quicker than it. The number
    of statements is the same for any number of alerts.
    """
    if recovered:
        with transaction.atomic():
            _recover(recovered, at, by, by_hand)


def _recover(recovered: Sequence[Recovered], at: datetime, by: User | None, by_hand: bool) -> None:
    _one_at_a_time()
    ended = bulk.update(
        Alert,
        [
            {"id": one.alert.pk, "value": one.value, "resolved_at": at, "resolved_by_hand": by_hand}
            for one in recovered
        ],
        "resolved_at = greatest(given.resolved_at, row.opened_at),"
        " value = coalesce(given.value, row.value), resolved_by_hand = given.resolved_by_hand",
        where="row.resolved_at IS NULL",
        returning="id incident_id server_id",
    )
    if not ended:
        return
    said = {one.alert.pk: one.text for one in recovered}
    texts = {incident: said[alert] for alert, incident, _ in sorted(ended)}
    over = bulk.update(
        Incident,
        [{"id": pk, "resolved_at": at} for pk in texts],
        "resolved_at = greatest(given.resolved_at, row.opened_at)",
        where="row.resolved_at IS NULL AND NOT EXISTS (SELECT 1 FROM alerts_alert AS left_open"
        " WHERE left_open.incident_id = row.id AND left_open.resolved_at IS NULL)",
    )
    incidents = Incident.objects.in_bulk([pk for (pk,) in over])
    times = _times(incidents, Event.Kind.RESOLVED)
    _tell_all(
        [
            Line(row, Event.Kind.RESOLVED, texts[pk], f"resolved:{times[pk] + 1}")
            for pk, row in sorted(incidents.items())
        ],
        at,
        by,
    )
    _settle_health(_servers(server for _, _, server in ended))
    live.announce_on_commit("alert")
    live.announce_on_commit("incident")


@transaction.atomic
def acknowledge(incident: Incident, by: User | None, at: datetime) -> None:
    """Record who has it; None is a program's key. A second person is told that it is taken.

    Raises AlreadyAcknowledged, AlreadyResolved.
    """
    free = Incident.objects.filter(pk=incident.pk, acknowledged_at=None, resolved_at=None)
    if not free.update(acknowledged_at=at, taken_by=by.pk if by else None):
        incident.refresh_from_db()
        if incident.resolved_at is not None:
            raise AlreadyResolved("There is nothing left to take.", incident=incident.pk)
        raise AlreadyAcknowledged("Someone else has it.", incident=incident.pk)
    incident.refresh_from_db()
    incident.event_set.create(kind=Event.Kind.ACKNOWLEDGED, by=by.pk if by else None, at=at)
    times = incident.event_set.filter(kind=Event.Kind.ACKNOWLEDGED).count()
    dispatch.queue(incident, f"acknowledged:{times}", at)
    live.announce_on_commit("incident", incident.pk)


@transaction.atomic
def resolve(incident: Incident, by: User | None, at: datetime) -> None:
    """End it by hand. If its rule still holds at the next slot, it opens again.

    Raises AlreadyResolved.
    """
    open_alerts = list(Alert.objects.filter(incident=incident, resolved_at=None))
    if not open_alerts:
        raise AlreadyResolved(incident=incident.pk)
    text = "Resolved by hand."
    recover_all([Recovered(alert, None, text) for alert in open_alerts], at, by, by_hand=True)
    incident.refresh_from_db()


def worst(severities: Iterable[str]) -> Severity | None:
    return max(map(Severity, severities), key=lambda one: one.rank, default=None)


@dataclass(frozen=True)
class Line:
    """A line of history of an incident, and the transition that people are told of by it."""

    incident: Incident
    kind: Event.Kind
    text: str
    transition: str


def _tell_all(lines: Sequence[Line], at: datetime, by: User | None = None) -> None:
    """Write the lines of history and queue the notifications of them, in this transaction."""
    bulk.insert(
        Event,
        [
            {
                "incident_id": line.incident.pk,
                "kind": str(line.kind),
                "at": at,
                "text": bulk.fit(line.text, 400),
                "by": by.pk if by else None,
                "severity": str(line.incident.severity),
            }
            for line in lines
        ],
    )
    dispatch.queue_all([dispatch.Told(line.incident, line.transition) for line in lines], at)


def _times(incidents: Iterable[int], kind: Event.Kind) -> Counter[int]:
    """How often each of these incidents had a line of this kind."""
    rows = Event.objects.filter(incident__in=incidents, kind=kind).values_list("incident")
    return Counter(dict(rows.annotate(number=Count("pk"))))


def _servers(found: Iterable[int | None]) -> set[int]:
    """Those that are servers of ours."""
    return {server for server in found if server is not None}


def _settle_health(changed: set[int]) -> None:
    """Keep the worst open alert of each of these servers where lists of servers find it."""
    open_ones = Alert.objects.filter(server__in=changed, resolved_at=None)
    severities: dict[int, list[str]] = {server: [] for server in changed}
    rows = open_ones.order_by().values_list("server", "severity").distinct()
    for server, severity in rows:
        severities[server or 0].append(severity)
    servers.set_healths({server: worst(found) for server, found in severities.items()})
