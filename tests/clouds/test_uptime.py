"""Uptime is arithmetic: each scenario as it is told, and everything against a count of minutes."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clouds.uptime import (
    Span,
    Stretch,
    Uptime,
    difference,
    heard,
    intersection,
    length,
    measure,
    overlaid,
    together,
    union,
)

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
#: Of the scenarios: ten hours, of 60 minutes.
WINDOW = (0, 600)


def at(minute: float) -> datetime:
    return NOON + minute * MINUTE


def spans(*pairs: tuple[float, float]) -> list[Span]:
    return union(Span(at(start), at(end)) for start, end in pairs)


@dataclass(frozen=True)
class Scenario:
    """Minutes from the beginning of the window of ten hours."""

    said: str
    percent: float | None
    watched: tuple[tuple[float, float], ...] = ((-6000, 6000),)
    silent: tuple[tuple[float, float], ...] = ()
    late: tuple[tuple[float, float], ...] = ()
    maintenance: tuple[tuple[float, float], ...] = ()
    outage: tuple[tuple[float, float], ...] = ()
    window: tuple[float, float] = WINDOW

    def uptime(self) -> Uptime:
        down = difference(difference(spans(*self.silent), spans(*self.late)), spans(*self.outage))
        return measure(
            spans(*self.watched), down, spans(*self.maintenance), Span(*map(at, self.window))
        )


SCENARIOS = [
    Scenario("never silent", 100),
    Scenario("silent for one of ten hours", 90, silent=((60, 120),)),
    Scenario("silent all along", 0, silent=((-100, 700),)),
    Scenario("silent before the window only", 100, silent=((-100, 0),)),
    Scenario("silent after the window only", 100, silent=((600, 700),)),
    Scenario("a silence that goes on from before", 90, silent=((-60, 60),)),
    Scenario("a silence that is not over", 90, silent=((540, 6000),)),
    Scenario("silent twice", 80, silent=((60, 120), (300, 360))),
    Scenario("silences that touch are one", 80, silent=((60, 120), (120, 180))),
    Scenario("registered within the window: what was before is no time", 90, watched=((100, 6000),),
             silent=((100, 150),)),
    Scenario("registered and silent since", 0, watched=((100, 6000),), silent=((100, 6000),)),
    Scenario("registered after the window", None, watched=((700, 6000),)),
    Scenario("registered at its very end", None, watched=((600, 6000),)),
    Scenario("removed within the window: it counts until then", 75, watched=((-600, 400),),
             silent=((300, 6000),)),
    Scenario("maintenance is not counted", 100, maintenance=((0, 300),)),
    Scenario("silent in maintenance", 100, silent=((60, 120),), maintenance=((50, 130),)),
    Scenario("silent for longer than the maintenance", 88.88889, silent=((60, 180),),
             maintenance=((60, 120),)),
    Scenario("maintenance for longer than the silence", 100, silent=((60, 70),),
             maintenance=((0, 100),)),
    Scenario("maintenance all along: nothing to count", None, maintenance=((-10, 610),)),
    Scenario("maintenance all along, and silent", None, silent=((0, 600),),
             maintenance=((-10, 610),)),
    Scenario("maintenances that overlap are one", 100 * 400 / 500, silent=((200, 300),),
             maintenance=((0, 60), (30, 100))),
    Scenario("two maintenances, of the server and of its group, one within the other", 80,
             silent=((300, 400),), maintenance=((0, 100), (20, 60))),
    Scenario("maintenance before registration takes nothing", 50, watched=((300, 6000),),
             silent=((450, 6000),), maintenance=((0, 300),)),
    Scenario("maintenance that began before registration", 100 / 3, watched=((200, 6000),),
             silent=((300, 500),), maintenance=((0, 300),)),
    Scenario("a blackout counts: only what is silent is down", 90, silent=((100, 160),)),
    Scenario("a report that came in late: it was up", 100, silent=((60, 120),), late=((60, 120),)),
    Scenario("late reports of half the silence", 95, silent=((60, 120),), late=((90, 130),)),
    Scenario("late reports with a hole", 98, silent=((60, 120),), late=((50, 80), (92, 130))),
    Scenario("late reports of a time in maintenance change nothing", 100, silent=((60, 120),),
             late=((60, 90),), maintenance=((60, 120),)),
    Scenario("late reports of a time that was not silent", 90, silent=((60, 120),),
             late=((200, 260),)),
    Scenario("our own outage is nobody's downtime", 100, silent=((60, 120),), outage=((50, 130),)),
    Scenario("silent for longer than our outage", 95, silent=((60, 120),), outage=((60, 90),)),
    Scenario("silent, late, in maintenance and our outage at once", 100 * 475 / 500,
             silent=((0, 200),), late=((0, 50),), maintenance=((50, 150),), outage=((150, 175),)),
    Scenario("a window of nothing", None, window=(60, 60)),
    Scenario("a window upside down", None, window=(60, 0)),
    Scenario("half a minute is half a minute", 99.91667, silent=((60, 60.5),)),
]  # fmt: skip


@pytest.mark.parametrize("one", SCENARIOS, ids=lambda one: one.said)
def test_uptime_of(one):
    assert one.uptime().percent == (None if one.percent is None else pytest.approx(one.percent))


def test_there_are_enough_scenarios_and_each_says_what_it_is():
    assert len({one.said for one in SCENARIOS}) == len(SCENARIOS) >= 25


def test_what_was_up_down_and_not_counted_adds_up():
    one = Scenario("", 0, silent=((60, 120),), maintenance=((100, 200),)).uptime()
    assert one.up + one.down == one.counted
    assert one.down == 40 * MINUTE
    assert one.maintenance == 100 * MINUTE
    assert one.counted + one.maintenance == 600 * MINUTE


def test_of_a_group_time_counts_not_servers():
    parts = [
        Scenario("ten hours, all up", 0).uptime(),
        Scenario("one hour, all down", 0, watched=((540, 600),), silent=((0, 600),)).uptime(),
    ]
    assert together(parts).percent == pytest.approx(100 * 600 / 660)
    assert together([]).percent is None


def test_a_maintenance_by_the_clock_takes_what_the_clock_shows_on_a_day_of_23_hours():
    berlin = ZoneInfo("Europe/Berlin")
    day = Span(
        datetime(2026, 3, 29, tzinfo=berlin).astimezone(UTC),
        datetime(2026, 3, 30, tzinfo=berlin).astimezone(UTC),
    )
    night = Span(
        datetime(2026, 3, 29, 1, tzinfo=berlin).astimezone(UTC),
        datetime(2026, 3, 29, 4, tzinfo=berlin).astimezone(UTC),
    )
    one = measure([day], [], [night], day)
    assert (one.counted, one.maintenance) == (timedelta(hours=21), timedelta(hours=2))


# -- against a count of minutes -------------------------------------------------

MINUTES = 240
pairs = st.lists(
    st.tuples(st.integers(-20, MINUTES + 20), st.integers(0, 90)).map(
        lambda p: (p[0], p[0] + p[1])
    ),
    max_size=6,
)


def inside(minute: int, of: Iterable[tuple[int, int]]) -> bool:
    return any(start <= minute < end for start, end in of)


@given(pairs, pairs, pairs, pairs, pairs, st.integers(0, MINUTES), st.integers(0, MINUTES))
@settings(max_examples=300, deadline=None)
def test_it_equals_the_count_of_each_minute(watched, silent, late, planned, outage, first, last):
    one = Scenario(
        "", None, tuple(watched), tuple(silent), tuple(late), tuple(planned), tuple(outage),
        (first, last),
    ).uptime()  # fmt: skip
    up = counted = out = 0
    for minute in range(first, last):
        if not inside(minute, watched):
            continue
        if inside(minute, planned):
            out += 1
            continue
        counted += 1
        is_down = inside(minute, silent) and not inside(minute, late)
        up += not (is_down and not inside(minute, outage))
    assert (one.up, one.counted, one.maintenance) == (up * MINUTE, counted * MINUTE, out * MINUTE)
    assert (one.ratio is None) == (counted == 0)


@given(
    st.lists(st.integers(0, MINUTES), max_size=30),
    st.integers(2, 20),
    pairs,
    st.randoms(use_true_random=False),
)
@settings(max_examples=200, deadline=None)
def test_reports_that_come_late_count_as_if_on_time(reports, patience, planned, random):
    """Some are heard at once, the others later: in the end uptime is the same."""
    registered, end = 0, MINUTES
    window = Span(at(registered), at(end))
    times = sorted({registered, *reports})
    on_time = sorted({registered, *(one for one in times if random.random() < 0.5)})
    gaps = [
        (one + patience, following)
        for one, following in zip(on_time, [*on_time[1:], 10_000], strict=True)
        if one + patience < following
    ]
    late = heard([at(one) for one in times if one not in on_time], patience * MINUTE)
    down = difference(spans(*gaps), late)
    up = sum(
        not inside(minute, planned) and any(one <= minute < one + patience for one in times)
        for minute in range(registered, end)
    )
    found = measure([window], down, spans(*planned), window)
    assert found.up == up * MINUTE


@given(pairs, pairs)
@settings(max_examples=200, deadline=None)
def test_spans_are_sets_of_minutes(one, other):
    def minutes(of: Iterable[tuple[int, int]]) -> set[int]:
        return {minute for minute in range(-30, MINUTES + 200) if inside(minute, of)}

    left, right = spans(*one), spans(*other)
    for found, wanted in (
        (union([*left, *right]), minutes(one) | minutes(other)),
        (intersection(left, right), minutes(one) & minutes(other)),
        (difference(left, right), minutes(one) - minutes(other)),
    ):
        assert length(found) == len(wanted) * MINUTE
        assert found == sorted(found)
        assert all(a.end < b.start for a, b in itertools.pairwise(found))
        for span in found:
            assert int((span.start - NOON) / MINUTE) in wanted


states = st.lists(
    st.tuples(st.integers(0, 30), st.integers(1, 30), st.sampled_from(["up", "down", "unknown"])),
    max_size=6,
)


def stretches(parts: list[tuple[int, int, str]]) -> list[Stretch]:
    """One after the other, each some minutes after the one before."""
    found, start = [], 0
    for gap, lasts, state in parts:
        found.append(Stretch(at(start + gap), at(start + gap + lasts), state))
        start += gap + lasts
    return found


@given(states, states)
@settings(max_examples=200, deadline=None)
def test_what_is_said_late_of_a_time_is_what_was_then(known, said):
    def state(of: list[Stretch], minute: int) -> str | None:
        return next((one.state for one in of if one.start <= at(minute) < one.end), None)

    before, told = stretches(known), stretches(said)
    found = overlaid(before, told)
    for minute in range(0, 400, 1):
        assert state(found, minute) == (state(told, minute) or state(before, minute))
    assert overlaid(found, told) == found, "the same again changes nothing"
    assert all(one.end <= two.start for one, two in itertools.pairwise(found))
