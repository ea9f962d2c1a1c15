"""What is slow goes through a gate: so many at once, so that threads are left for all else."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from sentinel_site.kit.problems import Problem


class Busy(Problem):
    status, code, title = 429, "busy", "This is under way already"
    headers = {"Retry-After": "5"}


class Gate:
    """Lets so many in at once of each holder, and of all of them, in this process."""

    def __init__(self, each: int, whole: int) -> None:
        self._each, self._whole = each, whole
        self._inside: Counter[str] = Counter()
        self._lock = threading.Lock()

    @contextmanager
    def passed(self, holder: str, busy: str) -> Iterator[None]:
        """Be inside meanwhile; nobody waits. Raises Busy, which says `busy`."""
        with self._lock:
            if self._inside[holder] >= self._each or self._inside.total() >= self._whole:
                raise Busy(busy)
            self._inside[holder] += 1
        try:
            yield
        finally:
            with self._lock:
                self._inside[holder] -= 1
                if not self._inside[holder]:
                    del self._inside[holder]
