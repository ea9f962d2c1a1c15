"""Who is told what, when: queue in the transaction of the change, claim, send, retry."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import structlog
from celery import current_app
from django.db import DatabaseError, InterfaceError, transaction
from django.db.models import Exists, Min, OuterRef
from kombu.exceptions import OperationalError

from accounts.models import Tenant
from accounts.timers import wake
from alerts import bulk, notifiers
from alerts.models import Alert, Event, Incident, Notification, NotificationChannel, Severity
from alerts.notifiers import Message, Undelivered
from clouds import suppression
from sentinel_site.kit.tenancy import current_schema, tenant_link

log = structlog.get_logger(__name__)

CLAIM = timedelta(seconds=60)  # longer than any notifier may take
FIRST_RETRY = timedelta(seconds=10)
LAST_RETRY = timedelta(minutes=15)
GIVE_UP = timedelta(hours=24)


@dataclass(frozen=True)
class Told:
    """A transition of an incident that people are to be told of, not before a time."""

    incident: Incident
    transition: str
    not_before: datetime | None = None


def queue(
    incident: Incident, transition: str, at: datetime, not_before: datetime | None = None
) -> None:
    """The same for one transition of one incident."""
    queue_all([Told(incident, transition, not_before)], at)


def queue_all(told: Sequence[Told], at: datetime) -> None:
    """A row per transition and channel that wants to know, in the caller's transaction: the outbox.

    None while every server of the incident is in maintenance or blackout. The number of statements
    is the same for any number of transitions.
    """
    if not told:
        return
    incidents = [one.incident.pk for one in told]
    concerned: dict[int, set[int]] = {}
    of_them = Alert.objects.filter(incident__in=incidents).order_by()
    for incident, server in of_them.values_list("incident", "server").distinct():
        concerned.setdefault(incident, set()).add(server or 0)  # 0: on no server of ours
    muted = set(suppression.active_for(set().union(*concerned.values()), at))
    channels = list(NotificationChannel.objects.filter(enabled=True))
    begun = Notification.objects.filter(incident__in=incidents).order_by()
    knows = set(begun.values_list("incident", "channel").distinct())
    rows: list[dict[str, Any]] = [
        {
            "incident_id": one.incident.pk,
            "channel_id": channel.pk,
            "transition": one.transition,
            "severity": str(one.incident.severity),
            "key": uuid.uuid4(),
            "state": Notification.State.WAITING.value,
            "created_at": at,
            "due_at": max(at, one.not_before or at),
            "attempts": 0,
            "error": "",
        }
        for one in told
        if not (servers := concerned.get(one.incident.pk, set())) or servers - muted
        for channel in channels
        if _wants(channel, one, (one.incident.pk, channel.pk) in knows)
    ]
    if not bulk.insert(Notification, rows, "ON CONFLICT DO NOTHING"):
        return
    schema, due_at = current_schema(), min(row["due_at"] for row in rows)
    wake(schema, due_at)  # should the message below be lost
    if due_at <= at:
        transaction.on_commit(partial(hand_over, schema))


def withdraw(incident: Incident) -> int:
    """Drop what was not yet sent of an incident that was merged into another; how many."""
    waiting = Notification.objects.filter(incident=incident, state=Notification.State.WAITING)
    return waiting.delete()[0]


def _wants(channel: NotificationChannel, told: Told, knows: bool) -> bool:
    """Whether a channel is told: of an end who heard of the begin, else what is bad enough."""
    if told.transition.startswith("resolved"):
        return knows
    return Severity(told.incident.severity).rank >= Severity(channel.least_severity).rank


def tell_what_was_muted(at: datetime) -> None:
    """Tell people of what opened in a maintenance or blackout that is over, and still holds."""
    muted = Alert.objects.filter(resolved_at=None).exclude(suppressed="")
    over = list(muted.select_related("incident"))
    still = suppression.active_for({one.server_id for one in over if one.server_id}, at)
    for alert in over:
        if alert.server_id not in still:
            Alert.objects.filter(pk=alert.pk).update(suppressed="")
            queue(alert.incident, f"opened:{alert.incident_id}", at)


def hand_over(schema: str) -> None:
    """Let a worker deliver what is due in this schema; without a broker the next tick does."""
    try:
        current_app.send_task("alerts.tasks.notify", ([schema],), expires=60, retry=False)
    except OperationalError as error:
        log.warning("broker away; the next tick delivers", error=str(error))


def has_due(now: datetime) -> bool:
    return Notification.objects.filter(state=Notification.State.WAITING, due_at__lte=now).exists()


def next_due(now: datetime) -> datetime | None:
    """When the next delivery that waits is due after now."""
    waiting = Notification.objects.filter(state=Notification.State.WAITING, due_at__gt=now)
    found: datetime | None = waiting.aggregate(first=Min("due_at"))["first"]
    return found


def deliver_due(now: datetime) -> int:
    """Send what is due in this schema, one by one; the number of deliveries that were tried.

    Time goes on while they are sent: a claim counts from when it is made.
    """
    tried, began = 0, time.monotonic()

    def passed() -> datetime:
        return now + timedelta(seconds=int(time.monotonic() - began))

    while (notification := _claim(passed())) is not None:
        _deliver(notification, passed)
        tried += 1
    return tried


@transaction.atomic
def _claim(now: datetime) -> Notification | None:
    """The oldest one due that no other worker has; it is ours for CLAIM.

    Later transitions of an incident wait for the earlier ones to the same channel.
    """
    waiting = Notification.objects.filter(state=Notification.State.WAITING)
    earlier = waiting.filter(
        incident=OuterRef("incident"), channel=OuterRef("channel"), pk__lt=OuterRef("pk")
    )
    row = (
        waiting.filter(~Exists(earlier), due_at__lte=now)
        .select_for_update(skip_locked=True, of=("self",))
        .select_related("channel", "incident")
        .order_by("pk")
        .first()
    )
    if row is not None:
        row.attempts += 1
        row.due_at = now + CLAIM
        row.save(update_fields=["attempts", "due_at"])
        wake(current_schema(), row.due_at)  # if we die now, it is found again then
    return row


def _deliver(notification: Notification, clock: Callable[[], datetime]) -> None:
    """Send one; whatever goes wrong is kept on its row and stops no other."""
    channel = notification.channel
    notifier = notifiers.by_name(channel.kind)
    words = {"notification": notification.pk, "channel": channel.name}
    try:
        if notifier is None:
            raise Undelivered(f"There is no kind of channel {channel.kind}.", for_good=True)
        notifier.send(channel.config, message_of(notification))
    except Undelivered as failure:
        _put_off(notification, failure, clock())
        log.warning("notification not delivered", reason=str(failure), **words)
        return
    except (DatabaseError, InterfaceError):
        raise
    except Exception as error:
        _put_off(notification, Undelivered(f"{type(error).__name__}: {error}"), clock())
        log.exception("notification not delivered", **words)
        return
    _note(notification, state=Notification.State.SENT, sent_at=clock(), error="")
    log.info("notification sent", transition=notification.transition, **words)


def _put_off(notification: Notification, failure: Undelivered, now: datetime) -> None:
    pause = failure.retry_after or min(
        FIRST_RETRY * 2 ** min(notification.attempts - 1, 12), LAST_RETRY
    )
    given_up = failure.for_good or now + pause > notification.created_at + GIVE_UP
    _note(
        notification,
        state=Notification.State.FAILED if given_up else Notification.State.WAITING,
        due_at=now + pause,
        error=str(failure).replace("\0", "�")[:400],
    )
    if not given_up:
        wake(current_schema(), now + pause)


def _note(notification: Notification, **values: Any) -> None:
    """Write what came of it, unless it was settled or its channel deleted meanwhile."""
    waiting = Notification.objects.filter(pk=notification.pk, state=Notification.State.WAITING)
    waiting.update(**values)


def send_test(channel: NotificationChannel, tenant: Tenant, at: datetime) -> str:
    """Deliver a test message at once; what went wrong, or nothing."""
    notifier = notifiers.by_name(channel.kind)
    key = str(uuid.uuid4())
    try:
        if notifier is None:
            raise Undelivered(f"There is no kind of channel {channel.kind}.", for_good=True)
        notifier.send(
            channel.config,
            Message(
                key=key,
                transition="test",
                severity=Severity.INFO,
                title="Test message",
                organization=tenant.name,
                server="no server",
                service="sentinella",
                subject=channel.name,
                text="This channel works. Nothing is wrong.",
                advice="",
                link=tenant_link(tenant, "alerts:channels"),
                at=at,
                is_resolved=False,
                thread=key,
                source=_source(tenant),
            ),
        )
    except Undelivered as failure:
        return str(failure)
    except Exception as error:
        log.exception("test message not delivered", channel=channel.name)
        return f"{type(error).__name__}: {error}"
    return ""


def message_of(notification: Notification) -> Message:
    """The transition in words, from the incident's own history."""
    incident = notification.incident
    tenant = Tenant.objects.get(schema_name=current_schema())
    alert = Alert.objects.filter(incident=incident).select_related("server", "rule").latest("pk")
    kind = notification.transition.split(":")[0]
    event = incident.event_set.filter(kind=kind).order_by("pk").last()
    first = Notification.objects.filter(incident=incident, channel=notification.channel).order_by(
        "pk"
    )
    return Message(
        key=str(notification.key),
        transition=notification.transition,
        severity=notification.severity,
        title=incident.title,
        organization=tenant.name,
        server=alert.host,
        service=alert.service,
        subject=alert.subject,
        text=event.text if event else incident.title,
        advice=alert.advice,
        link=tenant_link(tenant, "alerts:incident", incident.pk),
        at=event.at if event else notification.created_at,
        is_resolved=kind == Event.Kind.RESOLVED,
        thread=str(first[0].key),
        source=_source(tenant),
    )


def _source(tenant: Tenant) -> str:
    return tenant_link(tenant, "dashboard")
