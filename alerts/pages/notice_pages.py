"""What the bell holds: notices of all cloud groups, and which of them are new to whoever looks."""

from __future__ import annotations

from django.http import HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET, require_POST

from accounts.access import TenantRequest, permit
from accounts.models import Role
from alerts.lifecycle import notices


@require_GET
@permit(Role.VIEWER)
def bell(request: TenantRequest) -> HttpResponse:
    """The newest notices, for the menu of every page."""
    user = request.access.user
    found = notices.newest(user.pk if user else None)
    return render(request, "alerts/_bell.html", {"notices": found})


@require_POST
@permit(Role.VIEWER)
def read(request: TenantRequest) -> HttpResponse:
    """Whoever looks has seen all to the notice named by `upto`."""
    upto, user = request.POST.get("upto", ""), request.access.user
    if user is not None and upto.isdecimal() and len(upto) < 19:
        notices.read(user.pk, int(upto))
    return HttpResponse(status=204)
