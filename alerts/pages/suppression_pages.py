"""Pages of maintenance and blackout: what is on, what comes, what recurs; a server's group and its
removal."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from accounts import queries as accounts
from accounts.access import TenantRequest, fetch, permit
from accounts.models import Role
from alerts.pages import queries
from clouds import muting, recurrences, suppression
from clouds import queries as clouds
from clouds.forms import ClassifyForm
from clouds.models import Recurrence, Scoped, Server, Suppression
from clouds.servers import removable_at
from clouds.suppression_form import EVERYTHING, SuppressionForm
from metrics import queries as metrics
from sentinel_site.kit.fragments import fragment

MOST_OVER = 30


@require_GET
@permit(Role.VIEWER)
def suppressions(request: TenantRequest) -> HttpResponse:
    now = timezone.now()
    if request.GET.get("fragment") == "banner":
        return render(request, "alerts/_muted.html", {"muted": queries.muted()})
    rows = list(Suppression.objects.select_related("server", "group").filter(ended_at=None))
    rows = _dressed([row for row in rows if row.until is None or row.until > now])
    again = _dressed(Recurrence.objects.select_related("server", "group").filter(ended_at=None))
    for one in again:
        one.words = recurrences.in_words(one.rule, one.zone, one.begins)
        one.next = next(iter(suppression.next_of(one, now, 1)), None)
    over = Suppression.objects.select_related("server", "group").filter(ended_at__isnull=False)
    context = {
        "on": [row for row in rows if row.since <= now],
        "coming": sorted(
            (row for row in rows if row.since > now and row.recurrence_id is None),
            key=lambda row: row.since,
        ),
        "again": again,
        "over": _dressed(over.order_by("-ended_at", "-pk")[:MOST_OVER]),
        "muted": queries.muted(),
    }
    template = fragment(request, "alerts/suppressions.html", list="alerts/_suppressions.html")
    return render(request, template, context)


def _dressed(rows: Iterable[Any]) -> list[Any]:
    """With who decided it: a person, or words for a program."""
    found = list(rows)
    people = accounts.people(row.by for row in found if row.by)
    for row in found:
        row.who = people.get(row.by or 0, "a program") if row.by else "a program"
    return found


@require_http_methods(["GET", "POST"])
@permit(Role.MEMBER)
def suppress(request: TenantRequest) -> HttpResponse:
    """New; `?server=`, `?group=` and `?kind=` fill the form in."""
    now = timezone.now()
    asked = request.GET
    initial = {"kind": asked.get("kind", "maintenance"), "where": EVERYTHING}
    for name in ("group", "server"):
        if asked.get(name, "").isdecimal():
            initial["where"] = f"{name}:{asked[name]}"
    form = SuppressionForm(request.POST or None, initial=initial, now=now)
    if request.method == "POST" and form.is_valid():
        row = muting.mute(request.access, form.target(), form.wanted(), now)
        messages.success(request, _said(row, now))
        return _back(row)
    return _form(request, form, "New maintenance or blackout")


def _said(row: Suppression | Recurrence, now: datetime) -> str:
    if isinstance(row, Recurrence):
        return f"{row.get_kind_display()} of {row.where} comes again and again."
    if row.since > now:
        return f"{row.get_kind_display()} of {row.where} is planned."
    return f"{row.get_kind_display()} of {row.where} has begun; nobody is told of alerts there."


def _back(row: Scoped) -> HttpResponse:
    if row.server_id is not None and isinstance(row, Suppression):
        return redirect("clouds:server", row.server_id)
    return redirect("alerts:suppressions")


def _form(
    request: TenantRequest, form: SuppressionForm, title: str, row: Any = None
) -> HttpResponse:
    context = {"form": form, "title": title, "row": row}
    status = 422 if form.errors else 200
    return render(request, "alerts/suppression_form.html", context, status=status)


@require_http_methods(["GET", "POST"])
def change_suppression(request: TenantRequest, pk: int) -> HttpResponse:
    rows = Suppression.objects.select_related("server", "group")
    return _change(request, fetch(request, rows, Role.MEMBER, pk=pk))


@require_http_methods(["GET", "POST"])
def change_recurrence(request: TenantRequest, pk: int) -> HttpResponse:
    rows = Recurrence.objects.select_related("server", "group")
    return _change(request, fetch(request, rows, Role.MEMBER, pk=pk))


def _change(request: TenantRequest, row: Suppression | Recurrence) -> HttpResponse:
    now = timezone.now()
    if request.method == "POST":
        form = SuppressionForm(request.POST, now=now, row=row)
        if form.is_valid():
            muting.change(request.access, row, form.wanted(), now)
            messages.success(request, "Changed.")
            return redirect("alerts:suppressions")
    else:
        zone = request.GET.get("zone", "UTC")
        form = SuppressionForm.of(row, now, zone if recurrences.is_zone(zone) else "UTC")
    return _form(request, form, f"{row.get_kind_display()} of {row.where}", row)


@require_POST
def end_suppression(request: TenantRequest, pk: int) -> HttpResponse:
    rows = Suppression.objects.select_related("server", "group")
    row = fetch(request, rows, Role.MEMBER, pk=pk)
    now = timezone.now()
    muting.end(request.access, row, now)
    word = "is over" if row.since <= now else "is called off"
    messages.success(request, f"{row.get_kind_display()} of {row.where} {word}.")
    if request.POST.get("back") == "server" and row.server_id is not None:
        return redirect("clouds:server", row.server_id)
    return redirect("alerts:suppressions")


@require_POST
def end_recurrence(request: TenantRequest, pk: int) -> HttpResponse:
    rows = Recurrence.objects.select_related("server", "group")
    row = fetch(request, rows, Role.MEMBER, pk=pk)
    muting.end(request.access, row, timezone.now())
    messages.success(request, f"{row.get_kind_display()} of {row.where} comes no more.")
    return redirect("alerts:suppressions")


# -- a server's group, and its removal ------------------------------------------


@require_http_methods(["GET", "POST"])
def classify(request: TenantRequest, pk: int) -> HttpResponse:
    """Its group and role; and below, its removal."""
    row = fetch(request, Server.objects.select_related("group"), Role.MEMBER, pk=pk)
    now = timezone.now()
    given = {"group": row.group_id, "role": row.role}
    form = ClassifyForm(request.POST or None, initial=given)
    if request.method == "POST" and form.is_valid():
        wanted = form.cleaned_data
        muting.classify(request.access, row, wanted["group"], wanted["role"], now)
        where = f"in {wanted['group']}" if wanted["group"] else "in no group"
        messages.success(request, f"{row.host} is {where} from now on.")
        return redirect("clouds:server", row.pk)
    holds = suppression.active_for([row.pk], now).get(row.pk)
    seen_at = metrics.last_seen(request.tenant.pk).get(row.pk)
    context = {
        "server": row,
        "form": form,
        "in_maintenance": holds is not None and holds.kind == Suppression.Kind.MAINTENANCE,
        "seen_at": seen_at,
        "removable_at": removable_at(row, seen_at),
        "removable": removable_at(row, seen_at) <= now,
        "suppress_query": urlencode({"server": row.pk, "kind": "maintenance"}),
        "groups": clouds.groups(),
    }
    template = fragment(request, "clouds/classify.html", removal="clouds/_removal.html")
    return render(request, template, context, status=422 if form.errors else 200)


@require_POST
def remove(request: TenantRequest, pk: int) -> HttpResponse:
    row = fetch(request, Server, Role.ADMIN, pk=pk)
    seen_at = metrics.last_seen(request.tenant.pk).get(row.pk)
    muting.remove(request.access, row, seen_at, timezone.now())
    messages.success(request, f"{row.host} is removed. What it sent is kept for its time.")
    return redirect("clouds:servers")
