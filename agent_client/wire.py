"""What an agent says to the server: one report a cycle, and the server's answer.

Written once and imported by both sides, so it runs on Python 3.8 and depends on nothing.
Times are Unix seconds (UTC) as numbers with at most three decimals; spans are seconds;
amounts are in base units (bytes, percent 0 to 100).
"""

from __future__ import annotations

import dataclasses
from typing import Any, Mapping

VERSION = "2.0.0"

REPORTS_PATH = "/api/v1/reports"
ENROL_PATH = "/api/v1/enrol"
SERVER_PATH = "/api/v1/servers/self"
SUPPRESSION_PATH = "/api/v1/servers/self/suppression"
LEASE_PATH = "/api/v1/lease"

#: Log levels, worst first. Everything else an agent reads is mapped onto one of them.
LEVELS = ("critical", "error", "warning", "info", "debug")

#: What a watched service can be: `unknown` means that the agent could not look.
SERVICE_STATES = ("up", "down", "unknown")

#: Upper bounds that both sides keep; the server rejects the item that passes one.
MAX_POINTS = 20_000
MAX_EVENTS = 5_000
MAX_TAGS = 32
MAX_FIELDS = 256
MAX_NAME = 200
MAX_MESSAGE = 65_536
MAX_GOODBYE = 200
MAX_REPORTS = 500
MAX_BODY = 16 * 1024 * 1024


@dataclasses.dataclass(frozen=True)
class Point:
    """Fields of one measurement and tag set at one time."""

    measurement: str
    fields: Mapping[str, float]
    tags: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class LogEvent:
    """One log line, with its traceback joined to it. `id` is unique within the agent's epoch."""

    id: str
    at: float
    level: str
    message: str
    service: str = ""
    component: str = ""
    request_id: str = ""
    pid: int | None = None
    path: str = ""


@dataclasses.dataclass(frozen=True)
class ServiceState:
    """How one watched service (a process family) is right now."""

    name: str
    project: str
    state: str
    workers: int = 0
    started_at: float | None = None
    detail: str = ""


@dataclasses.dataclass(frozen=True)
class Report:
    """All that one agent saw in one cycle.

    (agent, epoch, sequence) names it for good: `epoch` is random and made with the spool, and
    `sequence` grows by one a report, so the same report sent twice has one effect.
    `specs` is sent with the first report of a process and when it changed, else it is None.
    `goodbye` is why the agent stops, in the last report before it does.
    """

    agent: str
    epoch: str
    sequence: int
    host: str
    at: float
    interval: float
    version: str = VERSION
    points: list[Point] = dataclasses.field(default_factory=list)
    events: list[LogEvent] = dataclasses.field(default_factory=list)
    services: list[ServiceState] = dataclasses.field(default_factory=list)
    specs: dict[str, Any] | None = None
    goodbye: str = ""

    def to_json(self) -> dict[str, Any]:
        """The report as plain JSON values, without what is empty."""
        plain: dict[str, Any] = _without_empty(dataclasses.asdict(self))
        return plain


@dataclasses.dataclass(frozen=True)
class Reject:
    """One item that the server did not take; everything else of the request was stored."""

    report: int
    item: str
    code: str
    detail: str


@dataclasses.dataclass(frozen=True)
class Answer:
    """The body of a 2xx: it means that all but the rejects is committed.

    `server_time` is the server's clock when it answered, in Unix seconds.
    """

    accepted: int
    duplicates: int = 0
    rejected: list[Reject] = dataclasses.field(default_factory=list)
    server_time: float | None = None
    #: What the agent is asked for: version, interval, levels, levels_until, collectors.
    settings: dict[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """The answer as plain JSON values, without settings or time where there are none."""
        plain = dataclasses.asdict(self)
        return {
            name: said
            for name, said in plain.items()
            if said is not None or name not in ("settings", "server_time")
        }


def _without_empty(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: _without_empty(item)
            for key, item in value.items()
            if item is not None and item != "" and item != [] and item != {}
        }
    if isinstance(value, (list, tuple)):
        return [_without_empty(item) for item in value]
    return value
