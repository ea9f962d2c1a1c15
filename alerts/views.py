"""Pages of what is wrong: the dashboard, incidents, rules, notification channels."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.views.decorators.http import require_GET, require_POST

from accounts.access import TenantRequest, fetch, permit
from accounts.models import Role, User
from alerts import dispatch, incidents, notifiers, queries, rules
from alerts.forms import ChannelForm, RuleForm
from alerts.models import Incident, NotificationChannel, Rule, Severity
from clouds import queries as clouds
from clouds.models import Server
from metrics import queries as metrics
from sentinel_site.kit.problems import NotFound

METER_FIELDS = {"cpu": "percent", "memory": "percent", "disk": "percent", "load": "load1"}


@require_GET
@permit(Role.VIEWER)
def dashboard(request: TenantRequest) -> HttpResponse:
    return render(request, "dashboard.html", _overview(request))


@require_GET
@permit(Role.VIEWER)
def fleet(request: TenantRequest) -> HttpResponse:
    """The dashboard's servers alone, refetched when one of them changed."""
    return render(request, "alerts/_fleet.html", _overview(request))


def _overview(request: TenantRequest) -> dict[str, Any]:
    servers = list(clouds.fleet())
    worst = queries.worst_by_server()
    heard = metrics.last_seen(request.tenant.pk)
    meters = metrics.meters(request.tenant.pk, [server.pk for server in servers])
    rows = [
        {
            "server": server,
            "worst": worst.get(server.pk),
            "heard_at": heard.get(server.pk),
            "meters": meters.get(server.pk, {}),
        }
        for server in servers
    ]
    open_incidents = queries.incidents("open")
    queries.dress(open_incidents)
    return {
        "servers": rows,
        "groups": _by_group(rows),
        "incidents": open_incidents,
        "counts": queries.open_counts(),
        "statuses": {
            status.value: sum(row["server"].status == status for row in rows)
            for status in Server.Status
        },
        "may_act": request.access.may(Role.MEMBER),
        "may_manage": request.access.may(Role.ADMIN),
    }


