"""The only way out: series, newest values, who was heard when, for pages, rules and the API."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from accounts.models import Tenant
from agent_client import units
from metrics import events, isolation, stores
from metrics.batch import Tags
from metrics.stores.base import Label, Points, Series, Windowed, is_aggregation
from metrics.windows import LOOK_BEHIND, LOOKBACK, Windows, over
from sentinel_site.kit.problems import Problem

#: A tenant has new data if something came in within this time.
ACTIVE = timedelta(minutes=2)
#: Of a server's newest values only those of its last few reports are shown.
FRESH = timedelta(minutes=10)
MAX_POINTS = 2_000

#: Up to this span, bars of log events are this wide.
_BARS = (
    (timedelta(hours=2), timedelta(minutes=5)),
    (timedelta(hours=12), timedelta(minutes=15)),
    (timedelta(days=2), timedelta(hours=1)),
    (timedelta(days=14), timedelta(hours=6)),
)

_STEPS = (1, 2, 5, 10, 15, 20, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 86400)


#: Points of longer windows are not read one by one for a whole tenant: the store aggregates them.
READ_WHOLE = timedelta(minutes=20)


class Ask(NamedTuple):
    """What a rule wants to know of every server: one field, aggregated over one window."""

    measurement: str
    field: str
    agg: str
    window: timedelta


class NotAnAggregation(Problem):
    status, code, title = 422, "not-an-aggregation", "There is no such aggregation"


@dataclass(frozen=True)
class Line:
    """One series as charts draw it; times in Unix seconds."""

    name: str
    label: str
    unit: str
    tags: dict[str, str]
    times: list[float]
    values: list[float | None]


@dataclass(frozen=True)
class Chart:
    """Series over one span. `step` is the usual distance of two values in seconds."""

    start: float
    end: float
    step: float
    series: list[Line] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class Value(NamedTuple):
    """The newest value of one series."""

    value: float
    at: datetime


@dataclass(frozen=True)
class Averages:
    """Over a span, in percent; None where nothing is known. Of disks, the fullest."""

    cpu: float | None
    memory: float | None
    disk: float | None


#: measurement and tags -> field -> value
Latest = dict[tuple[str, Tags], dict[str, Value]]


def is_counter(measurement: str, name: str) -> bool:
    return (measurement, name) in units.COUNTERS


def default_aggregation(measurement: str, name: str) -> str:
    return "rate" if is_counter(measurement, name) else "avg"


def unit_of(measurement: str, name: str, agg: str = "avg") -> str:
    """`percent`, `bytes`, `bytes_per_second`, `seconds` or `count`: how a value is written."""
    if agg == "count":
        return "count"
    unit = units.unit_of(measurement, name)
    if agg == "rate":
        return {"bytes": "bytes_per_second", "percent": "percent"}.get(unit, "count")
    return "count" if unit == "milliseconds" else unit


# -- over time ----------------------------------------------------------------


def series(
    tenant_id: int,
    server_id: int,
    measurement: str,
    field: str | Sequence[str],
    tags: Mapping[str, str] | None = None,
    *,
    start: datetime,
    end: datetime,
    points: int = 300,
    agg: str = "",
) -> Chart:
    """One or several fields over time, in at most about `points` values each.

    Without `agg`, gauges are averaged and counters become a rate per second. Buckets begin at
    multiples of the step, so that a chart does not waver as time goes on.
    Raises NotAnAggregation.
    """
    fields = [field] if isinstance(field, str) else list(field)
    if agg and not is_aggregation(agg):
        raise NotAnAggregation("Use avg, min, max, last, sum, count, rate or a percentile as p95.")
    points = max(1, min(points, MAX_POINTS))
    step = _step((end - start).total_seconds() / points)
    first = math.floor(start.timestamp() / step) * step
    last = max(first + step, math.ceil(end.timestamp() / step) * step)
    asked: dict[str, list[str]] = {}
    for name in fields:
        asked.setdefault(agg or default_aggregation(measurement, name), []).append(name)
    found: list[tuple[str, Series]] = []
    for aggregation, names in asked.items():
        found += [
            (aggregation, one)
            for one in stores.current().range(
                tenant_id,
                server_id,
                measurement,
                names,
                tags or {},
                first * 1000,
                last * 1000,
                step * 1000,
                aggregation,
            )
        ]
    found.sort(key=lambda pair: (fields.index(pair[1].column.field), pair[1].column.tags))
    lines = [_line(one, aggregation) for aggregation, one in found]
    return Chart(start.timestamp(), end.timestamp(), _distance(lines, step), lines)


def sparkline(
    tenant_id: int,
    server_id: int,
    measurement: str,
    field: str,
    *,
    start: datetime,
    end: datetime,
    points: int = 48,
) -> list[float | None]:
    """One value a step from start to end, None where nothing is known; the first series found."""
    chart = series(
        tenant_id, server_id, measurement, field, start=start, end=end, points=points, agg=""
    )
    if not chart.series:
        return []
    step = _step((end - start).total_seconds() / max(1, points))
    known = dict(zip(chart.series[0].times, chart.series[0].values, strict=True))
    first = math.floor(start.timestamp() / step) * step
    return [known.get(float(at)) for at in range(first, math.ceil(end.timestamp()), step)]


def averages(tenant_id: int, server_id: int, start: datetime, end: datetime) -> Averages:
    """CPU, memory and fullest disk, averaged over the span."""

    def mean(measurement: str) -> float | None:
        span = max(1, math.ceil((end - start).total_seconds() * 1000))
        found = stores.current().range(
            tenant_id,
            server_id,
            measurement,
            ["percent"],
            {},
            _ms(start),
            _ms(start) + span,
            span,
            "avg",
        )
        return max((one.values[0] for one in found), default=None)

    return Averages(mean("cpu"), mean("memory"), mean("disk"))


def events_per_hour(
    tenant_id: int,
    start: datetime,
    end: datetime,
    server_id: int | None = None,
    levels: Sequence[str] = ("critical", "error", "warning"),
) -> Chart:
    """Log events by level as a chart, worst level first: by the hour over a day.

    Shorter spans have shorter steps and longer ones longer, so that a chart has 12 to 60 bars.
    """
    step = next((step for span, step in _BARS if end - start <= span), timedelta(days=1))
    hours = events.per_hour(tenant_id, start, end, server_id, step)
    times = [hour.at.timestamp() for hour in hours]
    lines = [
        Line(
            level,
            level.capitalize(),
            "count",
            {},
            times,
            [float(hour.counts.get(level, 0)) for hour in hours],
        )
        for level in levels
    ]
    return Chart(
        times[0] if times else start.timestamp(), end.timestamp(), step.total_seconds(), lines
    )


# -- now ----------------------------------------------------------------------


def latest(
    tenant_id: int,
    server_ids: Iterable[int],
    measurements: Iterable[str] | None = None,
    fresh: timedelta | None = FRESH,
) -> dict[int, Latest]:
    """The newest values of each server, by (measurement, tags) and field.

    With `fresh`, without what its newest reports have no more: an unmounted disk, a gone tap.
    """
    found = stores.current().latest(tenant_id, server_ids, measurements)
    newest: dict[int, int] = {}
    for one in found:
        if one.ts > newest.get(one.server_id, -1):
            newest[one.server_id] = one.ts
    oldest_shown = fresh / timedelta(milliseconds=1) if fresh is not None else math.inf
    times = {ts: _time(ts) for ts in {one.ts for one in found}}
    result: dict[int, Latest] = {server_id: {} for server_id in newest}
    for server_id, (measurement, name, tags), ts, value in found:
        if newest[server_id] - ts <= oldest_shown:
            values = result[server_id].setdefault((measurement, tags), {})
            values[name] = Value(value, times[ts])
    return result


def window(
    tenant_id: int,
    measurement: str,
    field: str,
    *,
    since: datetime,
    until: datetime,
    agg: str,
    tags: Mapping[str, str] | None = None,
) -> list[Windowed]:
    """One aggregation for every server and tag set of a tenant in one query; what rules ask."""
    if not is_aggregation(agg):
        raise NotAnAggregation("Use avg, min, max, last, sum, count, rate or a percentile as p95.")
    return stores.current().window(
        tenant_id, measurement, field, _ms(since), _ms(until), agg, tags or {}
    )


def windows(tenant_id: int, asks: Sequence[Ask], at: datetime) -> dict[Ask, Windows]:
    """What many rules ask at one instant, for all servers of a tenant; the instant belongs to it.

    Windows of about the same length are answered by one reading of the store.
    """
    until = _ms(at) + 1
    answers: dict[Ask, Windows] = {}
    together: dict[int, list[Ask]] = {}
    for ask in dict.fromkeys(asks):
        if not is_aggregation(ask.agg):
            raise NotAnAggregation(f"There is no aggregation {ask.agg!r}.")
        if ask.window > READ_WHOLE:
            answers[ask] = _aggregated_by_store(tenant_id, ask, at, until)
        else:
            magnitude = max(0, math.ceil(math.log(_behind(ask) / 60_000, 5)))
            together.setdefault(magnitude, []).append(ask)
    for group in together.values():
        wanted = list(dict.fromkeys((ask.measurement, ask.field) for ask in group))
        since = until - max(map(_behind, group))
        read = stores.current().points(tenant_id, wanted, [(since, until)])
        found = dict(zip(wanted, read, strict=True))
        for ask in group:
            answers[ask] = over(
                found[ask.measurement, ask.field], ask.agg, _ms(at - ask.window), until
            )
    return answers


def points(
    tenant_id: int,
    wanted: Sequence[tuple[str, str]],
    spans: Sequence[tuple[datetime, datetime]],
    server_ids: Iterable[int] | None = None,
) -> list[Points]:
    """Stored points of each (measurement, field) within the spans, each including its end."""
    read = [(_ms(start), _ms(end) + 1) for start, end in spans]
    return stores.current().points(tenant_id, wanted, read, server_ids)


def _behind(ask: Ask) -> int:
    """How far back points are needed, in milliseconds."""
    lookback = LOOKBACK if ask.agg in LOOK_BEHIND else 0
    return max(1, ask.window // timedelta(milliseconds=1)) + lookback + 1


def _aggregated_by_store(tenant_id: int, ask: Ask, at: datetime, until: int) -> Windows:
    found = stores.current().window(
        tenant_id, ask.measurement, ask.field, _ms(at - ask.window), until, ask.agg
    )
    numbers: dict[Tags, int] = {}
    series = [numbers.setdefault(one.tags, len(numbers)) for one in found]
    return Windows(
        np.array([one.server_id for one in found], np.int64),
        list(numbers),
        np.array(series, np.intp),
        np.array([one.value for one in found], np.float64),
        np.array([one.last for one in found], np.int64),
    )


def labels(tenant_id: int, server_id: int | None = None) -> list[Label]:
    """Measurements, fields and tags that exist, for forms."""
    return stores.current().labels(tenant_id, server_id)


def last_seen(tenant_id: int) -> dict[int, datetime]:
    """When each server's last report or log event came in, by the server's clock."""
    with isolation.only(tenant_id) as cursor:
        cursor.execute(
            "SELECT server_id, max(received_at) FROM public.metrics_source"
            " WHERE tenant_id = %s GROUP BY 1",
            [tenant_id],
        )
        return dict(cursor.fetchall())


def last_heard(tenant_id: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The same as arrays: servers by id, and seconds since 1970."""
    with isolation.only(tenant_id) as cursor:
        cursor.execute(
            "SELECT server_id, extract(epoch FROM max(received_at))::float8"
            " FROM public.metrics_source WHERE tenant_id = %s GROUP BY 1 ORDER BY 1",
            [tenant_id],
        )
        rows = cursor.fetchall()
    return (
        np.array([row[0] for row in rows], np.int64),
        np.array([row[1] for row in rows], np.float64),
    )


