"""Aggregations over windows, on arrays: for all servers and series of a tenant at once.

Rules are judged by these and previews are drawn by them, so both see the same number. All pure.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from metrics.batch import Tags
from metrics.stores.base import Points, percentile

Floats = NDArray[np.float64]
Numbers = NDArray[np.intp]
Times = NDArray[np.int64]

#: These compare a value with the one before it, which may lie before the window.
LOOK_BEHIND = frozenset({"rate", "changes"})
#: How far before a window that value is looked for, in milliseconds.
LOOKBACK = 600_000


@dataclass(frozen=True, slots=True)
class Windows:
    """One number a series; `servers` are ids, `series` an index of `tags`, `lasts` milliseconds."""

    servers: Times
    tags: list[Tags]
    series: Numbers
    values: Floats
    lasts: Times

    def __len__(self) -> int:
        return len(self.values)


def over(points: Points, agg: str, since: int, until: int) -> Windows:
    """Aggregate what lies in [since, until) for each server and tag set that has something there.

    Raises ValueError for an aggregation that does not exist.
    """
    behind = since - LOOKBACK if agg in LOOK_BEHIND else since
    low, high = np.searchsorted(points.times, [behind, until])
    times, values = points.times[low:high], points.values[low:high]
    width = max(1, len(points.tags))
    keys = points.servers[low:high] * width + points.series[low:high]
    size = len(points.server_ids) * width
    names: Numbers | None = None
    if size > 8 * len(keys) + 1024:  # each server has tags of its own
        names, keys = np.unique(keys, return_inverse=True)
        size = len(names)
    inside = times >= since
    counts = np.bincount(keys[inside], minlength=size)
    result = _aggregate(agg, keys, size, times, values, since, counts)
    lasts = np.zeros(size, np.int64)
    lasts[keys] = times  # in order of time: the last assignment stays
    some = np.flatnonzero((counts > 0) & ~np.isnan(result))
    full = some if names is None else names[some]
    return Windows(
        points.server_ids[full // width], points.tags, full % width, result[some], lasts[some]
    )


def _aggregate(
    agg: str, keys: Numbers, size: int, times: Times, values: Floats, since: int, counts: Numbers
) -> Floats:
    simple = _SIMPLE.get(agg)
    if simple is not None:
        return simple(keys, size, values, counts)
    if agg in LOOK_BEHIND:
        return _pairs(agg, keys, size, times, values, since)
    fraction = percentile(agg)
    if fraction is None:
        raise ValueError(f"{agg!r} is no aggregation")
    return _percentile(fraction, keys, size, values)


def _sum(keys: Numbers, size: int, values: Floats, counts: Numbers) -> Floats:
    total: Floats = np.bincount(keys, values, size).astype(np.float64)
    return total


def _avg(keys: Numbers, size: int, values: Floats, counts: Numbers) -> Floats:
    return _sum(keys, size, values, counts) / np.maximum(counts, 1)


def _count(keys: Numbers, size: int, values: Floats, counts: Numbers) -> Floats:
    return counts.astype(np.float64)


def _last(keys: Numbers, size: int, values: Floats, counts: Numbers) -> Floats:
    found = np.zeros(size)
    found[keys] = values
    return found


def _first(keys: Numbers, size: int, values: Floats, counts: Numbers) -> Floats:
    return _last(keys[::-1], size, values[::-1], counts)


def _min(keys: Numbers, size: int, values: Floats, counts: Numbers) -> Floats:
    found = np.full(size, np.inf)
    np.minimum.at(found, keys, values)
    return found


def _max(keys: Numbers, size: int, values: Floats, counts: Numbers) -> Floats:
    found = np.full(size, -np.inf)
    np.maximum.at(found, keys, values)
    return found


def _delta(keys: Numbers, size: int, values: Floats, counts: Numbers) -> Floats:
    """From the oldest to the newest value of the window; of one value alone nothing is known."""
    change = _last(keys, size, values, counts) - _first(keys, size, values, counts)
    return np.where(counts > 1, change, np.nan)


def _stddev(keys: Numbers, size: int, values: Floats, counts: Numbers) -> Floats:
    """Of the values themselves (population), not an estimate for more of them."""
    off = values - _avg(keys, size, values, counts)[keys]
    return np.sqrt(_avg(keys, size, off * off, counts))


def _pairs(agg: str, keys: Numbers, size: int, times: Times, values: Floats, since: int) -> Floats:
    """`rate`: increase per second of a counter that may restart at zero. `changes`: how often a
    value differed from the one before it."""
    order = np.argsort(keys, kind="stable")
    keys, times, values = keys[order], times[order], values[order]
    pair = (keys[1:] == keys[:-1]) & (times[1:] >= since)
    of, before, now = keys[1:][pair], values[:-1][pair], values[1:][pair]
    if agg == "changes":
        return np.bincount(of, now != before, size).astype(np.float64)
    spans = np.bincount(of, (times[1:] - times[:-1])[pair], size)
    increase = np.bincount(of, np.where(now >= before, now - before, now), size)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(spans > 0, 1000 * increase / spans, np.nan)


def _percentile(fraction: float, keys: Numbers, size: int, values: Floats) -> Floats:
    """Linear between the two nearest ranks, as PostgreSQL's `percentile_cont`."""
    ordered = values[np.lexsort((values, keys))]
    counts = np.bincount(keys, minlength=size)
    first = np.cumsum(counts) - counts
    found = np.full(size, np.nan)
    some = counts > 0
    rank = (counts[some] - 1) * fraction
    low = np.floor(rank).astype(np.intp)
    high = np.ceil(rank).astype(np.intp)
    below, above = ordered[first[some] + low], ordered[first[some] + high]
    found[some] = below + (above - below) * (rank - low)
    return found


_SIMPLE: dict[str, Callable[[Numbers, int, Floats, Numbers], Floats]] = {
    "sum": _sum,
    "avg": _avg,
    "count": _count,
    "last": _last,
    "min": _min,
    "max": _max,
    "delta": _delta,
    "stddev": _stddev,
}