def _by_group(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Servers by cloud group with the group's worst state; those without a group last."""
    found: dict[int | None, dict[str, Any]] = {}
    for row in rows:
        group = row["server"].group
        part = found.setdefault(group.pk if group else None, {"group": group, "servers": []})
        part["servers"].append(row)
    for part in found.values():
        severities = [row["worst"].severity for row in part["servers"] if row["worst"]]
        part["worst"] = incidents.worst(severities)
    return sorted(found.values(), key=lambda part: (part["group"] is None, str(part["group"])))


# -- incidents ----------------------------------------------------------------


@require_GET
@permit(Role.VIEWER)
def incident_list(request: TenantRequest) -> HttpResponse:
    fragment = request.headers.get("HX-Request") and not request.headers.get("HX-Boosted")
    template = "alerts/_list.html" if fragment else "alerts/list.html"
    return render(request, template, _listed(request))


def _listed(request: TenantRequest) -> dict[str, Any]:
    state = request.GET.get("state", "open")
    severity = request.GET.get("severity", "")
    before = request.GET.get("before", "")
    rows = queries.incidents(
        state, severity, int(before) if before.isdigit() and len(before) < 19 else None
    )
    more = state != "open" and len(rows) > queries.PAGE
    rows = rows[: queries.PAGE] if state != "open" else rows
    queries.dress(rows)
    return {
        "incidents": rows,
        "state": state,
        "severity": severity,
        "severities": list(reversed(Severity)),
        "counts": queries.open_counts(),
        "next_before": rows[-1].pk if more else None,
        "may_act": request.access.may(Role.MEMBER),
    }


@require_GET
@permit(Role.VIEWER)
def open_list(request: TenantRequest) -> HttpResponse:
    """The open incidents, short: in the bell and on the dashboard."""
    rows = queries.incidents("open")
    queries.dress(rows)
    return render(
        request,
        "alerts/_open.html",
        {"incidents": rows, "may_act": request.access.may(Role.MEMBER)},
    )


@require_GET
def for_server(request: TenantRequest, pk: int) -> HttpResponse:
    """A server's open alerts and its last five, for the server page."""
    server = fetch(request, Server, pk=pk)
    return render(
        request,
        "alerts/_for_server.html",
        {
            "server": server,
            "open_alerts": queries.alerts_of(pk, 20, open_only=True),
            "last_alerts": queries.alerts_of(pk, 5),
            "closed_24h": queries.closed_since(pk, timezone.now() - queries.DAY),
            "may_act": request.access.may(Role.MEMBER),
        },
    )


@require_GET
@permit(Role.VIEWER)
def incident(request: TenantRequest, pk: int) -> HttpResponse:
    row = queries.incident(pk)
    if row is None:
        raise NotFound
    queries.dress([row])
    context = {
        "incident": row,
        "alerts": row.alert_set.all(),
        "events": queries.history(row),
        "deliveries": queries.deliveries(row),
        "may_act": request.access.may(Role.MEMBER),
    }
    fragment = request.headers.get("HX-Request") and not request.headers.get("HX-Boosted")
    template = "alerts/_incident.html" if fragment else "alerts/incident.html"
    return render(request, template, context)


@require_POST
def acknowledge(request: TenantRequest, pk: int) -> HttpResponse:
    row = fetch(request, Incident, Role.MEMBER, pk=pk)
    incidents.acknowledge(row, _person(request), timezone.now())
    return _acted(request, row, "You have it.")


@require_POST
def resolve(request: TenantRequest, pk: int) -> HttpResponse:
    row = fetch(request, Incident, Role.MEMBER, pk=pk)
    incidents.resolve(row, _person(request), timezone.now())
    return _acted(request, row, "Resolved. If its rule still holds, it opens again.")


def _acted(request: TenantRequest, row: Incident, text: str) -> HttpResponse:
    """An htmx caller refetches what shows the incident; others go to its page."""
    if request.headers.get("HX-Request"):
        return HttpResponse(status=204, headers={"HX-Trigger": "incident-changed"})
    messages.success(request, text)
    return redirect("alerts:incident", row.pk)


# -- rules --------------------------------------------------------------------


@require_GET
@permit(Role.VIEWER)
def rule_list(request: TenantRequest) -> HttpResponse:
    return render(
        request,
        "alerts/rules.html",
        {"rules": queries.rules(), "may_edit": request.access.may(Role.MEMBER)},
    )


@permit(Role.MEMBER)
def rule_new(request: TenantRequest) -> HttpResponse:
    return _rule_form(request, Rule())


def rule_edit(request: TenantRequest, pk: int) -> HttpResponse:
    return _rule_form(request, fetch(request, Rule, Role.MEMBER, pk=pk))


def _rule_form(request: TenantRequest, rule: Rule) -> HttpResponse:
    form = RuleForm(request.POST or None, instance=rule)
    if request.method == "POST" and form.is_valid():
        rules.save_rule(request.access, form.instance, timezone.now())
        messages.success(request, f"{form.instance.name} is watched from the next slot on.")
        return redirect("alerts:rules")
    context = {
        "form": form,
        "rule": rule if rule.pk else None,
        "labels": metrics.labels(request.tenant.pk),
    }
    return render(request, "alerts/rule_form.html", context, status=422 if form.errors else 200)


@require_POST
def rule_delete(request: TenantRequest, pk: int) -> HttpResponse:
    rule = fetch(request, Rule, Role.MEMBER, pk=pk)
    rules.delete_rule(request.access, rule, timezone.now())
    messages.success(request, f"{rule.name} was deleted; its open alerts end at the next slot.")
    return redirect("alerts:rules")


# -- notification channels ----------------------------------------------------


@require_GET
@permit(Role.VIEWER)
def channel_list(request: TenantRequest) -> HttpResponse:
    return render(
        request,
        "alerts/channels.html",
        {
            "channels": queries.channels(),
            "kinds": notifiers.NOTIFIERS,
            "may_manage": request.access.may(Role.ADMIN),
        },
    )


@permit(Role.ADMIN)
def channel_new(request: TenantRequest, kind: str) -> HttpResponse:
    if notifiers.by_name(kind) is None:
        raise NotFound
    return _channel_form(request, NotificationChannel(kind=kind))


def channel_edit(request: TenantRequest, pk: int) -> HttpResponse:
    return _channel_form(request, fetch(request, NotificationChannel, Role.ADMIN, pk=pk))


def _channel_form(request: TenantRequest, channel: NotificationChannel) -> HttpResponse:
    form = ChannelForm(request.POST or None, instance=channel, kind=channel.kind)
    if request.method == "POST" and form.is_valid():
        rules.save_channel(request.access, form.instance)
        messages.success(request, f"{form.instance.name} is saved.")
        return redirect("alerts:channels")
    context = {
        "form": form,
        "channel": channel if channel.pk else None,
        "kind": notifiers.by_name(channel.kind),
    }
    return render(request, "alerts/channel_form.html", context, status=422 if form.errors else 200)


@require_POST
def channel_test(request: TenantRequest, pk: int) -> HttpResponse:
    """Send a message now and say what came of it."""
    channel = fetch(request, NotificationChannel, Role.ADMIN, pk=pk)
    failure = dispatch.send_test(channel, request.tenant, timezone.now())
    if failure:
        messages.error(request, f"{channel.name} didn't take it: {failure}")
    else:
        messages.success(request, f"A test message was sent to {channel.name}.")
    return redirect("alerts:channels")


@require_POST
def channel_delete(request: TenantRequest, pk: int) -> HttpResponse:
    channel = fetch(request, NotificationChannel, Role.ADMIN, pk=pk)
    rules.delete_channel(request.access, channel)
    messages.success(request, f"{channel.name} is told nothing any more.")
    return redirect("alerts:channels")


def _person(request: HttpRequest) -> User:
    """The signed-in person: pages below a mount point are served to sessions only."""
    assert isinstance(request.user, User)  # noqa: S101  narrows the type
    return request.user
