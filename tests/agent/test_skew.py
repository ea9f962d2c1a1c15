"""A host's clock against the server's: measured, told, and corrected where it is steadily off."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from agent_client.agent import Agent
from agent_client.config import Config
from agent_client.skew import STEADY_ANSWERS, Skew

from .conftest import ReportServer


class Host:
    """A host with a clock that is off, at a time that passes when it is told to."""

    def __init__(self, ahead: float = 0.0) -> None:
        self.true = 1_800_000_000.0
        self.began = self.true
        self.ahead = ahead
        #: By how much the server's own clock is wrong.
        self.off = 0.0
        self.skew = Skew(self.clock, lambda: self.true - self.began)

    def clock(self) -> float:
        return self.true + self.ahead

    def answer(self, there: float = 0.01, back: float = 0.01) -> None:
        """One exchange with the server, which takes so many seconds each way."""
        self.true += 10
        sent_at = self.clock()
        self.true += there
        server_time = self.true + self.off
        self.true += back
        self.skew.note(sent_at, self.clock(), server_time)

    def answers(self, number: int = STEADY_ANSWERS) -> None:
        for _ in range(number):
            self.answer()


def test_the_offset_is_taken_from_the_quickest_answer() -> None:
    host = Host(ahead=-30.0)
    host.answer(there=0.0, back=2.0)
    assert host.skew.offset == pytest.approx(29.0 + 2.0, abs=2.0)
    host.answer(there=0.010, back=0.012)
    host.answer(there=1.0, back=0.0)
    assert host.skew.offset == pytest.approx(30.0, abs=0.011)
    assert host.skew.round_trip == pytest.approx(0.022, abs=0.001)


def test_an_answer_that_took_too_long_says_nothing() -> None:
    host = Host(ahead=100.0)
    host.answer(there=6.0)
    assert host.skew.offset is None


@pytest.mark.parametrize(
    ("ahead", "corrected"), [(1.0, 0.0), (5.0, 0.0), (60.0, -60.0), (-3600.0, 3600.0)]
)
def test_a_steady_offset_is_corrected_if_it_is_large(ahead: float, corrected: float) -> None:
    host = Host(ahead)
    host.answers(STEADY_ANSWERS - 1)
    assert host.skew.correction == 0, "not before it is known to be steady"
    host.answer()
    assert host.skew.correction == pytest.approx(corrected, abs=0.01)


@pytest.mark.parametrize("days", [365.0, -365.0, 1.1])
def test_a_server_that_is_days_off_is_not_believed_and_it_is_told(days: float) -> None:
    host = Host(days * 86_400)
    host.answers()
    assert host.skew.correction == 0
    assert f"{abs(days):.1f} days" in (said := host.skew.news())
    assert "one of the two is wrong" in said
    assert "More than a day is not corrected" in said


def test_a_server_that_goes_days_off_ends_the_correction() -> None:
    host = Host(3600.0)
    host.answers()
    assert host.skew.correction == pytest.approx(-3600.0, abs=0.01)
    assert "corrected by as much" in host.skew.news()
    host.off = 400 * 86_400.0
    host.answers()
    assert host.skew.correction == 0
    assert "one of the two is wrong" in host.skew.news()
    assert host.skew.news() == ""


def test_an_offset_that_wanders_is_not_corrected() -> None:
    host = Host(60.0)
    for _ in range(20):
        host.answer()
        host.ahead += 0.4  # below what counts as setting the clock
    assert host.skew.correction == 0


def test_the_correction_stands_still_while_the_clock_drifts_a_little() -> None:
    host = Host(60.0)
    host.answers()
    before = host.skew.correction
    for _ in range(8):
        host.ahead += 0.1
        host.answer()
    assert host.skew.correction == before


def test_setting_the_clock_ends_the_correction_at_once() -> None:
    host = Host(60.0)
    host.answers()
    assert host.skew.correction == pytest.approx(-60.0, abs=0.01)
    host.ahead = 0.0
    host.answer()
    assert host.skew.correction == 0
    assert host.skew.offset == pytest.approx(0.0, abs=0.01)


def test_it_is_told_when_the_clock_is_off_and_when_it_is_right_again() -> None:
    host = Host(60.0)
    host.answers()
    assert "60.0 s ahead of the server's" in host.skew.news()
    assert host.skew.news() == ""
    host.ahead = 0.0
    host.answers()
    assert "agrees with the server's again" in host.skew.news()
    assert host.skew.news() == ""


def test_a_clock_that_is_a_little_off_is_told_and_left_as_it_is() -> None:
    host = Host(-5.0)
    host.answers()
    assert "5.0 s behind the server's" in (said := host.skew.news())
    assert "reported as they are" in said
    assert host.skew.correction == 0


def test_a_host_an_hour_off_reports_in_the_servers_time(
    make_config: Callable[..., Config], server: ReportServer
) -> None:
    agent = Agent(make_config(server.url), clock=lambda: time.time() - 3600)
    server.clock = time.time
    for _ in range(STEADY_ANSWERS + 1):
        agent.cycle()
        agent.sender.work(agent._current, 10)
    agent.cycle()
    agent.sender.work(agent._current, 10)
    agent.close()
    reports = sorted(server.reports.values(), key=lambda report: report["sequence"])
    assert time.time() - reports[0]["at"] > 3500
    assert abs(time.time() - reports[-1]["at"]) < 60
    fields = {point["measurement"]: point["fields"] for point in reports[-1]["points"]}
    assert fields["agent"]["clock_offset"] == pytest.approx(-3600, abs=5)
    (said,) = [text for text in server.messages() if "clock" in text]
    assert "behind the server's" in said
