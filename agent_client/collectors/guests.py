"""The instances that run on this hypervisor, as their QEMU processes show them."""

from __future__ import annotations

import dataclasses
import os
import re
import time
from typing import Sequence

from agent_client.collector import Collector, Points

_QEMU = re.compile(r"(qemu-system-|qemu-kvm|kvm$)")
_OTHERS_FOR = 60.0
_SIZES = {"": 1024**2, "k": 1024, "m": 1024**2, "g": 1024**3, "b": 1}


@dataclasses.dataclass(frozen=True)
class Guest:
    """What a QEMU process was started with. Memory in bytes, 0 where the line does not say."""

    name: str
    uuid: str
    memory: int
    vcpus: int


class Guests(Collector):
    """Each running guest: processor, memory and disk traffic of its QEMU process.

    `cpu_percent` is percent of one processor since the last collection, and up to 100 for each of
    its `vcpus`. What only libvirt knows (guests that are off, traffic by disk and port) is not
    here; the API says which instances are off. `read_bytes` and `written_bytes` are running totals
    and need the right to read another user's /proc/PID/io.
    """

    name = "guests"

    def __init__(self, config: object, proc: str = "/proc") -> None:
        super().__init__(config)  # type: ignore[arg-type]
        self._proc = proc
        self._known: dict[tuple[int, str], Guest | None] = {}
        self._cpu: dict[tuple[int, str], float] = {}
        self._looked_at: float | None = None
        #: Processes that were no QEMU when they were met; looked at again each minute.
        self._others: set[str] = set()
        self._others_since = 0.0
        self._hertz = os.sysconf("SC_CLK_TCK")
        self._page = os.sysconf("SC_PAGE_SIZE")

    def collect(self, points: Points) -> None:
        now = time.monotonic()
        elapsed = None if self._looked_at is None else now - self._looked_at
        known: dict[tuple[int, str], Guest | None] = {}
        cpu: dict[tuple[int, str], float] = {}
        running: list[Guest] = []
        if now - self._others_since >= _OTHERS_FOR:
            self._others, self._others_since = set(), now
        entries = {entry for entry in os.listdir(self._proc) if entry.isdigit()}
        self._others &= entries
        for entry in sorted(entries - self._others):
            columns = self._stat(entry)
            if columns is None:
                self._others.add(entry)
                continue
            key = (int(entry), columns[20])  # the 21st after the state: when it started
            guest = guest_of(self._argv(entry)) if key not in self._known else self._known[key]
            known[key] = guest
            if guest is None:
                continue
            running.append(guest)
            cpu[key] = (int(columns[12]) + int(columns[13])) / self._hertz
            spent = cpu[key] - self._cpu.get(key, cpu[key] if elapsed is None else 0.0)
            self._add(points, guest, entry, columns, None if not elapsed else spent / elapsed)
        self._known, self._cpu, self._looked_at = known, cpu, now
        if not running:
            points.nothing("no guest of libvirt runs here")
        else:
            points.add(
                "guests",
                {
                    "running": len(running),
                    "vcpus": sum(guest.vcpus for guest in running),
                    "memory": sum(guest.memory for guest in running),
                },
            )

    def _add(
        self, points: Points, guest: Guest, entry: str, columns: Sequence[str], share: float | None
    ) -> None:
        traffic = self._io(entry)
        points.add(
            "guest",
            {
                "cpu_percent": None if share is None else round(100.0 * max(0.0, share), 3),
                "memory": int(columns[22]) * self._page,
                "memory_limit": guest.memory or None,
                "vcpus": guest.vcpus,
                "threads": int(columns[18]),
                "read_bytes": traffic.get("read_bytes"),
                "written_bytes": traffic.get("write_bytes"),
            },
            {"guest": guest.name, "instance": guest.uuid},
        )

    def _stat(self, entry: str) -> list[str] | None:
        """Name and columns of /proc/PID/stat if the process may be QEMU; the name stands first."""
        try:
            with open(f"{self._proc}/{entry}/stat", encoding="utf-8", errors="replace") as file:
                line = file.read()
        except OSError:
            return None  # ended meanwhile
        name = line[line.find("(") + 1 : line.rfind(")")]
        if not _QEMU.match(name):
            return None
        return [name, *line[line.rfind(")") + 2 :].split()]

    def _argv(self, entry: str) -> list[str]:
        try:
            with open(f"{self._proc}/{entry}/cmdline", "rb") as file:
                return file.read(65_536).decode("utf-8", "replace").split("\0")
        except OSError:
            return []

    def _io(self, entry: str) -> dict[str, int]:
        try:
            with open(f"{self._proc}/{entry}/io", encoding="ascii") as file:
                pairs = [line.split(":") for line in file]
        except OSError:
            return {}  # another user's, or just ended
        return {name: int(value) for name, value in pairs}


def guest_of(argv: Sequence[str]) -> Guest | None:
    """The guest of a QEMU command line; None for one that is no guest of libvirt's (a tool)."""
    said: dict[str, str] = {}
    for option, value in zip(argv, argv[1:]):
        if option in ("-name", "-uuid", "-m", "-smp"):
            said.setdefault(option, value)
    if "-name" not in said:
        return None
    name = dict(_pairs(said["-name"], "guest")).get("guest", "")
    cores = dict(_pairs(said.get("-smp", "1"), "cpus")).get("cpus", "1")
    size = dict(_pairs(said.get("-m", ""), "size")).get("size", "")
    match = re.match(r"(\d+)([kKmMgGbB]?)", size)
    memory = int(match.group(1)) * _SIZES[match.group(2).lower()] if match else 0
    return Guest(name, said.get("-uuid", ""), memory, int(cores) if cores.isdigit() else 1)


def _pairs(value: str, first: str) -> list[tuple[str, str]]:
    """`guest=a,debug-threads=on` or `a,debug-threads=on` as pairs."""
    pairs = []
    for number, part in enumerate(value.split(",")):
        name, found, text = part.partition("=")
        pairs.append((name, text) if found else (first if number == 0 else name, part))
    return pairs
