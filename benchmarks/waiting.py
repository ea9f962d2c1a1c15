"""How benchmarks wait for what other programs do: they ask until it is done."""

from __future__ import annotations

import time
from collections.abc import Callable

#: Seconds between two questions.
PAUSE = 0.2


def until(done: Callable[[], bool], seconds: float) -> bool:
    """Whether it was done within so many seconds; as soon as it is."""
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            return False
        time.sleep(PAUSE)
    return True
