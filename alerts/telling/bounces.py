"""What mail providers tell later: an address that bounced, or whose owner complained.

They call anymail's webhooks, which exist where ANYMAIL names a WEBHOOK_SECRET.
"""

from __future__ import annotations

from datetime import datetime
from functools import partial

from accounts import timers
from alerts import bulk
from alerts.models import ChannelState, NotificationChannel
from alerts.push import live
from sentinel_site.kit.tenancy import current_schema, for_each_tenant

#: Anymail's names of events after which nothing arrives there.
EVENTS = {"bounced": "It bounced", "rejected": "It was refused", "complained": "It is unwanted"}


def note(kind: str, address: str, said: str, at: datetime) -> None:
    """Mark every e-mail channel to this address, in all organizations."""
    if kind in EVENTS and address:
        text = bulk.fit(f"{EVENTS[kind]} at {address}. {said}".strip(), 400)
        for_each_tenant(timers.provisioned(), partial(_mark, address.lower(), text, at))


def _mark(address: str, text: str, at: datetime) -> None:
    for channel in NotificationChannel.objects.filter(kind="email"):
        named = [one.strip().lower() for one in str(channel.config.get("to", "")).split(",")]
        if address in named:
            ChannelState.objects.update_or_create(
                channel=channel, defaults={"bounced_at": at, "bounce": text}
            )
            live.announce(current_schema(), "delivery")


def forget(channel: NotificationChannel) -> None:
    """Somebody saw to the channel: what bounced before says nothing of it now."""
    ChannelState.objects.filter(channel=channel).update(bounced_at=None, bounce="")
