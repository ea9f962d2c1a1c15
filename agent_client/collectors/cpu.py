"""Processor time by mode."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psutil

from agent_client.collector import Collector, Points

if TYPE_CHECKING:
    from agent_client.config import Config


class Cpu(Collector):
    """Percent of all processors together since the last collection, 0 to 100.

    `percent` is all but idle and iowait; `user` includes nice and guests, `system` includes
    interrupts.
    """

    name = "cpu"

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._last = _times()

    def collect(self, points: Points) -> None:
        now = _times()
        # The kernel's iowait and idle may step back; such a mode counts as not moved.
        spent = {mode: max(0.0, now[mode] - self._last[mode]) for mode in now}
        total = sum(spent.values())
        if total <= 0:
            return  # no tick has passed since the last look
        self._last = now
        share = {mode: round(100.0 * seconds / total, 3) for mode, seconds in spent.items()}
        busy = 100.0 - share["idle"] - share["iowait"]
        points.add("cpu", {"percent": round(min(100.0, max(0.0, busy)), 3), **share})


def _times() -> dict[str, float]:
    times = psutil.cpu_times()
    # `guest` is part of `user` already, so it is not added again.
    return {
        "user": times.user + getattr(times, "nice", 0.0),
        "system": times.system + getattr(times, "irq", 0.0) + getattr(times, "softirq", 0.0),
        "iowait": getattr(times, "iowait", 0.0),
        "idle": times.idle,
        "steal": getattr(times, "steal", 0.0),
    }
