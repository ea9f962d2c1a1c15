"""Who is told instead of a channel that takes no messages."""

from __future__ import annotations

from collections.abc import Sequence

from alerts.models import NotificationChannel


def of_broken(channels: Sequence[NotificationChannel]) -> dict[int, int]:
    """For each channel of which it is known that it fails, the one that is told instead.

    The channels are all that are switched on, with their `fares`.
    """
    found = {}
    for channel in channels:
        if _is_broken(channel):
            other = instead_of(channel, channels)
            if other is not None:
                found[channel.pk] = other.pk
    return found


def instead_of(
    channel: NotificationChannel, channels: Sequence[NotificationChannel]
) -> NotificationChannel | None:
    """The channel that was chosen, or is chosen instead of that; else the next that works.

    One that is known to be broken only where there is no other. The channels are as above.
    """
    switched_on = {one.pk: one for one in channels}
    chosen = _chosen(channel, switched_on)
    for one in chosen:
        if not _is_broken(one):
            return one
    working = sorted(
        (one for one in channels if one.pk != channel.pk and not _fails(one)),
        key=lambda one: one.name,
    )
    after = [one for one in working if one.name > channel.name]
    return next(iter(after or working or chosen), None)


def _chosen(
    channel: NotificationChannel, switched_on: dict[int, NotificationChannel]
) -> list[NotificationChannel]:
    """Those that people chose, one for the other, as far as they are switched on."""
    found: list[NotificationChannel] = []
    following = switched_on.get(channel.fallback_id or 0)
    while following is not None and following.pk != channel.pk and following not in found:
        found.append(following)
        following = switched_on.get(following.fallback_id or 0)
    return found


def _is_broken(channel: NotificationChannel) -> bool:
    return hasattr(channel, "fares") and channel.fares.is_broken


def _fails(channel: NotificationChannel) -> bool:
    return hasattr(channel, "fares") and channel.fares.failing_since is not None
