"""What pages say of incidents, counted by the database: one of a storm has thousands of alerts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from django.db.models import Case, Count, F, Max, Min, Q, QuerySet, Value, When, Window
from django.db.models.functions import Coalesce, RowNumber

from accounts import queries as accounts
from alerts.models import Alert, Event, Incident, Rule, Severity
from alerts.values import sentences
from clouds.models import Server

#: So many services of an incident are named.
NAMED = 3
#: Events that say what is wrong, or how bad it is since then.
SAYS_WHAT = (Event.Kind.OPENED, Event.Kind.RAISED, Event.Kind.LOWERED, Event.Kind.REOPENED)

#: `Alert.about` as the database works it out.
ABOUT = Case(
    When(~Q(service__in=Alert.OF_HOSTS), then=F("service")),
    When(subject__in=[" ".join(names) for names in sentences.OF_METRICS], then=Value("")),
    default=F("subject"),
)
#: Worst first, where rows have a severity.
WORST_FIRST = Case(
    *(When(severity=one.value, then=Value(-one.rank)) for one in Severity), default=Value(0)
)


def dressed(found: QuerySet[Incident]) -> list[Incident]:
    """Incidents with what pages say of them.

    `acknowledged_by` is a person, or words for a program; `server` the one that all its alerts
    are on, `host` what it is called; `about` the services or mounts of it that its title does not
    name; `seen` what was last said of it; `alert_count`.
    """
    rows = list(found)
    places = _places(rows)
    abouts = _abouts(rows)
    said = _said(rows)
    servers = Server.objects.select_related("group").in_bulk(
        [one.server for one in places.values() if one.server]
    )
    people = accounts.people(row.taken_by for row in rows if row.taken_by)
    for row in rows:
        place = places.get(row.pk, _NOWHERE)
        about = abouts.get(row.pk, "")
        dress: Any = row
        dress.server = servers.get(place.server or 0)
        dress.host = place.host
        dress.about = "" if about and about in row.title else about
        dress.seen = said.get(row.pk, "")
        dress.alert_count = place.alerts
        dress.acknowledged_by = (
            people.get(row.taken_by or 0, "a program") if row.acknowledged_at else None
        )
    return rows


class _Place(NamedTuple):
    """Where an incident is: on one server, on one thing of that name, or on several."""

    server: int | None
    host: str
    alerts: int


_NOWHERE = _Place(None, "", 0)


def _places(rows: Sequence[Incident]) -> dict[int, _Place]:
    counted = (
        Alert.objects.filter(incident__in=rows)
        .order_by()
        .values("incident")
        .annotate(
            alerts=Count("pk"),
            on_servers=Count("server"),
            first=Min("server"),
            last=Max("server"),
            first_host=Min(Coalesce("server__host", "resource")),
            last_host=Max(Coalesce("server__host", "resource")),
        )
    )
    return {
        row["incident"]: _Place(
            row["first"]
            if row["first"] == row["last"] and row["on_servers"] == row["alerts"]
            else None,
            row["first_host"] if row["first_host"] == row["last_host"] else "",
            row["alerts"],
        )
        for row in counted
    }


def _abouts(rows: Sequence[Incident]) -> dict[int, str]:
    """Which services, or what else of a server, the alerts are about: the first few by name."""
    sorts = (
        Alert.objects.filter(incident__in=rows)
        .exclude(rule__kind=Rule.Kind.SILENCE)
        .annotate(name=ABOUT)
        .exclude(name="")
        .order_by()
        .values("incident", "name")
        .annotate(first=Min("pk"))
        .annotate(
            place=Window(RowNumber(), partition_by="incident", order_by="first"),
            names=Window(Count("*"), partition_by="incident"),
        )
        .filter(place__lte=NAMED)
        .order_by("incident", "place")
    )
    named: dict[int, list[str]] = {}
    more: dict[int, int] = {}
    for row in sorts:
        named.setdefault(row["incident"], []).append(row["name"])
        more[row["incident"]] = row["names"] - NAMED
    return {
        pk: f"{', '.join(names)} and {more[pk]} more" if more[pk] > 0 else ", ".join(names)
        for pk, names in named.items()
    }


def _said(rows: Sequence[Incident]) -> dict[int, str]:
    """What was last said of each."""
    last = (
        Event.objects.filter(incident__in=rows, kind__in=SAYS_WHAT)
        .order_by("incident_id", "-at", "-pk")
        .distinct("incident_id")
    )
    return dict(last.values_list("incident", "text"))


#: So many sorts of symptoms are told apart; those of more alerts first.
SORTS = 40


def symptoms(row: Incident) -> list[dict[str, Any]]:
    """What follows from the cause: each sort once, with how many and on how many servers."""
    sorts = (
        Alert.objects.filter(incident=row, part=Alert.Part.SYMPTOM)
        .annotate(name=ABOUT)
        .order_by()
        .values("title", "name")
        .annotate(
            count=Count("pk"),
            servers=Count(Coalesce("server__host", "resource"), distinct=True),
            over=Count("resolved_at"),
        )
        .order_by("-count", "title", "name")
    )
    return [
        {
            "text": f"{one['title']}: {one['name']}" if one["name"] else one["title"],
            **{name: one[name] for name in ("count", "servers", "over")},
        }
        for one in sorts[:SORTS]
    ]


def symptom_count(row: Incident) -> int:
    return Alert.objects.filter(incident=row, part=Alert.Part.SYMPTOM).count()
