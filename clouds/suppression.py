"""Maintenance and blackout: when nobody is told of a server's alerts, and who decided it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

from django.db import models, transaction
from django.db.models import F, Min, Q

from accounts.timers import wake
from clouds.models import Server, Suppression
from clouds.signals import server_changed
from sentinel_site.kit.problems import Problem
from sentinel_site.kit.tenancy import current_schema

#: The longest that one may last which has an end.
LONGEST = timedelta(days=365)


class NotASpan(Problem):
    status, code, title = 422, "not-a-span", "This is no time that can be suppressed"


class Retired(Problem):
    status, code, title = 409, "retired", "The server is retired"


@dataclass(frozen=True)
class Decision:
    """Who says so and why: a person, or a program's key."""

    reason: str
    by: int | None = None
    by_key: int | None = None


def start_maintenance(
    server: Server, decision: Decision, at: datetime, until: datetime | None
) -> Suppression:
    """Planned work from `at` on: alerts are recorded as suppressed and nobody is told.

    One that is under way is replaced. Raises NotASpan, Retired.
    """
    return _start(server, Suppression.Kind.MAINTENANCE, decision, at, until)


def black_out(
    server: Server, decision: Decision, at: datetime, until: datetime | None
) -> Suppression:
    """Someone is at it from `at` on: alerts open as usual and nobody is told.

    One that is under way is replaced. Raises NotASpan, Retired.
    """
    return _start(server, Suppression.Kind.BLACKOUT, decision, at, until)


@transaction.atomic
def _start(
    server: Server,
    kind: Suppression.Kind,
    decision: Decision,
    at: datetime,
    until: datetime | None,
) -> Suppression:
    if until is not None and not at < until <= at + LONGEST:
        raise NotASpan(f"It must end after it begins, and within {LONGEST.days} days.")
    held = Server.objects.select_for_update().get(pk=server.pk)
    if held.status == Server.Status.RETIRED:
        raise Retired(server=server.pk)
    _under_way().filter(server=held, kind=kind).update(ended_at=at)
    made = Suppression.objects.create(
        server=held,
        kind=kind,
        reason=decision.reason,
        by=decision.by,
        by_key=decision.by_key,
        since=at,
        until=until,
    )
    _settle_status(held, at)
    if until is not None:
        wake(current_schema(), until)
    return made


@transaction.atomic
def end(server: Server, kind: Suppression.Kind, at: datetime) -> bool:
    """End it before its time; False if there was none."""
    held = Server.objects.select_for_update().get(pk=server.pk)
    ended = _under_way().filter(server=held, kind=kind).update(ended_at=at)
    if ended:
        _settle_status(held, at)
        wake(current_schema(), at)
    return bool(ended)


@transaction.atomic
def expire(at: datetime) -> None:
    """End what is over. Done with every evaluation; `active_for` doesn't wait for it."""
    over = _under_way().filter(until__lte=at)
    concerned = over.values_list("server", flat=True)
    # The servers' rows first, as whoever starts or ends one does: else the two could block.
    held = list(Server.objects.select_for_update().filter(pk__in=list(concerned)).order_by("pk"))
    if held:
        over.filter(server__in=held).update(ended_at=F("until"))
    for server in held:
        _settle_status(server, at)


def active_for(servers: Iterable[int], at: datetime) -> dict[int, Suppression]:
    """What holds for these servers at this time; maintenance goes before blackout."""
    found: dict[int, Suppression] = {}
    for one in _holding(at).filter(server__in=list(servers)):
        known = found.get(one.server_id)
        if known is None or known.kind == Suppression.Kind.BLACKOUT:
            found[one.server_id] = one
    return found


def next_end(at: datetime) -> datetime | None:
    """When the next one that is under way ends by itself."""
    found: datetime | None = (
        _under_way().filter(until__gt=at).aggregate(first=Min("until"))["first"]
    )
    return found


def _under_way() -> models.QuerySet[Suppression]:
    return Suppression.objects.filter(ended_at=None)


def _holding(at: datetime) -> models.QuerySet[Suppression]:
    return Suppression.objects.filter(
        Q(ended_at=None) | Q(ended_at__gt=at), Q(until=None) | Q(until__gt=at), since__lte=at
    )


def _settle_status(server: Server, at: datetime) -> None:
    """Give the server the status of what holds; without anything it is up until it is silent."""
    holds = active_for([server.pk], at).get(server.pk)
    status = Server.Status(holds.kind) if holds else Server.Status.UP
    if holds is None and server.status in (Server.Status.SILENT, Server.Status.RETIRED):
        return
    changed = Server.objects.filter(pk=server.pk).exclude(status=status)
    if changed.update(status=status, status_since=at):
        server.status, server.status_since = status, at
    transaction.on_commit(
        partial(server_changed.send, sender=Server, schema=current_schema(), server_id=server.pk)
    )
