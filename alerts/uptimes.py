"""Uptime as pages and programs ask for it: one arithmetic, the same numbers everywhere."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

from clouds import history
from clouds import queries as clouds
from clouds.history import Past
from clouds.models import CloudGroup, Server
from clouds.recurrences import is_zone
from clouds.uptime import Span, Uptime, together, union
from metrics import outages
from sentinel_site.kit.problems import Problem

WINDOWS = {
    "24h": timedelta(hours=24),
    "7d": timedelta(days=7),
    "30d": timedelta(days=30),
    "90d": timedelta(days=90),
}
LONGEST = timedelta(days=400)
_MONTH = re.compile(r"(\d{4})-(0[1-9]|1[0-2])")


class NotAPeriod(Problem):
    status, code, title = 422, "not-a-period", "There is no such period"


@dataclass(frozen=True)
class Day:
    """One of the last days, for the strip of a server's page."""

    start: datetime
    uptime: Uptime


@dataclass(frozen=True)
class OfServer:
    """Uptime of one server by window, of its services over 30 days, and its last 30 days."""

    windows: dict[str, Uptime]
    services: dict[str, dict[str, Uptime]]
    days: list[Day]


def of_server(server: Server, now: datetime) -> OfServer:
    since = now - max(WINDOWS.values())
    past = history.of_servers([server], since, now, _outages(since, now))[server.pk]
    midnight = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    days = [midnight - timedelta(days=back) for back in range(29, -1, -1)]
    return OfServer(
        windows=_by_window(past, now),
        services={
            name: _by_window(one, now)
            for name, one in history.of_services(server, past, since, now).items()
        },
        days=[Day(day, past.uptime(Span(day, min(now, day + timedelta(days=1))))) for day in days],
    )


def of_group(group: CloudGroup, now: datetime) -> dict[str, Uptime]:
    """Uptime of a cloud group by window: of its servers, while they belonged to it."""
    since = now - max(WINDOWS.values())
    pasts = history.of_servers(Server.objects.all(), since, now, _outages(since, now))
    members = history.of_groups(pasts, now).get(group.pk, [])
    return {
        name: history.uptime_of(members, Span(now - span, now)) for name, span in WINDOWS.items()
    }


@dataclass(frozen=True)
class Row:
    """One server in a report."""

    server: Server
    uptime: Uptime


@dataclass(frozen=True)
class Section:
    """A cloud group in a report, or the servers that were in none, with its servers."""

    group: CloudGroup | None
    uptime: Uptime
    rows: list[Row]

    @property
    def name(self) -> str:
        return self.group.name if self.group else "In no group"


@dataclass(frozen=True)
class Period:
    """What a report is about."""

    span: Span
    label: str


@dataclass(frozen=True)
class Report:
    """Uptime of everything over one period."""

    span: Span
    label: str
    total: Uptime
    sections: list[Section]
    is_running: bool  # the period is not over


def report(period: Period, now: datetime) -> Report:
    """A server that changed groups stands in each, with the time that it belonged there."""
    span = Span(period.span.start, min(period.span.end, now))
    servers = {one.pk: one for one in Server.objects.order_by("host", "pk")}
    known = history.of_servers(servers.values(), span.start, now, _outages(span.start, now))
    stays = history.stays_of(known, now)
    groups = {one.pk: one for one in clouds.groups()}
    found: list[Section] = []
    for group in [*groups.values(), None]:
        rows = []
        for pk, past in known.items():
            there = past.belonging(stays.get(pk, {}), group.pk if group else None)
            uptime = there.uptime(span)
            if uptime.counted or uptime.maintenance:
                rows.append(Row(servers[pk], uptime))
        if rows:
            whole = together(row.uptime for row in rows)
            found.append(Section(group, whole, rows))
    total = together(section.uptime for section in found)
    return Report(span, period.label, total, found, is_running=period.span.end > now)


def period(
    now: datetime, *, month: str = "", window: str = "", start: str = "", end: str = "",
    zone: str = "UTC",
) -> Period:  # fmt: skip
    """A month (`2026-11`), a window (`30d`) or days from `start` to before `end`, by a zone's days.

    Without any, the present month. Raises NotAPeriod.
    """
    if not is_zone(zone):
        raise NotAPeriod("A time zone is named as Europe/Berlin.", zone=zone[:64])
    place = ZoneInfo(zone)
    if window:
        if window not in WINDOWS:
            raise NotAPeriod(f"Use one of {', '.join(WINDOWS)}.")
        return Period(Span(now - WINDOWS[window], now), f"last {window}")
    if start or end:
        first, last = _day(start), _day(end)
        span = Span(_begin(first, place), _begin(last, place))
        if not span.start < span.end <= span.start + LONGEST:
            raise NotAPeriod(f"It must end after it begins, within {LONGEST.days} days.")
        return Period(span, f"{first} to {last}")
    text = month or f"{now.astimezone(place):%Y-%m}"
    if not _MONTH.fullmatch(text) or not 2000 <= int(text[:4]) < 9999:
        raise NotAPeriod("Write a month as 2026-11.")
    first = date(int(text[:4]), int(text[5:]), 1)
    following = (first + timedelta(days=32)).replace(day=1)
    return Period(Span(_begin(first, place), _begin(following, place)), f"{first:%B %Y}")


def months(now: datetime, zone: str, count: int = 13) -> list[tuple[str, str]]:
    """The last months, newest first: `2026-11` and its name."""
    day = now.astimezone(ZoneInfo(zone)).date().replace(day=1)
    found = []
    for _ in range(count):
        found.append((f"{day:%Y-%m}", f"{day:%B %Y}"))
        day = (day - timedelta(days=1)).replace(day=1)
    return found


def _begin(day: date, place: ZoneInfo) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=place).astimezone(UTC)


def _day(text: str) -> date:
    try:
        found = date.fromisoformat(text)
    except ValueError:
        raise NotAPeriod("Write days as 2026-11-01, from and to.") from None
    if not 2000 <= found.year < 9999:
        raise NotAPeriod("Write days as 2026-11-01, from and to.")
    return found


def _by_window(past: Past, now: datetime) -> dict[str, Uptime]:
    return {name: past.uptime(Span(now - span, now)) for name, span in WINDOWS.items()}


def _outages(start: datetime, end: datetime) -> list[Span]:
    return union(_spans(outages.between(start, end)))


def _spans(pairs: Iterable[tuple[datetime, datetime]]) -> Iterable[Span]:
    return (Span(*pair) for pair in pairs)
