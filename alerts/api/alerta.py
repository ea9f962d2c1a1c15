"""Alerta's API for those who send to an Alerta: alerts, heartbeats, queries, acknowledge, close.

The client is given `https://host/alerta` as its endpoint and a key of the organization. Errors are
in Alerta's form, so that its clients show them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import datetime
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import Count, Q, QuerySet
from django.utils import timezone
from rest_framework.exceptions import APIException
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.access import audit
from accounts.models import Tenant
from alerts import incidents
from alerts.api.foreign import ForeignDoor, access_of, inside
from alerts.doors import alerta, alerta_query, entry
from alerts.models import Alert, Severity
from sentinel_site.kit.problems import NotFound, Problem
from sentinel_site.kit.tenancy import tenant_link

PAGE, MOST = 50, 1000


class NotAnAction(Problem):
    status, code, title = 400, "not-an-action", "This action is not known here"


class AlertaDoor(ForeignDoor):
    def handle_exception(self, exc: Exception) -> Response:
        """Alerta's form of an error."""
        if isinstance(exc, Problem):
            answer = entry.refusal(exc)
        elif isinstance(exc, APIException):  # a method that the path does not have
            answer = entry.alertas_error(exc.status_code, str(exc.detail), {})
        else:
            raise exc
        return Response(answer.body, status=answer.status, headers=dict(answer.headers))


class ConfigView(AlertaDoor):
    """What the command line asks for before anything else, without a key."""

    def get(self, request: Request) -> Response:
        return Response(
            {
                "alarm_model": {"name": "Sentinella", "severity": alerta.RANKS},
                "severity": alerta.RANKS,
                "auth_required": True,
                "timeouts": {"alert": alerta.TIMEOUT},
                "actions": list(_ACTIONS),
            }
        )


class StatusView(AlertaDoor):
    def get(self, request: Request) -> Response:
        now = timezone.now()
        with inside(self.reader(request)):
            count = Alert.objects.filter(resolved_at=None).count()
        gauge = {"group": "alerts", "name": "open", "title": "Open alerts", "type": "gauge"}
        return Response(
            {
                "application": "sentinella",
                "version": settings.SPECTACULAR_SETTINGS["VERSION"],
                "time": int(now.timestamp() * 1000),
                "uptime": 0,
                "metrics": [{**gauge, "value": count}],
            }
        )


class UserInfoView(AlertaDoor):
    def get(self, request: Request) -> Response:
        holder = self.reader(request)
        return Response(
            {"preferred_username": holder.slug, "scope": holder.scope, "sub": holder.id}
        )


class ReceiveView(AlertaDoor):
    def post(self, request: Request) -> Response:
        holder, now = self.sender(request), timezone.now()
        signal = alerta.parse(self.body(request), now)
        (answer,) = entry.take_alertas(holder.schema_name, [signal], now)
        return Response(answer.body, status=answer.status, headers=dict(answer.headers))


class AlertView(AlertaDoor):
    def get(self, request: Request, identity: str) -> Response:
        with inside(self.reader(request)) as tenant:
            shown = _shown(Alert.objects.filter(pk=_alert(identity).pk), tenant)[0]
        return Response({"status": "ok", "total": 1, "alert": shown})


class ActionView(AlertaDoor):
    """What an operator does to an alert is done to its incident; to close ends the one alert."""

    def put(self, request: Request, identity: str) -> Response:
        holder, now = self.operator(request), timezone.now()
        given = self.body(request)
        asked = given.get("action") or given.get("status") if isinstance(given, dict) else None
        action = _ACTIONS.get(str(asked))
        if action is None:
            raise NotAnAction(f"Use one of {', '.join(_ACTIONS)}.")
        with inside(holder) as tenant, transaction.atomic():
            alert = _alert(identity)
            action(alert, str(given.get("text") or ""), now)
            audit(access_of(holder, tenant), f"alert.{asked}", alert)
        return Response({"status": "ok"})


