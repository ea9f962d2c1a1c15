"""Who is told what: rows in the transaction of the change, and workers asked to deliver them."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any, NamedTuple

import structlog
from celery import current_app
from django.db import transaction
from django.db.models import Min, Q, QuerySet
from django.db.models.functions import Coalesce
from django.utils import timezone
from kombu.exceptions import OperationalError

from accounts.timers import wake
from alerts import bulk
from alerts.dispatching import routes, substitutes
from alerts.models import (
    Alert,
    Escalation,
    Incident,
    Notification,
    NotificationChannel,
    Route,
    Severity,
)
from clouds import suppression
from clouds.suppression import NO_SERVER
from sentinel_site.kit.tenancy import current_schema

log = structlog.get_logger(__name__)

#: A worker that was asked and never came (a killed one, a lost message) is asked again after this.
AGAIN = timedelta(seconds=10)


class Told(NamedTuple):
    """A transition of an incident that people are to be told of, not before a time.

    `to` names the channels; without it the routes do.
    """

    incident: Incident
    transition: str
    not_before: datetime | None = None
    to: frozenset[int] | None = None


#: Transitions by which routes are asked anew, and their waiting for somebody begins.
_BEGINS = ("opened", "reopened", "raised", "unmuted")
#: Those that go to whoever knows of the incident; routes are asked where nobody does.
_GOES_ON = ("flapping", "calm", "returned")
_NEWS = _BEGINS + _GOES_ON
_WAITED_FOR = (*_BEGINS, "returned")
#: Those after which the waiting for somebody begins once more.
_BEGINS_ANEW = ("reopened", "unmuted", "returned")


def queue(
    incident: Incident, transition: str, at: datetime, not_before: datetime | None = None
) -> None:
    """The same for one transition of one incident."""
    queue_all([Told(incident, transition, not_before)], at)


def queue_all(told: Sequence[Told], at: datetime) -> None:
    """A row per transition and channel that wants to know, in the caller's transaction: the outbox.

    None while every server of the incident is in maintenance or blackout, but for its end, which
    goes to whoever got the problem; that there was something to tell is kept. The number of
    statements is the same for any number of transitions.
    """
    if not told:
        return
    incidents = [one.incident.pk for one in told]
    seen = _concerned(incidents)
    silent = _muted(seen, at)
    channels = list(NotificationChannel.objects.filter(enabled=True).select_related("fares"))
    others = substitutes.of_broken(channels)
    knows = _who_knows([pk for pk, one in zip(incidents, told, strict=True) if not _is_new(one)])
    known: dict[int, set[int]] = {}
    for incident, channel in knows:
        known.setdefault(incident, set()).add(channel)
    ways = routes.in_force()
    rows: list[dict[str, Any]] = []
    later: list[Escalation] = []
    untold: list[int] = []
    heard: list[int] = []
    for one in told:
        pk = one.incident.pk
        if pk in silent and not one.transition.startswith("resolved"):
            if one.transition.startswith(_NEWS):
                untold.append(pk)
            continue
        if _is_shelved(one, at):
            continue
        is_news = one.transition.startswith(_NEWS)
        if is_news and one.incident.untold:
            heard.append(pk)
        routed = one.to
        if routed is None and is_news:
            routed = _routed(one, seen.get(pk, ()), ways, channels, at, later)
            if one.transition.startswith(_GOES_ON) and pk in known:
                routed = frozenset(known[pk])
        wanting = {
            row.pk for row in channels if _wants(row, one, routed, row.pk in known.get(pk, ()))
        }
        rows += [
            {
                "incident_id": pk,
                "channel_id": taker,
                "transition": one.transition,
                "severity": str(one.incident.severity),
                "key": uuid.uuid4(),
                "state": Notification.State.WAITING.value,
                "created_at": at,
                "due_at": max(at, one.not_before or at),
                "attempts": 0,
                "error": "",
                "reference": "",
            }
            for taker in sorted(wanting | {others[pk] for pk in wanting & others.keys()})
        ]
    if untold:
        Incident.objects.filter(pk__among=untold).update(untold=True)
    if heard:  # what was kept back of them is told with this
        Incident.objects.filter(pk__among=heard).update(untold=False)
    schema = current_schema()
    anew = {one.incident.pk for one in told if one.transition.startswith(_BEGINS_ANEW)}
    _wait_for_somebody(later, anew - set(untold))
    first = bulk.insert(Notification, rows, _ONCE)
    if first is None:
        return
    due_at = min(row["due_at"] for row in rows)
    wake(schema, due_at)  # should the message below be lost
    if due_at <= at:
        transaction.on_commit(partial(_ask, schema, first))


#: Each channel is told of a transition once.
_ONCE = "ON CONFLICT (incident_id, channel_id, transition) DO NOTHING"


def _is_new(told: Told) -> bool:
    """Whether it is told to whoever wants to know, heard they of it or not."""
    return told.transition.startswith("opened:")


def _who_knows(incidents: Sequence[int]) -> set[tuple[int, int]]:
    """Incidents with channels that were told of them, or of one that was merged into them."""
    if not incidents:
        return set()
    rows = Notification.objects.filter(
        Q(incident__among=incidents) | Q(incident__merged_into__among=incidents)
    ).order_by()
    into = Coalesce("incident__merged_into", "incident")
    return set(rows.annotate(into=into).values_list("into", "channel").distinct())


#: Of an incident's alerts: server (or NO_SERVER), its cloud group, service.
_Seen = dict[int, set[tuple[int, int | None, str]]]


def _concerned(incidents: Iterable[int]) -> _Seen:
    seen: _Seen = {}
    rows = Alert.objects.filter(incident__among=incidents).order_by()
    for incident, server, group, service in rows.values_list(
        "incident", "server", "server__group", "service"
    ).distinct():
        seen.setdefault(incident, set()).add((server or NO_SERVER, group, service))
    return seen


def _muted(seen: _Seen, at: datetime) -> set[int]:
    """Those of which every server is in maintenance or blackout."""
    servers = {server for of_one in seen.values() for server, _, _ in of_one}
    quiet = set(suppression.active_for(servers, at))
    return {
        incident
        for incident, of_one in seen.items()
        if {server for server, _, _ in of_one} <= quiet
    }


def muted(incidents: Iterable[int], at: datetime) -> set[int]:
    """Those of these incidents of which nobody is told now."""
    return _muted(_concerned(incidents), at)


def _routed(
    one: Told,
    seen: Iterable[tuple[int, int | None, str]],
    ways: Sequence[Route],
    channels: Sequence[NotificationChannel],
    at: datetime,
    later: list[Escalation],
) -> frozenset[int] | None:
    """The channels that routes name for this transition; None: all. Adds what comes later."""
    if not ways:
        return None
    what = routes.About(
        Severity(one.incident.severity),
        frozenset(group for _, group, _ in seen if group is not None),
        frozenset(service for _, _, service in seen),
    )
    began = max(at, one.not_before or at)
    found: set[int] = set()
    for decision in routes.decide(ways, what, channels, at):
        route = decision.route
        if not decision.fits:
            continue
        found |= decision.channels()
        if route is None or not one.transition.startswith(_WAITED_FOR):
            continue
        taken = len([step for step in decision.steps if not step.after])
        steps = [step.after for step in decision.steps][taken:]
        if steps or route.repeat:
            next_at = began + (steps[0] if steps else route.repeat or timedelta())
            later.append(
                Escalation(
                    incident=one.incident, route=route, began_at=began, step=taken, next_at=next_at
                )
            )
    return frozenset(found)


def _wait_for_somebody(later: Sequence[Escalation], anew: Iterable[int]) -> None:
    """Keep what routes do about incidents that nobody takes; `anew` are counted from now on."""
    if anew:
        Escalation.objects.filter(incident__among=list(anew)).delete()
    if later:
        Escalation.objects.bulk_create(later, ignore_conflicts=True)
        wake(current_schema(), min(one.next_at for one in later))


def wait_again(incident: Incident, at: datetime) -> None:
    """Nobody has it any more: routes wait for somebody once more. Nobody is told of it now."""
    ways = routes.in_force()
    if not ways:
        return
    later: list[Escalation] = []
    seen = _concerned([incident.pk]).get(incident.pk, set())
    channels = list(NotificationChannel.objects.filter(enabled=True))
    _routed(Told(incident, "reopened"), seen, ways, channels, at, later)
    _wait_for_somebody(later, [incident.pk])


def withdraw(incident: Incident) -> int:
    """Drop what nobody began to send of an incident that was merged into another; how many.

    What is under way may have arrived: it is tried again under its key, and tells of the other.
    """
    return _drop(
        Notification.objects.filter(incident=incident, state=Notification.State.WAITING, attempts=0)
    )


def withdraw_held(incidents: Iterable[int], at: datetime) -> None:
    """Drop what was held back of incidents that are over: who was not told needs no more."""
    _drop(
        Notification.objects.filter(
            incident__among=list(incidents),
            state=Notification.State.WAITING,
            attempts=0,
            due_at__gt=at,
        )
    )


def _drop(rows: QuerySet[Notification]) -> int:
    """Delete these, but for those that a worker is just taking: they may arrive; how many."""
    held = rows.select_for_update(skip_locked=True).order_by("pk")
    keys = list(held.values_list("pk", flat=True))
    return Notification.objects.filter(pk__among=keys).delete()[0] if keys else 0


def hasten(incidents: Iterable[int], at: datetime) -> None:
    """Tell now what was held back of these incidents."""
    held = Notification.objects.filter(
        incident__among=list(incidents),
        state=Notification.State.WAITING,
        attempts=0,
        due_at__gt=at,
    )
    if held.update(due_at=at):
        schema = current_schema()
        wake(schema, at)
        transaction.on_commit(partial(hand_over, schema))


def _is_shelved(told: Told, at: datetime) -> bool:
    """Nobody hears of what is shelved, but that it is over."""
    until = told.incident.shelved_until
    return until is not None and until > at and not told.transition.startswith("resolved")


def _wants(
    channel: NotificationChannel, told: Told, routed: frozenset[int] | None, knows: bool
) -> bool:
    """Whether a channel is told: of an end who heard of the begin, else what is bad enough."""
    if told.transition.startswith("resolved"):
        return knows
    if told.transition.startswith("acknowledged"):
        return knows and channel.tells_acknowledged
    if told.transition.startswith(_GOES_ON) and knows:
        return True
    if routed is not None and channel.pk not in routed:
        return False
    return Severity(told.incident.severity).rank >= Severity(channel.least_severity).rank


def hand_over(schema: str) -> None:
    """Let workers deliver what is due in this schema; without a broker the next tick does."""
    ask_workers(schema, due_channels(timezone.now()))


def _ask(schema: str, first: int) -> None:
    """Let workers deliver what was queued from row `first` on.

    Where older rows wait to be taken a worker is on its way, and looks once more when it is done.
    """
    due = _due(timezone.now())
    older = set(due.filter(pk__lt=first).order_by().values_list("channel", flat=True).distinct())
    ask_workers(schema, [one for one in due_channels(timezone.now()) if one not in older])


def ask_workers(schema: str, channels: Iterable[int], eta: datetime | None = None) -> None:
    """One task a channel, so that none waits for another one's receiver."""
    for channel in channels:
        try:
            current_app.send_task(
                "alerts.tasks.notify",
                ([schema], channel),
                eta=eta,
                expires=60 if eta is None else eta + AGAIN,
                retry=False,
            )
        except OperationalError as error:
            log.warning("broker away; the next tick delivers", error=str(error))
            return


def has_due(now: datetime) -> bool:
    return _due(now).exists()


def due_channels(now: datetime) -> list[int]:
    """Channels to which something can be sent now: none is at it, none waits for its time."""
    return list(_due(now).order_by().values_list("channel", flat=True).distinct())


def _due(now: datetime) -> QuerySet[Notification]:
    waiting = Notification.objects.filter(state=Notification.State.WAITING, due_at__lte=now)
    return waiting.exclude(
        Q(channel__fares__next_at__gt=now) | Q(channel__fares__busy_until__gt=now)
    )


def next_due(now: datetime) -> datetime | None:
    """When to look at what waits: its time comes, or its worker should long have been at it."""
    waiting = Notification.objects.filter(state=Notification.State.WAITING).order_by()
    later = waiting.filter(due_at__gt=now).aggregate(first=Min("due_at"))["first"]
    rows = waiting.filter(due_at__lte=now).values_list(
        "channel", "channel__fares__next_at", "channel__fares__busy_until"
    )
    times = [
        max(one for one in (now + AGAIN if not held else None, *held) if one)
        for _, *found in rows.distinct()
        for held in [[one for one in found if one and one > now]]
    ]
    return min((one for one in (later, *times) if one), default=None)
