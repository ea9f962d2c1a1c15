"""The delivery log as a page: every try, its answer, and the button that tells it again."""

from __future__ import annotations

from urllib.parse import urlencode

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.views.decorators.http import require_GET, require_POST

from accounts.access import TenantRequest, fetch, permit
from accounts.models import Role
from alerts.models import Attempt, Notification, NotificationChannel
from alerts.telling import delivery
from sentinel_site.kit.fragments import fragment

PAGE = 50


@require_GET
@permit(Role.VIEWER)
def delivery_log(request: TenantRequest) -> HttpResponse:
    channel, outcome = _number(request.GET.get("channel")), request.GET.get("outcome", "")
    before = _number(request.GET.get("before"))
    rows = Attempt.objects.select_related("channel", "notification")
    if channel is not None:
        rows = rows.filter(channel=channel)
    if outcome in ("delivered", "failed"):
        rows = rows.filter(is_delivered=outcome == "delivered")
    if before is not None:
        rows = rows.filter(pk__lt=before)
    found = list(rows[: PAGE + 1])
    query = urlencode({"channel": channel or "", "outcome": outcome})
    context = {
        "attempts": found[:PAGE],
        "channels": NotificationChannel.objects.all(),
        "channel": channel,
        "outcome": outcome,
        "query": query,
        "waiting": Notification.objects.filter(state=Notification.State.WAITING).count(),
        "may_resend": request.access.may(Role.MEMBER),
        "next_url": f"?{query}&before={found[PAGE - 1].pk}" if len(found) > PAGE else "",
    }
    template = fragment(request, "alerts/deliveries.html", list="alerts/_deliveries.html")
    return render(request, template, context)


@require_POST
def resend(request: TenantRequest, pk: int) -> HttpResponse:
    row = fetch(request, Notification.objects.select_related("channel"), Role.MEMBER, pk=pk)
    delivery.resend(request.access, row, timezone.now())
    messages.success(request, f"{row.channel.name} is told once more.")
    return redirect("alerts:deliveries")


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isdecimal() and len(text) < 19 else None