class AlertsView(AlertaDoor):
    def get(self, request: Request) -> Response:
        now = timezone.now()
        page, size = _whole(request, "page", 1), min(_whole(request, "page-size", PAGE), MOST)
        with inside(self.reader(request)) as tenant:
            found = alerta_query.matching(request._request.GET)
            counts = _counts(found)
            total = counts["total"]
            shown = _shown(found[(page - 1) * size : page * size], tenant)
        return Response(
            {
                **counts,
                "status": "ok",
                "alerts": shown,
                "page": page,
                "pageSize": size,
                "pages": -(-total // size),
                "more": page * size < total,
                "lastTime": max(
                    (one["lastReceiveTime"] for one in shown), default=alerta.stamp(now)
                ),
                "autoRefresh": True,
                **({} if shown else {"message": "not found"}),
            }
        )


class CountView(AlertaDoor):
    def get(self, request: Request) -> Response:
        with inside(self.reader(request)):
            counts = _counts(alerta_query.matching(request._request.GET))
        return Response({**counts, "status": "ok", "autoRefresh": True})


class HistoryView(AlertaDoor):
    """The lines of their incidents' history, newest first."""

    def get(self, request: Request) -> Response:
        page, size = _whole(request, "page", 1), min(_whole(request, "page-size", PAGE), MOST)
        with inside(self.reader(request)) as tenant:
            rows = alerta_query.matching(request._request.GET)
            rows = rows.prefetch_related("incident__event_set")[:MOST]
            lines = [
                {
                    **{name: shown[name] for name in _IN_HISTORY},
                    "severity": alerta.OURS[Severity(event.severity or alert.severity)],
                    "status": shown["status"],
                    "text": event.text or event.get_kind_display(),
                    "type": event.kind,
                    "updateTime": alerta.stamp(event.at),
                    "user": None,
                }
                for alert in rows
                for shown in [alerta.document(alert, _link(tenant, alert))]
                for event in alert.incident.event_set.all()
            ]
        lines.sort(key=lambda line: line["updateTime"], reverse=True)
        lines = lines[(page - 1) * size : page * size]
        return Response({"status": "ok", "history": lines, "total": len(lines)})


class UnknownView(AlertaDoor):
    """Whatever else an Alerta has."""

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        raise NotFound(
            "Sentinella speaks this part of Alerta: send, heartbeat, query, history, ack, unack,"
            " close, open, shelve, unshelve, note."
        )

    def get(self, request: Request, path: str) -> Response:
        raise NotFound

    post = put = delete = get


_IN_HISTORY = (
    *("id", "resource", "event", "environment", "service", "group", "value", "tags", "attributes"),
    *("origin", "customer"),
)


def _acknowledge(alert: Alert, text: str, now: datetime) -> None:
    incidents.acknowledge(alert.incident, None, now)


def _close(alert: Alert, text: str, now: datetime) -> None:
    if alert.resolved_at is not None:
        raise incidents.AlreadyResolved("alert is already in closed status")
    said = text or "Closed through Alerta's API."
    incidents.recover_all([incidents.Recovered(alert, None, said)], now, by_hand=True)


_ACTIONS: dict[str, Callable[[Alert, str, datetime], None]] = {
    "ack": _acknowledge,
    "close": _close,
    "closed": _close,
}


def _alert(identity: str) -> Alert:
    number = alerta.number_of(identity)
    found = Alert.objects.select_related("incident").filter(pk=number or 0).first()
    if found is None or not alerta.identity(found).startswith(identity):
        raise NotFound("not found")
    return found


def _shown(rows: QuerySet[Alert], tenant: Tenant) -> list[dict[str, Any]]:
    rows = rows.select_related("incident", "server__group", "received")
    return [alerta.document(alert, _link(tenant, alert)) for alert in rows]


def _link(tenant: Tenant, alert: Alert) -> str:
    return tenant_link(tenant, "alerts:incident", alert.incident_id)


def _counts(found: QuerySet[Alert]) -> dict[str, Any]:
    """How many there are, by Alerta's severities and statuses."""
    groups = (
        found.order_by()
        .annotate(
            closed=Q(resolved_at__isnull=False), taken=Q(incident__acknowledged_at__isnull=False)
        )
        .values("severity", "origin", "received__said__severity", "closed", "suppressed", "taken")
        .annotate(number=Count("pk"))
    )
    severities: Counter[str] = Counter()
    statuses: Counter[str] = Counter()
    for one in groups:
        told = one["received__said__severity"] if one["origin"] == alerta.ORIGIN else None
        severity = alerta.severity_of(one["severity"], told, is_closed=one["closed"])
        status = alerta.status(
            is_closed=one["closed"], is_muted=bool(one["suppressed"]), is_taken=one["taken"]
        )
        severities[severity] += one["number"]
        statuses[status] += one["number"]
    return {
        "total": sum(statuses.values()),
        "severityCounts": dict(severities),
        "statusCounts": dict(statuses),
    }


def _whole(request: Request, name: str, otherwise: int) -> int:
    text = request.query_params.get(name, "")
    if not text:
        return otherwise
    if not text.isdecimal() or not 0 < int(text[:9]) <= 10**8:
        raise alerta_query.NotAQuery(f"{name} must be a whole number from 1 on.")
    return int(text[:9])
