"""Alerts as Prometheus hands them to an Alertmanager, and as an Alertmanager hands them on.

Formats: the `alerts` of Alertmanager's API v2 (https://github.com/prometheus/alertmanager,
api/v2/openapi.yaml), and version 4 of the payload of its webhook receiver.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from alerts.doors.alerta import MOST_SAID, host_of, is_too_much, stamp
from alerts.lifecycle.external import Statement
from alerts.models import Alert, Severity
from sentinel_site.kit.problems import Problem

ORIGIN = "alertmanager"
MOST = 10_000
#: Without an end of its own an alert is over when it is not repeated for this long; Alertmanager's
#: `resolve_timeout`.
RESOLVE_TIMEOUT = timedelta(minutes=5)
#: What an Alertmanager hands on is repeated by its `repeat_interval`, which may be hours.
WEBHOOK_TIMEOUT = timedelta(days=7)

#: What the label `severity` may say; anything else is a warning.
SEVERITIES = {
    **dict.fromkeys(("critical", "crit", "page", "emergency", "fatal"), Severity.CRITICAL),
    **dict.fromkeys(("error", "err", "major", "high"), Severity.ERROR),
    **dict.fromkeys(("warning", "warn", "minor", "medium"), Severity.WARNING),
    **dict.fromkeys(("info", "informational", "notice", "low", "none"), Severity.INFO),
}
#: An end further away is taken for this one.
LONGEST = timedelta(days=366)
_MOST_LABELS, _LONGEST_NAME, _LONGEST = 100, 200, 8000
_ABOUT = ("mountpoint", "device", "path", "interface", "queue", "container", "pod", "name")
_WHERE = ("instance", "node", "host", "hostname", "nodename")
_SERVICE = ("service", "job", "process")


class NotAlerts(Problem):
    status, code, title = 400, "not-alerts", "These are no alerts"


def parse(given: Any, now: datetime) -> list[Statement]:
    """The body of `POST /api/v2/alerts`. Raises NotAlerts, which says which one and why."""
    if not isinstance(given, list) or len(given) > MOST:
        raise NotAlerts(f"Send a JSON list of at most {MOST} alerts.")
    return [
        _statement(one, f"[{number}]", RESOLVE_TIMEOUT, now) for number, one in enumerate(given)
    ]


def parse_webhook(given: Any, now: datetime) -> list[Statement]:
    """The body that an Alertmanager posts to a `webhook_config`. Raises NotAlerts."""
    if not isinstance(given, dict) or not isinstance(given.get("alerts"), list):
        raise NotAlerts("Send a JSON object with `alerts`, as a webhook_config does.")
    if len(given["alerts"]) > MOST:
        raise NotAlerts(f"Send at most {MOST} alerts at once.")
    return [
        _statement(one, f"alerts[{number}]", WEBHOOK_TIMEOUT, now)
        for number, one in enumerate(given["alerts"])
    ]


def document(alert: Alert, link: str) -> dict[str, Any]:
    """An open alert as `GET /api/v2/alerts` lists it. `link` is its incident's page."""
    received = getattr(alert, "received", None)
    said: Mapping[str, Any] = received.said if received and alert.origin == ORIGIN else {}
    last = received.repeated_at if received else alert.breached_at
    ends = (received.expires_at if received else None) or last + RESOLVE_TIMEOUT
    return {
        "labels": said.get("labels")
        or {
            "alertname": alert.title,
            "instance": alert.host,
            "service": alert.service,
            "subject": alert.subject,
            "severity": alert.severity,
        },
        "annotations": said.get("annotations") or {"summary": alert.incident.title},
        "startsAt": stamp(alert.opened_at),
        "updatedAt": stamp(last),
        "endsAt": stamp(ends),
        "fingerprint": alert.fingerprint[:16],
        "generatorURL": said.get("generatorURL") or link,
        "receivers": [],
        "status": {
            "state": "suppressed" if alert.suppressed else "active",
            "silencedBy": [alert.suppressed] if alert.suppressed else [],
            "inhibitedBy": [],
        },
    }


def _statement(given: Any, where: str, timeout: timedelta, now: datetime) -> Statement:
    if not isinstance(given, dict):
        raise NotAlerts(f"{where} must be a JSON object.")
    labels = _texts(given, "labels", where)
    notes = _texts(given, "annotations", where)
    name = labels.get("alertname", "")
    if not name:
        raise NotAlerts(f"{where} needs the label alertname.")
    starts = _time(given, "startsAt", where) or now
    ends = _time(given, "endsAt", where)
    over = given.get("status") == "resolved" or (ends is not None and ends <= now)
    instance = _one_of(labels, _WHERE)
    text = notes.get("summary") or notes.get("description") or notes.get("message") or name
    statement = Statement(
        origin=ORIGIN,
        names=labels,
        severity=None if over else SEVERITIES.get(labels.get("severity", ""), Severity.WARNING),
        resource=host_of(instance or labels.get("cluster", "") or name),
        service=_one_of(labels, _SERVICE) or "system",
        subject=_one_of(labels, _ABOUT) or instance or name,
        title=name,
        text=text,
        advice=notes.get("runbook") or notes.get("runbook_url") or "",
        expires_at=min(ends or now + timeout, now + LONGEST),
        said={
            "labels": labels,
            "annotations": notes,
            "startsAt": stamp(starts),
            "generatorURL": str(given.get("generatorURL") or "")[:2000].replace("\0", "�"),
        },
    )
    if is_too_much(statement.said):
        raise NotAlerts(f"{where} is longer than {MOST_SAID // 2**10} KiB.")
    return statement


def _texts(given: Mapping[str, Any], name: str, where: str) -> dict[str, str]:
    found = given.get(name)
    if found is None:
        return {}
    if (
        not isinstance(found, dict)
        or len(found) > _MOST_LABELS
        or not all(len(key) <= _LONGEST_NAME for key in found)
        or not all(isinstance(value, str) and len(value) <= _LONGEST for value in found.values())
    ):
        raise NotAlerts(
            f"{where}.{name} must be at most {_MOST_LABELS} texts of at most {_LONGEST} characters,"
            f" with names of at most {_LONGEST_NAME}."
        )
    return {key.replace("\0", "�"): value.replace("\0", "�") for key, value in found.items()}


def _time(given: Mapping[str, Any], name: str, where: str) -> datetime | None:
    """A time of RFC 3339; Go's zero time means none."""
    text = given.get(name)
    if text is None or text == "" or (isinstance(text, str) and text.startswith("0001-01-01")):
        return None
    try:
        found = datetime.fromisoformat(text)
        return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
    except (TypeError, ValueError, OverflowError) as error:
        raise NotAlerts(f"{where}.{name} must be a time as in 2026-11-23T04:05:06Z.") from error


def _one_of(labels: Mapping[str, str], names: Sequence[str]) -> str:
    return next((labels[name] for name in names if labels.get(name)), "")
