"""A rule before it is saved: what it would have raised in the last hours or days, on a chart.

Points and events of a few servers, those with the worst numbers, are read once; each slot's number
is made by the functions that an evaluation uses, and judged by the same. Bounded in servers, slots
and points, whatever is asked.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from accounts.models import Tenant
from alerts.engines import aeolus, breaches, chronos, fleet, forecasts, replay
from alerts.engines.fleet import Fleet, Mask
from alerts.engines.replay import Floats, Raised
from alerts.engines.sheets import terms_of
from alerts.models import Rule
from alerts.values.wording import number, subject_of
from clouds.models import Server
from metrics import events, queries
from metrics.batch import Tags
from metrics.stores.base import Points
from metrics.windows import LOOK_BEHIND, LOOKBACK, over
from sentinel_site.kit.gates import Gate
from sentinel_site.kit.problems import Problem

#: What can be looked back on, with the distance of two slots.
SPANS = {
    "24h": (timedelta(hours=24), timedelta(minutes=1)),
    "7d": (timedelta(days=7), timedelta(minutes=7)),
}
FORECAST_SLOTS = 96
MOST_SERVERS = 20
MOST_POINTS = 250_000
MOST_EVENTS = 20_000
MOST_SERIES = 200
#: Series on the chart, and alerts in the list.
SHOWN = 5
LISTED = 50
#: What every report has, by which a server's silence is seen.
REPORTED = ("cpu", "percent")
#: A replay takes seconds of a thread: two at once of an organization, four in all.
_gate = Gate(2, 4)


class NoSuchSpan(Problem):
    status, code, title = 422, "no-such-span", "There is no such span"


@dataclass(frozen=True)
class Found:
    """Numbers by series (row) and slot (column), and what is drawn of them."""

    names: list[tuple[int, str]]  # server and subject
    values: Floats
    lasts: NDArray[np.int64]
    drawn: Floats
    unit: str


@dataclass(frozen=True)
class Alerted:
    """An alert that the rule would have raised; times in Unix seconds."""

    host: str
    subject: str
    severity: str
    value: str
    opened_at: float
    ended_at: float | None

    @property
    def opened(self) -> datetime:
        return datetime.fromtimestamp(self.opened_at, UTC)

    @property
    def lasted(self) -> timedelta | None:
        """None while it is open."""
        return timedelta(seconds=self.ended_at - self.opened_at) if self.ended_at else None


@dataclass(frozen=True)
class Preview:
    """What a page draws and a program reads."""

    span: str
    start: float
    end: float
    step: float
    unit: str
    series: list[dict[str, Any]] = field(default_factory=list)
    limits: list[dict[str, Any]] = field(default_factory=list)
    alerts: list[Alerted] = field(default_factory=list)
    count: int = 0
    servers: int = 0
    looked_at: int = 0
    series_count: int = 0

    @property
    def json(self) -> str:
        """`chart` as text, for an attribute."""
        return json.dumps(self.chart, separators=(",", ":"))

    @property
    def length(self) -> timedelta:
        return timedelta(seconds=self.end - self.start)

    @property
    def chart(self) -> dict[str, Any]:
        """As `chart.js` takes it."""
        spans = [
            {"start": one.opened_at, "end": one.ended_at or self.end, "severity": one.severity}
            for one in self.alerts
        ]
        return {
            "start": self.start, "end": self.end, "step": self.step, "series": self.series,
            "limits": self.limits, "spans": spans,
        }  # fmt: skip


def preview(tenant: Tenant, rule: Rule, at: datetime, span: str = "24h") -> Preview:
    """Replay the validated rule, stored or not, over the span that ends at `at`.

    Raises NoSuchSpan, TooMuchToSearch, Busy.
    """
    if span not in SPANS:
        raise NoSuchSpan(f"Use one of: {', '.join(SPANS)}.")
    length, step = SPANS[span]
    if rule.kind == Rule.Kind.FORECAST:
        step = length / FORECAST_SLOTS
    at = at.replace(microsecond=0)
    count = length // step
    slots = [at - n * step for n in range(count, -1, -1)]
    with _gate.passed(tenant.schema_name, "Other rules are being tried. Try again in a moment."):
        return over_slots(tenant, rule, slots, span)


def over_slots(tenant: Tenant, rule: Rule, slots: list[datetime], span: str = "") -> Preview:
    """The same over these slots."""
    at = slots[-1]
    watched = fleet.read(tenant.pk, at)
    mask = _scope(rule, watched)
    chosen = _worst(tenant, rule, watched, mask, at - slots[0])
    found = _READERS[rule.kind](tenant, rule, slots, chosen, watched)
    terms = terms_of(rule)
    raised = replay.replay(terms, slots, found.values, found.lasts, breaches.gone_after(rule))
    hosts = dict(Server.objects.filter(pk__in=chosen).values_list("pk", "host"))
    return Preview(
        span=span,
        start=slots[0].timestamp(),
        end=at.timestamp(),
        step=(slots[1] - slots[0]).total_seconds() if len(slots) > 1 else 60.0,
        unit=found.unit,
        series=_lines(found, slots, raised, hosts),
        limits=_limits(rule),
        alerts=[_alerted(one, rule, found, hosts) for one in raised[-LISTED:]],
        count=len(raised),
        servers=int(mask.sum()),
        looked_at=len(chosen),
        series_count=len(found.names),
    )


def _scope(rule: Rule, watched: Fleet) -> Mask:
    mask = np.ones(len(watched.ids), np.bool_)
    if rule.server_id is not None:
        mask &= watched.ids == rule.server_id
    if rule.group_id is not None:
        mask &= watched.groups == rule.group_id
    return mask


def _worst(tenant: Tenant, rule: Rule, watched: Fleet, mask: Mask, length: timedelta) -> list[int]:
    """The servers whose newest number is worst, no more than can be read."""
    ids: list[int] = watched.ids[mask].tolist()
    intervals = dict(Server.objects.filter(pk__in=ids).values_list("pk", "interval"))
    shortest = min(intervals.values(), default=timedelta(minutes=1))
    most = max(1, min(MOST_SERVERS, int(MOST_POINTS * shortest / (length + rule.window))))
    if len(ids) <= most:
        return ids
    if rule.kind == Rule.Kind.EVENT:
        matcher = aeolus.matcher_of(rule, watched.at - length, watched.at)
        counts: dict[int, int] = {}
        for server, *_ in events.times(tenant.pk, matcher, MOST_EVENTS):
            counts[server] = counts.get(server, 0) + 1
        return sorted(ids, key=lambda pk: -counts.get(pk, 0))[:most]
    measurement, name = _looks_at(rule)
    newest: dict[int, float] = {}
    upward = 1 if rule.comparison in (Rule.Comparison.ABOVE, Rule.Comparison.AT_LEAST) else -1
    for pk, of_server in queries.latest(tenant.pk, ids, [measurement]).items():
        known = [fields[name].value for fields in of_server.values() if name in fields]
        if known:
            newest[pk] = max(upward * value for value in known)
    return sorted(ids, key=lambda pk: -newest.get(pk, -np.inf))[:most]


def _looks_at(rule: Rule) -> tuple[str, str]:
    return REPORTED if rule.kind == Rule.Kind.SILENCE else (rule.measurement, rule.field)


# -- numbers of each kind -----------------------------------------------------


def _measured(
    tenant: Tenant, rule: Rule, slots: list[datetime], chosen: list[int], watched: Fleet
) -> Found:
    ask = chronos.ask_of(rule)
    behind = timedelta(milliseconds=LOOKBACK) if ask.agg in LOOK_BEHIND else timedelta()
    points = _read(tenant, rule, slots[0] - ask.window - behind, slots[-1], chosen)
    rows, names = _rows(rule, points)
    values = np.full((len(names), len(slots)), np.nan)
    lasts = np.zeros((len(names), len(slots)), np.int64)
    quiet = _quiet_after(watched)
    width = max(1, len(points.tags))
    window = ask.window // timedelta(milliseconds=1)
    for column, slot in enumerate(slots):
        now = _ms(slot)
        answer = over(points, ask.agg, now - window, now + 1)
        places = np.searchsorted(points.server_ids, answer.servers)
        of = rows[places * width + answer.series] if len(answer) else np.zeros(0, np.intp)
        speaks = np.array(
            [now - last <= quiet[pk] for pk, last in _pairs(answer.servers, answer.lasts)], np.bool_
        )
        keep = np.flatnonzero((of >= 0) & speaks) if len(of) else np.zeros(0, np.intp)
        values[of[keep], column] = answer.values[keep]
        lasts[of[keep], column] = answer.lasts[keep]
    unit = queries.unit_of(rule.measurement, rule.field, ask.agg)
    return Found(names, values, lasts, values, unit)


def _pairs(servers: NDArray[np.int64], lasts: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Each number's server, and when that server was last heard of."""
    newest: dict[int, int] = {}
    for pk, last in zip(servers.tolist(), lasts.tolist(), strict=True):
        newest[pk] = max(newest.get(pk, 0), last)
    return [(pk, newest[pk]) for pk in servers.tolist()]


