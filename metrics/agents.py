"""What an agent says of itself and of the services of its server, in its newest reports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from agent_client.wire import VERSION
from metrics import queries
from metrics.queries import Value

#: measurement, field, label: what an agent tells of itself, in the order of a page.
COSTS = (
    ("agent", "cpu_percent", "CPU, of one processor"),
    ("agent", "memory", "Memory"),
    ("agent", "cycle_seconds", "Last cycle took"),
    ("agent", "clock_offset", "Clock, off the server's"),
)
DELIVERY = (
    ("agent", "spool_reports", "Reports waiting"),
    ("agent", "spool_bytes", "Spool on disk"),
    ("agent", "dropped_points", "Points dropped"),
    ("agent", "dropped_events", "Log events dropped"),
    ("agent", "rejected_items", "Items refused"),
)


@dataclass(frozen=True)
class Figure:
    """One newest value with its unit."""

    name: str
    label: str
    value: float
    unit: str
    at: datetime


@dataclass(frozen=True)
class CollectorHealth:
    """How one collector fared in the newest report; failures since its agent was started."""

    name: str
    ok: bool
    seconds: float
    points: int
    failures: int
    #: Why it has nothing to report, in the agent's words.
    idle: str = ""


@dataclass(frozen=True)
class AgentHealth:
    """What the newest reports say of an agent; empty where it is an original one."""

    costs: list[Figure]
    delivery: list[Figure]
    collectors: list[CollectorHealth]

    @property
    def lost(self) -> int:
        """Points and log events that its spool had no room for."""
        names = ("dropped_points", "dropped_events")
        return int(sum(one.value for one in self.delivery if one.name in names))

    @property
    def idle(self) -> list[CollectorHealth]:
        return [one for one in self.collectors if one.ok and one.idle]

    @property
    def failing(self) -> list[CollectorHealth]:
        return [one for one in self.collectors if not one.ok]


def health(tenant_id: int, server_id: int, specs: Mapping[str, Any] | None = None) -> AgentHealth:
    """How the agent of a server fares; its `specs` say why a collector has nothing to report."""
    said = (specs or {}).get("collectors")
    idle = said if isinstance(said, dict) else {}
    newest = queries.latest(tenant_id, [server_id], ("agent", "agent_collector"))
    told = newest.get(server_id, {})
    own = told.get(("agent", ()), {})
    collectors = [
        _collector(dict(tags).get("collector", ""), fields, idle)
        for (measurement, tags), fields in told.items()
        if measurement == "agent_collector"
    ]
    return AgentHealth(
        costs=_figures(COSTS, own),
        delivery=_figures(DELIVERY, own),
        collectors=sorted(collectors, key=lambda one: (one.ok, bool(one.idle), one.name)),
    )


def offered(version: str) -> str:
    """The newer version that this installation offers, or nothing; it is never forced."""
    try:
        has, can = (tuple(int(part) for part in text.split(".")) for text in (version, VERSION))
    except ValueError:
        return ""
    return VERSION if has < can else ""


def of_services(tenant_id: int, server_id: int) -> dict[str, dict[str, float]]:
    """The newest numbers of each service by its name: cpu_percent, memory, restarts, uptime …"""
    newest = queries.latest(tenant_id, [server_id], ("service",)).get(server_id, {})
    return {
        dict(tags).get("service", ""): {name: value.value for name, value in fields.items()}
        for (_, tags), fields in newest.items()
    }


def _figures(wanted: tuple[tuple[str, str, str], ...], own: dict[str, Value]) -> list[Figure]:
    return [
        Figure(name, label, own[name].value, queries.unit_of(measurement, name), own[name].at)
        for measurement, name, label in wanted
        if name in own
    ]


def _collector(name: str, fields: dict[str, Value], idle: Mapping[str, Any]) -> CollectorHealth:
    def of(field: str) -> float:
        return fields[field].value if field in fields else 0.0

    return CollectorHealth(
        name=name,
        ok=of("ok") > 0,
        seconds=of("seconds"),
        points=int(of("points")),
        failures=int(of("failures")),
        idle=str(idle.get(name, ""))[:300] if not of("points") else "",
    )
