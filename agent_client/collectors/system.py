"""The system as a whole: since when it runs, its processes, its file descriptors."""

from __future__ import annotations

import os

from agent_client.collector import Collector, Points


class System(Collector):
    """Uptime in seconds, processes, and file descriptors of all processes against their limit.

    `context_switches` and `forks` are running totals since boot; `blocked` counts the tasks that
    wait for a disk right now.
    """

    name = "system"

    def __init__(self, config: object, proc: str = "/proc") -> None:
        super().__init__(config)  # type: ignore[arg-type]
        self._proc = proc

    def collect(self, points: Points) -> None:
        said: dict[str, int] = {}
        for line in self._read("stat").splitlines():
            word, _, rest = line.partition(" ")
            if word in ("ctxt", "processes", "procs_blocked"):
                said[word] = int(rest)
        allocated, _unused, limit = (int(word) for word in self._read("sys/fs/file-nr").split())
        # Kernels of 64 bits put no limit at all here, written as the largest number.
        limited = 0 < limit < 2**62
        tasks = self._read("loadavg").split()[3].partition("/")[2]
        points.add(
            "system",
            {
                "uptime_seconds": float(self._read("uptime").split()[0]),
                "tasks": int(tasks),
                "blocked": said.get("procs_blocked"),
                "context_switches": said.get("ctxt"),
                "forks": said.get("processes"),
                "descriptors": allocated,
                "descriptors_limit": limit if limited else None,
                "descriptors_percent": round(100.0 * allocated / limit, 3) if limited else None,
            },
        )

    def _read(self, name: str) -> str:
        with open(os.path.join(self._proc, name), encoding="ascii") as file:
            return file.read()
