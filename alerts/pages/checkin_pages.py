"""Pages of expected check-ins."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from accounts.access import TenantRequest, fetch, permit
from accounts.models import Role
from alerts.jobs import checkins
from alerts.models import CheckIn
from alerts.pages.checkin_form import CheckInForm
from sentinel_site.kit.fragments import fragment


@require_GET
@permit(Role.VIEWER)
def checkin_list(request: TenantRequest) -> HttpResponse:
    rows: list[Any] = list(CheckIn.objects.select_related("server"))
    now = timezone.now()
    for row in rows:
        row.now = row.state_at(now)
    order = ["down", "late", "new", "up", "paused"]
    rows.sort(key=lambda row: (order.index(row.now), row.name))
    down = sum(row.now == "down" for row in rows)
    template = fragment(request, "alerts/checkins.html", list="alerts/_checkins.html")
    return render(request, template, {"checkins": rows, "down": down})


@require_http_methods(["GET", "POST"])
@permit(Role.MEMBER)
def checkin_new(request: TenantRequest) -> HttpResponse:
    return _form(request, CheckIn())


@require_http_methods(["GET", "POST"])
def checkin_edit(request: TenantRequest, pk: int) -> HttpResponse:
    return _form(request, fetch(request, CheckIn, Role.MEMBER, pk=pk))


def _form(request: TenantRequest, row: CheckIn) -> HttpResponse:
    form = CheckInForm(request.POST or None, instance=row)
    if request.method == "POST" and form.is_valid():
        saved = checkins.save(request.access, form.instance, timezone.now())
        messages.success(request, f"{saved.name} is saved.")
        return redirect("alerts:checkin", saved.pk)
    context: dict[str, Any] = {"form": form, "checkin": row if row.pk else None}
    if row.pk:
        context |= {
            "url": checkins.ping_url(request.tenant.pk, row),
            "now_state": row.state_at(timezone.now()),
        }
    status = 422 if form.errors else 200
    return render(request, "alerts/checkin.html", context, status=status)


@require_POST
def checkin_pause(request: TenantRequest, pk: int) -> HttpResponse:
    row = fetch(request, CheckIn, Role.MEMBER, pk=pk)
    checkins.pause(request.access, row, timezone.now())
    messages.success(request, f"{row.name} is not expected until it comes again.")
    return redirect("alerts:checkins")


@require_POST
def checkin_delete(request: TenantRequest, pk: int) -> HttpResponse:
    row = fetch(request, CheckIn, Role.MEMBER, pk=pk)
    checkins.delete(request.access, row, timezone.now())
    messages.success(request, f"{row.name} is expected no more.")
    return redirect("alerts:checkins")
