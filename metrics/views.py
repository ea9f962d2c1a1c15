"""Charts as JSON and the log search, below `/o/<slug>/`."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from django.http import HttpResponse, JsonResponse, QueryDict
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_GET

from accounts.access import TenantRequest, fetch, permit
from accounts.models import Role
from agent_client import wire
from clouds.models import Server
from metrics import events, knocks, queries
from metrics.api.serializers import instant
from metrics.batch import clean
from metrics.events import Found, Matcher, Page
from metrics.stores.base import is_aggregation
from sentinel_site.kit.problems import Problem

DEFAULT_RANGE = timedelta(hours=1)
LONGEST_RANGE = timedelta(days=400)
LOG_SPAN = timedelta(days=1)
LATEST = 8
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


class NotAChart(Problem):
    status, code, title = 422, "not-a-chart", "This chart cannot be drawn"


@require_GET
def chart(request: TenantRequest) -> HttpResponse:
    """Series of one server as JSON: `?server=&measurement=&field=&range=&agg=&points=`.

    `field` may be given several times; tags as `tag.<name>=<value>`; `range` is seconds or 6h, 7d.
    With `exact=1` a series must have just those tags, and one field is taken as it is written.
    """
    asked = request.GET
    server = fetch(request, Server, pk=_server_id(asked.get("server", "")))
    measurement = asked.get("measurement", "")[: wire.MAX_NAME]
    exact = asked.get("exact") == "1"
    given = asked.getlist("field")
    fields = [name for text in given for name in ([text] if exact else text.split(",")) if name]
    agg = asked.get("agg", "")
    if not measurement or not fields:
        raise NotAChart("Name a measurement and a field.")
    if agg and not is_aggregation(agg):
        raise NotAChart(f"There is no aggregation {agg[:20]}.")
    start, end = _span(asked, DEFAULT_RANGE)
    tags = {
        name.removeprefix("tag."): value
        for name, value in asked.items()
        if name.startswith("tag.") and isinstance(value, str)
    }
    drawn = queries.series(
        request.tenant.pk,
        server.pk,
        measurement,
        fields[:20],
        tags,
        start=start,
        end=end,
        points=_number(asked.get("points", ""), 300),
        agg=agg,
    )
    if exact:
        drawn = replace(drawn, series=[one for one in drawn.series if one.tags == tags])
    return JsonResponse(drawn.to_json())


@require_GET
@permit(Role.VIEWER)
def events_per_hour(request: TenantRequest) -> HttpResponse:
    """Log events by level and hour as JSON: `?server=&range=`; without a server, of all."""
    asked = request.GET
    server_id = None
    if asked.get("server"):
        server_id = fetch(request, Server, pk=_server_id(asked["server"])).pk
    start, end = _span(asked, LOG_SPAN)
    return JsonResponse(queries.events_per_hour(request.tenant.pk, start, end, server_id).to_json())


@require_GET
@permit(Role.VIEWER)
def unknown_keys(request: TenantRequest) -> HttpResponse:
    """Who knocks with a plugin key that nobody issued; a part of the page of keys."""
    found = knocks.of_tenant(request.tenant.pk)
    return render(request, "metrics/_knocks.html", {"knocks": found})


@require_GET
@permit(Role.VIEWER)
def logs(request: TenantRequest) -> HttpResponse:
    """The log search; `fragment=list` is what it found, `fragment=older` the page after it.

    `fragment=latest` is the newest few lines, whatever they are.
    """
    fragment = request.GET.get("fragment")
    if fragment == "latest":
        matcher = Matcher(start=timezone.now() - LOG_SPAN)
        page = events.search(request.tenant.pk, matcher, limit=LATEST)
        return render(request, "metrics/_lines.html", _lines(page))
    if fragment in ("list", "older"):
        found = _found(request, _Filters.read(request.GET))
        return render(request, f"metrics/_{'logs' if fragment == 'list' else 'older'}.html", found)
    return render(request, "metrics/logs.html", search_context(request))


def search_context(request: TenantRequest, fixed_server: Server | None = None) -> dict[str, Any]:
    """What `metrics/_search.html` needs; with `fixed_server` the search stays on that one."""
    filters = _Filters.read(request.GET)
    if fixed_server is not None:
        filters = replace(filters, server=fixed_server.pk)
    since = timezone.now() - timedelta(days=7)
    return {
        **_found(request, filters),
        "servers": Server.objects.exclude(status=Server.Status.RETIRED).only("pk", "host"),
        "services": events.services(request.tenant.pk, since),
        "query": filters.query(),
        "fixed_server": fixed_server,
    }


def _found(request: TenantRequest, filters: _Filters) -> dict[str, Any]:
    """What `metrics/_logs.html` and `metrics/_older.html` need."""
    began = time.monotonic()
    page = events.search(
        request.tenant.pk,
        filters.matcher(timezone.now()),
        cursor=request.GET.get("before") or None,
    )
    return {
        **_lines(page),
        "older_url": filters.older_url(page),
        "filters": filters.context(),
        "took": time.monotonic() - began,
    }


@dataclass(frozen=True)
class _Line:
    """A log event with the server it is of, as templates show it."""

    event: Found
    server: Server | None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.event, name)


def _lines(page: Page) -> dict[str, Any]:
    servers = Server.objects.in_bulk({event.server_id for event in page.events})
    return {"events": [_Line(event, servers.get(event.server_id)) for event in page.events]}


@dataclass(frozen=True)
class _Filters:
    """What a log search asks for; what makes no sense is left out."""

    q: str = ""
    levels: tuple[str, ...] = ()
    server: int | None = None
    service: str = ""
    request_id: str = ""
    start: datetime | None = None
    end: datetime | None = None
    span: timedelta | None = None

    @classmethod
    def read(cls, asked: QueryDict) -> _Filters:
        levels = [word for text in asked.getlist("level") for word in text.split(",")]
        span = asked.get("span", "")
        server = asked.get("server", "")
        filters = cls(
            q=asked.get("q", "").strip()[:1000],
            levels=tuple(level for level in wire.LEVELS if level in levels),
            server=_server_id(server) if server else None,
            service=clean(asked.get("service", ""))[: wire.MAX_NAME],
            request_id=clean(asked.get("request_id", ""))[: wire.MAX_NAME],
            start=instant(asked.get("start", "")),
            end=instant(asked.get("end", "")),
        )
        if span or not (filters.start or filters.end):
            return replace(filters, start=None, end=None, span=_seconds(span, LOG_SPAN))
        return filters

    def matcher(self, now: datetime) -> Matcher:
        return Matcher.parse(
            self.q,
            levels=self.levels,
            server_ids=(self.server,) if self.server is not None else (),
            services=(self.service,) if self.service else (),
            request_id=self.request_id,
            start=now - self.span if self.span else self.start,
            end=self.end,
        )

    def context(self) -> dict[str, Any]:
        return {
            "q": self.q,
            "levels": list(self.levels),
            "server": str(self.server or ""),
            "service": self.service,
            "start": self.start.isoformat() if self.start else "",
            "end": self.end.isoformat() if self.end else "",
            "span": str(int(self.span.total_seconds())) if self.span else "",
        }

    def query(self) -> str:
        given = {**self.context(), "request_id": self.request_id}
        levels = given.pop("levels")
        pairs = [(name, value) for name, value in given.items() if value]
        return urlencode([*pairs, *(("level", level) for level in levels)])

    def older_url(self, page: Page) -> str:
        if page.next is None:
            return ""
        more = urlencode({"fragment": "older", "before": page.next})
        return f"{reverse('metrics:logs')}?{more}&{self.query()}"


def _span(asked: QueryDict, default: timedelta) -> tuple[datetime, datetime]:
    """From `start` and `end`, or the last `range`."""
    end = instant(asked.get("end", "")) or timezone.now()
    start = instant(asked.get("start", "")) or end - _seconds(asked.get("range", ""), default)
    return (start, end) if start < end else (end - default, end)


def _seconds(text: str, default: timedelta) -> timedelta:
    found = re.fullmatch(r"([0-9]{1,9})([smhdw]?)", text)
    if found is None or int(found[1]) == 0:
        return default
    return min(timedelta(seconds=int(found[1]) * _UNITS[found[2]]), LONGEST_RANGE)


def _server_id(text: str) -> int:
    """The id in a query string; what is none is an id that no server has."""
    return _number(text, 0) if len(text) < 19 else 0


def _number(text: str, default: int) -> int:
    return int(text) if re.fullmatch(r"[0-9]{1,18}", text) else default
