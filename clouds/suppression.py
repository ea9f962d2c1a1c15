"""Maintenance and blackout: when nobody is told of alerts, of what, and who decided it.

What is suppressed is a server, a cloud group with all that is in it at the time, or everything.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from itertools import islice, takewhile
from typing import TypeAlias

from django.db import models, transaction
from django.db.models import Exists, F, OuterRef, Q

from accounts.timers import wake
from clouds import history, recurrences
from clouds.models import CloudGroup, Recurrence, Server, Silence, Suppression, SuppressionKind
from clouds.recurrences import NotARule
from clouds.signals import server_changed
from sentinel_site.kit.problems import Problem
from sentinel_site.kit.tenancy import current_schema

#: The longest that one may last which has an end, and the furthest that one may be planned ahead.
LONGEST = timedelta(days=365)
#: Stands for what is on no server of ours: it is muted where everything is.
NO_SERVER = 0
#: Occurrences are made this far ahead, and always the next.
AHEAD = timedelta(days=1)
#: Occurrences that one evaluation makes up for after an outage.
MOST_AT_ONCE = 1000
#: Between what a person saw on the clock and now.
LENIENCE = timedelta(minutes=2)

Kind: TypeAlias = SuppressionKind
#: One server, one group, or everything.
Target: TypeAlias = Server | CloudGroup | None


class NotASpan(Problem):
    status, code, title = 422, "not-a-span", "This is no time that can be suppressed"


class Retired(Problem):
    status, code, title = 409, "retired", "The server is retired"


class Over(Problem):
    status, code, title = 409, "over", "It is over"


@dataclass(frozen=True)
class Why:
    """Who says so and why: a person, or a program's key."""

    reason: str
    by: int | None = None
    by_key: int | None = None


@dataclass(frozen=True)
class Repeat:
    """How it comes again: an RRULE in a time zone, and how long each lasts."""

    rule: str
    zone: str
    lasts: timedelta


def start_maintenance(
    target: Target, why: Why, at: datetime, until: datetime | None
) -> Suppression:
    """Planned work from `at` on: alerts are recorded as suppressed and nobody is told.

    One of the same target that is under way is replaced. Raises NotASpan, Retired.
    """
    return suppress(target, Suppression.Kind.MAINTENANCE, why, at, until)


def black_out(target: Target, why: Why, at: datetime, until: datetime | None) -> Suppression:
    """Someone is at it from `at` on: alerts open as usual and nobody is told.

    One of the same target that is under way is replaced. Raises NotASpan, Retired.
    """
    return suppress(target, Suppression.Kind.BLACKOUT, why, at, until)


@transaction.atomic
def suppress(
    target: Target,
    kind: Kind,
    why: Why,
    at: datetime,
    until: datetime | None,
    since: datetime | None = None,
) -> Suppression:
    """Suppress from `at`, or from `since` if that is later. Raises NotASpan, Retired.

    What begins at once takes the place of what is under way of the same kind and target, unless
    that recurs; what is planned stands beside it.
    """
    begins = _begins(since, at)
    _check_span(begins, until, at)
    _hold(target)
    if begins <= at:
        _replaced(target, kind, at)
    made = Suppression.objects.create(
        **_scope(target),
        kind=kind,
        reason=why.reason,
        by=why.by,
        by_key=why.by_key,
        since=begins,
        until=until,
        settled=begins <= at,
    )
    _settle(_servers_of([made]), at)
    _wake(made, at)
    return made


@transaction.atomic
def repeat(
    target: Target,
    kind: Kind,
    why: Why,
    at: datetime,
    begins: datetime,
    how: Repeat,
) -> Recurrence:
    """Suppress again and again, the first time not before `begins`. Raises NotASpan, Retired."""
    _check_repeat(begins, how, at)
    _hold(target)
    made = Recurrence.objects.create(
        **_scope(target),
        kind=kind,
        reason=why.reason,
        by=why.by,
        by_key=why.by_key,
        begins=begins,
        rule=how.rule,
        zone=how.zone,
        lasts=how.lasts,
    )
    _begin_what_is_due(at, _make_due(at, [made]))
    return made


