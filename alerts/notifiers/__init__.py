"""The kinds of notification channels. A new one costs one file, one line here and one test."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

from alerts.notifiers.alerta import Alerta
from alerts.notifiers.base import (
    STORM_PAUSE,
    Field,
    Item,
    Message,
    Notifier,
    Picture,
    Receipt,
    Undelivered,
)
from alerts.notifiers.canary import Canary
from alerts.notifiers.email import Email
from alerts.notifiers.slack import Slack, SlackApp
from alerts.notifiers.webhook import Webhook

NOTIFIERS: tuple[Notifier, ...] = (Email(), Slack(), SlackApp(), Webhook(), Alerta())
CANARY: Notifier = Canary()


def by_name(name: str) -> Notifier | None:
    return next((notifier for notifier in NOTIFIERS if notifier.name == name), None)


def carrying(name: str) -> Notifier | None:
    """Of a channel that stands: also the canary's, which nobody can choose."""
    return CANARY if name == CANARY.name else by_name(name)


def made(kind: str, config: dict[str, Any]) -> dict[str, str]:
    """What a configuration lacks and we make ourselves: to be stored, and shown once."""
    notifier = by_name(kind)
    return {
        field.name: field.make()
        for field in (notifier.fields if notifier else ())
        if field.make and not config.get(field.name)
    }


def most(kind: str) -> int | None:
    """Incidents that go in one message of a storm to a channel of this kind; None: all."""
    notifier = carrying(kind)
    return notifier.most if notifier else None


def shows_pictures(kind: str) -> bool:
    """Whether a channel of this kind shows the picture of a message."""
    notifier = carrying(kind)
    return notifier is not None and notifier.shows_pictures


def storm_pause(kind: str) -> timedelta:
    """From one message of a storm to the next."""
    notifier = carrying(kind)
    return notifier.storm_pause if notifier else STORM_PAUSE


def kept(kind: str, before: dict[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The secrets of a configuration: nobody who changes it can be asked to repeat them.

    But one that is sent to another host than before: whoever leads it there must know it.
    """
    notifier = by_name(kind)
    found = {}
    for field in notifier.fields if notifier else ():
        if field.secret and field.name in before:
            to = field.sent_to
            if not to or _origin(before.get(to)) == _origin(given.get(to) or before.get(to)):
                found[field.name] = before[field.name]
    return found


def _origin(url: object) -> tuple[str, str]:
    """Scheme, host and port; an address that is none is like no other."""
    try:
        parts = urlsplit(str(url))
    except ValueError:
        return "", str(url)
    return parts.scheme, parts.netloc.lower()


def masked(kind: str, config: dict[str, Any], text: str) -> str:
    """Text that others said, without the secrets of the configuration."""
    notifier = by_name(kind)
    hidden: set[str] = set()
    for field in notifier.fields if notifier else ():
        if field.secret:
            for value in str(config.get(field.name, "")).split():
                parts = urlsplit(value) if "://" in value else None
                hidden |= {value, f"{parts.path}?{parts.query}", parts.path} if parts else {value}
    for value in sorted(hidden, key=len, reverse=True):
        if len(value) >= _LEAST_SECRET:
            text = text.replace(value, "…")
    return text


_LEAST_SECRET = 6  # characters; what is shorter is found in any text


def choices() -> list[tuple[str, str]]:
    return [(notifier.name, notifier.label) for notifier in NOTIFIERS]


__all__ = [
    "NOTIFIERS",
    "STORM_PAUSE",
    "Field",
    "Item",
    "Message",
    "Notifier",
    "Picture",
    "Receipt",
    "Undelivered",
    "by_name",
    "choices",
    "kept",
    "made",
    "masked",
    "most",
    "shows_pictures",
    "storm_pause",
]
