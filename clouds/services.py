"""The state of each service on each server, as reports tell it, in the order of their times."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Protocol

from django.db import transaction
from django.db.models import Exists, OuterRef

from clouds import history
from clouds.models import Server, Service

NOT_REPORTED = "Its agent does not report it any more."
FORGET_AFTER = timedelta(days=1)
GIVEN_UP_AFTER = timedelta(minutes=1)


class StateLike(Protocol):
    """What an agent says of one service."""

    @property
    def name(self) -> str: ...
    @property
    def project(self) -> str: ...
    @property
    def state(self) -> str: ...
    @property
    def workers(self) -> int: ...
    @property
    def detail(self) -> str: ...


@transaction.atomic
def note_states(
    server: Server, states: Iterable[StateLike], at: datetime, *, complete: bool = True
) -> None:
    """Note how services are at a time; what was said of a later time stays.

    With `complete`, a service that is not named any more becomes unknown, and is forgotten after
    a day of that; its "has been up" is kept until then, so that an agent which restarts while a
    service is down does not make it one that never ran.
    """
    rows = {row.name: row for row in Service.objects.select_for_update().filter(server=server)}
    named = {state.name: state for state in states}
    changed: dict[str, str] = {}
    for name, state in sorted(named.items()):
        row = rows.get(name)
        if row is None:
            _first(server, state, at)
            changed[name] = state.state
        elif row.seen_at <= at:
            if row.state != state.state:
                changed[name] = state.state
            _again(row, state.state, at, state.project, state.workers, state.detail)
    if complete:
        for name, row in rows.items():
            if name not in named and row.seen_at <= at:
                changed |= _missing(row, at)
    history.note_states(server.pk, changed, at)


def given_up(at: datetime) -> set[tuple[int, str]]:
    """Server and name of what agents watch no longer, and meant to, in the current schema.

    An agent tells it by naming other services of its server and not this one, for two of its
    intervals, or for GIVEN_UP_AFTER: a collection that broke off half-way is made up for by then.
    Of an agent that names none at all, nothing is known.
    """
    others = Service.objects.filter(
        server=OuterRef("server"), seen_at__gte=OuterRef("since")
    ).exclude(detail=NOT_REPORTED)
    left = Service.objects.filter(
        Exists(others), state=Service.State.UNKNOWN, detail=NOT_REPORTED
    ).values_list("server", "name", "since", "server__interval")
    return {
        (server, name)
        for server, name, since, interval in left
        if at - since >= max(GIVEN_UP_AFTER, 2 * interval)
    }


def _first(server: Server, state: StateLike, at: datetime) -> None:
    is_up = state.state == Service.State.UP
    Service.objects.get_or_create(
        server=server,
        name=state.name,
        defaults={
            "project": state.project[:60],
            "state": state.state,
            "since": at,
            "seen_at": at,
            "seen_up_at": at if is_up else None,
            "workers": state.workers,
            "detail": state.detail[:400],
        },
    )


def _again(row: Service, state: str, at: datetime, project: str, workers: int, detail: str) -> None:
    if row.state != state:
        row.state, row.since = state, at
    row.project = project[:60] or row.project
    row.workers, row.detail, row.seen_at = workers, detail[:400], at
    if state == Service.State.UP:
        row.seen_up_at = at
    row.save()


def _missing(row: Service, at: datetime) -> dict[str, str]:
    """What that changes in its history."""
    if row.state == Service.State.UNKNOWN and row.detail == NOT_REPORTED:
        if at - row.since <= FORGET_AFTER:
            return {}
        row.delete()
        return {row.name: ""}
    was_known = row.state != Service.State.UNKNOWN
    _again(row, Service.State.UNKNOWN, at, row.project, 0, NOT_REPORTED)
    return {row.name: Service.State.UNKNOWN.value} if was_known else {}
