"""Uptime: pure arithmetic over spans of time. No ORM, no clock.

    time up outside maintenance / (window since registration - maintenance)

Maintenance wins over blackout, which counts like any other time. A window with nothing to count
has no uptime. A span is half open: its beginning belongs to it, its end does not.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple, TypeAlias


class Span(NamedTuple):
    """From `start` on, before `end`."""

    start: datetime
    end: datetime


#: Sorted, none empty, none touching another.
Spans: TypeAlias = list[Span]


def union(spans: Iterable[Span]) -> Spans:
    """What is in any of them."""
    found: Spans = []
    for span in sorted(span for span in spans if span.start < span.end):
        if found and span.start <= found[-1].end:
            found[-1] = Span(found[-1].start, max(found[-1].end, span.end))
        else:
            found.append(span)
    return found


def intersection(one: Spans, other: Spans) -> Spans:
    """What is in both."""
    found: Spans = []
    left = right = 0
    while left < len(one) and right < len(other):
        start = max(one[left].start, other[right].start)
        end = min(one[left].end, other[right].end)
        if start < end:
            found.append(Span(start, end))
        if one[left].end <= other[right].end:
            left += 1
        else:
            right += 1
    return found


def difference(one: Spans, other: Spans) -> Spans:
    """What is in `one` and not in `other`."""
    found: Spans = []
    index = 0
    for span in one:
        start = span.start
        while index < len(other) and other[index].end <= start:
            index += 1
        at = index
        while at < len(other) and other[at].start < span.end:
            if start < other[at].start:
                found.append(Span(start, other[at].start))
            start = max(start, other[at].end)
            at += 1
        if start < span.end:
            found.append(Span(start, span.end))
    return found


def length(spans: Spans) -> timedelta:
    return sum((span.end - span.start for span in spans), timedelta())


def within(spans: Spans, window: Span) -> Spans:
    return intersection(spans, [window]) if window.start < window.end else []


@dataclass(frozen=True)
class Uptime:
    """What of a window counts, how much of that it was up, and how much was not counted."""

    up: timedelta
    counted: timedelta
    maintenance: timedelta

    @property
    def ratio(self) -> float | None:
        """From 0 to 1; None where there is nothing to count."""
        return self.up / self.counted if self.counted else None

    @property
    def percent(self) -> float | None:
        return None if self.ratio is None else 100 * self.ratio

    @property
    def down(self) -> timedelta:
        return self.counted - self.up

    @property
    def in_words(self) -> str:
        """`99.91 %`, rounded down: 100 % is said only of what was never down."""
        if not self.counted:
            return "–"  # noqa: RUF001  as all pages show that there is nothing
        hundredths = 10_000 * self.up // self.counted
        return "100 %" if self.up == self.counted else f"{hundredths / 100:.2f} %"


def measure(watched: Spans, down: Spans, maintenance: Spans, window: Span) -> Uptime:
    """Uptime of what was `watched` at these times and `down` at those."""
    seen = within(watched, window)
    counted = difference(seen, maintenance)
    return Uptime(
        up=length(difference(counted, down)),
        counted=length(counted),
        maintenance=length(seen) - length(counted),
    )


def together(parts: Iterable[Uptime]) -> Uptime:
    """Of several: a group's is the time its servers were up of the time that counts of them."""
    up = counted = maintenance = timedelta()
    for part in parts:
        up, counted = up + part.up, counted + part.counted
        maintenance += part.maintenance
    return Uptime(up, counted, maintenance)


def heard(times: Sequence[datetime], patience: timedelta) -> Spans:
    """When a server was up that reported at these times: until it is taken for silent."""
    return union(Span(at, at + patience) for at in times)


class Stretch(NamedTuple):
    """One state from `start` on, before `end`."""

    start: datetime
    end: datetime
    state: str


def overlaid(known: Iterable[Stretch], said: Iterable[Stretch]) -> list[Stretch]:
    """The states in `known`, but where something else was `said`, that.

    Neither overlaps in itself. Neighbours of one state become one.
    """
    said = sorted(said)
    covered = union(Span(one.start, one.end) for one in said)
    kept = [
        Stretch(span.start, span.end, one.state)
        for one in known
        for span in difference(union([Span(one.start, one.end)]), covered)
    ]
    found: list[Stretch] = []
    for one in sorted(kept + [one for one in said if one.start < one.end]):
        if found and found[-1].end == one.start and found[-1].state == one.state:
            found[-1] = Stretch(found[-1].start, one.end, one.state)
        else:
            found.append(one)
    return found
