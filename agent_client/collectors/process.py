"""The services that the operator names: are they up, and what do they use."""

from __future__ import annotations

import dataclasses
import os
import re
import time
from typing import TYPE_CHECKING, Iterator, Sequence

from agent_client.collector import Collector, Points
from agent_client.wire import ServiceState

if TYPE_CHECKING:
    from agent_client.config import Config, Service

_PROC = "/proc"
_DEAD_STATES = frozenset("ZXx")
_INTERPRETER = re.compile(r"(python|pypy|perl|ruby|node|php|bash|dash|sh|env)[\d.]*$")
_UWSGI = re.compile(r"uwsgi([-_].*)?$")
#: Tools that carry a service's name or options on their command line without being it.
_HELPERS = re.compile(r"(privsep-helper|.*-rootwrap(-daemon)?|.*-manage)$")

#: A title is set, and exec is called, shortly after the start: until then a line is read anew.
_SETTLED_AFTER = 30.0


@dataclasses.dataclass(frozen=True)
class Stat:
    """What the kernel says of a process in /proc/PID/stat (proc(5))."""

    pid: int
    comm: str
    state: str
    cpu_seconds: float
    threads: int
    started: float  # seconds since boot
    memory: int  # resident bytes


@dataclasses.dataclass
class _Known:
    stat: Stat
    cmdline: str
    names: frozenset[str]
    read_at: float


class ProcessTable:
    """All processes of this host; a command line is read once per (pid, start time)."""

    def __init__(self, proc: str = _PROC) -> None:
        self._proc = proc
        self._known: dict[int, _Known] = {}
        self._hertz = os.sysconf("SC_CLK_TCK")
        self._page = os.sysconf("SC_PAGE_SIZE")
        self.boot_at = self._boot_at()

    def refresh(self) -> dict[int, _Known]:
        """Every process by its pid. Raises OSError where the process table cannot be read."""
        uptime = self._uptime()
        alive: dict[int, _Known] = {}
        for entry in os.listdir(self._proc):
            if not entry.isdigit():
                continue
            stat = self._stat(int(entry))
            if stat is None:
                continue  # ended between the listing and now
            known = self._known.get(stat.pid)
            if (
                known is None
                or known.stat.started != stat.started
                or known.stat.comm != stat.comm
                or known.read_at - stat.started < _SETTLED_AFTER
            ):
                argv = self._argv(stat.pid)
                known = _Known(stat, " ".join(argv), frozenset(names(stat.comm, argv)), uptime)
            else:
                known.stat = stat
            alive[stat.pid] = known
        self._known = alive
        return alive

    def descriptors(self, pid: int) -> int | None:
        """Open file descriptors; None where they may not be counted."""
        try:
            return len(os.listdir(os.path.join(self._proc, str(pid), "fd")))
        except OSError:
            return None

    def _stat(self, pid: int) -> Stat | None:
        try:
            with open(f"{self._proc}/{pid}/stat", "rb") as file:
                line = file.read().decode("utf-8", "replace")
        except OSError:
            return None
        # The name stands in parentheses and may hold blanks and parentheses of its own.
        opening, closing = line.find("("), line.rfind(")")
        columns = line[closing + 2 :].split()
        if opening < 0 or len(columns) < 22:
            return None
        return Stat(
            pid=pid,
            comm=line[opening + 1 : closing],
            state=columns[0],
            cpu_seconds=(int(columns[11]) + int(columns[12])) / self._hertz,
            threads=int(columns[17]),
            started=int(columns[19]) / self._hertz,
            memory=int(columns[21]) * self._page,
        )

    def _argv(self, pid: int) -> list[str]:
        try:
            with open(f"{self._proc}/{pid}/cmdline", "rb") as file:
                raw = file.read(16_384)
        except OSError:
            return []
        return [part for part in raw.decode("utf-8", "replace").split("\0") if part]

    def _uptime(self) -> float:
        with open(f"{self._proc}/uptime", encoding="ascii") as file:
            return float(file.read().split()[0])

    def _boot_at(self) -> float:
        with open(f"{self._proc}/stat", encoding="ascii") as file:
            for line in file:
                if line.startswith("btime "):
                    return float(line.split()[1])
        return time.time() - self._uptime()


