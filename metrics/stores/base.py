"""What a metric store must do. It is a shared engine: every call names exactly one tenant.

Times are integer milliseconds since 1970 (UTC); ranges include their start and not their end.
Writing is idempotent: the same row again changes nothing, and of two rows of one shape at one
time the later write stays. Points may arrive in any order.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from metrics.batch import Tags
from sentinel_site.kit.problems import Problem

#: Besides these, `p50`, `p95`, `p99.9` … are percentiles.
AGGREGATIONS = (
    "avg", "min", "max", "last", "sum", "count", "rate", "delta", "stddev", "changes",
)  # fmt: skip


class StoreUnavailable(Problem):
    status, code, title = 503, "store-unavailable", "The metric store does not answer"
    headers = {"Retry-After": "5"}


class Column(NamedTuple):
    """One series' place in a wide row."""

    measurement: str
    field: str
    tags: Tags


@dataclass(frozen=True, slots=True)
class Row:
    """Values of one set of columns, of one server at one time."""

    tenant_id: int
    server_id: int
    ts: int
    set_id: int
    columns: tuple[Column, ...]
    values: list[float]


@dataclass(frozen=True, slots=True)
class Series:
    """One series, downsampled: `times` are the starts of the buckets that hold something."""

    column: Column
    times: list[int]
    values: list[float]


@dataclass(frozen=True, slots=True)
class Windowed:
    """One series of one server over one window; `count` points, the last at `last`."""

    server_id: int
    tags: Tags
    value: float
    count: int
    last: int


@dataclass(frozen=True, slots=True)
class Points:
    """One field of many servers as it was stored, in order of time: parallel arrays, a value each.

    `servers` is an index of `server_ids`, `series` one of `tags`; times are milliseconds.
    """

    server_ids: NDArray[np.int64]
    servers: NDArray[np.intp]
    tags: list[Tags]
    series: NDArray[np.intp]
    times: NDArray[np.int64]
    values: NDArray[np.float64]


class Newest(NamedTuple):
    """The newest value of one series of one server."""

    server_id: int
    column: Column
    ts: int
    value: float


@dataclass(frozen=True, slots=True)
class Label:
    """A measurement that exists, with its fields and the values of its tags."""

    measurement: str
    fields: list[str]
    tags: dict[str, list[str]]


class Store(Protocol):
    """The contract; `cursor` is of the transaction that must commit together with the points."""

    def write(self, rows: Sequence[Row], cursor: Any) -> None: ...

    def range(
        self,
        tenant_id: int,
        server_id: int,
        measurement: str,
        fields: Sequence[str],
        tags: Mapping[str, str],
        start: int,
        end: int,
        step: int,
        agg: str,
    ) -> list[Series]:
        """Each series whose tags include `tags`, one value a bucket of `step` milliseconds.

        `rate` is per second over counters, and takes a fall as a restart from zero.
        """
        ...

    def latest(
        self, tenant_id: int, server_ids: Iterable[int], measurements: Iterable[str] | None = None
    ) -> list[Newest]:
        """The newest value of every series that these servers have ever had."""
        ...

    def window(
        self,
        tenant_id: int,
        measurement: str,
        field: str,
        since: int,
        until: int,
        agg: str,
        tags: Mapping[str, str] | None = None,
    ) -> list[Windowed]:
        """One aggregation over one window for every server and tag set of a tenant at once."""
        ...

    def points(
        self,
        tenant_id: int,
        wanted: Sequence[tuple[str, str]],
        spans: Sequence[tuple[int, int]],
        server_ids: Iterable[int] | None = None,
    ) -> list[Points]:
        """Each wanted (measurement, field) as stored within any of these spans, of all servers.

        What rules are evaluated on: a store reads all of them at once where it can, and makes no
        object of a point. Spans must not overlap; callers keep them short or name few servers.
        """
        ...

    def labels(self, tenant_id: int, server_id: int | None = None) -> list[Label]:
        """What can be asked for."""
        ...

    def forget(self, tenant_id: int, server_id: int | None = None) -> None:
        """Remove a server's points, or all of a tenant's."""
        ...


def percentile(agg: str) -> float | None:
    """The fraction that `p95` names, or None if it is no percentile."""
    if agg[:1] != "p":
        return None
    try:
        percent = float(agg[1:])
    except ValueError:
        return None
    return percent / 100 if 0 <= percent <= 100 else None


def is_aggregation(agg: str) -> bool:
    return agg in AGGREGATIONS or percentile(agg) is not None
