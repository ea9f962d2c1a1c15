"""Pages of what is wrong: incidents, rules, notification channels."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.utils.functional import SimpleLazyObject
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_POST

from accounts.access import TenantRequest, fetch, permit
from accounts.models import Role, User
from alerts import notifiers
from alerts.engines import previews
from alerts.lifecycle import care, evidence
from alerts.models import Incident, NotificationChannel, Rule
from alerts.pages import dressing, queries
from alerts.pages.forms import ChannelForm, RuleForm
from alerts.rulebook import rules
from alerts.telling import delivery
from metrics import queries as metrics
from sentinel_site.kit.fragments import fragment
from sentinel_site.kit.problems import NotFound


@require_GET
@permit(Role.VIEWER)
def incident_list(request: TenantRequest) -> HttpResponse:
    state = "closed" if request.GET.get("state") == "closed" else "open"
    severity = request.GET.get("severity", "")
    before = request.GET.get("before", "")
    rows = queries.incidents(
        state,
        severity,
        before=int(before) if before.isdecimal() and len(before) < 19 else None,
        limit=queries.PAGE + 1 if state == "closed" else queries.MOST_OPEN,
    )
    counts = queries.open_counts()
    query = urlencode({"state": state, "severity": severity})
    more = len(rows) > queries.PAGE and state == "closed"
    context = {
        "incidents": rows[: queries.PAGE] if state == "closed" else rows,
        "state": state,
        "severity": severity,
        "open_count": sum(counts.values()),
        "closed_count": queries.closed_count(),
        "title": _how_many_open(sum(counts.values())),
        "closed_at": queries.last_closed_at(),
        "query": query,
        "next_url": f"?{query}&before={rows[queries.PAGE - 1].pk}" if more else "",
    }
    return render(request, fragment(request, "alerts/list.html", list="alerts/_list.html"), context)


def _how_many_open(count: int) -> str:
    return {0: "Nothing is wrong", 1: "One incident is open"}.get(
        count, f"{count} incidents are open"
    )


@require_GET
@permit(Role.VIEWER)
def incident(request: TenantRequest, pk: int) -> HttpResponse:
    row = queries.incident(pk)
    if row is None:
        raise NotFound
    alerts = queries.alerts_in(row)
    lines = evidence.lines(request.tenant.pk, alerts) or evidence.kept_lines(row)
    context = {
        "incident": row,
        "alerts": alerts,
        "why": evidence.in_words(row.evidence),
        "symptoms": dressing.symptoms(row),
        "symptom_count": dressing.symptom_count(row),
        "figures": [] if row.cause else evidence.figures(alerts),
        "advice": evidence.advice(alerts[:1] if row.cause else alerts),
        "known": evidence.kept_known(row) or evidence.known(lines),
        "lines": lines,
        "people": care.people(request.access),
        "charts": evidence.charts(alerts),
        "history": queries.history(row),
        "around": SimpleLazyObject(lambda: queries.neighbours(row)),  # no fragment draws it
    }
    template = fragment(
        request,
        "alerts/incident.html",
        incident="alerts/_incident.html",
        timeline="alerts/_timeline.html",
    )
    return render(request, template, context)


@require_POST
def acknowledge(request: TenantRequest, pk: int) -> HttpResponse:
    row = fetch(request, Incident, Role.MEMBER, pk=pk)
    care.acknowledge(request.access, row, timezone.now())
    return _acted(request, row, "You have it.")


@require_POST
def resolve(request: TenantRequest, pk: int) -> HttpResponse:
    row = fetch(request, Incident, Role.MEMBER, pk=pk)
    care.resolve(request.access, row, timezone.now())
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
        "spans": previews.SPANS,
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
    return _channels_page(request)


def _channels_page(request: TenantRequest, **more: Any) -> HttpResponse:
    context = {
        "channels": queries.channels(),
        "kinds": notifiers.NOTIFIERS,
        "may_manage": request.access.may(Role.ADMIN),
        **more,
    }
    return render(request, "alerts/channels.html", context)


@never_cache
@permit(Role.ADMIN)
def channel_new(request: TenantRequest, kind: str) -> HttpResponse:
    if notifiers.by_name(kind) is None:
        raise NotFound
    return _channel_form(request, NotificationChannel(kind=kind))


@never_cache
def channel_edit(request: TenantRequest, pk: int) -> HttpResponse:
    return _channel_form(request, fetch(request, NotificationChannel, Role.ADMIN, pk=pk))


def _channel_form(request: TenantRequest, channel: NotificationChannel) -> HttpResponse:
    """What was made for it is answered on the page itself: it is shown this once."""
    form = ChannelForm(request.POST or None, instance=channel, kind=channel.kind)
    if request.method == "POST" and form.is_valid():
        made = rules.save_channel(request.access, form.instance, timezone.now())
        messages.success(request, f"{form.instance.name} is saved.")
        if made:
            return _channels_page(request, made=made.items(), made_for=form.instance)
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
    failure = delivery.send_test(request.access, channel, timezone.now())
    if failure:
        messages.error(request, f"{channel.name} didn't take it: {failure}")
    else:
        messages.success(request, f"A test message was sent to {channel.name}.")
    return redirect("alerts:channels")


@require_POST
def channel_delete(request: TenantRequest, pk: int) -> HttpResponse:
    channel = fetch(request, NotificationChannel, Role.ADMIN, pk=pk)
    rules.delete_channel(request.access, channel, timezone.now())
    messages.success(request, f"{channel.name} is told nothing any more.")
    return redirect("alerts:channels")


def _person(request: HttpRequest) -> User:
    """The signed-in person: pages below a mount point are served to sessions only."""
    assert isinstance(request.user, User)  # noqa: S101  narrows the type
    return request.user
