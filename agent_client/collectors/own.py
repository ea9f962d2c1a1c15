"""The agent itself."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Mapping

from agent_client.collector import Collector, CollectorState, Points

if TYPE_CHECKING:
    from agent_client.config import Config
    from agent_client.skew import Skew
    from agent_client.spool import Spool


class Own(Collector):
    """What the agent costs, what waits in its spool, and how its collectors fare.

    Drops are running totals of this spool, failures of this process. It comes last, so that it
    tells of the same cycle.
    """

    name = "agent"

    def __init__(self, config: Config, spool: Spool, skew: Skew) -> None:
        super().__init__(config)
        self._spool = spool
        self._skew = skew
        #: What the other collectors did; set by the loop.
        self.collectors: Mapping[str, CollectorState] = {}
        self._cpu = _cpu_seconds()
        self._looked_at = time.monotonic()
        #: How long the last cycle took, in seconds; set by the loop.
        self.cycle_seconds = 0.0

    def collect(self, points: Points) -> None:
        waiting = self._spool.waiting()
        lost = self._spool.losses()
        cpu, now = _cpu_seconds(), time.monotonic()
        elapsed = now - self._looked_at
        percent = round(100.0 * (cpu - self._cpu) / elapsed, 3) if elapsed > 0 else None
        self._cpu, self._looked_at = cpu, now
        offset, round_trip = self._skew.offset, self._skew.round_trip
        points.add(
            "agent",
            {
                # Ours less the server's: positive where this host's clock is ahead.
                "clock_offset": -offset if offset is not None else None,
                "round_trip": round(round_trip, 4) if round_trip is not None else None,
                "spool_reports": waiting.reports,
                "spool_bytes": waiting.bytes,
                "cycle_seconds": round(self.cycle_seconds, 4),
                "memory": resident_bytes(),
                "cpu_percent": percent,
                "dropped_reports": lost.reports,
                "dropped_points": lost.points,
                "dropped_events": lost.events,
                "rejected_items": lost.rejected,
            },
        )
        for name, state in self.collectors.items():
            if name != self.name:
                points.add(
                    "agent_collector",
                    {
                        "ok": int(state.ok),
                        "seconds": state.seconds,
                        "points": state.points,
                        "failures": state.failures,
                    },
                    {"collector": name},
                )


def resident_bytes() -> int:
    """Resident memory of this process."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _cpu_seconds() -> float:
    times = os.times()
    return times.user + times.system
