"""The host's processes, from /proc (proc(5)): cheap to follow, each command line read once."""

from __future__ import annotations

import dataclasses
import os
import re
import time
from typing import Callable, Generic, Sequence, TypeVar

Label = TypeVar("Label")

DEAD_STATES = frozenset("ZXx")
#: A title is set, and exec is called, shortly after the start: until then a line is read anew.
_SETTLED_AFTER = 30.0
_USERS = re.compile(rb"^Uid:\s+(\d+)", re.MULTILINE)


@dataclasses.dataclass(frozen=True)
class Stat:
    """What the kernel says of a process in /proc/PID/stat."""

    pid: int
    parent: int
    comm: str
    state: str
    cpu_seconds: float
    threads: int
    started: float  # seconds since boot
    memory: int  # resident bytes

    @property
    def key(self) -> tuple[int, float]:
        """What no other process is called until the next boot."""
        return (self.pid, self.started)


@dataclasses.dataclass
class Known(Generic[Label]):
    """A process and what it was taken for; `argv` is kept only where it was taken for something."""

    stat: Stat
    label: Label | None
    argv: tuple[str, ...]
    settled: bool
    cgroup: str = ""


class ProcessTable(Generic[Label]):
    """All processes, each labelled by its command line, read once per (pid, start time).

    A process without a label is only listed between two full looks; one with a label is measured
    each time. `incomplete` tells that something could not be read in the last look, so that what
    is missing may well be there.
    """

    def __init__(
        self, classify: Callable[[str, Sequence[str]], Label | None], proc: str = "/proc"
    ) -> None:
        self.proc = proc
        self._classify = classify
        self._known: dict[int, Known[Label]] = {}
        self._hertz = os.sysconf("SC_CLK_TCK")
        self._page = os.sysconf("SC_PAGE_SIZE")
        self._boot_at: float | None = None
        self.incomplete = ""
        self.count = 0

    @property
    def boot_at(self) -> float:
        """When the host started, in Unix seconds."""
        if self._boot_at is None:
            self._boot_at = self._read_boot_at()
        return self._boot_at

    def refresh(self, full: bool = True) -> dict[int, Known[Label]]:
        """Every labelled process by its pid. Raises OSError where the table cannot be read."""
        uptime = self.uptime()
        pids = [int(entry) for entry in os.listdir(self.proc) if entry.isdigit()]
        self.incomplete = "" if 1 in pids else "processes of other users are hidden (hidepid)"
        self.count = len(pids)
        alive: dict[int, Known[Label]] = {}
        for pid in pids:
            known = self._known.get(pid)
            if known is not None and known.label is None and known.settled and not full:
                alive[pid] = known
                continue
            try:
                stat = self._stat(pid)
            except (FileNotFoundError, ProcessLookupError):
                continue  # ended between the listing and now
            except OSError as error:
                self.incomplete = f"{self.proc}/{pid}/stat: {error.strerror}"
                if known is not None:
                    alive[pid] = known
                continue
            alive[pid] = self._look(stat, known, uptime)
        self._known = alive
        return {pid: known for pid, known in alive.items() if known.label is not None}

    def owner(self, pid: int) -> int | None:
        """The user that started a process; None where that is not known.

        Not the owner of /proc/PID, which a process can have changed to root; and of a program that
        is another user for a while (su) the user who called it, whose command line it is.
        """
        try:
            with open(f"{self.proc}/{pid}/status", "rb") as file:
                match = _USERS.search(file.read(16_384))
        except OSError:
            return None
        return int(match.group(1)) if match else None

    def descriptors(self, pid: int) -> int | None:
        """Open file descriptors; None where they may not be counted."""
        path = f"{self.proc}/{pid}/fd"
        try:
            # Linux 6.2 and newer give the count as the folder's size, to everybody.
            return os.stat(path).st_size or len(os.listdir(path))
        except OSError:
            return None

    def uptime(self) -> float:
        """Seconds since boot."""
        with open(f"{self.proc}/uptime", encoding="ascii") as file:
            return float(file.read().split()[0])

    def _look(self, stat: Stat, known: Known[Label] | None, uptime: float) -> Known[Label]:
        if (
            known is not None
            and known.settled
            and known.stat.started == stat.started
            and (known.stat.comm == stat.comm or stat.state in DEAD_STATES)
        ):
            known.stat = stat
            return known
        settled = uptime - stat.started >= _SETTLED_AFTER
        argv = self._argv(stat.pid)
        label = None
        if argv or stat.state in DEAD_STATES:  # a kernel thread has no command line
            label = self._classify(stat.comm, argv)
        if label is None and stat.state in DEAD_STATES and known is not None:
            label, argv = known.label, known.argv  # it is still what it was
        cgroup = self._cgroup(stat.pid) if label is not None else ""
        return Known(stat, label, argv if label is not None else (), settled, cgroup)

    def _stat(self, pid: int) -> Stat:
        with open(f"{self.proc}/{pid}/stat", "rb") as file:
            line = file.read().decode("utf-8", "replace")
        # The name stands in parentheses and may hold blanks and parentheses of its own.
        opening, closing = line.find("("), line.rfind(")")
        columns = line[closing + 2 :].split()
        if opening < 0 or len(columns) < 22:
            raise ProcessLookupError(pid)
        return Stat(
            pid=pid,
            parent=int(columns[1]),
            comm=line[opening + 1 : closing],
            state=columns[0],
            cpu_seconds=(int(columns[11]) + int(columns[12])) / self._hertz,
            threads=int(columns[17]),
            started=int(columns[19]) / self._hertz,
            memory=int(columns[21]) * self._page,
        )

    def _argv(self, pid: int) -> tuple[str, ...]:
        try:
            with open(f"{self.proc}/{pid}/cmdline", "rb") as file:
                raw = file.read(16_384)
        except OSError:
            return ()
        return tuple(part for part in raw.decode("utf-8", "replace").split("\0") if part)

    def _cgroup(self, pid: int) -> str:
        """The path of its control group: of version 2, else of systemd's own hierarchy."""
        try:
            with open(f"{self.proc}/{pid}/cgroup", encoding="utf-8", errors="replace") as file:
                rows = [line.rstrip("\n").split(":", 2) for line in file]
        except OSError:
            return ""
        paths = {row[1]: row[2] for row in rows if len(row) == 3}
        return max((paths.get(name, "") for name in ("", "name=systemd", "pids", "cpu,cpuacct")),
                   key=len)  # fmt: skip

    def _read_boot_at(self) -> float:
        with open(f"{self.proc}/stat", encoding="ascii") as file:
            for line in file:
                if line.startswith("btime "):
                    return float(line.split()[1])
        return time.time() - self.uptime()
