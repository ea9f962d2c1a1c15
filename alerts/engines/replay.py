"""What a rule would have done: its numbers over many slots, judged one after the other.

Pure; the judging is `alerts.engines.judging`, as in an evaluation.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from alerts.engines.judging import NOTHING, Decision, Terms, judge_next, past_the_mildest
from alerts.values.thresholds import SEVERITIES

Floats = NDArray[np.float64]


@dataclass
class Raised:
    """One alert that would have been, on the series of this row; `ended_at` None: still open."""

    row: int
    severity: str
    value: float
    opened_at: datetime
    ended_at: datetime | None = None


def replay(
    terms: Terms,
    slots: list[datetime],
    values: Floats,
    lasts: NDArray[np.int64],
    gone_after: timedelta,
) -> list[Raised]:
    """The alerts in the order in which they open.

    `values` has a row a series and a column a slot, NaN where there is none; `lasts` when each was
    measured, in milliseconds.
    """
    found: list[Raised] = []
    for row in range(len(values)):
        numbers = values[row]
        known = ~np.isnan(numbers)
        past = past_the_mildest(terms.limits, np.where(known, numbers, 0.0)) & known
        if past.any():
            found += _one(terms, slots, row, numbers, past, lasts[row], gone_after)
    return sorted(found, key=lambda one: one.opened_at)


def _one(
    terms: Terms,
    slots: list[datetime],
    row: int,
    numbers: Floats,
    past: NDArray[np.bool_],
    lasts: NDArray[np.int64],
    gone_after: timedelta,
) -> list[Raised]:
    found: list[Raised] = []
    state, breached = NOTHING, slots[0]
    interesting = past.tolist()
    for place, at in enumerate(slots):
        if not interesting[place] and state == NOTHING:
            continue
        value = float(numbers[place])
        if np.isnan(value):
            if at - (breached if state.severity else state.since or at) > gone_after:
                if state.severity:
                    found[-1].ended_at = at
                state = NOTHING
            continue
        taken = datetime.fromtimestamp(int(lasts[place]) / 1000, UTC)
        judged = judge_next(terms, state, value, at, taken)
        state = judged.state
        if judged.breach is not None:
            breached = at
        if judged.decision is Decision.OPENS:
            found.append(Raised(row, state.severity, value, at))
        elif judged.decision is Decision.RECOVERS:
            found[-1].ended_at = at
        elif judged.decision is Decision.RAISED:
            worse = SEVERITIES.index(state.severity) > SEVERITIES.index(found[-1].severity)
            if worse:
                found[-1].severity, found[-1].value = state.severity, value
    return found
