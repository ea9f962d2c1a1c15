"""Main memory."""

from __future__ import annotations

import psutil

from agent_client.collector import Collector, Points


class Memory(Collector):
    """Main memory in bytes. `used` is what is not available: page cache does not count."""

    name = "memory"

    def collect(self, points: Points) -> None:
        memory = psutil.virtual_memory()
        used = memory.total - memory.available
        points.add(
            "memory",
            {
                "total": memory.total,
                "used": used,
                "available": memory.available,
                "percent": round(100.0 * used / memory.total, 3),
            },
        )