def active_tenants(now: datetime) -> list[str]:
    """The schemas of the tenants that sent something within `ACTIVE`."""
    schemas = dict(
        Tenant.objects.filter(provisioned_at__isnull=False).values_list("pk", "schema_name")
    )
    if not schemas:
        return []
    with isolation.only(*schemas) as cursor:
        cursor.execute(
            "SELECT DISTINCT tenant_id FROM public.metrics_source WHERE received_at >= %s",
            [now - ACTIVE],
        )
        return sorted(schemas[row[0]] for row in cursor.fetchall())


# -- arithmetic ---------------------------------------------------------------


def _line(one: Series, agg: str) -> Line:
    column = one.column
    return Line(
        name=column.field,
        label=column.field.replace("_", " "),
        unit=unit_of(column.measurement, column.field, agg),
        tags=dict(column.tags),
        times=[at / 1000 for at in one.times],
        values=list(one.values),
    )


def _step(seconds: float) -> int:
    """The next round number of seconds that is at least this long."""
    for step in _STEPS:
        if step >= seconds:
            return step
    return math.ceil(seconds / 86_400) * 86_400


def _distance(lines: Iterable[Line], step: int) -> float:
    """How far apart two values usually are: the step, or the interval of reports if longer."""
    gaps = [
        later - earlier
        for line in lines
        for earlier, later in zip(line.times, line.times[1:], strict=False)
    ]
    return max(float(step), statistics.median(gaps)) if gaps else float(step)


def _ms(at: datetime) -> int:
    return math.floor(at.timestamp() * 1000)


def _time(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)
