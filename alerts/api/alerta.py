"""Alerta's API for those who send to an Alerta: alerts, heartbeats, queries, acknowledge, close.

The client is given `https://host/alerta` as its endpoint and a key of the organization. Errors are
in Alerta's form, so that its clients show them.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from django.conf import settings
from django.db.models import Count, Q, QuerySet
from django.utils import timezone
from rest_framework.exceptions import APIException
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.access import Access, audit
from accounts.models import Tenant
from alerts.api.foreign import ForeignDoor, access_of, inside
from alerts.doors import alerta, alerta_query, entry, pace
from alerts.doors import alerta_heartbeats as heartbeats
from alerts.jobs import checkins
from alerts.lifecycle import care, incidents
from alerts.models import Alert, CheckIn, Event, Severity
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
        statement = alerta.parse(self.body(request), now)
        pace.admit(holder.schema_name, [statement], time.monotonic())
        (answer,) = entry.take_alertas(holder.schema_name, [statement], now)
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
        fields = given if isinstance(given, dict) else {}
        name = fields.get("action") or _STATUSES.get(str(fields.get("status")))
        action = _ACTIONS.get(str(name))
        if action is None:
            raise NotAnAction(f"Use one of {', '.join(_ACTIONS)}.")
        asked = Asked(str(fields.get("text") or ""), alerta.shelved_for(fields), now)
        with inside(holder) as tenant, entry.briefly():
            action(access_of(holder, tenant), _alert(identity), asked)
        return Response({"status": "ok"})


class NoteView(AlertaDoor):
    """A note on an alert is a comment in its incident's history."""

    def put(self, request: Request, identity: str) -> Response:
        holder, now = self.operator(request), timezone.now()
        given = self.body(request)
        text = str(given.get("text") or "") if isinstance(given, dict) else ""
        with inside(holder) as tenant, entry.briefly():
            alert = _alert(identity)
            care.comment(access_of(holder, tenant), alert.incident, text, now)
        note = {
            "id": alerta.identity(alert),
            "text": text,
            "user": None,
            "type": "alert",
            "createTime": alerta.stamp(now),
            "updateTime": None,
            "related": {"alert": alerta.identity(alert)},
        }
        return Response({"status": "ok", "id": note["id"], "note": note}, status=201)


class HeartbeatsView(AlertaDoor):
    """Heartbeats are check-ins, named by their origin."""

    def get(self, request: Request) -> Response:
        now = timezone.now()
        with inside(self.reader(request)):
            shown = [heartbeats.document(row, now) for row in CheckIn.objects.all()[:MOST]]
        return Response({"status": "ok", "heartbeats": shown, "total": len(shown)})

    def post(self, request: Request) -> Response:
        holder, now = self.sender(request), timezone.now()
        heartbeat = heartbeats.parse(self.body(request), now)
        pace.admit_heartbeat(holder.schema_name, time.monotonic())
        with inside(holder) as tenant, entry.briefly():
            row = heartbeats.take(access_of(holder, tenant), heartbeat, now)
            shown = heartbeats.document(row, now)
        return Response({"status": "ok", "id": shown["id"], "heartbeat": shown}, status=201)


class HeartbeatView(AlertaDoor):
    def get(self, request: Request, identity: str) -> Response:
        now = timezone.now()
        with inside(self.reader(request)):
            shown = heartbeats.document(_check_in(identity), now)
        return Response({"status": "ok", "total": 1, "heartbeat": shown})

    def delete(self, request: Request, identity: str) -> Response:
        holder, now = self.operator(request), timezone.now()
        with inside(holder) as tenant, entry.briefly():
            checkins.delete(access_of(holder, tenant), _check_in(identity), now)
        return Response({"status": "ok"})


class AlertsView(AlertaDoor):
    def get(self, request: Request) -> Response:
        now = timezone.now()
        page, size = _whole(request, "page", 1), min(_whole(request, "page-size", PAGE), MOST)
        with inside(self.reader(request)) as tenant, alerta_query.in_time():
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
        with inside(self.reader(request)), alerta_query.in_time():
            counts = _counts(alerta_query.matching(request._request.GET))
        return Response({**counts, "status": "ok", "autoRefresh": True})


