"""When a channel fails: another one stands in for it, and people hear that it is broken."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from django.db import transaction

from accounts.timers import wake
from alerts import bulk
from alerts.dispatching import dispatch, substitutes
from alerts.lifecycle import incidents
from alerts.models import Alert, ChannelState, Notification, NotificationChannel, Severity
from sentinel_site.kit.tenancy import current_schema

#: A channel that fails for so long is given up on: what it should be told goes elsewhere, too.
PATIENCE = timedelta(hours=1)


def stand_in(
    channel: NotificationChannel,
    state: ChannelState,
    given_up: Sequence[Notification],
    at: datetime,
) -> bool:
    """Send elsewhere what this channel was given and does not take; whether there was something.

    That is what was given up, and after PATIENCE all that waits. Call it in a transaction, and
    `report` after it.
    """
    since = state.failing_since
    is_long = since is not None and at - since >= PATIENCE
    left = list(given_up)
    if is_long:
        left += Notification.objects.filter(channel=channel, state=Notification.State.WAITING)
    if not left:
        return False
    other = other_than(channel)
    if other is not None:
        _copy(left, other, at)
    return True


def hand_on(channel: NotificationChannel, at: datetime) -> None:
    """Send elsewhere all that still waits for this channel, which is about to be switched off.

    Call it in a transaction, and `report` after it.
    """
    waiting = Notification.objects.filter(channel=channel, state=Notification.State.WAITING)
    other = other_than(channel)
    if other is not None:
        _copy(list(waiting), other, at)


def make_state(channel: int) -> None:
    """Let the channel have a state, before anybody locks the channel itself."""
    ChannelState.objects.bulk_create([ChannelState(channel_id=channel)], ignore_conflicts=True)


def other_than(channel: NotificationChannel) -> NotificationChannel | None:
    """Who stands in: the channel that was chosen, else the next one by name that works."""
    switched_on = NotificationChannel.objects.filter(enabled=True).select_related("fares")
    return substitutes.instead_of(channel, list(switched_on))


def _copy(rows: Sequence[Notification], other: NotificationChannel, at: datetime) -> None:
    """The same transitions to another channel, unless it was told of them itself.

    What was held back for a time is so still.
    """
    copies: list[dict[str, Any]] = [
        {
            "incident_id": row.incident_id,
            "channel_id": other.pk,
            "transition": row.transition,
            "severity": row.severity,
            "key": uuid.uuid4(),
            "state": Notification.State.WAITING.value,
            "created_at": at,
            "due_at": at if row.attempts else max(at, row.due_at),
            "attempts": 0,
            "error": "",
            "reference": "",
        }
        for row in rows
    ]
    if bulk.insert(Notification, copies, "ON CONFLICT DO NOTHING") is not None:
        schema = current_schema()
        wake(schema, min(copy["due_at"] for copy in copies))
        transaction.on_commit(partial(dispatch.hand_over, schema))


def _fingerprint(channel: NotificationChannel) -> str:
    return f"channel:{channel.pk}"


@transaction.atomic
def report(channel: NotificationChannel, reason: str, at: datetime) -> None:
    """One incident that says so, the first time; from then on others are told instead.

    In a transaction of its own: it waits for whoever opens alerts, and must hold nothing meanwhile.
    The broken channel itself is not kept waiting with it.
    """
    incidents.one_at_a_time()
    ChannelState.objects.bulk_create([ChannelState(channel=channel)], ignore_conflicts=True)
    if not ChannelState.objects.filter(pk=channel.pk, is_broken=False).update(is_broken=True):
        return
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
        origin=Alert.OWN,
        resource=f"channel {channel.name}",
    )
    outcomes = incidents.open_all([found], at)
    made = [outcome.incident for outcome in outcomes.values()]
    Notification.objects.filter(
        channel=channel, incident__in=made, state=Notification.State.WAITING
    ).delete()


@transaction.atomic
def mend(channel: NotificationChannel, at: datetime, text: str = "") -> None:
    """It takes messages again, or `text` says what else: the incident about it is over."""
    incidents.one_at_a_time()
    ChannelState.objects.filter(pk=channel.pk).update(is_broken=False)
    still = Alert.objects.filter(fingerprint=_fingerprint(channel), resolved_at=None)
    said = text or f"The channel “{channel.name}” takes messages again."
    incidents.recover_all([incidents.Recovered(alert, None, said) for alert in still], at)
