"""When a channel fails: another one stands in for it, and people hear that it is broken."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import partial

from django.db import transaction

from accounts.timers import wake
from alerts import bulk
from alerts.dispatching import dispatch
from alerts.lifecycle import incidents
from alerts.models import Alert, ChannelState, Notification, NotificationChannel, Severity
from sentinel_site.kit.tenancy import current_schema

#: A channel that fails for so long is given up on: what it should be told goes elsewhere, too.
PATIENCE = timedelta(hours=1)
ORIGIN = "sentinella"


def stand_in(
    channel: NotificationChannel,
    state: ChannelState,
    given_up: Sequence[Notification],
    reason: str,
    at: datetime,
) -> None:
    """Send elsewhere what this channel was given and does not take.

    That is what was given up, and after PATIENCE all that waits. Call it in a transaction.
    """
    since = state.failing_since
    is_long = since is not None and at - since >= PATIENCE
    left = list(given_up)
    if is_long:
        left += Notification.objects.filter(channel=channel, state=Notification.State.WAITING)
    if not left:
        return
    other = other_than(channel)
    if other is not None:
        _copy(left, other, at)
    if not state.is_broken:
        ChannelState.objects.filter(pk=channel.pk).update(is_broken=True)
        _report(channel, reason, at)


def other_than(channel: NotificationChannel) -> NotificationChannel | None:
    """Who stands in: the channel that was chosen, else the next one by name that works."""
    chosen = channel.fallback
    if chosen is not None and chosen.enabled:
        return chosen
    working = list(
        NotificationChannel.objects.filter(enabled=True)
        .exclude(pk=channel.pk)
        .exclude(fares__failing_since__isnull=False)
    )
    after = [one for one in working if one.name > channel.name]
    return next(iter(after or working), None)


def _copy(rows: Sequence[Notification], other: NotificationChannel, at: datetime) -> None:
    """The same transitions to another channel, unless it was told of them itself."""
    made = bulk.insert(
        Notification,
        [
            {
                "incident_id": row.incident_id,
                "channel_id": other.pk,
                "transition": row.transition,
                "severity": row.severity,
                "key": uuid.uuid4(),
                "state": Notification.State.WAITING.value,
                "created_at": at,
                "due_at": at,
                "attempts": 0,
                "error": "",
                "reference": "",
            }
            for row in rows
        ],
        "ON CONFLICT DO NOTHING",
    )
    if made:
        schema = current_schema()
        wake(schema, at)
        transaction.on_commit(partial(dispatch.hand_over, schema))


def _fingerprint(channel: NotificationChannel) -> str:
    return f"channel:{channel.pk}"


def _report(channel: NotificationChannel, reason: str, at: datetime) -> None:
    """One incident that says so; the broken channel itself is not kept waiting with it."""
    text = f"The channel “{channel.name}” takes no messages: {reason}"
    found = incidents.Found(
        rule=None,
        fingerprint=_fingerprint(channel),
        reading=None,
        limit=None,
        severity=Severity.ERROR,
        server=None,
        service="notifications",
        subject=channel.name,
        unit="",
        text=text,
        held_since=at,
        title="Notification channel fails",
        origin=ORIGIN,
        resource=f"channel {channel.name}",
    )
    outcomes = incidents.open_all([found], at)
    made = [outcome.incident for outcome in outcomes.values()]
    Notification.objects.filter(
        channel=channel, incident__in=made, state=Notification.State.WAITING
    ).delete()


@transaction.atomic
def mend(channel: NotificationChannel, at: datetime) -> None:
    """It takes messages again: the incident about it is over."""
    still = Alert.objects.filter(fingerprint=_fingerprint(channel), resolved_at=None)
    text = f"The channel “{channel.name}” takes messages again."
    incidents.recover_all([incidents.Recovered(alert, None, text) for alert in still], at)
