"""What one more number makes of a series: it begins, waits, opens, holds, changes, recovers.

Pure, and the only place where that is decided: evaluation keeps the state in PostgreSQL and a
preview keeps it in memory, but both ask `judge_next`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from alerts.values.thresholds import COMPARISONS, SEVERITIES, Breach, Limits, judge


class Decision(StrEnum):
    """What was decided of a series at one slot."""

    NOTHING = "nothing"
    BEGINS = "begins to hold"
    WAITS = "waits"
    PASSES = "passed before it held long enough"
    OPENS = "opens"
    HOLDS = "holds"
    RAISED = "becomes worse"
    LOWERED = "becomes less bad"
    RECOVERING = "recovering"
    RECOVERS = "recovers"


@dataclass(frozen=True)
class Terms:
    """When a breach becomes an alert, and when an alert ends."""

    limits: Limits
    hold: timedelta = timedelta()
    recovery_hold: timedelta = timedelta()


class State(NamedTuple):
    """What is known of a series from the slots before.

    `since` when it began to hold, `recovering` since when it no longer does though its alert is
    open, `severity` of the open alert; all empty: nothing.
    """

    since: datetime | None = None
    recovering: datetime | None = None
    severity: str = ""


NOTHING = State()


class Judged(NamedTuple):
    state: State
    decision: Decision
    breach: Breach | None = None


def judge_next(
    terms: Terms, state: State, value: float, at: datetime, taken_at: datetime | None = None
) -> Judged:
    """Judge the value seen at this slot; `taken_at` is when it was measured, if that is known.

    A breach holds from its point, not from when it was seen; so does a recovery.
    """
    point = min(taken_at or at, at)
    breach = judge(terms.limits, value, is_open=bool(state.severity))
    if breach is None:
        return _without(terms, state, point, at)
    began = state.since is None
    since = state.since or point
    state = State(since, None, state.severity)
    if not state.severity:
        if at - since >= terms.hold:
            return Judged(State(since, None, breach.severity), Decision.OPENS, breach)
        return Judged(state, Decision.BEGINS if began else Decision.WAITS, breach)
    if breach.severity == state.severity:
        return Judged(state, Decision.HOLDS, breach)
    worse = SEVERITIES.index(breach.severity) > SEVERITIES.index(state.severity)
    decision = Decision.RAISED if worse else Decision.LOWERED
    return Judged(State(since, None, breach.severity), decision, breach)


def _without(terms: Terms, state: State, point: datetime, at: datetime) -> Judged:
    """The value is no breach."""
    if not state.severity:
        return Judged(NOTHING, Decision.PASSES if state.since else Decision.NOTHING)
    recovering = state.recovering or point
    if at - recovering >= terms.recovery_hold:
        return Judged(NOTHING, Decision.RECOVERS)
    since = state.since or point
    return Judged(State(since, recovering, state.severity), Decision.RECOVERING)


def as_far_as_known(
    limits: Limits, quiet: NDArray[np.float64], at_most: float
) -> NDArray[np.float64]:
    """How long nothing came; NaN where it would break a limit only by a time nobody listened in.

    `at_most` is how long nothing can have come for want of senders alone.
    """
    holds: Any = COMPARISONS[limits.comparison]
    known = np.minimum(quiet, at_most)
    unknown = np.zeros(len(quiet), np.bool_)
    for limit in (*limits.by_severity.values(), limits.recovery):
        if limit is not None:
            unknown |= holds(quiet, limit) & ~holds(known, limit)
    return np.where(unknown, np.nan, quiet)


def past_the_mildest(limits: Limits, values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which values hold any limit at all: of others without a state `judge_next` makes nothing."""
    mildest = next(limits.by_severity[name] for name in SEVERITIES if name in limits.by_severity)
    holds: Any = COMPARISONS[limits.comparison]
    found: NDArray[np.bool_] = holds(values, mildest)
    return found
