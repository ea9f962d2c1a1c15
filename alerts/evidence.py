"""What an incident's page shows as evidence: figures, series and log lines around its alerts."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

from django.urls import reverse

from alerts import knowledge
from alerts.breaches import SERVICES
from alerts.models import Alert, Rule
from alerts.sentences import Measured
from alerts.wording import number, span
from clouds import queries as clouds
from metrics import events
from metrics.events import Matcher

BEFORE = timedelta(minutes=10)
LINES = 20
CHARTS = 4
KNOWN = 3


def figures(alerts: list[Alert]) -> list[dict[str, str]]:
    """The value last judged, the limit it is past, and how often it was seen."""
    if not alerts:
        return []
    alert = alerts[0]
    shown = []
    if alert.rule is not None and _is_state(alert.rule):
        pass  # its number is 1; the sentence above says what that means
    elif alert.value is not None:
        late = alert.rule is not None and alert.rule.kind == Rule.Kind.SILENCE
        label = "Overdue" if late else "Last value"
        shown.append({"label": label, "value": number(alert.value, alert.unit), "note": ""})
    if alert.limit is not None and alert.rule is not None:
        if alert.rule.kind != Rule.Kind.SILENCE and not _is_state(alert.rule):
            limit = f"{alert.rule.comparison} {number(alert.limit, alert.unit)}"
            shown.append({"label": "Limit", "value": limit, "note": alert.severity})
        if alert.rule.hold:
            shown.append({"label": "For at least", "value": span(alert.rule.hold), "note": ""})
    shown.append({"label": "Seen", "value": f"{alert.count} times", "note": ""})
    return shown


def _is_state(rule: Rule) -> bool:
    return rule.kind == Rule.Kind.METRIC and Measured.by(rule).is_state


def advice(alerts: list[Alert]) -> list[str]:
    """What the rules say to do, each once."""
    return list(dict.fromkeys(alert.advice for alert in alerts if alert.advice))


def charts(alerts: list[Alert]) -> list[dict[str, Any]]:
    """The series behind the alerts, each once."""
    found: dict[str, dict[str, Any]] = {}
    for alert in alerts:
        rule = alert.rule
        if rule is None or rule.kind != Rule.Kind.METRIC:
            continue
        query = {"server": alert.server_id, "measurement": rule.measurement, "field": rule.field}
        title = f"{rule.measurement} {rule.field}"
        if rule.measurement == SERVICES:
            query["tag.service"] = alert.service
            title = f"{alert.service} {rule.field}".replace("_", " ")
        url = f"{reverse('metrics:chart')}?{urlencode(query)}&range=21600"
        found.setdefault(
            url,
            {
                "id": f"evidence-{len(found)}",
                "title": title,
                "url": url,
                "unit": alert.unit or "count",
                "threshold": alert.limit,
            },
        )
    return list(found.values())[:CHARTS]


def lines(tenant_id: int, alerts: list[Alert]) -> list[dict[str, Any]]:
    """Log events of the incident's servers around its begin: what its rule counts, or errors."""
    if not any(alert.server_id for alert in alerts):
        return []
    begin = min(alert.opened_at for alert in alerts)
    rule = alerts[0].rule
    words, level, service = "", "error", ""
    if rule is not None and rule.kind == Rule.Kind.EVENT and {one.rule for one in alerts} == {rule}:
        words, level, service = rule.words, rule.level, rule.service
    matcher = Matcher.parse(
        words,
        levels=events.levels_from(level) if level else (),
        services=(service,) if service else (),
        server_ids=tuple({one.server_id for one in alerts if one.server_id}),
        start=begin - BEFORE,
        end=begin + BEFORE,
    )
    found = events.search(tenant_id, matcher, limit=LINES).events
    hosts = clouds.by_id(event.server_id for event in found)
    return [
        {
            "at": event.at,
            "level": event.level,
            "message": event.message,
            "service": event.service,
            "component": event.component,
            "request_id": event.request_id,
            "path": event.path,
            "server": hosts.get(event.server_id),
        }
        for event in found
    ]


def known(found: list[dict[str, Any]]) -> list[knowledge.Known]:
    """The known failures among log lines, each once, the most frequent first."""
    return knowledge.explain_all(((one["service"], one["message"]) for one in found), KNOWN)
