"""Input and output of block devices."""

from __future__ import annotations

import os
import re

import psutil

from agent_client.collector import Collector, Points

_NOT_DISKS = re.compile(r"(loop|ram|zram|sr|fd|nbd)\d+$")


class DiskIo(Collector):
    """Running totals by block device since boot: disks, partitions and logical volumes.

    The `device` tag is the one of the `disk` measurement, so that the two join.
    """

    name = "disk_io"

    def collect(self, points: Points) -> None:
        for kernel_name, seen in psutil.disk_io_counters(perdisk=True, nowrap=False).items():
            if _NOT_DISKS.match(kernel_name):
                continue
            points.add(
                "disk_io",
                {
                    "read_bytes": seen.read_bytes,
                    "write_bytes": seen.write_bytes,
                    "reads": seen.read_count,
                    "writes": seen.write_count,
                    "busy_ms": getattr(seen, "busy_time", None),
                },
                {"device": volume_name(kernel_name)},
            )
        if not points.points:
            points.nothing("no disk is seen from here, as in a container")


def volume_name(kernel_name: str) -> str:
    """The name by which a block device is mounted, below /dev: `dm-0` is `mapper/vg-root`."""
    try:
        with open(os.path.join("/sys/block", kernel_name, "dm/name"), encoding="utf-8") as file:
            return "mapper/" + file.read().strip()
    except OSError:
        return kernel_name  # no device-mapper volume
