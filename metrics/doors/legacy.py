"""The doors of the original agents 0.5 and 1.1: `POST /metrics` and `POST /logs`.

They send no time, no interval and no id, ignore what is answered, and lose what is not taken; so
everything that can be understood is stored, stamped with the time of receipt.

Gauges become the measurements that the new agent sends, so that pages and rules are the same.
Disk and network numbers are increases since the report before, of unknown span; they keep a
measurement of their own (`net_io`, `disk_io_delta`) and are never taken for counters.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from agent_client import wire
from metrics.batch import Batch, Event, Point, Report, State, Tags, clean
from metrics.doors import body as body_of
from metrics.doors.native import LARGEST_VALUE, plain
from metrics.events import joined_key
from sentinel_site.kit.problems import Problem

INTERVAL = timedelta(seconds=60)
#: Seconds. Their log reading stands still until the answer, and they send nothing twice.
ANSWER_WITHIN = 1.0
MAX_MEASUREMENTS = wire.MAX_POINTS
MAX_PLUGIN_KEYS = 100
MAX_KEY = 200


class NotAPush(Problem):
    status, code, title = 400, "not-a-push", "The body is not what an agent sends"


@dataclass(frozen=True)
class Push:
    """One request of an original agent, parsed as far as its account key.

    `account_key` is empty where there is none.
    """

    account_key: str
    host: str
    body: dict[str, Any]


@dataclass(frozen=True)
class Plugins:
    """The plugin keys of a push, each with what it brought."""

    samples: dict[str, Any] = field(default_factory=dict)


def parse(body: bytes) -> Push:
    """A push whose account is still to be found. Raises NotJSON, TooDeep or NotAPush."""
    given = body_of.parse(body)
    if not isinstance(given, dict):
        raise NotAPush("It must be a JSON object with account_key and server_name.")
    key = given.get("account_key")
    return Push(
        account_key=_text(key, MAX_KEY).strip() if isinstance(key, str) else "",
        host=_text(given.get("server_name"), 255).strip(),
        body=given,
    )


def metrics(push: Push, received_at: datetime) -> tuple[Batch, Plugins]:
    """A system or plugin push, or one that is both. Raises NotAPush without a server name."""
    _need_host(push)
    measurements = _list(push.body.get("measurements"))
    facts = _facts(push.body)
    readings = list(_readings(measurements[:MAX_MEASUREMENTS]))
    report = Report(
        number=0,
        host=push.host,
        agent=None,
        at=received_at,
        interval=INTERVAL,
        version=_text(_dict(push.body.get("stats")).get("agent_version"), 40),
        points=_points(readings, facts),
        services=_states(readings),
        services_are_all=False,
        specs=_specs(facts),
    )
    batch = Batch(received_at, [report])
    return batch, Plugins(_plugins(push.body.get("plugins")))


def log(push: Push, received_at: datetime) -> Batch:
    """One log line. Raises NotAPush without a server name."""
    _need_host(push)
    given = push.body
    written = _text(given.get("timex"), 64)
    log_id = _text(given.get("log_id"), 64).strip()
    service = _text(given.get("service_name"), wire.MAX_NAME)
    component = _text(given.get("component"), wire.MAX_NAME)
    level = _level(given.get("level"))
    message = _text(given.get("description"), wire.MAX_MESSAGE).rstrip()
    key = joined_key((service, written, log_id, component, str(level)))
    event = Event(
        item="event",
        key=key,
        at=received_at,
        level=level,
        message=message,
        service=service,
        component=component,
        request_id=_request_id(message),
        pid=int(log_id) if re.fullmatch(r"[0-9]{1,10}", log_id) else None,
        written=written,
    )
    report = Report(
        number=0,
        host=push.host,
        agent=None,
        at=received_at,
        interval=INTERVAL,
        events=[event],
        services_are_all=False,
        joins_events=bool(written),
    )
    return Batch(received_at, [report])


def _need_host(push: Push) -> None:
    if not push.host:
        raise NotAPush("server_name is missing: it can't be known whose data this is.")


# -- measurements -------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Reading:
    """One measurement of the wire: a dotted name, a finite value, tags."""

    name: str
    value: float
    tags: dict[str, str]


def _readings(given: Iterable[Any]) -> Iterator[_Reading]:
    """What can be used; one bad measurement loses only itself."""
    for item in given:
        if not isinstance(item, dict):
            continue
        name = item.get("name")
        value = item.get("value")
        if not isinstance(name, str) or not name.strip(". "):
            continue
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        try:
            number = float(value)
        except OverflowError:
            continue
        if not math.isfinite(number) or abs(number) > LARGEST_VALUE:
            continue
        tags = item.get("tags")
        pairs = tags.items() if isinstance(tags, dict) else ()
        yield _Reading(
            clean(name[: wire.MAX_NAME]),
            number,
            {
                _text(k, wire.MAX_NAME): _text(v, wire.MAX_NAME)
                for k, v in list(pairs)[: wire.MAX_TAGS]
                if k
            },
        )


_PROCESS = "openstack.processes."
_NOVA_SERVICE = "openstack.nova-api.services."
_NOVA_INSTANCES = "openstack.nova-api.servers"
_NOVA_WRONG = "openstack.nova-api.hypervisors."
_NOT_UP = frozenset({"down", "zombie", "dead"})

#: (measurement, field) of the wire to those of the new agent.
_RENAMED = {
    ("loadavg", "1"): ("load", "load1"),
    ("loadavg", "5"): ("load", "load5"),
    ("loadavg", "15"): ("load", "load15"),
}
_RENAMED_MEASUREMENTS = {"partition_usage": "disk", "disk_io": "disk_io_delta"}
_RENAMED_TAGS = {"partition": "device", "disk": "device"}
_PROCESS_FIELDS = {"num_threads": "threads"}


def _points(readings: Iterable[_Reading], facts: dict[str, Any]) -> list[Point]:
    cells: dict[tuple[str, Tags], dict[str, float]] = {}
    for reading in readings:
        place = _place(reading)
        if place is None:
            continue
        measurement, name, tags, value = place
        fields = cells.setdefault((measurement, tags), {})
        if measurement == "openstack.nova-api.services" and name in fields:
            value = min(value, fields[name])  # one up and one down have the same name
        if measurement == "service" and name == "up" and name in fields:
            value = max(value, fields[name])
        fields[name] = value
    for measurement in ("memory", "swap"):  # totals come with the facts only
        total = _dict(_dict(facts.get("platform")).get(measurement)).get("total")
        fields_of = cells.get((measurement, ()))
        if fields_of and isinstance(total, int | float) and _is_amount(total):
            fields_of.setdefault("total", float(total))
    return [Point(measurement, tags, fields) for (measurement, tags), fields in cells.items()]


def _place(reading: _Reading) -> tuple[str, str, Tags, float] | None:
    """Where a reading goes: measurement, field, tags and value; None for what is known as wrong."""
    name, tags, value = reading.name, reading.tags, reading.value
    if name.startswith(_NOVA_WRONG):
        return None  # the cloud's totals under the name of each hypervisor
    if name == _NOVA_INSTANCES:
        return name, "status", _tags({"id": tags.get("id", "")}), value  # name and status change
    if name.startswith(_NOVA_SERVICE) and name.endswith(".status"):
        binary = name[len(_NOVA_SERVICE) : -len(".status")]
        return "openstack.nova-api.services", "status", _tags({"binary": binary}), value
    measurement, _, last = name.rpartition(".")
    if name.startswith(_PROCESS):
        service = name[len(_PROCESS) :].rpartition(".")[0]
        if not service:
            return None
        if last == "up":
            value = float(_is_up(reading))
        return "service", _PROCESS_FIELDS.get(last, last), _tags({"service": service}), value
    if not measurement or not last:
        return name.strip("."), "value", _tags(tags), value
    measurement, last = _RENAMED.get((measurement, last), (measurement, last))
    measurement = _RENAMED_MEASUREMENTS.get(measurement, measurement)
    return measurement, last, _tags({_RENAMED_TAGS.get(k, k): v for k, v in tags.items()}), value


def _tags(tags: dict[str, str]) -> Tags:
    return tuple(sorted(tags.items()))


def _is_up(reading: _Reading) -> bool:
    return reading.value >= 1 and reading.tags.get("status", "").lower() not in _NOT_UP


def _states(readings: Iterable[_Reading]) -> list[State]:
    """The processes that are named; of several `up` for one name the 1 counts."""
    states: dict[str, State] = {}
    for reading in readings:
        if not (reading.name.startswith(_PROCESS) and reading.name.endswith(".up")):
            continue
        name = reading.name[len(_PROCESS) : -len(".up")]
        is_up = _is_up(reading)
        if not name or (name in states and states[name].state == "up"):
            continue
        status = reading.tags.get("status", "")
        states[name] = State(
            name=name,
            project=name.partition("-")[0][:60],
            state="up" if is_up else "down",
            workers=int(is_up),
            detail="" if is_up or status == "down" else status[:400],
        )
    return list(states.values())


# -- facts --------------------------------------------------------------------


def _facts(body: dict[str, Any]) -> dict[str, Any]:
    """`stats`, or `specs` where only that has the platform."""
    stats = _dict(body.get("stats"))
    return stats if stats.get("platform") else _dict(_decoded(body.get("specs")))


def _specs(facts: dict[str, Any]) -> dict[str, Any] | None:
    """The host's facts in the new agent's words; None for a plugin's push, which has none."""
    platform = _dict(facts.get("platform"))
    if not platform:
        return None
    name, _, version = _text(platform.get("dist"), 200).strip().partition(" ")
    processor = _dict(platform.get("processor"))
    openstack = _text(_dict(facts.get("openstack")).get("version"), 60).strip()
    specs = {
        "os": {"name": name, "version": version.strip()},
        "kernel": _text(platform.get("kernel"), 200),
        "architecture": _text(platform.get("architecture"), 60),
        "processor": {
            "model": _text(processor.get("brand"), 200),
            "threads": processor.get("qty") if _is_amount(processor.get("qty")) else None,
        },
        **{
            kind: {"total": total}
            for kind in ("memory", "swap")
            if _is_amount(total := _dict(platform.get(kind)).get("total"))
        },
        "agent_version": _text(facts.get("agent_version"), 40),
    }
    if openstack:
        specs["openstack"] = {"version": openstack}
    kept: dict[str, Any] = plain(specs)
    return kept