def _forecast(
    tenant: Tenant, rule: Rule, slots: list[datetime], chosen: list[int], watched: Fleet
) -> Found:
    """Time left is judged; the level is drawn, for that is what people know."""
    points = _read(tenant, rule, slots[0] - rule.window - timedelta(hours=1), slots[-1], chosen)
    rows, names = _rows(rule, points)
    shape = (len(names), len(slots))
    values, drawn = np.full(shape, np.nan), np.full(shape, np.nan)
    lasts = np.zeros(shape, np.int64)
    width = max(1, len(points.tags))
    for column, slot in enumerate(slots):
        cuts = [
            np.searchsorted(points.times, [_ms(start), _ms(end) + 1])
            for start, end in forecasts.spans(rule.window, slot)
        ]
        inside = np.unique(np.concatenate([np.arange(low, high) for low, high in cuts]))
        part = Points(
            points.server_ids,
            points.servers[inside],
            points.tags,
            points.series[inside],
            points.times[inside],
            points.values[inside],
        )
        found = forecasts.course(part, rule.window, slot)
        places = np.searchsorted(points.server_ids, found.servers)
        of = rows[places * width + found.series] if len(places) else np.zeros(0, np.intp)
        keep = np.flatnonzero(of >= 0)
        left = forecasts.seconds_left(rule, found.samples) if len(places) else np.zeros(0)
        values[of[keep], column] = left[keep]
        drawn[of[keep], column] = found.samples[keep, -1]
        lasts[of[keep], column] = found.lasts[keep]
    return Found(names, values, lasts, drawn, queries.unit_of(rule.measurement, rule.field))


