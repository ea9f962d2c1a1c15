"""How many alerts a minute other people's tools may open, by organization, in one process."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from math import ceil

from django.conf import settings

from alerts.lifecycle.external import Statement
from sentinel_site.kit.problems import Problem


class TooManyAlerts(Problem):
    status, code, title = 429, "too-many-alerts", "Too many alerts came within a minute"


class Bucket:
    """Holds the alerts of a minute for each organization, and fills again as time goes on."""

    def __init__(self) -> None:
        self._left: dict[str, tuple[float, float]] = {}  # how many, and when that was
        self._lock = threading.Lock()

    def take(self, schema: str, count: int, now: float, a_minute: int) -> float:
        """Take so many out, or nothing; the seconds until they will be in it, 0: they were.

        More than it holds are taken once it is full. `now` is in seconds of any clock.
        """
        wanted = min(count, a_minute)
        with self._lock:
            left, at = self._left.get(schema, (float(a_minute), now))
            left = min(left + (now - at) * a_minute / 60, float(a_minute))
            short = wanted - left
            self._left[schema] = (left if short > 0 else left - wanted, now)
        return max(short, 0.0) * 60 / a_minute


_bucket = Bucket()
#: What is over is taken also where no more may open, and is not free either.
_ends = Bucket()


def admit(schema: str, statements: Sequence[Statement], now: float) -> None:
    """Let these alerts of an organization in, all or none; ends have a bucket of their own.

    Raises TooManyAlerts, which says for how long.
    """
    ends = sum(one.severity is None for one in statements)
    _admit(_ends, schema, ends, now)
    _admit(_bucket, schema, len(statements) - ends, now)


def admit_heartbeat(schema: str, now: float) -> None:
    """Let a heartbeat in, which counts as an alert. Raises TooManyAlerts."""
    _admit(_bucket, schema, 1, now)


def _admit(bucket: Bucket, schema: str, count: int, now: float) -> None:
    if not count:
        return
    seconds = bucket.take(schema, count, now, settings.ALERTS_PER_MINUTE)
    if seconds:
        refused = TooManyAlerts(
            f"At most {settings.ALERTS_PER_MINUTE} are taken a minute. Nothing of it was kept."
        )
        refused.headers = {"Retry-After": str(ceil(seconds))}
        raise refused
