"""Alerta's words for alerts, both ways; https://docs.alerta.io/api/reference.html says them.

An alert is known by environment, resource and event, or by environment, resource and a list of
events that replace each other (`correlate`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from alerts.lifecycle.external import Statement
from alerts.models import Alert, Severity
from sentinel_site.kit.problems import Problem

ORIGIN = "alerta"
#: Seconds until an alert that is not repeated is over, where its sender says nothing; Alerta's own.
TIMEOUT = 86_400
LONGEST_TIMEOUT = 366 * 86_400
#: Seconds for which an alert is shelved where nobody says how long; Alerta's own.
SHELVED = 7200

#: Alerta's severities with ours, the worst first; None: it is over.
SEVERITIES: dict[str, Severity | None] = {
    "security": Severity.CRITICAL,
    "critical": Severity.CRITICAL,
    "major": Severity.ERROR,
    "minor": Severity.WARNING,
    "warning": Severity.WARNING,
    "indeterminate": Severity.INFO,
    "informational": Severity.INFO,
    "normal": None,
    "ok": None,
    "cleared": None,
    "debug": Severity.INFO,
    "trace": Severity.INFO,
    "unknown": Severity.INFO,
}
#: Ours in Alerta's words.
OURS = {
    Severity.CRITICAL: "critical",
    Severity.ERROR: "major",
    Severity.WARNING: "warning",
    Severity.INFO: "informational",
}
#: How Alerta orders them; the smallest is the worst.
RANKS = {
    "security": 0,
    "critical": 1,
    "major": 2,
    "minor": 3,
    "warning": 4,
    "indeterminate": 5,
    "informational": 6,
    "normal": 7,
    "ok": 7,
    "cleared": 7,
    "debug": 8,
    "trace": 9,
    "unknown": 10,
}

#: Bytes of an alert's own words as JSON: lists of thousands hold all of them.
MOST_SAID = 32 * 2**10

_TEXTS = {
    "resource": 255,
    "event": 300,
    "environment": 100,
    "group": 100,
    "value": 200,
    "text": 4000,
    "origin": 200,
    "type": 100,
    "rawData": MOST_SAID,
    "customer": 200,
}
_LISTS = ("service", "tags", "correlate")
_MOST_IN_A_LIST = 100
_NUMBER = re.compile(r"\s*([-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)")
_HOST = re.compile(r"[^:/\s]+")


class NotAnAlert(Problem):
    status, code, title = 400, "not-an-alert", "This is no alert"


def parse(given: Any, now: datetime) -> Statement:
    """An alert as `POST /alert` takes it. Raises NotAnAlert, which says what to mend."""
    said = fields(given, now, ("resource", "event"))
    said["severity"] = severity = str(given.get("severity") or "normal")
    if severity not in SEVERITIES:
        raise NotAnAlert(f"Severity ({severity}) is not one of {', '.join(SEVERITIES)}")
    if is_too_much(said):
        raise NotAnAlert(f"The alert is longer than {MOST_SAID // 2**10} KiB")
    events = sorted({said["event"], *said["correlate"]}) if said["correlate"] else [said["event"]]
    number = _NUMBER.match(said["value"])
    service = next(iter(said["service"]), "") or said["group"] or "system"
    return Statement(
        origin=ORIGIN,
        names={"in": said["environment"], "of": said["resource"], "are": events},
        severity=SEVERITIES[severity],
        resource=host_of(said["resource"]),
        service=service,
        subject=said["resource"]
        if said["resource"] != host_of(said["resource"])
        else said["event"],
        title=said["event"],
        text=said["text"] or f"{said['event']} on {said['resource']} {said['value']}".strip(),
        advice=said["attributes"].get("runbook") or said["attributes"].get("runbook_url") or "",
        value=float(number[1]) if number else None,
        expires_at=now + timedelta(seconds=said["timeout"]) if said["timeout"] else None,
        said=said,
    )


def is_too_much(said: Mapping[str, Any]) -> bool:
    """Whether an alert's own words are more than is kept of one."""
    return len(msgspec.json.encode(said)) > MOST_SAID


def fields(given: Any, now: datetime, needed: Sequence[str]) -> dict[str, Any]:
    """What alerts and heartbeats have alike, each within its bounds. Raises NotAnAlert."""
    if not isinstance(given, dict):
        raise NotAnAlert("Send one JSON object.")
    said: dict[str, Any] = {name: _text(given, name, most) for name, most in _TEXTS.items()}
    for name in needed:
        if not said[name]:
            raise NotAnAlert(f'Missing mandatory value for "{name}"')
    said |= {name: _texts(given, name) for name in _LISTS}
    said["attributes"] = _attributes(given)
    said["timeout"] = _timeout(given)
    said["createTime"] = _created(given, now)
    return said


def host_of(resource: str) -> str:
    """The machine that `web01:eth0` or `web01/sda` is a part of."""
    found = _HOST.match(resource)
    return found[0] if found else resource


