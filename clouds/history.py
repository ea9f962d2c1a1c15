"""What was when, written as it becomes known and read for uptime, set-wise."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TypeAlias

from django.db import transaction
from django.db.models import F, Min, Q

from clouds.models import (
    CloudGroup,
    LateReports,
    Server,
    Service,
    ServiceSpan,
    Silence,
    Stay,
    Suppression,
)
from clouds.uptime import (
    Span,
    Spans,
    Stretch,
    Uptime,
    difference,
    heard,
    intersection,
    measure,
    overlaid,
    together,
    union,
)

#: What ended longer ago is forgotten.
KEEP = timedelta(days=400)


# -- writing ------------------------------------------------------------------


def note_silences(silent: Mapping[int, datetime], spoke: Mapping[int, datetime]) -> None:
    """Begin the silence of servers that are silent since then, end that of those heard then."""
    known = {row.server_id: row for row in Silence.objects.filter(until=None)}
    Silence.objects.bulk_create(
        [Silence(server_id=pk, since=since) for pk, since in silent.items() if pk not in known],
        ignore_conflicts=True,
    )
    over = [known[pk] for pk in spoke if pk in known]
    none_at_all = [row.pk for row in over if spoke[row.server_id] <= row.since]
    if none_at_all:
        Silence.objects.filter(pk__in=none_at_all).delete()
    ended = [row for row in over if spoke[row.server_id] > row.since]
    for row in ended:
        row.until = spoke[row.server_id]
    Silence.objects.bulk_update(ended, ["until"], batch_size=500)


def note_absence(server: Server, since: datetime, until: datetime) -> None:
    """It was silent then, as is known when it is heard again."""
    if since < until:
        Silence.objects.create(server=server, since=since, until=until)


@dataclass(frozen=True)
class LateReport:
    """When it was made, and the state of each service in it by name."""

    at: datetime
    states: Mapping[str, str] = field(default_factory=dict)


@transaction.atomic
def note_late(
    server_id: int, reports: Sequence[LateReport], patience: timedelta, interval: timedelta
) -> None:
    """Reports of these times came in late: the server was up, and nobody could hear it.

    What they say of services was so until the report after it, or for an interval; the same again
    changes nothing.
    """
    Server.objects.select_for_update(of=("self",)).get(pk=server_id)
    spans = heard([report.at for report in reports], patience)
    if not spans:
        return
    near = LateReports.objects.filter(
        server=server_id, since__lte=spans[-1].end, until__gte=spans[0].start
    )
    known = [Span(row.since, row.until) for row in near if row.until is not None]
    near.delete()
    LateReports.objects.bulk_create(
        LateReports(server_id=server_id, since=span.start, until=span.end)
        for span in union([*known, *spans])
    )
    in_order = sorted(reports, key=lambda one: one.at)
    _note_late_states(server_id, in_order, patience, interval)


def _note_late_states(
    server_id: int, reports: Sequence[LateReport], patience: timedelta, interval: timedelta
) -> None:
    said: dict[str, list[Stretch]] = defaultdict(list)
    for index, report in enumerate(reports):
        following = reports[index + 1].at if index + 1 < len(reports) else None
        end = report.at + interval
        if following is not None and following <= report.at + patience:
            end = following
        for name, state in report.states.items():
            said[name].append(Stretch(report.at, end, state))
    if not said:
        return
    first, last = reports[0].at, reports[-1].at + interval
    rows = ServiceSpan.objects.filter(server=server_id, name__in=said, since__lt=last)
    rows = rows.filter(Q(until=None) | Q(until__gt=first))
    known: dict[str, list[ServiceSpan]] = defaultdict(list)
    for row in rows:
        known[row.name].append(row)
    rows.delete()
    made = []
    for name, stretches in said.items():
        never = max([last, *(one.since for one in known[name])]) + timedelta(days=1)
        open_ended = any(row.until is None for row in known[name])
        before = [Stretch(row.since, row.until or never, row.state) for row in known[name]]
        # Of the times in between it stays what it was: late news are of their own time.
        for one in overlaid(before, stretches):
            until = None if open_ended and one.end == never else one.end
            made.append(
                ServiceSpan(
                    server_id=server_id, name=name, state=one.state, since=one.start, until=until
                )
            )
    ServiceSpan.objects.bulk_create(made)


def note_states(server_id: int, changed: Mapping[str, str], at: datetime) -> None:
    """These services are in these states from `at` on; "" is none at all."""
    if not changed:
        return
    open_ones = ServiceSpan.objects.filter(server=server_id, name__in=changed, until=None)
    open_ones.filter(since__gte=at).delete()
    open_ones.update(until=at)
    ServiceSpan.objects.bulk_create(
        ServiceSpan(server_id=server_id, name=name, state=state, since=at)
        for name, state in changed.items()
        if state
    )


def note_group(server: Server, at: datetime) -> None:
    """The server belongs to its present group from `at` on."""
    open_ones = Stay.objects.filter(server=server, until=None)
    open_ones.filter(since__gte=at).delete()
    open_ones.update(until=at)
    if server.group_id is not None:
        Stay.objects.create(server=server, group_id=server.group_id, since=at)


@transaction.atomic
def dissolve(group: CloudGroup, at: datetime) -> None:
    """Before a group is deleted: what was suppressed of it stays known of each server in it."""
    rows = []
    stays = list(Stay.objects.filter(group=group))
    for one in Suppression.objects.filter(group=group, since__lt=at):
        end = min(time for time in (one.ended_at, one.until, at) if time is not None)
        for stay in stays:
            span = intersection(
                union([Span(one.since, end)]), union([Span(stay.since, stay.until or at)])
            )
            rows += [
                Suppression(
                    server_id=stay.server_id,
                    kind=one.kind,
                    reason=one.reason,
                    by=one.by,
                    by_key=one.by_key,
                    since=part.start,
                    until=part.end,
                    ended_at=part.end,
                )
                for part in span
            ]
    Suppression.objects.bulk_create(rows)


def forget(before: datetime) -> None:
    """Forget what ended before; its windows are no longer asked for."""
    for model in (Silence, LateReports, ServiceSpan, Stay):
        model._default_manager.filter(until__lt=before).delete()
    Suppression.objects.filter(ended_at__lt=before).delete()


# -- reading ------------------------------------------------------------------


@dataclass(frozen=True)
class Past:
    """What happened to one server, or one service of it, up to now."""

    watched: Spans
    down: Spans
    maintenance: Spans

    def uptime(self, window: Span) -> Uptime:
        return measure(self.watched, self.down, self.maintenance, window)

    def belonging(self, stays: Mapping[int, Spans], group: int | None) -> Past:
        """Only the time in this group; None: the time in none."""
        if group is not None:
            watched = intersection(self.watched, stays.get(group, []))
        else:
            anywhere = union(span for spans in stays.values() for span in spans)
            watched = difference(self.watched, anywhere)
        return Past(watched, self.down, self.maintenance)


def of_servers(
    servers: Iterable[Server], since: datetime, now: datetime, outages: Spans
) -> dict[int, Past]:
    """The past of each server from `since` to `now`.

    `outages` are times in which nobody listened: who was not heard then was not down.
    """
    rows = {server.pk: server for server in servers}
    looked = Span(since, now)
    silences = _spans(Silence.objects.filter(server__in=rows, since__lt=now), looked)
    late = _spans(LateReports.objects.filter(server__in=rows, since__lt=now), looked)
    planned = _maintenance(list(rows), looked)
    found = {}
    for pk, server in rows.items():
        ended = min(now, server.retired_at or now)
        found[pk] = Past(
            watched=union([Span(server.registered_at, ended)]),
            down=difference(difference(silences.get(pk, []), late.get(pk, [])), outages),
            maintenance=planned.get(pk, []),
        )
    return found


def of_services(server: Server, past: Past, since: datetime, now: datetime) -> dict[str, Past]:
    """The past of each service of a server: it is up while its server is heard and says so.

    It is watched from when it was first up. What its agent did not watch is not counted.
    """
    ended = min(now, server.retired_at or now)
    spans = ServiceSpan.objects.filter(server=server, since__lt=now)
    first_up = dict(
        spans.filter(state=Service.State.UP)
        .order_by()
        .values_list("name")
        .annotate(first=Min("since"))
    )
    stretches: dict[str, list[Stretch]] = defaultdict(list)
    for row in spans.filter(Q(until=None) | Q(until__gt=since)):
        if row.name in first_up:  # one that never ran is not down
            begun = max(row.since, first_up[row.name])
            stretches[row.name].append(Stretch(begun, row.until or ended, row.state))
    found = {}
    for name, known in sorted(stretches.items()):
        up, down = (
            union(Span(one.start, one.end) for one in known if one.state == state)
            for state in (Service.State.UP, Service.State.DOWN)
        )
        found[name] = Past(
            watched=union([*up, *down]),
            down=union([*down, *past.down]),
            maintenance=past.maintenance,
        )
    return found


#: By cloud group, when a server belonged to it.
Stays: TypeAlias = dict[int, Spans]


def stays_of(server_ids: Iterable[int], now: datetime) -> dict[int, Stays]:
    """By server, when it belonged to which group."""
    found: dict[int, dict[int, list[Span]]] = defaultdict(lambda: defaultdict(list))
    for row in Stay.objects.filter(server__in=list(server_ids)):
        found[row.server_id][row.group_id].append(Span(row.since, row.until or now))
    return {
        server: {group: union(spans) for group, spans in groups.items()}
        for server, groups in found.items()
    }


def of_groups(pasts: Mapping[int, Past], now: datetime) -> dict[int, list[Past]]:
    """By cloud group, the past of each server that belonged to it, while it did."""
    found: dict[int, list[Past]] = defaultdict(list)
    for server, stays in sorted(stays_of(pasts, now).items()):
        for group in stays:
            found[group].append(pasts[server].belonging(stays, group))
    return found


def uptime_of(pasts: Iterable[Past], window: Span) -> Uptime:
    return together(past.uptime(window) for past in pasts)


def _spans(rows: Iterable[Silence | LateReports], looked: Span) -> dict[int, Spans]:
    found: dict[int, list[Span]] = defaultdict(list)
    for row in rows:
        if row.until is None or row.until > looked.start:
            found[row.server_id].append(Span(row.since, row.until or looked.end))
    return {pk: union(spans) for pk, spans in found.items()}


def _maintenance(server_ids: list[int], looked: Span) -> dict[int, Spans]:
    """When each server was in maintenance: by itself, with its group at the time, with all."""
    rows = Suppression.objects.filter(
        kind=Suppression.Kind.MAINTENANCE, since__lt=looked.end
    ).filter(
        Q(ended_at=None) | Q(ended_at__gt=looked.start), Q(until=None) | Q(until__gt=looked.start)
    )
    rows = rows.filter(Q(server=None) | Q(server__in=server_ids)).exclude(ended_at=F("since"))
    by_server: dict[int, list[Span]] = defaultdict(list)
    by_group: dict[int, list[Span]] = defaultdict(list)
    for_all: list[Span] = []
    for row in rows:
        ends = [time for time in (row.ended_at, row.until, looked.end) if time is not None]
        span = Span(row.since, min(ends))
        if row.server_id is not None:
            by_server[row.server_id].append(span)
        elif row.group_id is not None:
            by_group[row.group_id].append(span)
        else:
            for_all.append(span)
    if by_group:
        for stay in Stay.objects.filter(server__in=server_ids, group__in=by_group):
            there = union([Span(stay.since, stay.until or looked.end)])
            by_server[stay.server_id] += intersection(union(by_group[stay.group_id]), there)
    return {pk: union([*by_server.get(pk, []), *for_all]) for pk in server_ids}
