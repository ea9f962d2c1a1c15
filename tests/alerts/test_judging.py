"""What one more number makes of a series: properties that hold whatever comes."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alerts.engines.judging import NOTHING, Decision, State, Terms, judge_next, past_the_mildest
from alerts.engines.replay import replay
from alerts.values.thresholds import SEVERITIES, Limits
from tests.alerts.builders import MINUTE, NOON

LIMITS = st.sampled_from(
    [
        Limits(">", {"warning": 80, "critical": 95}, 70),
        Limits(">=", {"error": 1}),
        Limits("<", {"info": 20, "critical": 5}, 25),
        Limits("<=", {"warning": 0}),
    ]
)
SPANS = st.integers(0, 5).map(lambda n: n * MINUTE)
TERMS = st.builds(Terms, LIMITS, SPANS, SPANS)
VALUES = st.lists(st.sampled_from([0, 1, 5, 10, 20, 22, 26, 70, 75, 80, 90, 96.0]), max_size=40)


def run(terms: Terms, values: list[float]):
    state, decisions = NOTHING, []
    for number, value in enumerate(values):
        judged = judge_next(terms, state, value, NOON + number * MINUTE)
        decisions.append((number, state, judged))
        state = judged.state
    return decisions


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(terms=TERMS, value=st.integers(-100, 200))
def test_a_number_past_no_limit_makes_nothing_of_a_series_on_which_nothing_is(terms, value):
    judged = judge_next(terms, NOTHING, value, NOON)
    passed_over = not past_the_mildest(terms.limits, np.array([float(value)]))[0]
    assert passed_over == (judged.state == NOTHING), "evaluation may pass over exactly those"


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(terms=TERMS, values=VALUES)
def test_an_alert_opens_only_after_it_held_without_a_break(terms, values):
    for number, _, judged in run(terms, values):
        if judged.decision is Decision.OPENS:
            first = number - terms.hold // MINUTE
            held = past_the_mildest(terms.limits, np.array(values[first : number + 1], float))
            assert first >= 0
            assert held.all()


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(terms=TERMS, values=VALUES)
def test_openings_and_recoveries_take_turns(terms, values):
    turns = [
        judged.decision
        for _, _, judged in run(terms, values)
        if judged.decision in (Decision.OPENS, Decision.RECOVERS)
    ]
    assert turns[::2] == [Decision.OPENS] * len(turns[::2])
    assert turns[1::2] == [Decision.RECOVERS] * len(turns[1::2])


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(terms=TERMS, values=VALUES)
def test_an_alert_ends_only_after_it_was_over_for_long_enough(terms, values):
    for number, _, judged in run(terms, values):
        if judged.decision is Decision.RECOVERS:
            first = number - terms.recovery_hold // MINUTE
            over = past_the_mildest(terms.limits, np.array(values[first : number + 1], float))
            assert not over.any()


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(terms=TERMS, values=VALUES)
def test_an_open_alert_has_the_severity_of_what_holds(terms, values):
    for _, state, judged in run(terms, values):
        if judged.decision in (Decision.RAISED, Decision.LOWERED):
            now, before = (SEVERITIES.index(one.severity) for one in (judged.state, state))
            assert (now > before) == (judged.decision is Decision.RAISED)
        if judged.breach is not None and judged.state.severity:
            assert judged.state.severity == judged.breach.severity


def test_a_value_between_recovery_and_limit_neither_opens_nor_ends():
    terms = Terms(Limits(">", {"warning": 80}, 70), recovery_hold=2 * MINUTE)
    decisions = [
        judged.decision for _, _, judged in run(terms, [75, 81, 75, 69, 69, 75, 69, 69, 69])
    ]
    assert [one.name for one in decisions] == [
        "NOTHING", "OPENS", "HOLDS", "RECOVERING", "RECOVERING", "HOLDS", "RECOVERING",
        "RECOVERING", "RECOVERS",
    ]  # fmt: skip


def test_a_state_from_before_a_recovery_was_noted_still_recovers():
    terms = Terms(Limits(">", {"warning": 80}), recovery_hold=MINUTE)
    judged = judge_next(terms, State(severity="warning"), 10, NOON)
    assert judged.decision is Decision.RECOVERING
    assert judge_next(terms, judged.state, 10, NOON + MINUTE).decision is Decision.RECOVERS


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(terms=TERMS, values=VALUES)
def test_a_replay_tells_what_the_single_steps_tell(terms, values):
    slots = [NOON + number * MINUTE for number in range(len(values) or 1)]
    numbers = np.array([values or [np.nan]], float)
    lasts = np.array([[int(slot.timestamp() * 1000) for slot in slots]])
    raised = replay(terms, slots, numbers, lasts, timedelta(hours=1))
    steps = run(terms, values)
    opened = [NOON + n * MINUTE for n, _, one in steps if one.decision is Decision.OPENS]
    ended = [NOON + n * MINUTE for n, _, one in steps if one.decision is Decision.RECOVERS]
    assert [one.opened_at for one in raised] == opened
    assert [one.ended_at for one in raised if one.ended_at] == ended


def test_a_series_that_is_gone_ends_its_alert_in_a_replay_too():
    terms = Terms(Limits(">", {"warning": 80}))
    slots = [NOON + number * MINUTE for number in range(30)]
    numbers = np.full((1, 30), np.nan)
    numbers[0, :3] = 90
    [raised] = replay(terms, slots, numbers, np.zeros((1, 30), np.int64), 15 * MINUTE)
    assert raised.ended_at == slots[2] + 15 * MINUTE + MINUTE
