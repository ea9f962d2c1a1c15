"""The contract of a notifier: it delivers one message when asked, and nothing else.

Loop, retry, time limits and logging belong to `alerts.dispatching.dispatch`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol

#: At most one message of a storm in this time goes to where people read.
STORM_PAUSE = timedelta(minutes=1)


@dataclass(frozen=True)
class Picture:
    """A PNG, how wide and high it is shown, and in words what it shows."""

    png: bytes
    width: int
    height: int
    text: str


@dataclass(frozen=True)
class Item:
    """One incident of those that a digest tells of, as it is now."""

    incident: int
    transition: str
    severity: str
    title: str
    link: str
    is_resolved: bool
    #: Of one that is over: incidents that turned out to belong to it, and were told here.
    merged: tuple[int, ...] = ()
    #: Every transition that this digest tells of it, in the order in which they happened.
    transitions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Message:
    """What there is to tell, already in words. `server` is empty where it is about several."""

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
    #: Of a digest: its incidents, the worst first.
    items: tuple[Item, ...] = ()
    #: What the other side called the first message about this incident, where it said so.
    reference: str = ""
    #: The incident that it is about; None: a digest or a test.
    incident: int | None = None
    #: Of one that is over: incidents that turned out to belong to it, and were told here.
    merged: tuple[int, ...] = ()
    #: Of a mail: where whoever gets it can stop it.
    leave: str = ""
    #: What its alert is about, drawn; for kinds of channels that show pictures.
    picture: Picture | None = None

    @property
    def heading(self) -> str:
        """What it is about, and where."""
        return f"{self.title} on {self.server}" if self.server else self.title

    @property
    def state(self) -> str:
        """Resolved, taken, or how bad it is."""
        if self.transition.startswith("acknowledged"):
            return "Taken"
        return "Resolved" if self.is_resolved else self.severity.capitalize()


@dataclass(frozen=True)
class Receipt:
    """What the other side answered; `reference` is what it calls the message."""

    status: int | None = None
    answer: str = ""
    reference: str = ""


@dataclass(frozen=True)
class Field:
    """One thing that a channel of this kind must be told; with `make`, or that we make up.

    A secret `sent_to` the address in another field is for that host alone.
    """

    name: str
    label: str
    help: str = ""
    secret: bool = False
    make: Callable[[], str] | None = None
    sent_to: str = ""


class Undelivered(Exception):
    """The other side didn't take it. `retry_after` is what it asked for; None: our own back-off.

    With `for_good`, trying again is useless. `status` is that of an answer in HTTP.
    """

    def __init__(
        self,
        reason: str,
        *,
        retry_after: timedelta | None = None,
        for_good: bool = False,
        status: int | None = None,
    ) -> None:
        super().__init__(reason)
        self.retry_after = retry_after
        self.for_good = for_good
        self.status = status


class Notifier(Protocol):
    """One kind of channel."""

    name: str
    label: str
    fields: tuple[Field, ...]
    #: Incidents that go in one message of a storm; None: all, of which the worst are named. What
    #: programs keep a list by must name each.
    most: int | None
    #: From one message of a storm to the next.
    storm_pause: timedelta
    #: Whether it shows the picture of a message, which is drawn for it then.
    shows_pictures: bool

    def errors(self, config: dict[str, Any]) -> list[str]:
        """What is wrong with this configuration, in words; empty when it's fine."""
        ...

    def public(self, config: dict[str, Any]) -> dict[str, Any]:
        """The configuration without its secrets."""
        ...

    def send(self, config: dict[str, Any], message: Message) -> Receipt | None:
        """Deliver it within 10 s or raise Undelivered."""
        ...
