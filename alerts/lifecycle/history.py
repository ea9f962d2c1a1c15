"""Lines of an incident's history, and the notifications that go with them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import NamedTuple

from django.db.models import Count

from accounts.models import User
from alerts import bulk
from alerts.dispatching import dispatch
from alerts.models import Event, Incident


class Line(NamedTuple):
    """One line, and the transition that people are told of by it; empty: nobody is."""

    incident: Incident
    kind: Event.Kind
    text: str
    transition: str = ""
    not_before: datetime | None = None


def write(lines: Sequence[Line], at: datetime, by: User | None = None) -> None:
    """Write the lines and queue their notifications, in the caller's transaction."""
    bulk.insert(
        Event,
        [
            {
                "incident_id": line.incident.pk,
                "kind": str(line.kind),
                "at": at,
                "text": bulk.fit(line.text, 2000),
                "by": by.pk if by else None,
                "severity": str(line.incident.severity),
            }
            for line in lines
        ],
    )
    dispatch.queue_all(
        [
            dispatch.Told(line.incident, line.transition, line.not_before)
            for line in lines
            if line.transition
        ],
        at,
    )


def times(incidents: Iterable[int], kind: Event.Kind) -> Counter[int]:
    """How often each of these incidents had a line of this kind."""
    rows = Event.objects.filter(incident__among=incidents, kind=kind).values_list("incident")
    return Counter(dict(rows.annotate(number=Count("pk"))))
