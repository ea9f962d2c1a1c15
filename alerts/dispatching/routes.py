"""Which channels an incident goes to, now and later, and why: judged from what is given alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from zoneinfo import ZoneInfo

from django.db import transaction
from django.db.models import QuerySet

from accounts.access import Access, audit
from alerts.models import Incident, NotificationChannel, Route, RouteStep, Severity
from alerts.values.wording import span

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


@dataclass(frozen=True)
class About:
    """What routes look at: how bad it is, of which cloud groups and services."""

    severity: Severity
    groups: frozenset[int]
    services: frozenset[str]


@dataclass(frozen=True)
class Step:
    """Channels that are told after this time without anybody taking it."""

    after: timedelta
    channels: tuple[NotificationChannel, ...]


@dataclass(frozen=True)
class Answer:
    """What one route says to an incident; `route` is None for what holds without any."""

    route: Route | None
    why: str
    fits: bool
    steps: tuple[Step, ...] = ()

    def channels(self, upto: timedelta = timedelta()) -> set[int]:
        return {one.pk for step in self.steps if step.after <= upto for one in step.channels}


def in_force() -> list[Route]:
    """Routes in their order, with all that judging them needs."""
    return list(_whole(Route.objects.filter(enabled=True)))


def everything() -> list[Route]:
    """The same, with those that are switched off."""
    return list(_whole(Route.objects.all()))


def _whole(found: QuerySet[Route]) -> QuerySet[Route]:
    return found.prefetch_related("groups", "steps__channels")


def about(incident: Incident) -> About:
    """What routes look at, of an incident as it is now."""
    rows = incident.alert_set.values_list("server__group", "service").distinct()
    return About(
        Severity(incident.severity),
        frozenset(group for group, _ in rows if group is not None),
        frozenset(service for _, service in rows),
    )


def decide(
    routes: Sequence[Route], what: About, channels: Iterable[NotificationChannel], at: datetime
) -> list[Answer]:
    """What each route says, in order; routes behind the deciding one are not asked.

    Where none fits, the last answer is that of no route: every channel.
    """
    every = [one for one in channels if one.enabled]
    answers = []
    for route in routes:
        reason = _misfit(route, what, at) if route.enabled else "It is switched off."
        steps = tuple(
            Step(step.after, tuple(_wanting(step.channels.all(), what)))
            for step in route.steps.all()
        )
        why = reason or "It fits."
        answers.append(Answer(route, why, not reason, steps if not reason else ()))
        if not reason and not route.goes_on:
            return answers
    if not any(one.fits for one in answers):
        why = "No route fits: every channel is told." if routes else "Every channel is told."
        answers.append(Answer(None, why, True, (Step(timedelta(), tuple(_wanting(every, what))),)))
    return answers


def _wanting(channels: Iterable[NotificationChannel], what: About) -> list[NotificationChannel]:
    """Those that are switched on and take what is so bad."""
    rank = what.severity.rank
    return [one for one in channels if one.enabled and rank >= Severity(one.least_severity).rank]


def _misfit(route: Route, what: About, at: datetime) -> str:
    """Why a route does not fit, in words; nothing if it does."""
    if what.severity.rank < Severity(route.least_severity).rank:
        return f"It is for {route.get_least_severity_display().lower()} and worse."
    groups = {group.pk: group.name for group in route.groups.all()}
    if groups and not what.groups & groups.keys():
        return f"It is for {', '.join(sorted(groups.values()))}."
    if route.services and not any(
        fnmatchcase(service, pattern) for service in what.services for pattern in route.services
    ):
        return f"It is for the services {', '.join(route.services)}."
    if route.hours == Route.Hours.ALWAYS:
        return ""
    local = at.astimezone(ZoneInfo(route.zone))
    now = f"{_DAYS[local.isoweekday() - 1]} {local:%H:%M} in {route.zone}"
    works = works_at(route, at)
    if works and route.hours == Route.Hours.OUTSIDE:
        return f"It is for outside working hours, and it is {now}."
    if not works and route.hours == Route.Hours.DURING:
        return f"It is for working hours, and it is {now}."
    return ""


def works_at(route: Route, at: datetime) -> bool:
    """Whether it is in the route's working hours; those past midnight are their first day's."""
    local = at.astimezone(ZoneInfo(route.zone))
    today, clock = local.isoweekday(), local.time()
    yesterday = (today - 2) % 7 + 1
    if route.begins < route.ends:
        return str(today) in route.days and route.begins <= clock < route.ends
    return (str(today) in route.days and clock >= route.begins) or (
        str(yesterday) in route.days and clock < route.ends
    )


def in_words(route: Route) -> str:
    """What a route is for: `critical and worse, of Berlin, outside Mon-Fri 09:00-17:00`."""
    parts = [f"{route.get_least_severity_display().lower()} and worse"]
    groups = [group.name for group in route.groups.all()]
    if groups:
        parts.append(f"of {', '.join(groups)}")
    if route.services:
        parts.append(f"services {', '.join(route.services)}")
    if route.hours != Route.Hours.ALWAYS:
        days = ", ".join(_DAYS[int(day) - 1] for day in sorted(set(route.days)))
        parts.append(
            f"{route.hours} {days} {route.begins:%H:%M} to {route.ends:%H:%M} {route.zone}"
        )
    if route.repeat:
        parts.append(f"again every {span(route.repeat)}")
    return ", ".join(parts)


# -- changing them ------------------------------------------------------------


@transaction.atomic
def save_route(
    access: Access,
    route: Route,
    groups: Iterable[int],
    steps: Sequence[tuple[timedelta, Iterable[int]]],
) -> Route:
    """Store a validated route with its cloud groups and steps."""
    verb = "route.changed" if route.pk else "route.added"
    route.save()
    route.groups.set(list(groups))
    route.steps.all().delete()
    for after, channels in steps:
        RouteStep.objects.create(route=route, after=after).channels.set(list(channels))
    audit(access, verb, route)
    return route


@transaction.atomic
def delete_route(access: Access, route: Route) -> None:
    audit(access, "route.deleted", route)
    route.delete()