def names(comm: str, argv: Sequence[str]) -> set[str]:
    """The names by which an operator would call a process.

    The kernel cuts its own name to 15 characters and an interpreter or uwsgi hides the program
    behind its own, so the program, the script it runs, the application's configuration
    (`--ini /etc/nova/nova-api-uwsgi.ini`, `(wsgi:keystone-public)`) and what setproctitle leaves
    in parentheses are read from the command line.
    """
    words = [word.strip("()[]") for part in argv for word in part.split(" ")]
    words = [word for word in words if word]
    if not words:
        return {comm}  # a kernel thread, or a process of another user under hidepid
    found: set[str] = set()
    for program, rest in _programs(words):
        if program.startswith("wsgi:"):
            found.add(program[len("wsgi:") :])
            continue
        name = _basename(program)
        script = ""
        if _INTERPRETER.match(name):
            script = _script(rest)
            found.update(_module_names(rest))
        if _HELPERS.match(name) or (script and _HELPERS.match(script)):
            return {name, script} - {""}
        found.update({name, script} - {""})
        if _UWSGI.match(name):
            found.update(_applications(rest))
    if len(comm) < 15:
        found.add(comm.rstrip(":"))
    return found


def _programs(words: Sequence[str]) -> Iterator[tuple[str, Sequence[str]]]:
    """What the process calls itself, then the command line that setproctitle kept behind it."""
    yield words[0], words[1:]
    titled = words[0].endswith(":") or not words[0].startswith("/")
    if not titled:
        return
    for at, word in enumerate(words[1:6], start=1):
        if word.startswith("/"):
            yield word, words[at + 1 :]
            return
        if word.startswith("-"):
            return


def _script(rest: Sequence[str]) -> str:
    for word in rest:
        if word in ("-m", "-c"):
            return ""
        if not word.startswith("-") and "=" not in word:
            return _basename(word)
    return ""


def _module_names(rest: Sequence[str]) -> set[str]:
    if "-m" in rest[:6]:
        at = rest.index("-m") + 1
        if at < len(rest):
            module = rest[at]
            return {module, module.split(".")[0]}
    return set()


def _applications(rest: Sequence[str]) -> set[str]:
    return {
        re.sub(r"(-uwsgi)?\.ini$", "", _basename(word)) for word in rest if word.endswith(".ini")
    }


def _basename(path: str) -> str:
    return path.rsplit("/", 1)[-1].rstrip(":")


class Process(Collector):
    """State and use of each watched service, all its processes together.

    `cpu_percent` is percent of one processor since the last collection; `memory` counts resident
    pages in bytes, pages that workers share once each.
    """

    name = "process"

    def __init__(self, config: Config, proc: str = _PROC) -> None:
        super().__init__(config)
        self._table = ProcessTable(proc)
        self._cpu: dict[tuple[int, float], float] = {}
        self._looked_at: float | None = None

    def collect(self, points: Points) -> None:
        if not self.config.services:
            return
        try:
            processes = self._table.refresh()
        except OSError as error:
            for service in self.config.services:
                points.add_service(
                    ServiceState(
                        service.name, service.project, "unknown", detail=error.strerror or ""
                    )
                )
            raise
        now = time.monotonic()
        elapsed = None if self._looked_at is None else now - self._looked_at
        own = os.getpid()
        cpu: dict[tuple[int, float], float] = {}
        for service in self.config.services:
            matches = [
                known.stat for pid, known in processes.items() if pid != own and _is(service, known)
            ]
            self._report(service, matches, elapsed, cpu, points)
        self._cpu, self._looked_at = cpu, now

    def _report(
        self,
        service: Service,
        matches: Sequence[Stat],
        elapsed: float | None,
        cpu: dict[tuple[int, float], float],
        points: Points,
    ) -> None:
        alive = [stat for stat in matches if stat.state not in _DEAD_STATES]
        if not alive:
            detail = f"{len(matches)} zombie" if matches else "no process"
            points.add_service(ServiceState(service.name, service.project, "down", detail=detail))
            points.add("process", {"workers": 0}, {"service": service.name})
            return
        started = min(stat.started for stat in alive)
        points.add_service(
            ServiceState(
                service.name,
                service.project,
                "up",
                workers=len(alive),
                started_at=round(self._table.boot_at + started, 3),
            )
        )
        spent = 0.0
        for stat in alive:
            key = (stat.pid, stat.started)
            cpu[key] = stat.cpu_seconds
            # One that started since the last look spent all its time since then.
            spent += stat.cpu_seconds - self._cpu.get(key, 0.0)
        first_look = elapsed is None or not elapsed
        counts = [self._table.descriptors(stat.pid) for stat in alive]
        readable = [count for count in counts if count is not None]
        points.add(
            "process",
            {
                "cpu_percent": (
                    None if first_look else round(100.0 * max(0.0, spent) / (elapsed or 1.0), 3)
                ),
                "memory": sum(stat.memory for stat in alive),
                "threads": sum(stat.threads for stat in alive),
                "workers": len(alive),
                "descriptors": sum(readable) if len(readable) == len(counts) else None,
            },
            {"service": service.name},
        )


def _is(service: Service, known: _Known) -> bool:
    if service.cmdline is not None:
        return service.cmdline.search(known.cmdline) is not None
    return any(name in known.names for name in service.processes)