@transaction.atomic
def change(
    row: Suppression,
    at: datetime,
    *,
    reason: str,
    until: datetime | None,
    since: datetime | None = None,
) -> Suppression:
    """Another reason or end; of what has not begun, another beginning. Raises NotASpan, Over."""
    row = Suppression.objects.select_for_update(of=("self",)).get(pk=row.pk)
    if row.ended_at is not None or (row.until is not None and row.until <= at):
        raise Over(suppression=row.pk)
    begins = row.since if row.since <= at or since is None else _begins(since, at)
    _check_span(max(begins, at), until, at)
    row.reason, row.until, row.since = reason, until, begins
    row.save(update_fields=["reason", "until", "since"])
    _begin_what_is_due(at, [])
    _wake(row, at)
    return row


@transaction.atomic
def change_repeat(
    row: Recurrence, at: datetime, *, reason: str, begins: datetime, how: Repeat
) -> Recurrence:
    """Other terms from now on; what has begun keeps its own. Raises NotASpan, Over."""
    row = Recurrence.objects.select_for_update(of=("self",)).get(pk=row.pk)
    if row.ended_at is not None:
        raise Over(recurrence=row.pk)
    _check_repeat(begins if begins != row.begins else at, how, at)
    row.reason, row.begins = reason, begins
    row.rule, row.zone, row.lasts = how.rule, how.zone, how.lasts
    row.made_until = at
    row.save()
    Suppression.objects.filter(recurrence=row, since__gt=at).delete()
    _begin_what_is_due(at, _make_due(at, [row]))
    return row


@transaction.atomic
def end(target: Target, kind: Kind, at: datetime) -> bool:
    """End what is under way of just this target before its time; False if there was none."""
    _hold(target, retired_too=True)
    rows = list(_under_way(at).filter(**_scope(target), kind=kind))
    for row in rows:
        end_one(row, at)
    return bool(rows)


@transaction.atomic
def end_one(row: Suppression, at: datetime) -> None:
    """End it before its time; what has not begun is called off. Raises Over."""
    if row.since > at:
        row.delete()
        return
    _lock(_servers_of([row]))
    open_ones = Suppression.objects.filter(pk=row.pk, ended_at=None)
    if not open_ones.exclude(until__lte=at).update(ended_at=at):
        raise Over(suppression=row.pk)
    _settle(_servers_of([row]), at)
    wake(current_schema(), at)


def end_all_of(server: Server, at: datetime) -> None:
    """The server is removed: nothing of its own is under way or planned any more."""
    Recurrence.objects.filter(server=server, ended_at=None).update(ended_at=at)
    rows = Suppression.objects.filter(server=server, ended_at=None)
    rows.filter(since__gt=at).delete()
    rows.update(ended_at=at, settled=True)


@transaction.atomic
def end_repeat(row: Recurrence, at: datetime) -> None:
    """It comes no more; one that is under way goes on to its end. Raises Over."""
    if not Recurrence.objects.filter(pk=row.pk, ended_at=None).update(ended_at=at):
        raise Over(recurrence=row.pk)
    Suppression.objects.filter(recurrence=row, since__gt=at).delete()


@transaction.atomic
def expire(at: datetime) -> None:
    """Begin and end what is due, and plan what comes next; done with every evaluation.

    `active_for` doesn't wait for it.
    """
    recurring = Recurrence.objects.filter(ended_at=None)
    due = list(recurring.filter(Q(made_until=None) | Q(made_until__lte=at)).order_by("pk"))
    _begin_what_is_due(at, _make_due(at, due))


def active_for(servers: Iterable[int], at: datetime) -> dict[int, Suppression]:
    """What holds for these servers at this time; maintenance goes before blackout."""
    wanted = list(servers)
    rows = list(_holding(at).order_by("pk"))
    if not rows or not wanted:
        return {}
    groups: dict[int, int | None] = {}
    if any(row.group_id is not None for row in rows):
        groups = dict(Server.objects.filter(pk__among=wanted).values_list("pk", "group_id"))
    found: dict[int, Suppression] = {}
    for kind in (Suppression.Kind.BLACKOUT, Suppression.Kind.MAINTENANCE):
        of_kind = [row for row in rows if row.kind == kind]
        for_all = [row for row in of_kind if row.server_id is None and row.group_id is None]
        by_group = {row.group_id: row for row in of_kind if row.group_id is not None}
        by_server = {row.server_id: row for row in of_kind if row.server_id is not None}
        for pk in wanted:
            group = groups.get(pk)
            holds = (
                by_server.get(pk)
                or (by_group.get(group) if group is not None else None)
                or (for_all[-1] if for_all else None)
            )
            if holds is not None:
                found[pk] = holds
    return found


