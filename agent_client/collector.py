"""What a collector is: it adds points when asked; loop, budget and logging belong to the caller."""

from __future__ import annotations

import dataclasses
import fnmatch
import logging
import math
import threading
import time
import traceback
from typing import TYPE_CHECKING, Mapping, Sequence, Union

from agent_client.wire import MAX_POINTS, Point, ServiceState

if TYPE_CHECKING:
    from agent_client.config import Config, Drop

log = logging.getLogger("sentinella.collector")

Number = Union[int, float]

_REPEAT_WARNING_EVERY = 3600.0


@dataclasses.dataclass(frozen=True)
class News:
    """Something that a collector saw happen, for the log of events."""

    level: str
    text: str
    service: str = "sentinella"
    topic: str = "sentinella"


class Points:
    """What one collector measured in one cycle; bytes, seconds, percent 0 to 100."""

    def __init__(self) -> None:
        self.points: list[Point] = []
        self.news: list[News] = []
        self.services: list[ServiceState] = []
        self.warnings: list[str] = []
        self.why_nothing = ""

    def add(
        self,
        measurement: str,
        fields: Mapping[str, Number | None],
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Add one point; a field that is None or not finite is left out, an empty point too."""
        finite = {
            name: int(value) if isinstance(value, bool) else value
            for name, value in fields.items()
            if value is not None and math.isfinite(value)
        }
        if finite:
            self.points.append(Point(measurement, finite, dict(tags or {})))

    def add_service(self, state: ServiceState) -> None:
        """Add the state of one watched service."""
        self.services.append(state)

    def tell(self, news: News) -> None:
        """Add an event."""
        self.news.append(news)

    def warn(self, text: str) -> None:
        """Say that a part could not be measured; the rest of the collector counts."""
        self.warnings.append(text)

    def nothing(self, why: str) -> None:
        """Say why there is nothing to measure here, which is no failure."""
        self.why_nothing = why


def kept(drops: Sequence[Drop], points: Sequence[Point]) -> list[Point]:
    """The points that no rule drops, without the fields that a rule drops."""
    if not drops:
        return list(points)
    left = []
    for point in points:
        fields = point.fields
        for rule in drops:
            if rule.matches(point.measurement, point.tags):
                fields = {
                    name: value
                    for name, value in fields.items()
                    if rule.fields
                    and not any(fnmatch.fnmatchcase(name, one) for one in rule.fields)
                }
        if fields:
            left.append(
                point if fields is point.fields else dataclasses.replace(point, fields=fields)
            )
    return left


class Collector:
    """Measures one thing. Whatever it raises is its own failure and stops no other collector."""

    name = ""
    #: Seconds that one collection may take before the cycle goes on without it.
    budget = 5.0

    def __init__(self, config: Config) -> None:
        self.config = config

    def collect(self, points: Points) -> None:
        """Add what is measured now."""
        raise NotImplementedError

    def settle(self, seconds: float) -> None:
        """See to it that the next collection shows all there is, however soon it comes."""

    def reconfigure(self, config: Config) -> None:
        """Go on with this configuration; what was measured before still counts."""
        self.config = config


@dataclasses.dataclass
class CollectorState:
    """How one collector fared, as `sentinella status` shows it."""

    name: str
    ok: bool = True
    detail: str = ""
    points: int = 0
    seconds: float = 0.0
    failures: int = 0
    #: Why it has nothing to report; empty where it has, or looks less often than each cycle.
    idle: str = ""


class Panel:
    """All collectors of an agent, each run in a thread of its own so that none can hold the rest.

    A collection that outlasts its budget is left behind; the collector is not started again
    before that thread has come back.
    """

    def __init__(self, collectors: Sequence[Collector]) -> None:
        self.collectors = tuple(collectors)
        self.states: dict[str, CollectorState] = {
            collector.name: CollectorState(collector.name) for collector in collectors
        }
        self._threads: dict[str, threading.Thread] = {}
        self._said_at: dict[str, float] = {}
        self._news: list[tuple[str, str]] = []

    def idle(self) -> dict[str, str]:
        """The collectors that have nothing to report, and why."""
        return {name: state.idle for name, state in list(self.states.items()) if state.idle}

    def take_news(self) -> list[tuple[str, str]]:
        """Level and text of what is to be told of collectors that fail or work again, once."""
        news, self._news = self._news, []
        return news

    def replace(self, collectors: Sequence[Collector]) -> None:
        """Go on with these; those that stay keep how they fared."""
        self.collectors = tuple(collectors)
        fared = dict(self.states)
        self.states.clear()
        for collector in collectors:
            self.states[collector.name] = fared.get(collector.name) or CollectorState(
                collector.name
            )

    def collect(self, seconds: float) -> Points:
        """Run every collector once, all together within `seconds`."""
        everything = Points()
        deadline = time.monotonic() + seconds
        for collector in self.collectors:
            part = self._run(collector, max(0.1, deadline - time.monotonic()))
            room = MAX_POINTS - len(everything.points)
            if len(part.points) > room:
                self._failed(collector, f"{len(part.points) - room} points over the limit left out")
            everything.points.extend(part.points[:room])
            everything.services.extend(part.services)
            everything.news.extend(part.news)
        return everything

    def _run(self, collector: Collector, seconds: float) -> Points:
        left_behind = self._threads.get(collector.name)
        if left_behind is not None:
            if left_behind.is_alive():
                self._failed(collector, "still busy with an earlier collection")
                return Points()
            del self._threads[collector.name]
        points = Points()
        failure: list[str] = []

        def work() -> None:
            try:
                collector.collect(points)
            except Exception as error:
                failure.append(f"{type(error).__name__}: {error}")
                log.debug("collector %s\n%s", collector.name, traceback.format_exc())

        began = time.monotonic()
        thread = threading.Thread(target=work, name=f"collect-{collector.name}", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # plugins may have taken the last task of our unit
            self._failed(collector, str(error))
            return Points()
        thread.join(min(seconds, collector.budget))
        state = self.states[collector.name]
        state.seconds = round(time.monotonic() - began, 4)
        if thread.is_alive():
            self._threads[collector.name] = thread
            self._failed(collector, f"took longer than {min(seconds, collector.budget):.1f} s")
            return Points()
        state.points = len(points.points)
        if failure:
            self._failed(collector, failure[0])
        elif points.warnings:
            self._failed(collector, "; ".join(points.warnings))
        else:
            if not state.ok:
                log.info("collector %s works again", collector.name)
                self._news.append(("info", f"collector {collector.name} works again"))
            state.ok, state.detail = True, ""
            if points.points or points.why_nothing:
                state.idle = "" if points.points else points.why_nothing
        return points

    def _failed(self, collector: Collector, detail: str) -> None:
        """Record a failure; say it when it is new, then once an hour."""
        state = self.states[collector.name]
        now = time.monotonic()
        said_at = self._said_at.get(collector.name, -_REPEAT_WARNING_EVERY)
        if state.ok or state.detail != detail or now - said_at >= _REPEAT_WARNING_EVERY:
            log.warning("collector %s: %s", collector.name, detail)
            self._news.append(("warning", f"collector {collector.name}: {detail}"))
            self._said_at[collector.name] = now
        state.ok, state.detail, state.idle = False, detail, ""
        state.failures += 1
