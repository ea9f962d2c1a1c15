"""A server that is away for a day, in a clock that runs faster."""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent_client.agent import Agent
from agent_client.collector import Collector, Points
from agent_client.config import Config

from .conftest import ReportServer, problem

DAY = 86_400.0
CATCH_UP = 15 * 60.0
LEVELS = ("CRITICAL", "ERROR", "WARNING", "INFO")


class Samples(Collector):
    """As many points as a controller brings; the first tells which sample it is."""

    name = "samples"

    def __init__(self, config: Config, services: int = 60) -> None:
        super().__init__(config)
        self.services = services
        self.taken = 0

    def collect(self, points: Points) -> None:
        self.taken += 1
        points.add("sample", {"number": self.taken})
        for number in range(self.services):
            fields = {f"field{i}": (self.taken * 7919 + number * 31 + i) % 10_007 for i in range(6)}
            points.add("process", fields, {"service": f"service-{number}"})


class Days:
    """An agent whose time passes as it is told; its server may be away."""

    def __init__(self, config: Config, server: ReportServer, log: Path) -> None:
        self.now = 1_800_000_000.0
        self.server = server
        self.agent = Agent(config, clock=lambda: self.now)
        self.agent.sender._clock = lambda: self.now
        self.samples = Samples(config)
        self.agent.panel.replace([self.samples, self.agent._own])
        self.log = log
        self.points = 0
        self.lines: Counter[str] = Counter()
        self.largest_spool = 0
        self.longest_work = 0.0
        log.touch()
        self.agent.cycle()  # it was there before the lines came
        self._count()

    def _count(self) -> None:
        self.points += self.agent._last_points

    def cycle(self) -> None:
        """One interval: a line in the log, a report, an attempt to send."""
        level = LEVELS[sum(self.lines.values()) % len(LEVELS)]
        self.lines[level] += 1
        at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.now))
        with self.log.open("a") as file:
            file.write(f"{at}.000 1 {level} nova [-] line {sum(self.lines.values())} {level}\n")
        self.now += self.agent.config.interval
        self.agent.cycle()
        self._count()
        began = time.perf_counter()
        self.agent.sender.work(self.agent._current, self.agent.config.interval / 2)
        self.longest_work = max(self.longest_work, time.perf_counter() - began)
        state = Path(self.agent.config.state_dir)
        on_disk = sum(file.stat().st_size for file in state.glob("spool.db*"))
        self.largest_spool = max(self.largest_spool, on_disk)

    def outage(self) -> None:
        """A day without a server."""
        self.server.refuse = lambda body: problem(503)
        for _ in range(int(DAY / self.agent.config.interval)):
            self.cycle()
        self.server.refuse = lambda body: None

    def catch_up(self) -> float:
        """How many seconds it took until nothing waited."""
        began = self.now
        while self.agent.spool.waiting().reports:
            self.cycle()
            assert self.now - began < DAY
        return self.now - began


@pytest.fixture
def days(
    make_config: Callable[..., Config], server: ReportServer, logs: Path
) -> Iterator[Callable[..., Days]]:
    made: list[Days] = []

    def make(interval: float, bound: int = 64 * 1024**2) -> Days:
        config = dataclasses.replace(
            make_config(server.url), interval=interval, spool_max_bytes=bound
        )
        made.append(Days(config, server, logs / "nova.log"))
        return made[-1]

    yield make
    for one in made:
        one.agent.close()


@pytest.mark.parametrize(
    "interval", [pytest.param(300.0), pytest.param(10.0, marks=pytest.mark.chaos)]
)
def test_a_day_without_the_server_is_made_up_for_within_a_quarter_of_an_hour(
    days: Callable[..., Days], server: ReportServer, interval: float
) -> None:
    day = days(interval)
    day.outage()
    before = len(server.reports)
    waiting = day.agent.spool.waiting().reports
    assert waiting == day.samples.taken - before
    first = len(server.arrivals)
    took = day.catch_up()
    assert took <= CATCH_UP
    print(f"caught up in {took:.0f} s, spool {day.largest_spool} bytes, {waiting} reports")
    assert day.longest_work < interval / 2, "all of it had to fit into the cycles"
    assert day.largest_spool <= day.agent.config.spool_max_bytes

    reports = sorted(server.reports.values(), key=lambda report: report["at"])
    numbers = [
        point["fields"]["number"]
        for report in reports
        for point in report["points"]
        if point["measurement"] == "sample"
    ]
    assert numbers == list(range(1, day.samples.taken + 1)), "complete and in order"
    assert [report["sequence"] for report in reports] == list(range(1, len(reports) + 1))
    lines = [text for text in server.messages() if text.startswith("line ")]
    assert [int(text.split()[1]) for text in lines] == list(range(1, sum(day.lines.values()) + 1))

    arrivals = server.arrivals[first:]
    backlog = [sequence for sequence in arrivals if sequence <= before + waiting]
    assert backlog == sorted(backlog), "the oldest first"
    assert arrivals[0] > before + waiting, "what is new waits for nothing"


def test_a_spool_too_small_for_a_day_says_exactly_what_it_dropped(
    days: Callable[..., Days], server: ReportServer
) -> None:
    day = days(300.0, bound=600_000)
    day.samples.services = 300
    day.outage()
    assert day.largest_spool <= 600_000
    day.catch_up()
    day.cycle()
    day.cycle()
    lost = day.agent.spool.losses()
    received = Counter(text.split()[2] for text in server.messages() if text.startswith("line "))
    missing = {level: day.lines[level] - received[level] for level in LEVELS}
    points = sum(len(report.get("points", [])) for report in server.reports.values())
    assert lost.points == day.points - points > 0
    assert [lost.critical, lost.error, lost.warning, lost.info] == list(missing.values())
    (told,) = [text for text in server.messages() if "were dropped" in text]
    assert lost.told() in told
    newest = max(server.reports.values(), key=lambda report: report["sequence"])
    fields = {point["measurement"]: point["fields"] for point in newest["points"]}["agent"]
    assert (fields["dropped_points"], fields["dropped_events"]) == (lost.points, lost.events)
