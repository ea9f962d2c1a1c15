"""The dashboard, the list of servers and the server view.

They show servers together with their metrics and alerts, so they stand in the layer that sees all
three; their URL names are `dashboard` and `clouds:…`.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from django.http import HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone
from django.utils.functional import SimpleLazyObject
from django.views.decorators.http import require_GET

from accounts.access import TenantRequest, fetch, permit
from accounts.models import Role
from alerts import uptimes
from alerts.models import Alert
from alerts.pages import queries
from clouds import queries as clouds
from clouds import suppression
from clouds.models import Server
from metrics import agents, custom
from metrics import queries as metrics
from metrics.batch import Tags
from metrics.views import search_context
from sentinel_site.kit.fragments import fragment
from sentinel_site.kit.problems import NotFound
from sentinel_site.kit.templatetags.ui import bytes_, measured

TABS = ("overview", "alerts", "vitals", "services", "logs", "agent")
RANGES = (3600, 21_600, 86_400, 604_800, 2_592_000)
DAY_SECONDS = 86_400
LOOK_AT = 8
PALETTE = 500
TRENDS = 20

#: Above these a meter turns to warning and to critical, in percent.
WARNING_AT, CRITICAL_AT = 85, 95

#: id, title, measurement, fields, unit: what the vital signs tab draws.
VITALS = (
    ("v-cpu", "CPU", "cpu", "percent", "percent"),
    ("v-iowait", "Waiting for disks", "cpu", "iowait", "percent"),
    ("v-load", "Load", "load", "load1,load5,load15", "count"),
    ("v-memory", "Memory", "memory", "percent", "percent"),
    ("v-swap", "Swap", "swap", "percent", "percent"),
    ("v-disk", "Disk use", "disk", "percent", "percent"),
    ("v-disk-io", "Disk traffic", "disk_io", "read_bytes,write_bytes", "bytes_per_second"),
    ("v-network", "Network", "network", "received_bytes,sent_bytes", "bytes_per_second"),
)

#: The same of the agent tab.
AGENT_CHARTS = (
    ("a-cpu", "CPU", "agent", "cpu_percent", "percent"),
    ("a-memory", "Memory", "agent", "memory", "bytes"),
    ("a-cycle", "Time of a cycle", "agent", "cycle_seconds", "seconds"),
    ("a-spool", "Spool", "agent", "spool_bytes", "bytes"),
)


# -- dashboard ----------------------------------------------------------------


@require_GET
@permit(Role.VIEWER)
def dashboard(request: TenantRequest) -> HttpResponse:
    """Its parts are asked for only where the page or the fragment draws them."""
    servers = worst_first(clouds.fleet())
    counts = queries.open_counts()
    open_count = sum(counts.values())
    headline, subline = _in_a_sentence(servers, open_count)
    context = {
        "total": len(servers),
        "headline": headline,
        "subline": subline,
        "incidents": SimpleLazyObject(lambda: queries.incidents(limit=LOOK_AT)),
        "more": max(0, open_count - LOOK_AT),
        "closed_at": queries.last_closed_at(),
        "groups": SimpleLazyObject(lambda: _groups(servers)),
        "fleet": SimpleLazyObject(lambda: _cells(servers)),
        "servers": SimpleLazyObject(lambda: rows_of(request.tenant.pk, servers[:LOOK_AT])),
        "events_url": _events_url(),
    }
    template = fragment(
        request,
        "dashboard.html",
        first="_dashboard_first.html",
        state="_dashboard_state.html",
        fleet="_dashboard_fleet.html",
        servers="clouds/_servers.html",
    )
    return render(request, template, context)


def _in_a_sentence(servers: list[Server], open_count: int) -> tuple[str, str]:
    """Is something wrong, and does somebody have it."""
    total = len(servers)
    silent = sum(server.status == Server.Status.SILENT for server in servers)
    untaken = queries.untaken_count()
    up = f"{total - silent} of {total} servers report."
    if total == 1:
        up = "It does not report." if silent else "It reports."
    if not open_count:
        fine = "The server is fine" if total == 1 else f"All {total} servers are fine"
        return fine, up
    if untaken:
        need = "One incident needs someone" if untaken == 1 else f"{untaken} incidents need someone"
        return need, up
    taken = "One incident is open" if open_count == 1 else f"{open_count} incidents are open"
    return f"{taken}, and somebody has it", up


def _groups(servers: list[Server]) -> list[dict[str, Any]]:
    """Cloud groups with counts and their worst state, worst first."""
    states = {row["pk"]: row for row in queries.groups_with_state()}
    alerts = queries.open_alerts_by_server()
    rows = []
    for group in clouds.groups():
        members = [server for server in servers if server.group_id == group.pk]
        releases = {server.openstack_release for server in members} - {""}
        rows.append(
            {
                **states[group.pk],
                "location": group.location,
                "servers": len(members),
                "up": sum(server.status == Server.Status.UP for server in members),
                "alerts": sum(alerts.get(server.pk, 0) for server in members),
                "release": releases.pop() if len(releases) == 1 else "",
            }
        )
    order = list(states)
    return sorted(rows, key=lambda row: order.index(row["pk"]))


def _cells(servers: list[Server]) -> list[dict[str, Any]]:
    """Every server as one cell, by group; those in none last."""
    found: dict[str, list[Server]] = {}
    for server in servers:
        found.setdefault(server.group.name if server.group else "", []).append(server)
    return [
        {"name": name, "servers": members}
        for name, members in sorted(found.items(), key=lambda pair: (pair[0] == "", pair[0]))
    ]


# -- list ---------------------------------------------------------------------


@require_GET
@permit(Role.VIEWER)
def server_list(request: TenantRequest) -> HttpResponse:
    everything = worst_first(clouds.fleet())
    asked = {name: request.GET.get(name, "").strip() for name in ("q", "group", "status")}
    found = [
        server
        for server in everything
        if asked["q"].lower() in server.host.lower()
        and asked["group"] in ("", str(server.group_id))
        and asked["status"] in ("", server.status)
    ]
    context: dict[str, Any] = {
        "total": len(everything),
        "groups": clouds.groups(),
        "filters": asked,
        "query": urlencode(asked),
        "headline": _how_many_up(everything),
    }
    template = fragment(
        request, "clouds/servers.html", list="clouds/_servers.html", palette="clouds/_palette.html"
    )
    if template.endswith("_palette.html"):
        context["servers"] = everything[:PALETTE]
    else:
        context["servers"] = rows_of(request.tenant.pk, found)
    return render(request, template, context)


def _how_many_up(servers: list[Server]) -> str:
    up = sum(server.status != Server.Status.SILENT for server in servers)
    if len(servers) == 1:
        return "The server reports" if up else "The server is silent"
    return f"{up} of {len(servers)} servers report" if servers else "Servers"


def worst_first(servers: Iterable[Server]) -> list[Server]:
    return sorted(servers, key=lambda one: (queries.badness(one), one.host))


def rows_of(tenant_id: int, servers: list[Server]) -> list[dict[str, Any]]:
    """Servers with their newest values, as `clouds/_servers.html` shows them."""
    ids = [server.pk for server in servers]
    heard = metrics.last_seen(tenant_id)
    newest = metrics.latest(tenant_id, ids, ("cpu", "memory", "disk", "load"))
    worst = queries.worst_by_server(ids)
    trends = _trends(tenant_id, servers[:TRENDS])
    rows = []
    for server in servers:
        values = _gauges(newest.get(server.pk, {}))
        alert = worst.get(server.pk)
        rows.append(
            {
                "server": server,
                "cpu": values.get("cpu"),
                "memory": values.get("memory"),
                "disk": values.get("disk"),
                "load": values.get("load"),
                "seen_at": heard.get(server.pk),
                "trend": trends.get(server.pk),
                "why": alert.in_short if alert else "",
            }
        )
    return rows


def _trends(tenant_id: int, servers: list[Server]) -> dict[int, list[float | None]]:
    """CPU of the last 24 h of each server, in about 48 values."""
    end = timezone.now()
    start = end - timedelta(days=1)
    return {
        server.pk: metrics.sparkline(tenant_id, server.pk, "cpu", "percent", start=start, end=end)
        for server in servers
    }


def _gauges(newest: metrics.Latest) -> dict[str, float]:
    """CPU, memory and the fullest disk in percent, and the load of one minute."""
    found: dict[str, float] = {}
    for (measurement, _tags), fields in newest.items():
        value = fields.get("load1" if measurement == "load" else "percent")
        if value is not None:
            found[measurement] = max(found.get(measurement, 0.0), value.value)
    return found


# -- one server ---------------------------------------------------------------


@require_GET
def server(request: TenantRequest, pk: int) -> HttpResponse:
    row = fetch(request, Server.objects.select_related("group", "agent_settings"), pk=pk)
    tab = request.GET.get("tab", "overview")
    if tab not in TABS:
        raise NotFound
    span = _range(request, row)
    context = {"server": row, "tab": tab, "range": span, **_around(request.tenant.pk, row)}
    template = fragment(
        request,
        "clouds/server.html",
        head="clouds/_server_head.html",
        side="clouds/_server_side.html",
        uptime="clouds/_uptime.html",
        vitals="clouds/_vitals.html",
        services="clouds/_service_table.html" if tab == "services" else "clouds/_services.html",
        last="clouds/_last_alerts.html",
        alerts="alerts/_alerts.html",
        agent="clouds/_agent.html",
        settings="clouds/_agent_settings.html",
        custom="clouds/_custom.html",
    )
    if template == "clouds/_uptime.html":
        context |= {"uptime": uptimes.of_server(row, timezone.now())}
    elif template == "clouds/_vitals.html":
        context |= {"now": _now(request.tenant.pk, row)}
    elif tab == "overview":
        context |= _overview(request.tenant.pk, row, span)
        context |= {"uptime": SimpleLazyObject(lambda: uptimes.of_server(row, timezone.now()))}
    elif tab == "alerts":
        context |= {"alerts": queries.alerts_of(pk, 200), "no_server": True}
    elif tab == "vitals":
        context |= {
            "vitals": _lanes(row, span, VITALS),
            "custom": _custom(request.tenant.pk, row, span),
        }
    elif tab == "services":
        found = uptimes.of_server(row, timezone.now())
        context |= {
            "numbers": agents.of_services(request.tenant.pk, pk),
            "uptimes": {name: one["30d"] for name, one in found.services.items()},
        }
    elif tab == "agent":
        context |= {
            "agent": agents.health(request.tenant.pk, pk, row.specs),
            "offered": agents.offered(row.agent_version),
            "settings": getattr(row, "agent_settings", None),
            "applied": row.specs.get("settings") or {},
            "vitals": _lanes(row, span, AGENT_CHARTS),
        }
    elif tab == "logs":
        context |= search_context(request, fixed_server=row)
    return render(request, template, context)


def _range(request: TenantRequest, row: Server) -> int:
    """The span that was asked for; else a day, or less for a server that is younger."""
    text = request.GET.get("range", "")
    seconds = int(text) if text.isdecimal() and len(text) < 9 else 0
    if seconds in RANGES:
        return seconds
    age = (timezone.now() - row.registered_at).total_seconds()
    return next((span for span in RANGES[:2] if age <= span), DAY_SECONDS)


def _around(tenant_id: int, row: Server) -> dict[str, Any]:
    """The head of the page and its right column, alike on every tab."""
    incidents = queries.incidents(server_id=row.pk)
    projects = clouds.projects(row)
    by_severity = queries.open_alerts_on(row.pk)
    return {
        "seen_at": metrics.last_seen(tenant_id).get(row.pk),
        "worst": incidents[0] if incidents else None,
        "incidents": incidents,
        "open_by_severity": by_severity,
        "projects": projects,
        "suppression": suppression.active_for([row.pk], timezone.now()).get(row.pk),
        "counts": {
            "alerts": sum(by_severity.values()),
            "services_down": sum(project.down for project in projects),
        },
    }


def _overview(tenant_id: int, row: Server, span: int) -> dict[str, Any]:
    end = timezone.now()
    start = end - timedelta(seconds=span)
    alerts = queries.alerts_between(row.pk, start, end)
    return {
        "charts": {
            "events": _events_url(row, span),
            "cpu": _chart_url(row, "cpu", "percent", span),
            "memory": _chart_url(row, "memory", "percent", span),
            "disk": _chart_url(row, "disk", "percent", span),
            "load": _chart_url(row, "load", "load1", DAY_SECONDS),
        },
        "now": _now(tenant_id, row),
        "last_alerts": queries.alerts_of(row.pk, 5),
        "spans": _spans(alerts, start, end),
        "closed_count": sum(
            alert.resolved_at is not None and alert.resolved_at >= start for alert in alerts
        ),
    }


def _now(tenant_id: int, row: Server) -> list[dict[str, Any]]:
    """CPU, memory and each disk right now, with the time of the value."""
    newest = metrics.latest(tenant_id, [row.pk], ("cpu", "memory", "disk")).get(row.pk, {})
    found = []
    for (measurement, tags), fields in newest.items():
        value = fields.get("percent")
        if value is None:
            continue
        where = dict(tags).get("mount") or dict(tags).get("device", "")
        label = {"cpu": "CPU", "memory": "Memory", "disk": f"Disk {where}".strip()}[measurement]
        used, total = fields.get("used"), fields.get("total")
        found.append(
            {
                "label": label,
                "percent": value.value,
                "note": f"{bytes_(used.value)} of {bytes_(total.value)}" if used and total else "",
                "at": value.at,
                "warning": WARNING_AT,
                "critical": CRITICAL_AT,
            }
        )
    order = ("CPU", "Memory")
    return sorted(
        found,
        key=lambda one: (
            order.index(one["label"]) if one["label"] in order else len(order),
            one["label"],
        ),
    )


def _lanes(
    row: Server, span: int, charts: Iterable[tuple[str, str, str, str, str]]
) -> list[dict[str, Any]]:
    return [
        {
            "id": name,
            "title": title,
            "url": _chart_url(row, measurement, fields, span),
            "unit": unit,
            "threshold": None,
        }
        for name, title, measurement, fields, unit in charts
    ]


def _custom(tenant_id: int, row: Server, span: int) -> dict[str, Any]:
    """What scripts and plugins brought, as lanes; those that bring words have no chart."""
    found = custom.of_server(tenant_id, row.pk, timezone.now())
    drawn = [one for one in found.shown if not one.word]
    lanes = [
        {
            "id": one.id,
            "title": one.title,
            "whose": one.whose,
            "value": one.word or measured(one.value, one.unit),
            "at": one.at,
            "url": "" if one.word else _chart_url(row, one.measurement, one.field, span, one.tags),
            "unit": one.unit,
            "last": one in drawn[-1:],
        }
        for one in found.shown
    ]
    return {"lanes": lanes, "more": found.more}


def _spans(alerts: list[Alert], start: datetime, end: datetime) -> list[dict[str, Any]]:
    """Alerts as bars on a lane 1000 wide; overlapping ones in up to three rows."""
    width = (end - start).total_seconds()
    free = [start, start, start]
    found = []
    for alert in sorted(alerts, key=lambda one: one.opened_at):
        begin = max(alert.opened_at, start)
        stop = min(alert.resolved_at or end, end)
        row = next((index for index, until in enumerate(free) if until <= begin), 2)
        free[row] = max(free[row], stop)
        x = 1000 * (begin - start).total_seconds() / width
        found.append(
            {
                "x": x,
                "width": max(3.0, 1000 * (stop - begin).total_seconds() / width),
                "row": row,
                "severity": alert.severity,
                "title": alert.in_short,
            }
        )
    return found


def _chart_url(
    row: Server, measurement: str, fields: str, span: int, only: Tags | None = None
) -> str:
    """Of all series of that name, or of the one that has just these tags."""
    query = {"server": row.pk, "measurement": measurement, "field": fields, "range": span}
    if only is not None:
        query |= {"exact": 1, **{f"tag.{name}": text for name, text in only}}
    return f"{reverse('metrics:chart')}?{urlencode(query)}"


def _events_url(row: Server | None = None, span: int = DAY_SECONDS) -> str:
    query = {"server": row.pk, "range": span} if row else {"range": span}
    return f"{reverse('metrics:events-per-hour')}?{urlencode(query)}"
