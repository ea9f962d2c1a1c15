"""What the health packs share: they ask another program, so they ask less often."""

from __future__ import annotations

import time

from agent_client.collector import Collector, Points


class Pack(Collector):
    """A collector that looks at most every `every` seconds, however short the interval is."""

    every = 30.0

    def __init__(self, config: object) -> None:
        super().__init__(config)  # type: ignore[arg-type]
        self._due_at = 0.0

    def collect(self, points: Points) -> None:
        now = time.monotonic()
        # A cycle is never quite punctual: the one that is a moment early counts.
        if now >= self._due_at - 1.0:
            self._due_at = now + self.every
            self.look(points)

    def settle(self, seconds: float) -> None:
        self._due_at = 0.0

    def look(self, points: Points) -> None:
        """Add what the program says now."""
        raise NotImplementedError
