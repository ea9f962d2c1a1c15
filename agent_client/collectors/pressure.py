"""Pressure stall information: how long work stood still for want of something."""

from __future__ import annotations

import os

from agent_client.collector import Collector, Points

_RESOURCES = ("cpu", "memory", "io")


class Pressure(Collector):
    """Percent of the last 10 s in which some, and in which all, tasks waited; and for how long.

    The seconds are running totals since boot. Kernels before 4.20, or without PSI, have none.
    """

    name = "pressure"

    def __init__(self, config: object, folder: str = "/proc/pressure") -> None:
        super().__init__(config)  # type: ignore[arg-type]
        self._folder = folder

    def collect(self, points: Points) -> None:
        for resource in _RESOURCES:
            try:
                with open(os.path.join(self._folder, resource), encoding="ascii") as file:
                    lines = file.read().splitlines()
            except (FileNotFoundError, NotADirectoryError):
                points.nothing("this kernel counts no pressure: it is older than 4.20, or without")
                return
            except OSError as error:
                # A kernel that has it switched off answers with "operation not supported".
                if error.errno == 95:
                    points.nothing("this kernel has pressure switched off; boot it with psi=1")
                    return
                raise
            points.add("pressure", fields_of(lines), {"resource": resource})


def fields_of(lines: list[str]) -> dict[str, float]:
    """`some avg10=1.50 avg60=0.30 avg300=0.00 total=88000` as percent and seconds."""
    fields: dict[str, float] = {}
    for line in lines:
        kind, *said = line.split()
        values = dict(word.split("=", 1) for word in said)
        fields[f"{kind}_percent"] = float(values["avg10"])
        fields[f"{kind}_seconds"] = int(values["total"]) / 1e6
    return fields
