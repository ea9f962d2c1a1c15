"""What people are told, in words: one transition of an incident, or many incidents at once."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime

from django.db.models import Case, Count, When

from accounts import queries as accounts
from accounts.models import Tenant
from alerts import notifiers
from alerts.lifecycle import evidence
from alerts.models import Alert, Event, Incident, Notification, NotificationChannel, Severity
from alerts.notifiers import Item, Message
from alerts.telling import charts, unsubscribing
from sentinel_site.kit.tenancy import current_schema, tenant_link

#: A digest's worst, which are named; the others are counted.
NAMED = 1000
#: Transitions told again, and what they are told as.
_AGAIN = {"escalated": Event.Kind.OPENED, "repeated": Event.Kind.OPENED}


def message_of(notification: Notification) -> Message:
    """The transition in words, from the incident's own history as it now is.

    Of an incident that was merged into another one meanwhile, that one is told.
    """
    told = notification.incident
    incident = told.merged_into or told
    tenant = Tenant.objects.get(schema_name=current_schema())
    alert = _telling(incident)
    kind = kind_of(notification.transition)
    event = told.event_set.filter(kind=_AGAIN.get(kind, kind)).order_by("pk").last()
    first = Notification.objects.filter(incident=told, channel=notification.channel).order_by("pk")[
        0
    ]
    is_resolved = kind == Event.Kind.RESOLVED
    merged = _merged([incident.pk], notification.channel_id) if is_resolved else {}
    return Message(
        key=str(notification.key),
        transition=notification.transition,
        severity=notification.severity,
        title=incident.title,
        organization=tenant.name,
        server=alert.host if alert else "",
        service=alert.service if alert else "system",
        subject=alert.subject if alert else incident.title,
        text=_with_cause(_said(kind, event, incident.title), incident, kind),
        advice=evidence.first_steps(incident) or (alert.advice if alert else ""),
        link=tenant_link(tenant, "alerts:incident", incident.pk),
        at=event.at if event else notification.created_at,
        is_resolved=is_resolved,
        thread=str(first.key),
        source=_source(tenant),
        reference=first.reference,
        incident=incident.pk,
        merged=merged.get(incident.pk, ()),
        leave=unsubscribing.link(tenant, notification.channel, notification.created_at),
        picture=charts.of(tenant.pk, alert, notification.created_at)
        if alert and notifiers.shows_pictures(notification.channel.kind)
        else None,
    )


def _merged(incidents: Iterable[int], channel: int) -> dict[int, tuple[int, ...]]:
    """Which incidents, told on this channel, turned out to belong to each of these."""
    found: dict[int, tuple[int, ...]] = {}
    rows = Incident.objects.filter(
        merged_into__in=list(incidents), notification__channel=channel
    ).order_by("pk")
    for into, pk in rows.values_list("merged_into", "pk").distinct():
        found[into or 0] = (*found.get(into or 0, ()), pk)
    return found


def _telling(incident: Incident) -> Alert | None:
    """The alert by which an incident is told: its cause's, else the first that is open.

    None where its server was deleted with all that was known of it.
    """
    alerts = Alert.objects.filter(incident=incident).select_related("server", "rule")
    cause_first = Case(When(part=Alert.Part.CAUSE, then=0), default=1)
    open_first = Case(When(resolved_at=None, then=0), default=1)
    return alerts.order_by(cause_first, open_first, "pk").first()


def _with_cause(text: str, incident: Incident, kind: str) -> str:
    """What was said, with the probable cause and what follows from it."""
    if kind == Event.Kind.RESOLVED or not incident.cause:
        return text
    parts = [text.rstrip(".") + ".", f"Probable cause: {incident.cause}."]
    symptoms = incident.alert_set.filter(part=Alert.Part.SYMPTOM)
    counted = symptoms.aggregate(alerts=Count("pk"), servers=Count("server", distinct=True))
    if counted["alerts"]:
        parts.append(f"{counted['alerts']} symptoms on {counted['servers']} servers.")
    if why := evidence.in_words(incident.evidence):
        parts.append(f"{why[0].upper()}{why[1:]}.")
    return " ".join(parts)


def _said(kind: str, event: Event | None, title: str) -> str:
    if event is not None and kind == Event.Kind.ACKNOWLEDGED:
        people = accounts.people([event.by] if event.by else [])
        return f"{people.get(event.by or 0, 'A program')} has it."
    text = event.text if event and event.text else title
    if kind in _AGAIN:
        return f"Still open, and nobody has it. {text}"
    return text


def digest_of(rows: Sequence[Notification], key: uuid.UUID, at: datetime) -> Message:
    """Many incidents in one message: how many, the worst first, each as it is now."""
    tenant = Tenant.objects.get(schema_name=current_schema())
    latest: dict[int, tuple[Notification, Incident]] = {}
    transitions: dict[int, list[str]] = {}
    for row in sorted(rows, key=lambda row: row.pk):
        incident = row.incident.merged_into or row.incident
        latest[incident.pk] = row, incident
        transitions.setdefault(incident.pk, []).append(row.transition)
    over = [pk for pk, (_, incident) in latest.items() if incident.resolved_at is not None]
    merged = _merged(over, rows[0].channel_id) if over else {}
    items = sorted(
        (
            Item(
                incident=pk,
                transition=row.transition,
                severity=incident.severity,
                title=incident.title,
                link=tenant_link(tenant, "alerts:incident", pk),
                is_resolved=incident.resolved_at is not None,
                merged=merged.get(pk, ()),
                transitions=tuple(transitions[pk]),
            )
            for pk, (row, incident) in latest.items()
        ),
        key=lambda item: (item.is_resolved, -Severity(item.severity).rank, item.incident),
    )
    still = [item for item in items if not item.is_resolved]
    counts = Counter(item.severity for item in still)
    worst = next(iter(still), items[0])
    parts = [f"{counts[one.value]} {one.value}" for one in reversed(Severity) if counts[one.value]]
    if over:
        parts.append(f"{len(over)} over")
    return Message(
        key=str(key),
        transition="digest",
        severity=worst.severity,
        title=f"{len(items)} incidents: {', '.join(parts)}",
        organization=tenant.name,
        server="",
        service="",
        subject="",
        text="So many came at once that they are told together.",
        advice="",
        link=tenant_link(tenant, "alerts:list"),
        at=at,
        is_resolved=not still,
        thread=str(key),
        source=_source(tenant),
        items=tuple(items[:NAMED]),
        leave=unsubscribing.link(tenant, rows[0].channel, at),
    )


def test_of(channel: NotificationChannel, tenant: Tenant, at: datetime) -> Message:
    """A message by which somebody sees that the channel works."""
    key = str(uuid.uuid4())
    return Message(
        key=key,
        transition="test",
        severity=Severity.INFO,
        title="Test message",
        organization=tenant.name,
        server="",
        service="sentinella",
        subject=channel.name,
        text="This channel works. Nothing is wrong.",
        advice="",
        link=tenant_link(tenant, "alerts:channels"),
        at=at,
        is_resolved=False,
        thread=key,
        source=_source(tenant),
        leave=unsubscribing.link(tenant, channel, at),
    )


def kind_of(transition: str) -> str:
    """`opened` of `opened:17`, also where it was sent again by hand (`opened:17~2`)."""
    return transition.partition(":")[0]


def _source(tenant: Tenant) -> str:
    return tenant_link(tenant, "dashboard")
