"""Load averages."""

from __future__ import annotations

import os

from agent_client.collector import Collector, Points


class Load(Collector):
    """Processes running or waiting for disk, averaged over 1, 5 and 15 minutes.

    `load_per_core` is the average over 5 minutes by processor, so that one rule fits all servers.
    """

    name = "load"

    def collect(self, points: Points) -> None:
        load1, load5, load15 = (round(load, 2) for load in os.getloadavg())
        per_core = round(load5 / (os.cpu_count() or 1), 3)
        points.add(
            "load", {"load1": load1, "load5": load5, "load15": load15, "load_per_core": per_core}
        )
