"""Network interfaces."""

from __future__ import annotations

import fnmatch

import psutil

from agent_client.collector import Collector, Points


class Network(Collector):
    """Running totals by interface since boot; the server makes rates of them.

    Interfaces that come and go with instances (`tap*`, `qvo*`, ...) are left out by default.
    """

    name = "network"

    def collect(self, points: Points) -> None:
        for interface, seen in psutil.net_io_counters(pernic=True, nowrap=False).items():
            left_out = self.config.exclude_interfaces
            if any(fnmatch.fnmatchcase(interface, pattern) for pattern in left_out):
                continue
            points.add(
                "network",
                {
                    "received_bytes": seen.bytes_recv,
                    "sent_bytes": seen.bytes_sent,
                    "received_packets": seen.packets_recv,
                    "sent_packets": seen.packets_sent,
                    "received_errors": seen.errin,
                    "sent_errors": seen.errout,
                    "received_drops": seen.dropin,
                    "sent_drops": seen.dropout,
                },
                {"interface": interface},
            )
        if not points.points:
            points.nothing("no interface is left that is not excluded")
