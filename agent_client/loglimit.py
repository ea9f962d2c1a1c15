"""How many events one log may send, so that a flood in one drowns neither the rest nor the server.

A bucket a log holds as many events as one minute may bring and fills up again by the time that the
events themselves name: reading a day's backlog in a minute is no flood. Critical events may draw on
as much again, so they are left out only when all else has been left out before them.
"""

from __future__ import annotations

import dataclasses
from typing import Mapping

#: A time that lies so far back is no disorder of several writers but a clock that was set.
_CLOCK_WAS_SET = 60.0


@dataclasses.dataclass(frozen=True)
class Bucket:
    """How many events may still be sent, and up to which event's time that is known."""

    left: float
    at: float


Buckets = Mapping[str, Bucket]


class Limiter:
    """The buckets in one look; what it changed counts once the look is stored."""

    def __init__(self, buckets: Buckets) -> None:
        self.buckets: dict[str, Bucket] = dict(buckets)
        #: Events left out in this look, by path and level.
        self.dropped: dict[str, dict[str, int]] = {}

    def admits(self, path: str, limit: int, level: str, at: float) -> bool:
        """Whether an event of this level and time may be sent; `limit` a minute, 0 for no limit."""
        if not limit:
            return True
        bucket = self.buckets.get(path) or Bucket(float(limit), at)
        elapsed = at - bucket.at
        if elapsed > 0:
            left = min(float(limit), bucket.left + elapsed * limit / 60.0)
            bucket = Bucket(left, at)
        elif elapsed < -_CLOCK_WAS_SET:
            bucket = Bucket(bucket.left, at)
        least = 1.0 - limit if level == "critical" else 1.0
        admitted = bucket.left >= least
        if admitted:
            bucket = Bucket(bucket.left - 1.0, bucket.at)
        else:
            levels = self.dropped.setdefault(path, {})
            levels[level] = levels.get(level, 0) + 1
        self.buckets[path] = bucket
        return admitted

    def mark(self, path: str) -> tuple[Bucket | None, dict[str, int]]:
        """How one log stands now, for `reset`."""
        return self.buckets.get(path), dict(self.dropped.get(path, {}))

    def reset(self, path: str, mark: tuple[Bucket | None, dict[str, int]]) -> None:
        """Go back to a mark: what was read since will be read again."""
        bucket, dropped = mark
        self.buckets.pop(path, None)
        self.dropped.pop(path, None)
        if bucket is not None:
            self.buckets[path] = bucket
        if dropped:
            self.dropped[path] = dropped

    def told(self, path: str, limit: int) -> str:
        """What was left out of one log, in words."""
        levels = self.dropped[path]
        number = sum(levels.values())
        parts = ", ".join(f"{count} {level}" for level, count in levels.items())
        return (
            f"{path}: {number} lines dropped ({parts}), for it brings more than its limit of "
            f"{limit} a minute"
        )
