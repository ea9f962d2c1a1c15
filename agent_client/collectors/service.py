"""The services of this host: are they up, what do they use, do their ports answer."""

from __future__ import annotations

import dataclasses
import os
import time
from typing import TYPE_CHECKING

from agent_client.collector import Collector, Points
from agent_client.discovery import ports
from agent_client.discovery.host import Host
from agent_client.discovery.look import Discovery, Found
from agent_client.wire import ServiceState

if TYPE_CHECKING:
    from agent_client.config import Config

#: Seconds between two looks at the listening ports; each API port is asked as often.
_PORTS_EVERY = 60.0


class Service(Collector):
    """State and use of each service, all its processes together.

    `cpu_percent` is percent of one processor since the last collection; `memory` counts resident
    pages in bytes, pages that workers share once each; `uptime` is that of the oldest main process
    in seconds; `restarts` counts since the service was found. `down` is 1 for what ran here and is
    gone, so not for what is only configured; rules watch it.
    """

    name = "service"

    def __init__(self, config: Config, discovery: Discovery | None = None) -> None:
        super().__init__(config)
        self.discovery = discovery or Discovery(config, Host())
        self._cpu: dict[tuple[int, float], float] = {}
        self._looked_at: float | None = None
        self._ports = _Ports(self.discovery)

    def reconfigure(self, config: Config) -> None:
        super().reconfigure(config)
        self.discovery.reconfigure(config)

    def collect(self, points: Points) -> None:
        try:
            found = self.discovery.look()
        except OSError as error:
            self._say_unknown(points, error.strerror or str(error))
            raise
        now = time.monotonic()
        elapsed = None if self._looked_at is None else now - self._looked_at
        uptime = self.discovery.table.uptime()
        try:
            self._ports.look(found, now)
        except OSError as error:
            points.warn(f"listening ports: {error.strerror or error}")
        cpu: dict[tuple[int, float], float] = {}
        if not found:
            points.nothing("no service that is known was found; see `sentinella discover`")
        for service in found:
            self._report(service, elapsed, uptime, cpu, points)
        self._cpu, self._looked_at = cpu, now

    def _say_unknown(self, points: Points, detail: str) -> None:
        known = {found.name: found.project for found in self.discovery.found}
        known.update((name, seen.project) for name, seen in self.discovery.memory.services.items())
        for service in self.config.services:
            known.setdefault(service.name, service.project)
        for name, project in sorted(known.items()):
            points.add_service(ServiceState(name, project, "unknown", detail=detail))

    def _report(
        self,
        service: Found,
        elapsed: float | None,
        uptime: float,
        cpu: dict[tuple[int, float], float],
        points: Points,
    ) -> None:
        tags = {"service": service.name, "project": service.project}
        tags = {name: value for name, value in tags.items() if value}
        if service.state != "up":
            points.add_service(
                ServiceState(service.name, service.project, service.state, detail=service.detail)
            )
            if service.state == "down":
                ran = service.name in self.discovery.memory.services
                points.add(
                    "service",
                    {
                        "up": 0,
                        "down": 1 if ran else None,
                        "workers": 0,
                        "restarts": service.restarts,
                    },
                    tags,
                )
            return
        started = min(stat.started for stat in service.mains or service.members)
        table = self.discovery.table
        silent = self._ports.silent_of(service.name)
        detail = f"port {', '.join(map(str, silent))} does not answer" if silent else ""
        points.add_service(
            ServiceState(
                service.name,
                service.project,
                "up",
                workers=len(service.members),
                started_at=round(table.boot_at + started, 3),
                detail=detail,
            )
        )
        spent = 0.0
        for stat in service.members:
            cpu[stat.key] = stat.cpu_seconds
            # One that started since the last look spent all its time since then.
            spent += stat.cpu_seconds - self._cpu.get(stat.key, 0.0)
        counts = [table.descriptors(stat.pid) for stat in service.members]
        readable = [count for count in counts if count is not None]
        listening = self._ports.listening_of(service.name)
        points.add(
            "service",
            {
                "up": 1,
                "down": 0,
                "workers": len(service.members),
                "cpu_percent": round(100.0 * max(0.0, spent) / elapsed, 3) if elapsed else None,
                "memory": sum(stat.memory for stat in service.members),
                "threads": sum(stat.threads for stat in service.members),
                "descriptors": sum(readable) if len(readable) == len(counts) else None,
                "restarts": service.restarts,
                "uptime": round(max(0.0, uptime - started), 1),
                "ports_listening": listening,
                "ports_answering": None if listening is None else listening - len(silent),
                "ports_silent": None if listening is None else len(silent),
            },
            tags,
        )


