"""What each field of each measurement is counted in: one table for agent and server.

Units: `percent` (0 to 100, of one processor it may be more), `bytes`, `seconds`, `milliseconds`,
`count`. A field that is not in the table is told by its name, for plugins bring their own.
"""

from __future__ import annotations

from typing import Mapping

UNITS = ("percent", "bytes", "seconds", "milliseconds", "count")


def _fields(**units: str) -> Mapping[str, str]:
    """Fields by their unit: `percent="user system"`."""
    return {name: unit for unit, names in units.items() for name in names.split()}


#: measurement -> field -> unit
FIELDS: Mapping[str, Mapping[str, str]] = {
    "cpu": _fields(percent="percent user system iowait idle steal"),
    "load": _fields(count="load1 load5 load15 load_per_core"),
    "memory": _fields(bytes="total used free available", percent="percent"),
    "swap": _fields(bytes="total used free", percent="percent"),
    "disk": _fields(bytes="total used free", percent="percent inodes_percent"),
    "disk_io": _fields(
        bytes="read_bytes write_bytes", count="reads writes", milliseconds="busy_ms"
    ),
    "network": _fields(
        bytes="received_bytes sent_bytes",
        count="received_packets sent_packets received_errors sent_errors received_drops sent_drops",
    ),
    "service": _fields(
        percent="cpu_percent memory_percent",
        bytes="memory",
        seconds="uptime",
        count=(
            "up workers threads descriptors restarts ports_listening ports_answering ports_silent"
        ),
    ),
    "agent": _fields(
        percent="cpu_percent",
        bytes="memory spool_bytes",
        seconds="cycle_seconds",
        count="spool_reports dropped_reports dropped_points dropped_events rejected_items",
    ),
    "agent_collector": _fields(count="ok points failures", seconds="seconds"),
}

#: (measurement, field) that only ever grow until they start again; a chart shows their rate.
COUNTERS: frozenset[tuple[str, str]] = frozenset(
    (measurement, name)
    for measurement, names in {
        "disk_io": "read_bytes write_bytes reads writes busy_ms",
        "network": (
            "received_bytes sent_bytes received_packets sent_packets received_errors sent_errors"
            " received_drops sent_drops"
        ),
    }.items()
    for name in names.split()
)


def unit_of(measurement: str, name: str) -> str:
    """The unit of a field: as the table says, else as its name does."""
    known = FIELDS.get(measurement, {}).get(name)
    if known is not None:
        return known
    words = name.replace(".", "_").split("_")
    for word, unit in (
        ("percent", "percent"), ("bytes", "bytes"), ("seconds", "seconds"), ("ms", "milliseconds"),
    ):  # fmt: skip
        if word in words:
            return unit
    return "count"
