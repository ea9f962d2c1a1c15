"""Load averages."""

from __future__ import annotations

import os

from agent_client.collector import Collector, Points


class Load(Collector):
    """Processes running or waiting for disk, averaged over 1, 5 and 15 minutes."""

    name = "load"

    def collect(self, points: Points) -> None:
        load1, load5, load15 = os.getloadavg()
        points.add(
            "load", {"load1": round(load1, 2), "load5": round(load5, 2), "load15": round(load15, 2)}
        )