def active_for_group(group: CloudGroup, at: datetime) -> Suppression | None:
    """What holds for all of a cloud group at this time; maintenance goes before blackout."""
    whole = Q(group=group) | Q(group=None, server=None)
    rows = list(_holding(at).filter(whole).order_by("-pk"))
    return min(rows, key=lambda row: row.kind != Suppression.Kind.MAINTENANCE, default=None)


def next_change(at: datetime) -> datetime | None:
    """When the next one begins or ends by itself."""
    rows = Suppression.objects.filter(ended_at=None)
    times = [time for pair in rows.values_list("since", "until") for time in pair]
    return min((time for time in times if time is not None and time > at), default=None)


def joined(server: Server, at: datetime) -> None:
    """The server came into another group: what holds there holds for it."""
    _settle([server.pk], at)


@transaction.atomic
def remove_group(group: CloudGroup, at: datetime) -> None:
    """Delete the group; its servers are in none, and what was suppressed of it ends for them."""
    members = _lock(Server.objects.filter(group=group).values_list("pk", flat=True))
    history.dissolve(group, at)
    group.delete()
    _settle(members, at)


def next_of(row: Recurrence, at: datetime, count: int = 3) -> list[datetime]:
    """When its next occurrences begin."""
    coming = recurrences.starts(row.rule, row.zone, row.begins, after=at)
    return list(islice(coming, count))


# -- making and settling ------------------------------------------------------


def _begins(since: datetime | None, at: datetime) -> datetime:
    if since is None:
        return at
    if since < at - LENIENCE:
        raise NotASpan("It can't begin in the past.")
    return max(since, at)


def _check_span(begins: datetime, until: datetime | None, at: datetime) -> None:
    if begins > at + LONGEST:
        raise NotASpan(f"It must begin within {LONGEST.days} days.")
    if until is not None and not begins < until <= begins + LONGEST:
        raise NotASpan(f"It must end after it begins, and within {LONGEST.days} days.")


def _check_repeat(begins: datetime, how: Repeat, at: datetime) -> None:
    if not at - LENIENCE <= begins <= at + LONGEST:
        raise NotASpan(f"The first one must begin within the next {LONGEST.days} days.")
    try:
        recurrences.check(how.rule, how.zone, begins, how.lasts)
    except NotARule as error:
        raise NotASpan(str(error)) from None


def _scope(target: Target) -> dict[str, Server | CloudGroup | None]:
    return {
        "server": target if isinstance(target, Server) else None,
        "group": target if isinstance(target, CloudGroup) else None,
    }


def _hold(target: Target, *, retired_too: bool = False) -> None:
    """Lock the servers' rows before their suppressions, as whoever changes these does."""
    if not isinstance(target, Server):
        _lock(_servers_of([Suppression(**_scope(target))]))
    else:
        held = Server.objects.select_for_update(of=("self",)).get(pk=target.pk)
        if held.status == Server.Status.RETIRED and not retired_too:
            raise Retired(server=target.pk)


def _replaced(target: Target, kind: Kind, at: datetime) -> None:
    same = _under_way(at).filter(**_scope(target), kind=kind, recurrence=None)
    same.update(ended_at=at)


def _make_due(at: datetime, rows: Sequence[Recurrence]) -> list[Suppression]:
    """Make the occurrences that have begun or soon will, and of each recurrence the next."""
    made: list[Suppression] = []
    for row in rows:
        Recurrence.objects.select_for_update(of=("self",)).get(pk=row.pk)
        coming = recurrences.starts(row.rule, row.zone, row.begins, after=row.made_until)
        soon = takewhile(lambda start: start <= at + AHEAD, coming)
        times = list(islice(soon, MOST_AT_ONCE))
        if not times or times[-1] <= at:
            after = times[-1] if times else row.made_until
            following = next(recurrences.starts(row.rule, row.zone, row.begins, after=after), None)
            times += [] if following is None else [following]
        if not times:
            Recurrence.objects.filter(pk=row.pk).update(ended_at=at)  # its COUNT or UNTIL is past
            continue
        Recurrence.objects.filter(pk=row.pk).update(made_until=times[-1])
        made += [
            Suppression(
                server_id=row.server_id,
                group_id=row.group_id,
                kind=row.kind,
                reason=row.reason,
                by=row.by,
                by_key=row.by_key,
                since=start,
                until=start + row.lasts,
                recurrence=row,
                settled=False,
            )
            for start in times
        ]
    Suppression.objects.bulk_create(made, ignore_conflicts=True)
    return made


