"""Swap space."""

from __future__ import annotations

import psutil

from agent_client.collector import Collector, Points


class Swap(Collector):
    """Swap space in bytes; 0 percent where there is none."""

    name = "swap"

    def collect(self, points: Points) -> None:
        swap = psutil.swap_memory()
        points.add(
            "swap",
            {"total": swap.total, "used": swap.used, "free": swap.free, "percent": swap.percent},
        )
