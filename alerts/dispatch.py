"""Who is told what, when: queue in the transaction of the change, claim, send, retry."""

from __future__ import annotations

import time
import uuid
from datetime import datetime, timedelta
from functools import partial

import structlog
from celery import current_app
from django.db import transaction
from django.db.models import Exists, OuterRef
from kombu.exceptions import OperationalError

from accounts.models import Tenant
from accounts.timers import wake
from alerts import notifiers
from alerts.models import Alert, Event, Incident, Notification, NotificationChannel, Severity
from alerts.notifiers import Message, Undelivered
from sentinel_site.kit.tenancy import current_schema, tenant_link

log = structlog.get_logger(__name__)

CLAIM = timedelta(seconds=60)  # longer than any notifier may take
FIRST_RETRY = timedelta(seconds=10)
LAST_RETRY = timedelta(minutes=15)
GIVE_UP = timedelta(hours=24)


def queue(incident: Incident, transition: str, at: datetime) -> None:
    """A row per channel that wants to know, in the caller's transaction: the outbox."""
    channels = NotificationChannel.objects.filter(enabled=True)
    if transition.startswith("resolved"):
        told = Notification.objects.filter(incident=incident, channel=OuterRef("pk"))
        channels = channels.filter(Exists(told))
    else:
        wanted = [s.value for s in Severity if s.rank <= Severity(incident.severity).rank]
        channels = channels.filter(least_severity__in=wanted)
    rows = [
        Notification(
            incident=incident,
            channel=channel,
            transition=transition,
            severity=incident.severity,
            created_at=at,
            due_at=at,
        )
        for channel in channels
    ]
    if not Notification.objects.bulk_create(rows, ignore_conflicts=True):
        return
    schema = current_schema()
    wake(schema, at)  # should the message below be lost, the next tick finds them
    transaction.on_commit(partial(hand_over, schema))


def hand_over(schema: str) -> None:
    """Let a worker deliver what is due in this schema; without a broker the next tick does."""
    try:
        current_app.send_task("alerts.tasks.notify", ([schema],), expires=60, retry=False)
    except OperationalError as error:
        log.warning("broker away; the next tick delivers", error=str(error))


def has_due(now: datetime) -> bool:
    return Notification.objects.filter(state=Notification.State.WAITING, due_at__lte=now).exists()


def deliver_due(now: datetime) -> int:
    """Send what is due in this schema, one by one; the number of deliveries that were tried.

    The clock goes on meanwhile: a claim counts from when it was made, not from the first one.
    """
    tried = 0
    began = time.monotonic()
    while (notification := _claim(now + _whole_seconds_since(began))) is not None:
        _deliver(notification, now + _whole_seconds_since(began))
        tried += 1
    return tried


def _whole_seconds_since(began: float) -> timedelta:
    return timedelta(seconds=int(time.monotonic() - began))


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


def _deliver(notification: Notification, now: datetime) -> None:
    channel = notification.channel
    notifier = notifiers.by_name(channel.kind)
    words = {"notification": notification.pk, "channel": channel.name}
    try:
        if notifier is None:
            raise Undelivered(f"There is no kind of channel {channel.kind}.", for_good=True)
        notifier.send(channel.config, message_of(notification))
    except Undelivered as failure:
        _put_off(notification, failure, now)
        log.warning("notification not delivered", reason=str(failure), **words)
        return
    except Exception as error:  # one that can't be said must not keep back those behind it
        log.exception("notifier failed", **words)
        _put_off(notification, Undelivered(f"{type(error).__name__}: {error}"), now)
        return
    notification.state = Notification.State.SENT
    notification.sent_at = now
    notification.error = ""
    notification.save(update_fields=["state", "sent_at", "error"])
    log.info("notification sent", transition=notification.transition, **words)


def _put_off(notification: Notification, failure: Undelivered, now: datetime) -> None:
    pause = failure.retry_after or min(
        FIRST_RETRY * 2 ** min(notification.attempts - 1, 12), LAST_RETRY
    )
    given_up = failure.for_good or now + pause > notification.created_at + GIVE_UP
    notification.state = Notification.State.FAILED if given_up else Notification.State.WAITING
    notification.due_at = now + pause
    notification.error = str(failure)[:400]
    notification.save(update_fields=["state", "due_at", "error"])
    if not given_up:
        wake(current_schema(), notification.due_at)


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
            ),
        )
    except Undelivered as failure:
        return str(failure)
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
        server=alert.server.host,
        service=alert.service,
        subject=alert.subject,
        text=event.text if event else incident.title,
        advice=alert.rule.advice if alert.rule else "",
        link=tenant_link(tenant, "alerts:incident", incident.pk),
        at=event.at if event else notification.created_at,
        is_resolved=kind == Event.Kind.RESOLVED,
        thread=str(first[0].key),
    )