# -- logs ---------------------------------------------------------------------

_LEVELS = {"warn": "warning", "fatal": "critical", "audit": "info", "trace": "debug"}
_REQUEST = re.compile(r"\[(?:None )?(req-[0-9A-Za-z-]{1,60})")


def _level(given: Any) -> int:
    word = _text(given, 20).strip().lower()
    word = _LEVELS.get(word, word)
    return wire.LEVELS.index(word if word in wire.LEVELS else "warning")


def _request_id(message: str) -> str:
    found = _REQUEST.search(message)
    return found[1] if found else ""


# -- lenient reading ----------------------------------------------------------


def _plugins(given: Any) -> dict[str, Any]:
    """Each plugin key with a sample of what it brought."""
    samples = {}
    for key, rows in list(_dict(given).items())[:MAX_PLUGIN_KEYS]:
        first = dict(list(_dict(rows).items())[:3])
        try:
            samples[clean(key[:MAX_KEY])] = plain(first)
        except ValueError:
            samples[clean(key[:MAX_KEY])] = {}
    return samples


def _decoded(given: Any) -> Any:
    """A value that may have been encoded a second time; None if that is no JSON."""
    if not isinstance(given, str):
        return given
    try:
        return body_of.parse(given.encode("utf-8", "replace"))
    except (body_of.NotJSON, body_of.TooDeep):
        return None


def _list(given: Any) -> list[Any]:
    decoded = _decoded(given)
    return decoded if isinstance(decoded, list) else []


def _dict(given: Any) -> dict[str, Any]:
    return given if isinstance(given, dict) else {}


def _text(given: Any, most: int) -> str:
    if isinstance(given, str):
        return clean(given[:most])
    if isinstance(given, bool) or not isinstance(given, int | float):
        return ""
    return str(given)[:most] if not isinstance(given, int) or abs(given) < 2**63 else ""


def _is_amount(given: Any) -> bool:
    return (
        isinstance(given, int | float)
        and not isinstance(given, bool)
        and math.isfinite(given)
        and 0 <= given < 2**63
    )
