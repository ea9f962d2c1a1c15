"""Reads of alerts for pages."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Count, Prefetch, QuerySet

from accounts import queries as accounts
from alerts.models import Alert, Event, Incident, Notification, NotificationChannel, Rule, Severity
from clouds import queries as clouds
from clouds.models import Server

PAGE = 50
DAY = timedelta(days=1)


def incidents(state: str = "open", severity: str = "", before: int | None = None) -> list[Incident]:
    """A page of incidents with their alerts: open ones first by what is worst, others by time.

    `before` is the id after which the next page goes on.
    """
    found = _with_alerts(Incident.objects.all())
    if severity in Severity.values:
        found = found.filter(severity=severity)
    if state == "open":
        rows = list(found.filter(resolved_at=None)[:500])
        return sorted(rows, key=lambda one: (-Severity(one.severity).rank, -one.pk))
    if state == "resolved":
        found = found.filter(resolved_at__isnull=False)
    if before is not None:
        found = found.filter(pk__lt=before)
    return list(found.order_by("-pk")[: PAGE + 1])


def _with_alerts(found: QuerySet[Incident]) -> QuerySet[Incident]:
    alerts = Alert.objects.select_related("server", "rule").order_by("-pk")
    return found.prefetch_related(Prefetch("alert_set", queryset=alerts))


def incident(pk: int) -> Incident | None:
    return _with_alerts(Incident.objects.filter(pk=pk)).first()


def history(row: Incident) -> list[Event]:
    """Its lines with `person`, the name of who did it, or nothing."""
    events = list(row.event_set.all())
    names = accounts.names(event.by for event in events if event.by)
    for event in events:
        event.person = names.get(event.by or 0, "")  # type: ignore[attr-defined]
    return events


def deliveries(row: Incident) -> QuerySet[Notification]:
    return row.notification_set.select_related("channel").order_by("pk")


def dress(rows: Iterable[Incident]) -> None:
    """Give each incident what pages say of it: `acknowledged_by` (a name) and its `server`."""
    rows = list(rows)
    names = accounts.names(row.taken_by for row in rows if row.taken_by)
    for row in rows:
        servers = {alert.server for alert in row.alert_set.all()}
        row.server = servers.pop() if len(servers) == 1 else None  # type: ignore[attr-defined]
        taker = names.get(row.taken_by or 0, "a program") if row.acknowledged_at else ""
        row.acknowledged_by = taker  # type: ignore[attr-defined]


def open_counts() -> dict[str, int]:
    """Open incidents by severity, the worst first."""
    rows = (
        Incident.objects.filter(resolved_at=None)
        .values_list("severity")
        .annotate(number=Count("pk"))
    )
    counts = dict(rows)
    return {one.value: counts[one] for one in reversed(Severity) if one in counts}


def alerts_of(server_id: int, limit: int = 5, *, open_only: bool = False) -> list[Alert]:
    """The newest alerts of a server."""
    found = Alert.objects.filter(server=server_id).select_related("incident", "rule", "server")
    if open_only:
        found = found.filter(resolved_at=None)
    return list(found.order_by("-pk")[:limit])


def closed_since(server_id: int, since: datetime) -> int:
    return Alert.objects.filter(server=server_id, resolved_at__gte=since).count()


def worst_by_server() -> dict[int, Alert]:
    """The worst open alert of each server, the newest of equals."""
    worst: dict[int, Alert] = {}
    for alert in Alert.objects.filter(resolved_at=None).order_by("pk"):
        known = worst.get(alert.server_id)
        if known is None or Severity(alert.severity).rank >= Severity(known.severity).rank:
            worst[alert.server_id] = alert
    return worst


#: What a server or group is called by when several things are true of it, the worst first.
_STATES = ("critical", "error", "silent", "warning", "blackout", "maintenance", "info", "ok")


def state_of(server: Server) -> str:
    """One word for how a server is: its status where that is special, else its health."""
    if server.status == Server.Status.UP:
        return server.health
    return min(server.status, server.health, key=_STATES.index)


def groups_with_state() -> list[dict[str, Any]]:
    """Cloud groups with the worst state of their servers, the worst group first."""
    states: dict[int, str] = {}
    for server in clouds.fleet().exclude(group=None):
        known = states.get(server.group_id or 0, "ok")
        states[server.group_id or 0] = min(known, state_of(server), key=_STATES.index)
    rows = [
        {"pk": group.pk, "name": group.name, "state": states.get(group.pk, "ok")}
        for group in clouds.groups()
    ]
    return sorted(rows, key=lambda row: (_STATES.index(row["state"]), row["name"]))


def rules() -> QuerySet[Rule]:
    return Rule.objects.select_related("group", "server").order_by("name")


def channels() -> list[NotificationChannel]:
    """Each with `last`, its newest delivery, or None."""
    rows = list(NotificationChannel.objects.order_by("name"))
    for row in rows:
        row.last = row.notification_set.order_by("-pk").first()  # type: ignore[attr-defined]
    return rows