def _begin_what_is_due(at: datetime, made: Iterable[Suppression]) -> None:
    """Give the servers concerned the status of what has begun and of what is over."""
    rows = Suppression.objects.filter(ended_at=None)
    due = list(rows.filter(Q(until__lte=at) | Q(settled=False, since__lte=at)))
    # The servers' rows first, as whoever starts or ends one does: else the two could block.
    if due:
        held = _lock(_servers_of(due))
        rows.filter(pk__in=[row.pk for row in due]).filter(until__lte=at).update(
            ended_at=F("until"), settled=True
        )
        rows.filter(pk__in=[row.pk for row in due]).update(settled=True)
        _settle(held, at)
    for row in made:
        _wake(row, at)


def _lock(server_ids: Iterable[int]) -> list[int]:
    rows = Server.objects.filter(pk__in=list(server_ids)).order_by("pk")
    return list(rows.select_for_update(of=("self",)).values_list("pk", flat=True))


def _under_way(at: datetime) -> models.QuerySet[Suppression]:
    return _holding(at).filter(ended_at=None)


def _holding(at: datetime) -> models.QuerySet[Suppression]:
    return Suppression.objects.filter(
        Q(ended_at=None) | Q(ended_at__gt=at), Q(until=None) | Q(until__gt=at), since__lte=at
    )


def _servers_of(rows: Iterable[Suppression]) -> list[int]:
    """The servers that these concern, by id."""
    rows = list(rows)
    watched = Server.objects.exclude(status=Server.Status.RETIRED)
    if not any(row.server_id is None and row.group_id is None for row in rows):
        watched = watched.filter(
            Q(pk__in=[row.server_id for row in rows if row.server_id is not None])
            | Q(group__in=[row.group_id for row in rows if row.group_id is not None])
        )
    return list(watched.order_by("pk").values_list("pk", flat=True))


def _settle(server_ids: Sequence[int], at: datetime) -> None:
    """Give servers the status of what holds; without anything they are up, or silent."""
    holds = active_for(server_ids, at)
    muted = [Server.Status.MAINTENANCE, Server.Status.BLACKOUT]
    changed: set[int] = set()
    for kind in Suppression.Kind:
        concerned = [pk for pk, row in holds.items() if row.kind == kind]
        rows = Server.objects.filter(pk__in=concerned)
        rows = rows.exclude(status__in=[Server.Status(kind), Server.Status.RETIRED])
        changed |= _with_status(rows, Server.Status(kind), at)
    free = [pk for pk in server_ids if pk not in holds]
    rows = Server.objects.filter(pk__in=free, status__in=muted)
    quiet = Silence.objects.filter(until=None, server=OuterRef("pk"))
    for status, of_these in (
        (Server.Status.SILENT, rows.filter(Exists(quiet))),
        (Server.Status.UP, rows.filter(~Exists(quiet))),
    ):
        changed |= _with_status(of_these, status, at)
    for pk in sorted(changed) or server_ids[:1]:
        transaction.on_commit(
            partial(server_changed.send, sender=Server, schema=current_schema(), server_id=pk)
        )


def _with_status(rows: models.QuerySet[Server], status: Server.Status, at: datetime) -> set[int]:
    found = set(rows.values_list("pk", flat=True))
    if found:
        Server.objects.filter(pk__in=found).update(status=status, status_since=at)
    return found


def _wake(row: Suppression, at: datetime) -> None:
    """Have the tenant looked at when it begins and when it ends."""
    times = [time for time in (row.since, row.until) if time is not None and time > at]
    if times:
        wake(current_schema(), min(times))
