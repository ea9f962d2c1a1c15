"""What every door makes of a request, whatever its wire format: reports of points and events.

Times are aware UTC; values are finite floats; texts are clean (no NUL, valid UTF-8).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from agent_client import wire

#: A request may be wrong in millions of places; its answer names this many.
NAMED_REJECTS = 1_000

Tags = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Point:
    """Fields of one measurement and tag set; its time is its report's."""

    measurement: str
    tags: Tags
    fields: dict[str, float]


@dataclass(frozen=True, slots=True)
class Event:
    """One log event. `key` is equal for two that are the same event (see `Report.joins_events`)."""

    item: str
    key: bytes
    at: datetime
    level: int
    message: str
    service: str = ""
    component: str = ""
    request_id: str = ""
    pid: int | None = None
    path: str = ""
    written: str = ""


@dataclass(frozen=True, slots=True)
class State:
    """How one service is; `state` is one of wire.SERVICE_STATES."""

    name: str
    project: str
    state: str
    workers: int = 0
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """What one server said at one time.

    Without an agent the server is known by its host, and without a sequence the report can't be
    told from a repetition. Where `services` don't say all, those not named stay as they are.
    """

    number: int
    host: str
    agent: UUID | None
    at: datetime
    interval: timedelta = timedelta(seconds=60)
    version: str = ""
    epoch: str = ""
    sequence: int | None = None
    points: list[Point] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    services: list[State] = field(default_factory=list)
    services_are_all: bool = True
    specs: dict[str, Any] | None = None
    goodbye: str = ""
    joins_events: bool = False

    @property
    def source(self) -> str:
        """Who speaks: the agent's id first, otherwise the host."""
        return str(self.agent) if self.agent else f"host:{self.host}"


@dataclass(slots=True)
class Batch:
    """All of one request, and what its door could not take."""

    received_at: datetime
    reports: list[Report] = field(default_factory=list)
    rejects: list[wire.Reject] = field(default_factory=list)
    rejected: int = 0

    def reject(self, report: int, item: str, code: str, detail: str) -> None:
        """Refuse one item; past the first `NAMED_REJECTS` they are only counted."""
        self.rejected += 1
        if self.rejected <= NAMED_REJECTS:
            self.rejects.append(wire.Reject(report, clean(item), code, clean(detail)))

    def all_rejects(self) -> list[wire.Reject]:
        """What was refused, in order of the reports; the last one says how many aren't named."""
        named = sorted(self.rejects, key=lambda reject: reject.report)
        unnamed = self.rejected - len(named)
        if unnamed:
            detail = f"{unnamed} further items were refused."
            named.append(wire.Reject(named[-1].report, "", "more-rejects", detail))
        return named


def clean(text: str) -> str:
    """Text that any store takes: without NUL, and with lone surrogates replaced."""
    if text.isascii():
        return text.replace("\0", "�") if "\0" in text else text
    return text.replace("\0", "�").encode("utf-8", "replace").decode("utf-8")