def _address(listener: ports.Listener) -> tuple[str, int]:
    return (listener.address, listener.port)


class _Ports:
    """The listening ports of each service, and which of them do not answer.

    Whose a socket is can be told only of processes that the agent may look into; for the others
    the ports that the catalogue names are taken, where they listen.
    """

    def __init__(self, discovery: Discovery) -> None:
        self._discovery = discovery
        self._looked_at: float | None = None
        self._pids: dict[str, frozenset[int]] = {}
        self._listening: dict[str, set[ports.Listener]] = {}
        self._silent: dict[str, list[int]] = {}
        self._own_network = ports.network_of(discovery.host.proc, os.getpid())

    def listening_of(self, name: str) -> int | None:
        """How many; None where the service is not known to listen at all."""
        found = self._listening.get(name)
        return None if found is None else len({listener.port for listener in found})

    def silent_of(self, name: str) -> list[int]:
        """The ports that did not answer when last asked."""
        return self._silent.get(name, [])

    def look(self, services: list[Found], now: float) -> None:
        """Once a minute, and when a service has other processes than before. Raises OSError."""
        pids = {service.name: frozenset(stat.pid for stat in service.mains) for service in services}
        due = self._looked_at is None or now - self._looked_at >= _PORTS_EVERY
        if not due and pids == self._pids:
            return
        self._looked_at, self._pids = now, pids
        proc = self._discovery.host.proc
        by_inode = {one.inode: one for one in ports.listeners(proc)}
        self._listening = {}
        asked: list[tuple[str, ports.Listener, str]] = []
        for service in services:
            if service.state != "up":
                continue
            mine = self._of(service, by_inode)
            if mine is None:
                continue
            self._listening[service.name] = mine
            probe = service.kind.probe if service.kind else ""
            if probe and service.kind:
                mine = {one for one in mine if one.reachable}
                usual = {one for one in mine if one.port in service.kind.ports}
                if not usual and len(mine) == 1:
                    usual = mine  # the operator gave it another port
                asked += [(service.name, one, probe) for one in sorted(usual, key=_address)]
        quiet = ports.silent((one, probe) for _, one, probe in asked)
        self._silent = {}
        for name, listener, _ in asked:
            if listener in quiet and listener.port not in self._silent.get(name, []):
                self._silent.setdefault(name, []).append(listener.port)

    def _of(
        self, service: Found, by_inode: dict[int, ports.Listener]
    ) -> set[ports.Listener] | None:
        # The main process holds what its workers listen on; only some open it in the workers.
        held: set[int] = set()
        seen = False
        for stat in service.mains:
            mine = ports.owned(self._discovery.host.proc, stat.pid, by_inode)
            if mine is not None:
                seen = True
                held |= mine
        if seen and not held and service.kind and service.kind.ports:
            for stat in service.members:
                held |= ports.owned(self._discovery.host.proc, stat.pid, by_inode) or set()
        if held:
            return {by_inode[inode] for inode in held}
        if service.kind is None or not service.kind.ports:
            return set() if seen else None
        usual = {one for one in by_inode.values() if one.port in service.kind.ports}
        return usual if usual and not seen else self._elsewhere(service, service.kind.ports)

    def _elsewhere(self, service: Found, usual: tuple[int, ...]) -> set[ports.Listener]:
        """The ports that it listens on in a network of its own, as a pod's; nobody asks them."""
        proc = self._discovery.host.proc
        networks = {ports.network_of(proc, stat.pid): stat.pid for stat in service.mains}
        found: set[ports.Listener] = set()
        for network, pid in networks.items():
            if network in ("", self._own_network):
                continue
            try:
                here = ports.listeners(f"{proc}/{pid}")
            except OSError:
                continue  # ended meanwhile
            found |= {
                dataclasses.replace(one, reachable=False) for one in here if one.port in usual
            }
        return found