class HistoryView(AlertaDoor):
    """The lines of their incidents' history, newest first."""

    def get(self, request: Request) -> Response:
        page, size = _whole(request, "page", 1), min(_whole(request, "page-size", PAGE), MOST)
        with inside(self.reader(request)) as tenant, alerta_query.in_time():
            found = alerta_query.matching(request._request.GET).order_by()
            pairs = (
                Event.objects.filter(incident__alert__in=found.values("pk"))
                .order_by("-at", "-pk", "-incident__alert")
                .values_list("pk", "incident__alert")[(page - 1) * size : page * size]
            )
            numbers = list(pairs)
            events = Event.objects.in_bulk([event for event, _ in numbers])
            rows = Alert.objects.filter(pk__in={alert for _, alert in numbers})
            shown = {alerta.number_of(one["id"]): one for one in _shown(rows, tenant)}
            lines = [
                _line(events[event], shown[alert])
                for event, alert in numbers
                if alert in shown and event in events  # retention may be at them
            ]
        return Response({"status": "ok", "history": lines, "total": len(lines)})


def _line(event: Event, shown: Mapping[str, Any]) -> dict[str, Any]:
    """A line of history of an alert, as Alerta shows it."""
    told = alerta.OURS[Severity(event.severity)] if event.severity else shown["severity"]
    return {
        **{name: shown[name] for name in _IN_HISTORY},
        "severity": told,
        "status": shown["status"],
        "text": event.text or event.get_kind_display(),
        "type": event.kind,
        "updateTime": alerta.stamp(event.at),
        "user": None,
    }


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


class Asked(NamedTuple):
    """What comes with an action; `timeout` in seconds, None where none is given."""

    text: str
    timeout: int | None
    at: datetime


_IN_HISTORY = (
    *("id", "resource", "event", "environment", "service", "group", "value", "tags", "attributes"),
    *("origin", "customer"),
)


def _acknowledge(access: Access, alert: Alert, asked: Asked) -> None:
    care.acknowledge(access, alert.incident, asked.at)


def _release(access: Access, alert: Alert, asked: Asked) -> None:
    care.release(access, alert.incident, asked.at)


def _shelve(access: Access, alert: Alert, asked: Asked) -> None:
    until = asked.at + timedelta(seconds=asked.timeout or alerta.SHELVED)
    care.shelve(access, alert.incident, until, asked.text, asked.at)


def _unshelve(access: Access, alert: Alert, asked: Asked) -> None:
    care.unshelve(access, alert.incident, asked.at)


def _close(access: Access, alert: Alert, asked: Asked) -> None:
    """Ends the one alert; its incident goes on while others of it are open."""
    incidents.one_at_a_time()
    if not Alert.objects.filter(pk=alert.pk, resolved_at=None).exists():
        raise incidents.AlreadyResolved("alert is already in closed status")
    said = asked.text or "Closed through Alerta's API."
    incidents.recover_all([incidents.Recovered(alert, None, said)], asked.at, by_hand=True)
    audit(access, "alert.closed", alert)


_ACTIONS: dict[str, Callable[[Access, Alert, Asked], None]] = {
    "ack": _acknowledge,
    "unack": _release,
    "open": _release,
    "shelve": _shelve,
    "unshelve": _unshelve,
    "close": _close,
}
#: What `status` may be set to, as actions.
_STATUSES = {"ack": "ack", "open": "open", "shelved": "shelve", "closed": "close"}


def _alert(identity: str) -> Alert:
    number = alerta.number_of(identity)
    found = Alert.objects.select_related("incident").filter(pk=number or 0).first()
    if found is None or not alerta.identity(found).startswith(identity):
        raise NotFound("not found")
    return found


def _check_in(identity: str) -> CheckIn:
    found = CheckIn.objects.filter(pk=alerta.number_of(identity) or 0).first()
    if found is None:
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
            closed=Q(resolved_at__isnull=False),
            shelved=Q(incident__shelved_until__isnull=False),
            taken=Q(incident__acknowledged_at__isnull=False),
        )
        .values(
            *("severity", "origin", "received__said__severity", "suppressed"),
            *("closed", "shelved", "taken"),
        )
        .annotate(number=Count("pk"))
    )
    severities: Counter[str] = Counter()
    statuses: Counter[str] = Counter()
    for one in groups:
        told = one["received__said__severity"] if one["origin"] == alerta.ORIGIN else None
        severity = alerta.severity_of(one["severity"], told, is_closed=one["closed"])
        status = alerta.status(
            is_closed=one["closed"],
            is_shelved=one["shelved"],
            is_muted=bool(one["suppressed"]),
            is_taken=one["taken"],
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