def _silent(
    tenant: Tenant, rule: Rule, slots: list[datetime], chosen: list[int], watched: Fleet
) -> Found:
    points = _read(tenant, rule, slots[0] - timedelta(hours=1), slots[-1], chosen, REPORTED)
    quiet = _quiet_after(watched)
    times = np.array([_ms(slot) for slot in slots])
    values = np.full((len(chosen), len(slots)), np.nan)
    for row, pk in enumerate(chosen):
        own = points.times[points.server_ids[points.servers] == pk]
        if len(own):
            at = np.searchsorted(own, times, side="right")
            late = (times - own[np.maximum(at - 1, 0)] - quiet[pk]) / 1000
            values[row] = np.where(at > 0, late, np.nan)
    lasts = np.tile(times, (len(chosen), 1))
    drawn = np.maximum(values, 0.0)
    return Found([(pk, "reports") for pk in chosen], values, lasts, drawn, "seconds")


def _logged(
    tenant: Tenant, rule: Rule, slots: list[datetime], chosen: list[int], watched: Fleet
) -> Found:
    back = timedelta(days=7) if rule.aggregation in ("new", "absent") else rule.window
    matcher = aeolus.matcher_of(rule, slots[0] - back, slots[-1])
    rows = events.times(tenant.pk, matcher, MOST_EVENTS)
    if rule.aggregation == Rule.Aggregation.NEW:
        met: set[int] = set()
        firsts = []
        for row in rows:
            if row[2] not in met:
                met.add(row[2])
                firsts.append(row)
        rows = [row for row in firsts if row[3] > slots[0] - rule.window]
    of_server: dict[int, list[int]] = {pk: [] for pk in chosen}
    for server, _, _, at, _ in rows:
        if server in of_server:
            of_server[server].append(_ms(at))
    times = np.array([_ms(slot) for slot in slots])
    window = rule.window // timedelta(milliseconds=1)
    values = np.full((len(chosen), len(slots)), np.nan)
    for line, pk in enumerate(chosen):
        own = np.array(of_server[pk], np.int64)
        until = np.searchsorted(own, times, side="right")
        if rule.aggregation == Rule.Aggregation.ABSENT:
            if len(own):
                since = (times - own[np.maximum(until - 1, 0)]) / 1000
                values[line] = np.where(until > 0, since, np.nan)
            continue
        values[line] = until - np.searchsorted(own, times - window, side="left")
        if rule.aggregation == Rule.Aggregation.RATE:
            values[line] /= rule.window.total_seconds()
    unit = "seconds" if rule.aggregation == Rule.Aggregation.ABSENT else "count"
    lasts = np.tile(times, (len(chosen), 1))
    subject = aeolus.subject_of(rule)
    return Found([(pk, subject) for pk in chosen], values, lasts, values, unit)


