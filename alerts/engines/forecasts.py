"""Forecast rules: how long until a level is reached at the rate of the last hours or days.

The rate is Theil's and Sen's: the median of the slopes between pairs of samples, which neither a
few wrong values nor one step (a log that was rotated, a file that was copied) can turn. What began
to rise only lately is seen by the newest quarter, if it rises steadily.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from alerts.models import Rule
from metrics.batch import Tags
from metrics.stores.base import Points

#: So many samples of the history are looked at, each an average of a short time.
SAMPLES = 24
SAMPLED_OVER = timedelta(minutes=5)
#: Longer than anybody plans: what never reaches its target, or only then.
FAR = timedelta(days=3650).total_seconds()
#: Of the newest quarter's pairs so many must rise for it to count alone.
STEADY = 0.85
#: Series that are computed at once; bounds the memory.
_CHUNK = 2_000

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Course:
    """What a forecast looks at, a row a series: samples with NaN where nothing is known."""

    servers: NDArray[np.int64]
    tags: list[Tags]
    series: NDArray[np.intp]
    samples: Floats
    lasts: NDArray[np.int64]


def spans(window: timedelta, at: datetime) -> list[tuple[datetime, datetime]]:
    """The short times of which samples are taken, oldest first; the last ends at `at`."""
    step = window / SAMPLES
    wide = min(step, SAMPLED_OVER)
    return [(at - n * step - wide, at - n * step) for n in reversed(range(SAMPLES))]


def course(points: Points, window: timedelta, at: datetime) -> Course:
    """The samples of each series, from points within `spans`."""
    width = max(1, len(points.tags))
    names, rows = np.unique(points.servers * width + points.series, return_inverse=True)
    step = window / SAMPLES / timedelta(milliseconds=1)
    back = (at.timestamp() * 1000 - points.times) / step
    columns = SAMPLES - 1 - np.clip(np.floor(back), 0, SAMPLES - 1).astype(np.intp)
    cells, size = rows * SAMPLES + columns, len(names) * SAMPLES
    counts = np.bincount(cells, minlength=size)
    sums = np.bincount(cells, points.values, size)
    with np.errstate(invalid="ignore"):
        samples = (sums / np.where(counts, counts, np.nan)).reshape(len(names), SAMPLES)
    lasts = np.zeros(len(names), np.int64)
    lasts[rows] = points.times
    return Course(points.server_ids[names // width], points.tags, names % width, samples, lasts)


def seconds_left(rule: Rule, samples: Floats) -> Floats:
    """Seconds until each row reaches the rule's target: never negative, 0 where it has, else FAR.

    NaN where the newest sample is missing, which is no data.
    """
    assert rule.target is not None  # noqa: S101  a constraint of the table
    sign = 1.0 if rule.comparison in (Rule.Comparison.ABOVE, Rule.Comparison.AT_LEAST) else -1.0
    values, target = sign * samples, sign * rule.target
    guard = -np.inf if rule.guard is None else sign * rule.guard
    now = values[:, -1]
    left = np.where(np.isnan(now), np.nan, FAR)
    left[now >= target] = 0.0
    least = rule.history or rule.window / 4
    step = rule.window / SAMPLES
    known = ~np.isnan(values)
    spanned = (SAMPLES - 1 - known.argmax(axis=1)) * step.total_seconds()
    judged = np.flatnonzero(
        (now >= guard)
        & (now < target)
        & (spanned >= min(least, (SAMPLES - 1) * step).total_seconds())
    )
    for start in range(0, len(judged), _CHUNK):
        rows = judged[start : start + _CHUNK]
        rate = _rate(values[rows]) / step.total_seconds()
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):  # what never arrives
            left[rows] = np.where(rate > 0, np.minimum((target - now[rows]) / rate, FAR), FAR)
    return left


def _rate(values: Floats) -> Floats:
    """Rise a step: of the whole history, or of its newest quarter where that rises steadily."""
    whole, _ = _slopes(values)
    lately, rising = _slopes(values[:, -(SAMPLES // 4) :])
    return np.where(rising >= STEADY, np.fmax(whole, lately), whole)


def _slopes(values: Floats) -> tuple[Floats, Floats]:
    """The median slope of each row's pairs, 0 without any, and which share of them rises.

    Pairs are at most a quarter of the history apart, so that few of them span any one step.
    """
    first, second = np.triu_indices(values.shape[1], 1)
    near = second - first <= SAMPLES // 4
    first, second = first[near], second[near]
    slopes = (values[:, second] - values[:, first]) / (second - first)
    known = ~np.isnan(slopes)
    some = known.any(axis=1)
    median = np.zeros(len(values))
    if some.any():
        median[some] = np.nanmedian(slopes[some], axis=1)
    rising = (slopes > 0).sum(axis=1) / np.maximum(known.sum(axis=1), 1)
    enough = known.sum(axis=1) >= values.shape[1]
    return median, np.where(enough, rising, 0.0)
