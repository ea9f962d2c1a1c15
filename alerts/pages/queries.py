"""Reads of alerts for pages."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Case, Count, Exists, F, Max, OuterRef, QuerySet, When

from accounts import queries as accounts
from alerts.models import Alert, Incident, Notification, NotificationChannel, Rule, Severity
from alerts.pages import dressing
from alerts.pages.dressing import SAYS_WHAT, WORST_FIRST
from clouds import queries as clouds
from clouds.models import Server

PAGE = 50
MOST_OPEN = 500
DAY = timedelta(days=1)


def incidents(
    state: str = "open",
    severity: str = "",
    *,
    server_id: int | None = None,
    group_id: int | None = None,
    before: int | None = None,
    limit: int = PAGE,
) -> list[Incident]:
    """Incidents as pages show them: open ones with the worst first, closed ones by time.

    `before` is the id behind which the next page goes on.
    """
    of_it = Alert.objects.filter(incident=OuterRef("pk"))
    found = Incident.objects.filter(resolved_at__isnull=state == "open")
    if severity in Severity.values:
        found = found.filter(severity=severity)
    if server_id is not None:
        found = found.filter(Exists(of_it.filter(server=server_id)))
    if group_id is not None:
        found = found.filter(Exists(of_it.filter(server__group=group_id)))
    if before is not None:
        found = found.filter(pk__lt=before)
    if state == "open":
        found = found.order_by(WORST_FIRST, "-pk")
    return dressing.dressed(found[:limit])


def incident(pk: int) -> Incident | None:
    return next(iter(dressing.dressed(Incident.objects.filter(pk=pk))), None)


def neighbours(row: Incident) -> dict[str, Incident | None]:
    """The open incidents `before` and `after` it in the list; after a closed one, the first."""
    found = Incident.objects.filter(resolved_at=None).order_by(WORST_FIRST, "-pk")
    listed = list(found.only("pk", "title", "severity")[:MOST_OPEN])
    place = next((n for n, one in enumerate(listed) if one.pk == row.pk), -1)
    return {
        "before": listed[place - 1] if place > 0 else None,
        "after": next(iter(listed[place + 1 : place + 2]), None),
    }


#: So many alerts and lines of history an incident's page shows; the others are counted.
SHOWN = 200


def alerts_in(row: Incident) -> list[Alert]:
    """The first alerts of an incident: its cause, then the worst."""
    found = Alert.objects.filter(incident=row).select_related("server__group", "rule", "received")
    found = found.defer("received__said")  # may be long, and is not shown
    cause_first = Case(When(part=Alert.Part.CAUSE, then=0), default=1)
    return list(found.order_by(cause_first, WORST_FIRST, "pk")[:SHOWN])


def history(row: Incident) -> list[dict[str, Any]]:
    """What happened lately, newest first, with who was told."""
    events = list(row.event_set.order_by("-at", "-pk")[:SHOWN])
    people = accounts.people(event.by for event in events if event.by)
    lines: list[dict[str, Any]] = [
        {
            "at": event.at,
            "kind": event.kind,
            "text": event.text or event.get_kind_display().capitalize(),
            "by": people.get(event.by or 0),
            "severity": event.severity if event.kind in SAYS_WHAT else "",
        }
        for event in reversed(events)
    ]
    for told in row.notification_set.select_related("channel").order_by("-pk")[:SHOWN]:
        if told.state == Notification.State.SENT:
            text, note = f"{told.channel} was told", told.transition.split(":")[0]
        elif told.state == Notification.State.FAILED:
            text, note = f"{told.channel} could not be told", told.error
        else:
            text, note = f"{told.channel} is being told", told.error
        at = told.sent_at or told.created_at
        lines.append({"at": at, "kind": "told", "text": text, "note": note, "severity": ""})
    return sorted(lines, key=lambda line: line["at"], reverse=True)


def closed_count() -> int:
    return Incident.objects.filter(resolved_at__isnull=False).count()


def last_closed_at() -> datetime | None:
    last: datetime | None = Incident.objects.aggregate(last=Max("resolved_at"))["last"]
    return last


def open_counts() -> dict[str, int]:
    """Open incidents by severity, the worst first."""
    rows = (
        Incident.objects.filter(resolved_at=None)
        .values_list("severity")
        .annotate(number=Count("pk"))
    )
    counts = dict(rows)
    return {one.value: counts[one] for one in reversed(Severity) if one in counts}


def untaken_count() -> int:
    """Open incidents that nobody has acknowledged."""
    return Incident.objects.filter(resolved_at=None, acknowledged_at=None).count()


def alerts_of(server_id: int, limit: int) -> list[Alert]:
    """The newest alerts of a server, open ones first."""
    found = Alert.objects.filter(server=server_id).select_related("server")
    return list(found.order_by(F("resolved_at").desc(nulls_first=True), "-pk")[:limit])


def worst_by_server(server_ids: Iterable[int]) -> dict[int, Alert]:
    """The worst open alert of each of these servers, the newest of equals."""
    found = Alert.objects.filter(resolved_at=None, server__in=server_ids)
    worst = found.order_by("server_id", WORST_FIRST, "-pk").distinct("server_id")
    return {alert.server_id: alert for alert in worst if alert.server_id}


def open_alerts_on(server_id: int) -> dict[str, int]:
    """How many alerts of each severity are open on a server, the worst first."""
    found = Alert.objects.filter(resolved_at=None, server=server_id).order_by()
    counts = dict(found.values_list("severity").annotate(number=Count("pk")))
    return {one.value: counts.get(one, 0) for one in reversed(Severity)}


#: What a server or group is called by when several things are true of it, the worst first.
_STATES = ("critical", "error", "silent", "warning", "blackout", "maintenance", "info", "ok")


def state_of(server: Server) -> str:
    """One word for how a server is: its status where that is special, else its health."""
    if server.status == Server.Status.UP:
        return server.health
    return min(server.status, server.health, key=_STATES.index)


def worst_of(servers: Iterable[Server]) -> str:
    """One word for how servers are together: the worst of their states."""
    return min((state_of(server) for server in servers), key=_STATES.index, default="ok")


def badness(server: Server) -> int:
    """Sorts servers: the worst state first."""
    return _STATES.index(state_of(server))


def open_alerts_by_server() -> dict[int, int]:
    on_servers = Alert.objects.filter(resolved_at=None, server__isnull=False)
    rows = on_servers.values_list("server").annotate(n=Count("pk"))
    return dict(rows)


def alerts_between(server_id: int, start: datetime, end: datetime) -> list[Alert]:
    """Alerts that were open at some time between these."""
    return list(
        Alert.objects.filter(server=server_id, opened_at__lt=end)
        .exclude(resolved_at__lt=start)
        .order_by("opened_at")[:200]
    )


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
    """Each with `last`, its newest delivery or None, and `bounce`, why its mail came back."""
    rows = list(NotificationChannel.objects.select_related("fares").order_by("name"))
    for row in rows:
        dress: Any = row
        dress.last = row.notification_set.order_by("-pk").first()
        dress.bounce = row.fares.bounce if hasattr(row, "fares") else ""
    return rows


def muted() -> dict[str, int]:
    """How many servers nobody is told of, and how many open alerts that has kept back."""
    quiet = Server.objects.filter(status__in=[Server.Status.MAINTENANCE, Server.Status.BLACKOUT])
    untold = Alert.objects.filter(resolved_at=None).exclude(suppressed="")
    return {"servers": quiet.count(), "untold": untold.count()}
