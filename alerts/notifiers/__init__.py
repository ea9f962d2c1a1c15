"""The kinds of notification channels. A new one costs one file, one line here and one test."""

from __future__ import annotations

from alerts.notifiers.base import Field, Message, Notifier, Undelivered
from alerts.notifiers.email import Email
from alerts.notifiers.slack import Slack

NOTIFIERS: tuple[Notifier, ...] = (Email(), Slack())


def by_name(name: str) -> Notifier | None:
    return next((notifier for notifier in NOTIFIERS if notifier.name == name), None)


def choices() -> list[tuple[str, str]]:
    return [(notifier.name, notifier.label) for notifier in NOTIFIERS]


__all__ = ["NOTIFIERS", "Field", "Message", "Notifier", "Undelivered", "by_name", "choices"]
