"""The instances on this hypervisor, as their QEMU processes show them, and libvirt where it is."""

from __future__ import annotations

import dataclasses
import os
import re
import time
from typing import Mapping, Sequence

from agent_client import libvirt
from agent_client.collector import Collector, News, Number, Points
from agent_client.libvirt import CRASHED, OFF, PAUSED, RUNNING, Domain

_QEMU = re.compile(r"(qemu-system-|qemu-kvm|kvm$)")
_OTHERS_FOR = 60.0
_SIZES = {"": 1024**2, "k": 1024, "m": 1024**2, "g": 1024**3, "b": 1}

#: Guests that get points of their own; those in trouble come first, then those that run.
MOST_GUESTS = 300
#: Events of one look; the rest is counted.
_MOST_NEWS = 20
#: What libvirt said is still worth telling after so many seconds.
_GOOD_FOR = 300.0
_ORDER = {CRASHED: 0, PAUSED: 1, RUNNING: 2}


@dataclasses.dataclass(frozen=True)
class Guest:
    """What a QEMU process was started with. Memory in bytes, 0 where the line does not say."""

    name: str
    uuid: str
    memory: int
    vcpus: int


class Guests(Collector):
    """Each guest: processor and memory of its QEMU process, and what libvirt knows of it.

    `cpu_percent` is percent of one processor since the last look, and up to 100 for each of its
    `vcpus`. With libvirt, asked every half minute: `state` (1 running, 3 paused, 5 off, 6 crashed;
    as libvirt numbers them, but a guest that is off because it crashed is 6), and running totals
    of its disks' and ports' traffic, as the guest sees it. Without it, `read_bytes` and
    `written_bytes` are those of its process, which needs the right to read another user's
    /proc/PID/io. Guests that crash or are paused by a fault are events.
    """

    name = "guests"

    def __init__(
        self, config: object, proc: str = "/proc", watch: libvirt.Watch | None = None
    ) -> None:
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
        self._watch = watch or libvirt.Watch()
        #: What libvirt said before, by guest, and when: to tell what changed.
        self._before: dict[str, Domain] | None = None
        self._before_at = 0.0

    def settle(self, seconds: float) -> None:
        self._watch.settle(seconds)

    def collect(self, points: Points) -> None:
        there = libvirt.is_there()
        fresh = self._watch.poll(time.monotonic()) if there else None
        running = self._processes(io=not there)
        found = {domain.uuid or domain.name: domain for domain in fresh.domains} if fresh else {}
        wanted = sorted(
            {**dict.fromkeys(found), **dict.fromkeys(running)},
            key=lambda name: (_ORDER.get(found[name].kind, 3) if name in found else 2, name),
        )
        for name in wanted[:MOST_GUESTS]:
            domain = found.get(name)
            guest, fields = running.get(name, (None, {}))
            if domain is not None and fresh is not None:
                fields = {**self._said(domain, fresh.at), **fields}
            tags = {
                "guest": guest.name if guest else domain.name if domain else "",
                "instance": guest.uuid if guest else domain.uuid if domain else "",
            }
            points.add("guest", fields, tags)
        self._add_totals(points, [guest for guest, _ in running.values()], there)
        if fresh is not None:
            self._tell(points, found)
            self._before, self._before_at = found, fresh.at
        if there and self._watch.problem:
            points.warn(self._watch.problem)
        if not running and not there:
            points.nothing("no guest of libvirt runs here")

    # libvirt

    def _said(self, domain: Domain, at: float) -> dict[str, Number | None]:
        """What libvirt says of a guest."""
        if domain.kind in (OFF, CRASHED):
            return {"state": domain.kind}
        before = (self._before or {}).get(domain.uuid or domain.name)
        share = None
        if before and before.cpu_seconds is not None and domain.cpu_seconds is not None:
            spent = max(0.0, domain.cpu_seconds - before.cpu_seconds)
            share = round(100.0 * spent / max(1.0, at - self._before_at), 3)
        return {
            "state": domain.kind or None,
            "cpu_percent": share,
            "memory": domain.memory,
            "memory_limit": domain.memory_limit,
            "read_bytes": domain.read_bytes,
            "written_bytes": domain.written_bytes,
            "received_bytes": domain.received_bytes,
            "sent_bytes": domain.sent_bytes,
        }

    def _add_totals(self, points: Points, running: Sequence[Guest], there: bool) -> None:
        """How many guests are how, and what they may use together."""
        fields: dict[str, Number | None] = {}
        latest = self._watch.latest if there else None
        if running or there:
            fields.update(
                running=len(running),
                vcpus=sum(guest.vcpus for guest in running),
                memory=sum(guest.memory for guest in running),
            )
        if there and (latest or self._watch.problem):
            fields["libvirt"] = int(not self._watch.problem)
        if latest is not None:
            age = time.monotonic() - latest.at
            fields["age_seconds"] = round(age, 3)
            if age <= _GOOD_FOR:
                kinds = [domain.kind for domain in latest.domains]
                for name, kind in (
                    ("running", RUNNING), ("paused", PAUSED), ("off", OFF), ("crashed", CRASHED),
                ):  # fmt: skip
                    fields[name] = kinds.count(kind)
                fields["defined"] = len(kinds)
                fields["left_out"] = max(0, len(kinds) - MOST_GUESTS)
        points.add("guests", fields)

    def _tell(self, points: Points, found: Mapping[str, Domain]) -> None:
        """Which guests came into trouble since libvirt's last answer, and which run again."""
        if self._before is None:
            return  # of what was so before we looked, the counts tell
        news = []
        for name, domain in found.items():
            old = self._before.get(name)
            was = old.trouble if old else ""
            called = f"guest {domain.name} ({domain.uuid})"
            if domain.trouble and domain.trouble != was:
                news.append(("error", f"{called} {domain.trouble}"))
            elif was and domain.kind == RUNNING:
                news.append(("info", f"{called} runs again"))
        news.sort()  # errors first
        rest = news[_MOST_NEWS:]
        if rest:
            news[_MOST_NEWS:] = [(rest[0][0], f"and {len(rest)} further guests changed so")]
        for level, text in news:
            points.tell(News(level, text, "libvirtd", "sentinella.guests"))

    # Processes

    def _processes(self, io: bool) -> Mapping[str, tuple[Guest, dict[str, Number | None]]]:
        """Each guest that has a QEMU process, and what that shows; by its id, else its name."""
        now = time.monotonic()
        elapsed = None if self._looked_at is None else now - self._looked_at
        known: dict[tuple[int, str], Guest | None] = {}
        cpu: dict[tuple[int, str], float] = {}
        running: dict[str, tuple[Guest, dict[str, Number | None]]] = {}
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
            cpu[key] = (int(columns[12]) + int(columns[13])) / self._hertz
            spent = cpu[key] - self._cpu.get(key, cpu[key] if elapsed is None else 0.0)
            share = None if not elapsed else spent / elapsed
            running[guest.uuid or guest.name] = (
                guest,
                self._fields(guest, entry, columns, share, io),
            )
        self._known, self._cpu, self._looked_at = known, cpu, now
        return running

    def _fields(
        self, guest: Guest, entry: str, columns: Sequence[str], share: float | None, io: bool
    ) -> dict[str, Number | None]:
        fields: dict[str, Number | None] = {
            "memory": int(columns[22]) * self._page,
            "vcpus": guest.vcpus,
            "threads": int(columns[18]),
        }
        if share is not None:
            fields["cpu_percent"] = round(100.0 * max(0.0, share), 3)
        if guest.memory:
            fields["memory_limit"] = guest.memory
        if io:  # totals of one kind only: libvirt's are another
            traffic = self._io(entry)
            fields["read_bytes"] = traffic.get("read_bytes")
            fields["written_bytes"] = traffic.get("write_bytes")
        return fields

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
