"""Alerta's heartbeats, both ways: whoever sends one has a check-in here, named by its origin."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db import transaction

from accounts.access import Access
from alerts.doors import alerta
from alerts.jobs import checkins
from alerts.jobs.checkins import Ping
from alerts.lifecycle import incidents
from alerts.models import CheckIn, Severity
from sentinel_site.kit.problems import Problem

#: What a heartbeat may be late; check-ins know no shorter periods and graces.
GRACE = timedelta(minutes=1)
SHORTEST = timedelta(minutes=1)
#: So many check-ins may be made by heartbeats alone.
MOST = 1000


class TooManyHeartbeats(Problem):
    status, code, title = 429, "too-many-heartbeats", "Too many heartbeats of different origins"
    headers = {"Retry-After": "3600"}


class NotAHeartbeat(Problem):
    status, code, title = 409, "not-a-heartbeat", "A check-in of this name is not of heartbeats"


@dataclass(frozen=True)
class Heartbeat:
    """Somebody lives, and will say so again within `period`."""

    origin: str
    period: timedelta
    severity: Severity


def parse(given: Any, now: datetime) -> Heartbeat:
    """As `POST /heartbeat` takes it. Raises NotAnAlert, which says what to mend."""
    said = alerta.fields(given, now, ("origin",))
    severity = alerta.SEVERITIES.get(said["attributes"].get("severity", "major"))
    if severity is None:
        raise alerta.NotAnAlert("attributes.severity must be a severity of what is wrong")
    return Heartbeat(
        origin=said["origin"][:120],
        period=max(timedelta(seconds=said["timeout"] or alerta.TIMEOUT), SHORTEST),
        severity=severity,
    )


@transaction.atomic
def take(access: Access, heartbeat: Heartbeat, at: datetime) -> CheckIn:
    """Note that it came; the first makes the check-in, and its period is the last one's.

    Raises TooManyHeartbeats; NotAHeartbeat where people made a check-in of that name.
    """
    incidents.one_at_a_time()  # two may be the first
    row = CheckIn.objects.filter(name=heartbeat.origin).first()
    if row is None:
        if CheckIn.objects.count() >= MOST:
            raise TooManyHeartbeats(f"{MOST} are expected already; delete some under Check-ins.")
        row = CheckIn(
            name=heartbeat.origin,
            period=heartbeat.period,
            grace=GRACE,
            severity=heartbeat.severity,
            by_heartbeats=True,
        )
        checkins.save(access, row, at)
    elif not row.by_heartbeats:
        raise NotAHeartbeat(
            f"{row.name} is a check-in that people made; it is told by its own address."
        )
    elif row.period is not None and row.period != heartbeat.period:
        row.period = heartbeat.period
        row.save(update_fields=["period"])  # what follows reckons from it
    checkins.note(row.secret, Ping.SUCCESS, at)
    row.refresh_from_db()
    return row


def document(row: CheckIn, at: datetime) -> Mapping[str, Any]:
    """A check-in as Alerta shows a heartbeat."""
    came = row.came_at or row.created_at
    return {
        "id": f"{row.pk:08x}-0000-8000-8000-000000000000",
        "origin": row.name,
        "tags": [],
        "attributes": {},
        "type": "Heartbeat",
        "createTime": alerta.stamp(came),
        "receiveTime": alerta.stamp(came),
        "timeout": int(row.period.total_seconds()) if row.period else alerta.TIMEOUT,
        "maxLatency": 2000,
        "latency": 0,
        "since": int((at - came).total_seconds()),
        "status": "ok" if row.state_at(at) == CheckIn.State.UP else "expired",
        "customer": None,
    }
