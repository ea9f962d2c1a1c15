"""Alerts and incidents: open, count, raise, acknowledge, recover, resolve."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from django.db import IntegrityError, transaction
from django.db.models import F

from accounts.models import User
from alerts import dispatch, live
from alerts.models import Alert, Event, Incident, Rule, Severity
from clouds import servers, suppression
from sentinel_site.kit.problems import Problem


class AlreadyAcknowledged(Problem):
    status, code, title = 409, "already-acknowledged", "Incident is taken"


class AlreadyResolved(Problem):
    status, code, title = 409, "already-resolved", "Incident is resolved already"


@dataclass(frozen=True)
class Found:
    """A breach that has held long enough, with all that an alert of it must say."""

    rule: Rule
    fingerprint: str
    reading: float
    limit: float
    severity: Severity
    server: int
    service: str
    subject: str
    unit: str
    text: str
    held_since: datetime
    title: str


def open_or_count(found: Found, at: datetime) -> Alert:
    """The open alert of this fingerprint: made now, opened again, or counted once more.

    One that was resolved by hand while the rule held all along opens again with its incident.
    """
    again = (
        Alert.objects.filter(
            fingerprint=found.fingerprint,
            resolved_by_hand=True,
            resolved_at__gte=found.held_since,
        )
        .select_related("incident")
        .first()
    )
    try:
        with transaction.atomic():
            return _reopen(again, found, at) if again else _open(found, at)
    except IntegrityError:
        Alert.objects.filter(fingerprint=found.fingerprint, resolved_at=None).update(
            count=F("count") + 1, value=found.reading, breached_at=at
        )
        return Alert.objects.get(fingerprint=found.fingerprint, resolved_at=None)


def _open(found: Found, at: datetime) -> Alert:
    title = found.title[:300]
    incident = Incident.objects.create(title=title, severity=found.severity, opened_at=at)
    muted = suppression.active_for([found.server], at).get(found.server)
    alert = Alert.objects.create(
        incident=incident,
        rule=found.rule,
        server_id=found.server,
        fingerprint=found.fingerprint,
        severity=found.severity,
        service=found.service[:200] or "system",
        subject=found.subject[:300] or found.rule.name,
        title=found.rule.name,
        value=found.reading,
        limit=found.limit,
        unit=found.unit,
        opened_at=at,
        breached_at=at,
        suppressed=muted.kind if muted else "",
    )
    _tell(incident, Event.Kind.OPENED, at, found.text, f"opened:{incident.pk}")
    _changed(alert)
    return alert


def _reopen(alert: Alert, found: Found, at: datetime) -> Alert:
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
    _tell(incident, Event.Kind.REOPENED, at, text, f"reopened:{times}")
    _changed(alert)
    return alert


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
        _tell(incident, Event.Kind.RAISED, at, text, f"raised:{times}")
    else:
        incident.event_set.create(kind=Event.Kind.LOWERED, at=at, text=text, severity=severity)
    _changed(alert)


def recover(alert: Alert, value: float, text: str, at: datetime) -> None:
    """The rule no longer holds; `text` says so."""
    Alert.objects.filter(pk=alert.pk).update(value=value)
    resolve_alert(alert, at, text)


def resolve_alert(
    alert: Alert, at: datetime, text: str, by: User | None = None, by_hand: bool = False
) -> None:
    """End one alert, and its incident with the last of its alerts.

    A slot may lie a little ahead of the clock, so that a person can be quicker than it.
    """
    at = max(at, alert.opened_at)
    free = Alert.objects.filter(pk=alert.pk, resolved_at=None)
    if not free.update(resolved_at=at, resolved_by_hand=by_hand):
        return
    incident = alert.incident
    _changed(alert)
    if incident.alert_set.filter(resolved_at=None).exists():
        return
    if Incident.objects.filter(pk=incident.pk, resolved_at=None).update(resolved_at=at):
        incident.resolved_at = at
        times = incident.event_set.filter(kind=Event.Kind.RESOLVED).count() + 1
        _tell(incident, Event.Kind.RESOLVED, at, text, f"resolved:{times}", by)


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
    live.announce_on_commit("incident", incident.pk)


@transaction.atomic
def resolve(incident: Incident, by: User | None, at: datetime) -> None:
    """End it by hand. If its rule still holds at the next slot, it opens again.

    Raises AlreadyResolved.
    """
    open_alerts = list(
        Alert.objects.select_for_update(of=("self",))
        .filter(incident=incident, resolved_at=None)
        .select_related("incident")
    )
    if not open_alerts:
        raise AlreadyResolved(incident=incident.pk)
    for alert in open_alerts:
        resolve_alert(alert, at, "Resolved by hand.", by, by_hand=True)
    incident.refresh_from_db()


def worst(severities: Iterable[str]) -> Severity | None:
    return max(map(Severity, severities), key=lambda one: one.rank, default=None)


def _tell(
    incident: Incident,
    kind: Event.Kind,
    at: datetime,
    text: str,
    transition: str,
    by: User | None = None,
) -> None:
    """Write the line of history and queue the notifications of it, in this transaction."""
    incident.event_set.create(
        kind=kind,
        at=at,
        text=text[:400],
        by=by.pk if by else None,
        severity=incident.severity,
    )
    dispatch.queue(incident, transition, at)
    live.announce_on_commit("incident", incident.pk)


def _changed(alert: Alert) -> None:
    if alert.server_id is not None:
        open_ones = Alert.objects.filter(server=alert.server_id, resolved_at=None)
        servers.set_health(alert.server_id, worst(open_ones.values_list("severity", flat=True)))
    live.announce_on_commit("alert", alert.pk)
