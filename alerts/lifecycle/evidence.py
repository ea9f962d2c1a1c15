"""What an incident's page shows as evidence: figures, series and log lines around its alerts."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from django.urls import reverse

from accounts.models import Tenant
from alerts import knowledge
from alerts.lifecycle import gathering
from alerts.lifecycle.gathering import Cluster, Picture
from alerts.models import Alert, Incident, Rule
from alerts.values.sentences import Measured
from alerts.values.wording import number, span
from clouds import queries as clouds
from clouds.models import Server
from metrics import events
from metrics.events import Matcher
from sentinel_site.kit.tenancy import current_schema

BEFORE = timedelta(minutes=10)
LINES = 20
CHARTS = 4
KNOWN = 3
#: The measurement in which agents tell of services.
SERVICES = "service"


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
    """Log events of the incident's servers around its begin: what its rule counts, or errors.

    None of them where the search took too long: the page is needed most when there is much to
    search.
    """
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
    try:
        found = events.search(tenant_id, matcher, limit=LINES).events
    except events.TooMuchToSearch:
        return []
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


# -- what is kept ------------------------------------------------------------------

#: Of each kind, so many are kept with an incident.
KEPT_LINES = 8
KEPT_STATES = 6
KEPT_SERIES = 4
KEPT_TEXT = 500


#: What to do about a cause of which no line says anything yet: entries of the knowledge base.
RUNBOOKS = {
    "rabbitmq": "oslo-broker-unreachable",
    "mariadb": "oslo-db-unreachable",
    "keystone": "keystone-unreachable",
    "placement": "placement-down",
    "nova-conductor": "nova-conductor-lost",
    "neutron-server": "neutron-report-failed",
    "haproxy": "haproxy-no-server",
    "libvirt": "libvirt-connection-lost",
    "openvswitch": "neutron-ovs-dead",
    "disk": "system-disk-full",
}


def _known_of(cluster: Cluster, brief: list[tuple[gathering.Saying, set[int], int]]) -> list[str]:
    """The entries that matter, those that accuse the cause first."""
    found = [saying.entry.id for saying, _, _ in brief]
    cause = cluster.cause
    usual = RUNBOOKS.get(cause.what or cause.kind) if cause else None
    if usual and not any(gathering.accuses(saying.entry, cause) for saying, _, _ in brief):
        found.insert(0, usual)
    return list(dict.fromkeys(found))[:KNOWN]


def snapshot(cluster: Cluster, picture: Picture) -> dict[str, Any]:
    """What spoke for a cause, kept with the incident: it outlives the log lines themselves."""
    concerned = {row.server for row in cluster.rows}
    told = [one for one in picture.sayings if one.sort.server_id in concerned]
    brief = gathering.brief(told, cluster.cause)
    return {
        "lines": [
            {
                "at": saying.sort.first.isoformat(),
                "server": saying.sort.server_id,
                "host": picture.hosts.get(saying.sort.server_id, ""),
                "service": saying.sort.service,
                "level": saying.sort.level,
                "message": saying.sort.message[:KEPT_TEXT],
                "entry": saying.entry.id,
                "count": count,
                "servers": len(servers),
            }
            for saying, servers, count in brief[:KEPT_LINES]
        ],
        "states": [
            {
                "at": row.at.isoformat(),
                "server": row.server,
                "host": picture.hosts.get(row.server or 0, ""),
                "service": row.service,
                "text": row.called or row.title,
                "is_cause": row.key in cluster.signals,
            }
            for row in _telling_first(cluster)[:KEPT_STATES]
        ],
        "series": [
            {
                "server": row.server,
                "host": picture.hosts.get(row.server or 0, ""),
                "measurement": row.measurement,
                "field": row.field,
                "service": row.service,
            }
            for row in _telling_first(cluster)
            if row.measurement
        ][:KEPT_SERIES],
        "known": _known_of(cluster, brief),
    }


#: Closed incidents whose lines are kept in one run, and for how long after their end it is tried.
KEPT_AT_ONCE = 200
KEPT_WITHIN = timedelta(days=2)


def keep_lines(now: datetime) -> int:
    """Keep the log lines of incidents that closed lately: theirs outlive the log; how many did.

    Those with a known cause have kept theirs when it was found.
    """
    tenant = Tenant.objects.get(schema_name=current_schema())
    lately = Incident.objects.filter(resolved_at__gt=now - KEPT_WITHIN, merged_into=None)
    kept = 0
    for row in lately.filter(evidence={}).order_by("-pk")[:KEPT_AT_ONCE]:
        alerts = Alert.objects.filter(incident=row).select_related("rule").order_by("pk")[:SEARCHED]
        found = [_kept(one) for one in lines(tenant.pk, list(alerts))[:KEPT_LINES]]
        named = dict.fromkeys(one["entry"] for one in found if one["entry"])
        told = {"lines": found, "known": list(named)[:KNOWN]}
        changed = Incident.objects.filter(pk=row.pk, evidence={}).update(evidence=told)
        kept += bool(changed and found)
    return kept


#: Around so many alerts of an incident lines are looked for.
SEARCHED = 200


def _kept(line: dict[str, Any]) -> dict[str, Any]:
    """A line of the log as `snapshot` keeps it."""
    server: Server | None = line["server"]
    entry = knowledge.explain(line["service"], line["message"])
    return {
        "at": line["at"].isoformat(),
        "server": server.pk if server else None,
        "host": server.host if server else "",
        "service": line["service"],
        "level": line["level"],
        "message": line["message"][:KEPT_TEXT],
        "entry": entry.id if entry else "",
        "count": 1,
        "servers": 1,
    }


def _telling_first(cluster: Cluster) -> list[gathering.Row]:
    return sorted(cluster.rows, key=lambda row: (row.key not in cluster.signals, row.at, row.key))


def first_steps(incident: Incident) -> str:
    """What to check and to do first, by the knowledge base; empty where it knows nothing."""
    entry = next(iter(kept_entries(incident)), None)
    if entry is None:
        return ""
    return f"{entry.meaning} Check: {entry.checks[0].run}. {entry.actions[0]}"


def kept_entries(incident: Incident) -> list[knowledge.Entry]:
    """The known failures that were seen when it began, the most telling first."""
    by_id = {entry.id: entry for entry in knowledge.entries()}
    return [by_id[name] for name in incident.evidence.get("known", []) if name in by_id]


def kept_known(incident: Incident) -> list[knowledge.Known]:
    """Those entries with how many lines each explains."""
    counts: Counter[str] = Counter()
    for line in incident.evidence.get("lines", []):
        counts[line["entry"]] += line["count"]
    return [knowledge.Known(entry, counts[entry.id]) for entry in kept_entries(incident)]


def kept_lines(incident: Incident) -> list[dict[str, Any]]:
    """The log lines that were kept with it, as pages show lines."""
    return [
        {
            "at": datetime.fromisoformat(line["at"]),
            "level": line["level"],
            "message": line["message"],
            "service": line["service"],
            "component": "",
            "request_id": "",
            "path": "",
            "server": {"pk": line["server"], "host": line["host"]} if line["server"] else None,
        }
        for line in incident.evidence.get("lines", [])
    ]


def in_words(kept: dict[str, Any]) -> str:
    """The best line of evidence in one sentence."""
    for line in kept.get("lines", []):
        entry = next((one for one in knowledge.entries() if one.id == line["entry"]), None)
        if entry is None:
            continue  # an entry of before, which is no longer kept
        where = line["host"] if line["servers"] == 1 else f"{line['servers']} servers"
        return f"{line['service']} on {where} says “{entry.title}”"
    return ""


def known(found: list[dict[str, Any]]) -> list[knowledge.Known]:
    """The known failures among log lines, each once, the most frequent first."""
    return knowledge.explain_all(((one["service"], one["message"]) for one in found), KNOWN)
