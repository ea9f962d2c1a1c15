"""What plugins push, in the agent's own words.

The forms are those of the original: `{"plugins": {key: {metric id: {row_name, metric_name, value,
type}}}}` and `{"measurements": [{name, value, tags}]}`; events as its `/logs` has them. Whatever
they say, they carry the module of the plugin whose process sent them: points as the tag `module`,
events as what they were read from.
"""

from __future__ import annotations

import json
import math
import time
from typing import Collection, Mapping

from agent_client.logreader import Entry
from agent_client.units import FIELDS
from agent_client.wire import LEVELS, MAX_MESSAGE, MAX_NAME, MAX_TAGS, Point

MAX_METRICS = 5000

_TYPES = {"%": "percent", "number": "number", "string": "text"}
#: Measurements that are not a plugin's to give: the agent's, and the two that plugins' tables make.
_OURS = frozenset(FIELDS) | {"plugin", "plugin_state"}
#: As whom the agent speaks of itself.
_OWN_SERVICE = "sentinella"
_LEVELS = {"warn": "warning", "fatal": "critical", "notice": "info", "trace": "debug"}


def keys_in(settings: object) -> set[str]:
    """The plugin keys that a configuration names, at whatever depth."""
    if isinstance(settings, list):
        return {key for one in settings for key in keys_in(one)}
    if not isinstance(settings, dict):
        return set()
    found = {key for one in settings.values() for key in keys_in(one)}
    own = settings.get("plugin_key")
    return found | {same_key(own)} if isinstance(own, (str, int)) else found


def same_key(said: object) -> str:
    """A plugin key as it is compared."""
    return _text(said).strip().lower()


def points_of(
    data: object, module: str = "", foreign: Collection[str] = frozenset()
) -> list[Point]:
    """The points of a push by a plugin of `module`; `foreign` keys and names are others'.

    Raises ValueError where it is none, too large, or speaks for another.
    """
    if not isinstance(data, dict):
        raise ValueError("a push is an object with plugins or measurements")
    plugins, measurements = data.get("plugins"), data.get("measurements")
    if plugins is None and measurements is None:
        raise ValueError("a push needs plugins or measurements")
    points: list[Point] = []
    if plugins is not None:
        if not isinstance(plugins, dict):
            raise ValueError("plugins: an object by plugin key")
        for key, metrics in plugins.items():
            if not isinstance(metrics, dict):
                raise ValueError(f"plugins {key}: an object by metric id")
            if same_key(key) in foreign:
                raise ValueError(f"plugins {key}: is the key or the name of another plugin")
            points.extend(
                _metric(module, str(key), str(name), one) for name, one in metrics.items()
            )
    if isinstance(measurements, str):
        measurements = json.loads(measurements)
    if measurements is not None:
        if not isinstance(measurements, list):
            raise ValueError("measurements: a list")
        points.extend(_measurement(module, one) for one in measurements)
    if len(points) > MAX_METRICS:
        raise ValueError(f"{len(points)} metrics in one push; at most {MAX_METRICS}")
    return [point for point in points if _is_sound(point)]


def _metric(module: str, key: str, name: str, said: object) -> Point:
    """One cell of a plugin's table; text is a state that is there."""
    if not isinstance(said, dict):
        raise ValueError(f"metric {name}: an object with value")
    tags = {
        "module": module,
        "plugin": key,
        "id": name,
        "row": _text(said.get("row_name")),
        "metric": _text(said.get("metric_name")) or name,
        "type": _type(said.get("type")),
    }
    value = said.get("value")
    if isinstance(value, str):
        tags["state"] = value[:MAX_NAME]
        return Point("plugin_state", {"present": 1.0}, _tags(tags))
    return Point("plugin", {"value": _number(value)}, _tags(tags))


def _measurement(module: str, said: object) -> Point:
    """A measurement of the original's system form: the last part of its name is the field."""
    if not isinstance(said, dict) or not isinstance(said.get("name"), str):
        raise ValueError("a measurement is an object with name and value")
    family, _, field = said["name"].rpartition(".")
    given = said.get("tags")
    tags = {str(k): _text(v) for k, v in given.items()} if isinstance(given, dict) else {}
    if not family:
        family, field = field, "value"
    if family.strip() in _OURS:
        raise ValueError(f"measurement {family}: is the agent's own; take another name")
    tags = {"module": module, **tags, **({"module": module} if module else {})}
    return Point(family[:MAX_NAME], {field[:MAX_NAME]: _number(said.get("value"))}, _tags(tags))


def entry_of(said: object, module: str = "") -> Entry:
    """A log event as `push_log` takes it, by a plugin of `module`. Raises ValueError."""
    if not isinstance(said, dict):
        raise ValueError("an event is an object")
    message = said.get("description") or said.get("message")
    if not isinstance(message, str) or not message.strip():
        raise ValueError("an event needs a description")
    service = _text(said.get("service_name"))
    if service.strip().lower() == _OWN_SERVICE:
        raise ValueError(f"service_name {service}: is the agent's own; take another name")
    level = str(said.get("level", "info")).lower()
    level = _LEVELS.get(level, level)
    pid = str(said.get("log_id", ""))
    return Entry(
        at=_time(said.get("timex")),
        level=level if level in LEVELS else "info",
        message=message.rstrip()[:MAX_MESSAGE],
        service=service,
        component=_text(said.get("component")),
        pid=int(pid) if pid.isdigit() and len(pid) < 10 else None,
        path=f"plugin {module}" if module else "",
    )


def _time(said: object) -> float:
    """Unix seconds of the host's local time; now, where it is none."""
    text, _, fraction = str(said or "").partition(".")
    try:
        at = time.mktime(time.strptime(text, "%Y-%m-%d %H:%M:%S"))
    except (ValueError, OverflowError):
        return time.time()
    return at + (float("0." + fraction) if fraction.isdigit() else 0.0)


def _number(value: object) -> float:
    if isinstance(value, (bool, int, float)):
        return float(value)
    return math.nan


def _type(said: object) -> str:
    word = _text(said).lower()
    return _TYPES.get(word, word)


def _text(value: object) -> str:
    return "" if value is None else str(value)[:MAX_NAME]


def _tags(tags: Mapping[str, str]) -> dict[str, str]:
    named = {name[:MAX_NAME]: text[:MAX_NAME] for name, text in tags.items() if name and text}
    return dict(list(named.items())[:MAX_TAGS])


def _is_sound(point: Point) -> bool:
    return all(math.isfinite(value) for value in point.fields.values())
