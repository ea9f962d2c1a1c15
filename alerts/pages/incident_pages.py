"""What people do on an incident's page beside taking and ending it."""

from __future__ import annotations

from datetime import timedelta

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect
from django.utils import timezone
from django.views.decorators.http import require_POST

from accounts.access import TenantRequest, fetch
from accounts.models import Role
from alerts.lifecycle import care
from alerts.models import Incident

#: How long an incident can be shelved from its page, in hours.
SHELVES = (1, 4, 24, 72, 168)


@require_POST
def release(request: TenantRequest, pk: int) -> HttpResponse:
    row = fetch(request, Incident, Role.MEMBER, pk=pk)
    care.release(request.access, row, timezone.now())
    return _back(request, row, "Nobody has it now.")


@require_POST
def assign(request: TenantRequest, pk: int) -> HttpResponse:
    row = fetch(request, Incident, Role.MEMBER, pk=pk)
    user = request.POST.get("user", "")
    number = int(user) if user.isdecimal() and len(user) < 19 else None
    if user and number is None:
        raise care.NotAMember("Choose one of the organization's members.")
    care.assign(request.access, row, number, timezone.now())
    return _back(request, row, "Assigned.")


@require_POST
def comment(request: TenantRequest, pk: int) -> HttpResponse:
    row = fetch(request, Incident, Role.MEMBER, pk=pk)
    care.comment(request.access, row, request.POST.get("text", ""), timezone.now())
    return _back(request, row, "Noted.")


@require_POST
def shelve(request: TenantRequest, pk: int) -> HttpResponse:
    row = fetch(request, Incident, Role.MEMBER, pk=pk)
    hours = request.POST.get("hours", "")
    if hours not in map(str, SHELVES):
        raise care.NotATime("Choose how long.")
    at = timezone.now()
    until = at + timedelta(hours=int(hours))
    care.shelve(request.access, row, until, request.POST.get("reason", "")[:300], at)
    return _back(request, row, "Shelved. It returns by itself.")


@require_POST
def unshelve(request: TenantRequest, pk: int) -> HttpResponse:
    row = fetch(request, Incident, Role.MEMBER, pk=pk)
    care.unshelve(request.access, row, timezone.now())
    return _back(request, row, "It is back.")


def _back(request: TenantRequest, row: Incident, text: str) -> HttpResponse:
    """An htmx caller refetches what shows the incident; others go to its page."""
    if request.headers.get("HX-Request"):
        return HttpResponse(status=204, headers={"HX-Trigger": "incident-changed"})
    messages.success(request, text)
    return redirect("alerts:incident", row.pk)
