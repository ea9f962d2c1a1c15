"""Notices: what happened in all cloud groups that people were told of, and who has read it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from django.db.models import Q, QuerySet, Subquery, Value
from django.db.models.functions import Coalesce

from accounts import queries as accounts
from alerts.models import Event, Incident, Reader
from sentinel_site.kit.tenancy import connection

#: As many are shown, ...
SHOWN = 20
#: ... and as many are counted.
MOST = 99
KINDS = (
    Event.Kind.OPENED,
    Event.Kind.REOPENED,
    Event.Kind.RAISED,
    Event.Kind.ACKNOWLEDGED,
    Event.Kind.FLAPPING,
    Event.Kind.CALM,
    Event.Kind.RETURNED,
    Event.Kind.UNMUTED,
    Event.Kind.RESOLVED,
)


@dataclass(frozen=True)
class Notice:
    """One line of an incident's history, as the bell shows it."""

    id: int
    kind: str
    at: datetime
    incident: int
    title: str
    severity: str
    text: str
    by: str
    is_unread: bool


def newest(user: int | None, limit: int = SHOWN, before: int | None = None) -> list[Notice]:
    """The newest notices, without one's own doings; for no user all are read."""
    found = _of_others(user).select_related("incident").order_by("-pk")
    if before is not None:
        found = found.filter(pk__lt=before)
    rows = list(found[:limit])
    known = Reader.objects.filter(user=user).values_list("event", flat=True) if user else None
    read = known.first() if known is not None else None
    people = accounts.people({row.by for row in rows if row.by})
    return [
        Notice(
            id=row.pk,
            kind=row.kind,
            at=row.at,
            incident=row.incident_id,
            title=row.incident.title,
            severity=row.severity or row.incident.severity,
            text=row.text or row.get_kind_display().capitalize(),
            by=str(people.get(row.by or 0, "")),
            is_unread=user is not None and row.pk > (read or 0),
        )
        for row in rows
    ]


def unread(user: int) -> int:
    """How many notices somebody has not read; MOST + 1 stands for more than MOST."""
    read = Coalesce(Subquery(Reader.objects.filter(user=user).values("event")), Value(0))
    return _of_others(user).filter(pk__gt=read).order_by("-pk")[: MOST + 1].count()


def read(user: int, event: int) -> None:
    """Somebody has read all to this event; what was read stays so."""
    with connection.cursor() as cursor:
        cursor.execute(
            f'INSERT INTO "{Reader._meta.db_table}" AS known ("user", event)'  # noqa: S608  our own name
            " VALUES (%s, least(%s, (SELECT coalesce(max(id), 0) FROM alerts_event)))"
            ' ON CONFLICT ("user") DO UPDATE SET event = greatest(known.event, excluded.event)',
            [user, event],
        )


def _of_others(user: int | None) -> QuerySet[Event]:
    """What people are told of: of what is muted or belongs to another incident they are not."""
    shown = Incident.objects.filter(untold=False, merged_into=None)
    found = Event.objects.filter(kind__in=KINDS, incident__in=shown)
    return found.filter(Q(by=None) | ~Q(by=user)) if user is not None else found