def document(alert: Alert, link: str) -> dict[str, Any]:
    """An alert as Alerta shows it; those of our own rules too. `link` is its page."""
    received = getattr(alert, "received", None)
    said: Mapping[str, Any] = received.said if received and alert.origin == ORIGIN else {}
    closed = alert.resolved_at is not None
    severity = severity_of(alert.severity, said.get("severity"), is_closed=closed)
    last = max(received.repeated_at if received else alert.breached_at, alert.opened_at)
    group = alert.server.group.name if alert.server and alert.server.group else "Production"
    number = "" if alert.value is None else f"{alert.value:g}"
    return {
        "id": identity(alert),
        "href": link,
        "resource": said.get("resource") or alert.host,
        "event": said.get("event") or alert.title,
        "environment": said.get("environment", group),
        "severity": severity,
        "correlate": list(said.get("correlate", ())),
        "status": status(
            is_closed=closed,
            is_shelved=alert.incident.shelved_until is not None,
            is_muted=bool(alert.suppressed),
            is_taken=alert.incident.acknowledged_at is not None,
        ),
        "service": list(said.get("service", ())) or [alert.service],
        "group": said.get("group") or alert.subject,
        "value": said.get("value") or number,
        "text": received.text if received else alert.incident.title,
        "tags": list(said.get("tags", ())),
        "attributes": {**said.get("attributes", {}), "incident": link},
        "origin": said.get("origin") or alert.origin or "sentinella",
        "type": said.get("type") or "exceptionAlert",
        "createTime": said.get("createTime") or stamp(alert.opened_at),
        "timeout": said.get("timeout", 0),
        "rawData": said.get("rawData") or None,
        "customer": said.get("customer") or None,
        "duplicateCount": alert.count - 1,
        "repeat": alert.count > 1,
        "previousSeverity": OURS[Severity(alert.severity)] if closed else "indeterminate",
        "trendIndication": "noChange" if alert.count > 1 else "moreSevere",
        "receiveTime": stamp(alert.opened_at),
        "lastReceiveId": identity(alert),
        "lastReceiveTime": stamp(last),
        "updateTime": stamp(alert.resolved_at or last),
        "history": [],
    }


def severity_of(severity: str, told: str | None, *, is_closed: bool) -> str:
    """Alerta's word for ours: what was told, where that still is the alert's severity."""
    if is_closed:
        return "normal"
    return told if told and SEVERITIES.get(told) == severity else OURS[Severity(severity)]


def status(*, is_closed: bool, is_shelved: bool, is_muted: bool, is_taken: bool) -> str:
    """Alerta's word for how far people are with it."""
    if is_closed:
        return "closed"
    if is_shelved:
        return "shelved"
    if is_muted:
        return "blackout"
    return "ack" if is_taken else "open"


def identity(alert: Alert) -> str:
    """A UUID that begins with the alert's number, so that its first 8 characters are unique."""
    rest = alert.fingerprint.ljust(24, "0")
    return f"{alert.pk:08x}-{rest[:4]}-8{rest[4:7]}-8{rest[7:10]}-{rest[10:22]}"


def number_of(identity_: str) -> int | None:
    """The number of the alert that a UUID, or its first 8 characters, names."""
    first = identity_[:8]
    return int(first, 16) if re.fullmatch(r"[0-9a-f]{8}", first) else None


def stamp(at: datetime) -> str:
    """A time as Alerta writes it: UTC, milliseconds, Z."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{at.microsecond // 1000:03d}Z"


def read_stamp(text: str) -> datetime:
    """Raises ValueError."""
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)


def shelved_for(given: Mapping[str, Any]) -> int | None:
    """The seconds that `timeout` asks for, None without one. Raises NotAnAlert."""
    return None if given.get("timeout") is None else _timeout(given)


def _text(given: Mapping[str, Any], name: str, most: int) -> str:
    value = given.get(name)
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise NotAnAlert(f"{name} must be text")
    text = str(value)
    if len(text) > most:
        raise NotAnAlert(f"{name} is longer than {most} characters")
    return text.replace("\0", "�")


def _texts(given: Mapping[str, Any], name: str) -> list[str]:
    value = given.get(name)
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise NotAnAlert(f"{name} must be a list")
    return [_text({name: one}, name, 200) for one in _first(value, name)]


def _first(value: Sequence[str], name: str) -> Sequence[str]:
    if len(value) > _MOST_IN_A_LIST:
        raise NotAnAlert(f"{name} holds more than {_MOST_IN_A_LIST}")
    return value


def _attributes(given: Mapping[str, Any]) -> dict[str, str]:
    value = given.get("attributes")
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise NotAnAlert("attributes must be a JSON object")
    _first(list(value), "attributes")
    if any("." in name or "$" in name for name in value):
        raise NotAnAlert('Attribute keys must not contain "." or "$"')
    return {
        _text({"attributes": name}, "attributes", 100): _text({name: one}, name, 1000)
        for name, one in value.items()
    }


def _timeout(given: Mapping[str, Any]) -> int:
    value = given.get("timeout")
    if value is None:
        return TIMEOUT
    if isinstance(value, bool) or not isinstance(value, int):
        raise NotAnAlert("timeout must be an integer")
    if not 0 <= value <= LONGEST_TIMEOUT:
        raise NotAnAlert(f"timeout must be between 0 and {LONGEST_TIMEOUT} seconds")
    return value


def _created(given: Mapping[str, Any], now: datetime) -> str:
    value = given.get("createTime")
    if value is None:
        return stamp(now)
    try:
        return stamp(read_stamp(value))
    except (TypeError, ValueError) as error:
        raise NotAnAlert("createTime must be as in 2026-11-23T04:05:06.789Z") from error