_Reader = Callable[[Tenant, Rule, list[datetime], list[int], Fleet], Found]
_READERS: dict[str, _Reader] = {
    "metric": _measured,
    "service": _measured,
    "forecast": _forecast,
    "silence": _silent,
    "event": _logged,
}


def _read(
    tenant: Tenant,
    rule: Rule,
    start: datetime,
    end: datetime,
    servers: Sequence[int],
    wanted: tuple[str, str] | None = None,
) -> Points:
    wanted = wanted or (rule.measurement, rule.field)
    return queries.points(tenant.pk, [wanted], [(start, end)], servers)[0]


def _rows(rule: Rule, points: Points) -> tuple[NDArray[np.intp], list[tuple[int, str]]]:
    """A row for each series that the rule is for, at server and tag set; -1 for others."""
    width = max(1, len(points.tags))
    rows = np.full(len(points.server_ids) * width, -1, np.intp)
    meant = chronos.of_series(rule, points.tags)
    names: list[tuple[int, str]] = []
    for key in np.unique(points.servers * width + points.series).tolist():
        if meant[key % width] and len(names) < MOST_SERIES:
            rows[key] = len(names)
            tags: Tags = points.tags[key % width]
            said = subject_of(rule.measurement, rule.field, dict(tags))
            names.append((int(points.server_ids[key // width]), dict(tags).get("service", said)))
    return rows, names


def _quiet_after(watched: Fleet) -> dict[int, float]:
    """After how many milliseconds each server is silent."""
    after = (watched.silent_after * 1000).tolist()
    return dict(zip(watched.ids.tolist(), after, strict=True))


# -- for pages ----------------------------------------------------------------


def _lines(
    found: Found, slots: list[datetime], raised: list[Raised], hosts: dict[int, str]
) -> list[dict[str, Any]]:
    """The series that would have alerted, then those with the most; no more than SHOWN."""
    first = list(dict.fromkeys(one.row for one in raised))
    with np.errstate(all="ignore"):
        peaks = np.nan_to_num(np.nanmax(found.drawn, axis=1, initial=-np.inf), neginf=-1e300)
    rest = [row for row in np.argsort(-peaks).tolist() if row not in set(first)]
    times = [slot.timestamp() for slot in slots]
    lines = []
    for row in (first + rest)[:SHOWN]:
        server, subject = found.names[row]
        known = ~np.isnan(found.drawn[row])
        if not known.any():
            continue
        label = f"{hosts.get(server, server)} {subject}".strip()
        lines.append(
            {
                "name": label,
                "label": label,
                "unit": found.unit,
                "tags": {},
                "times": [time for time, is_known in zip(times, known, strict=True) if is_known],
                "values": [round(value, 6) for value in found.drawn[row][known].tolist()],
            }
        )
    return lines


def _limits(rule: Rule) -> list[dict[str, Any]]:
    """The lines to draw: the limits; of a forecast the level that it runs towards."""
    if rule.kind == Rule.Kind.FORECAST:
        return [{"severity": rule.limits[-1][0], "value": rule.target}]
    return [{"severity": severity, "value": value} for severity, value in rule.limits]


def _alerted(one: Raised, rule: Rule, found: Found, hosts: dict[int, str]) -> Alerted:
    server, subject = found.names[one.row]
    unit = "seconds" if rule.kind == Rule.Kind.FORECAST else found.unit
    return Alerted(
        host=hosts.get(server, str(server)),
        subject=subject,
        severity=one.severity,
        value=number(one.value, unit),
        opened_at=one.opened_at.timestamp(),
        ended_at=one.ended_at.timestamp() if one.ended_at else None,
    )


def _ms(at: datetime) -> int:
    return int(at.timestamp() * 1000)
