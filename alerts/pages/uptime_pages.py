"""The report of uptime over a month: a page that prints well, and the same as CSV."""

from __future__ import annotations

import csv
from datetime import datetime

from django.http import HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.http import require_GET

from accounts.access import TenantRequest, permit
from accounts.models import Role
from alerts import uptimes
from alerts.uptimes import Period, Report
from clouds.recurrences import is_zone
from clouds.uptime import Uptime

COLUMNS = (
    *("from", "until", "group", "server", "uptime_percent"),
    *("up_seconds", "down_seconds", "counted_seconds", "maintenance_seconds"),
)


@require_GET
@permit(Role.VIEWER)
def report(request: TenantRequest) -> HttpResponse:
    now = timezone.now()
    found = uptimes.report(_period(request, now), now)
    zone = request.GET.get("zone", "UTC")
    context = {
        "report": found,
        "now": now,
        "zone": zone,
        "months": uptimes.months(now, zone if is_zone(zone) else "UTC"),
        "windows": uptimes.WINDOWS,
        "asked": request.GET,
        "query": request.GET.urlencode(),
    }
    return render(request, "alerts/uptime.html", context)


@require_GET
@permit(Role.VIEWER)
def report_csv(request: TenantRequest) -> HttpResponse:
    now = timezone.now()
    found = uptimes.report(_period(request, now), now)
    answer = HttpResponse(content_type="text/csv; charset=utf-8")
    name = f"uptime-{request.tenant.slug}-{found.span.start:%Y-%m-%d}.csv"
    answer["Content-Disposition"] = f'attachment; filename="{name}"'
    _write(answer, found)
    return answer


def _write(answer: HttpResponse, found: Report) -> None:
    rows = csv.writer(answer)
    rows.writerow(COLUMNS)
    period = [found.span.start.isoformat(), found.span.end.isoformat()]
    for section in found.sections:
        for row in section.rows:
            rows.writerow(
                [*period, _safe(section.name), _safe(row.server.host), *_cells(row.uptime)]
            )
        rows.writerow([*period, _safe(section.name), "", *_cells(section.uptime)])
    rows.writerow([*period, "", "", *_cells(found.total)])


def _cells(one: Uptime) -> list[str]:
    percent = "" if one.percent is None else repr(one.percent)
    spans = (one.up, one.down, one.counted, one.maintenance)
    return [percent, *(f"{span.total_seconds():.0f}" for span in spans)]


def _safe(text: str) -> str:
    """What a spreadsheet would take for a formula is text."""
    return f"'{text}" if text[:1] in "=+-@\t\r" else text


def _period(request: TenantRequest, now: datetime) -> Period:
    asked = request.GET
    return uptimes.period(
        now,
        month=asked.get("month", ""),
        window=asked.get("window", ""),
        start=asked.get("from", ""),
        end=asked.get("to", ""),
        zone=asked.get("zone", "") or "UTC",
    )
