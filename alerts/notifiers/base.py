"""The contract of a notifier: it delivers one message when asked, and nothing else.

Loop, retry, time limits and logging belong to `alerts.dispatch`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol


@dataclass(frozen=True)
class Message:
    """What there is to tell, already in words."""

    key: str
    transition: str
    severity: str
    title: str
    organization: str
    server: str
    service: str
    subject: str
    text: str
    advice: str
    link: str
    at: datetime
    is_resolved: bool
    thread: str
    #: The organization's own address: who tells it.
    source: str


@dataclass(frozen=True)
class Field:
    """One thing that a channel of this kind must be told; with `make`, or that we make up."""

    name: str
    label: str
    help: str = ""
    secret: bool = False
    make: Callable[[], str] | None = None


class Undelivered(Exception):
    """The other side didn't take it. `retry_after` is what it asked for; None: our own back-off.

    With `for_good`, trying again is useless.
    """

    def __init__(
        self, reason: str, *, retry_after: timedelta | None = None, for_good: bool = False
    ) -> None:
        super().__init__(reason)
        self.retry_after = retry_after
        self.for_good = for_good


class Notifier(Protocol):
    """One kind of channel."""

    name: str
    label: str
    fields: tuple[Field, ...]

    def errors(self, config: dict[str, Any]) -> list[str]:
        """What is wrong with this configuration, in words; empty when it's fine."""
        ...

    def public(self, config: dict[str, Any]) -> dict[str, Any]:
        """The configuration without its secrets."""
        ...

    def send(self, config: dict[str, Any], message: Message) -> None:
        """Deliver it within 10 s or raise Undelivered."""
        ...
