"""Who is told instead of a channel that takes no messages."""

from __future__ import annotations

from collections.abc import Sequence

from alerts.models import NotificationChannel


def of_broken(channels: Sequence[NotificationChannel]) -> dict[int, int]:
    """For each channel of which it is known that it fails, the one that is told instead.

    The channels are all that are switched on, with their `fares` and `fallback`.
    """
    found = {}
    for channel in channels:
        if hasattr(channel, "fares") and channel.fares.is_broken:
            other = instead_of(channel, channels)
            if other is not None:
                found[channel.pk] = other.pk
    return found


def instead_of(
    channel: NotificationChannel, channels: Sequence[NotificationChannel]
) -> NotificationChannel | None:
    """The channel that was chosen, else the next one by name that works."""
    chosen = channel.fallback
    if chosen is not None and chosen.enabled:
        return chosen
    working = sorted(
        (one for one in channels if one.pk != channel.pk and not _fails(one)),
        key=lambda one: one.name,
    )
    after = [one for one in working if one.name > channel.name]
    return next(iter(after or working), None)


def _fails(channel: NotificationChannel) -> bool:
    return hasattr(channel, "fares") and channel.fares.failing_since is not None
