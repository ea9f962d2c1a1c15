"""The embedded store: wide rows in PostgreSQL, one a (server, set of columns, time)."""

from __future__ import annotations

import itertools
import json
import operator
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from metrics import isolation
from metrics.stores import copying, sets
from metrics.stores.base import Column, Label, Newest, Points, Row, Series, Windowed, percentile

#: A newest row from further ahead than this came from a wrong clock; the next one replaces it.
AHEAD = 300_000
#: How far before a window a counter's previous value is looked for, at least.
LOOKBACK = 600_000
REMEMBERED_SETS = 20_000

_WRITE = """
WITH given AS (
  SELECT tenant_id, server_id, set_id, ts, since, newest,
         (%s::float8[])[first:last] AS values
  FROM unnest(%s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[], %s::bool[],
              %s::int[], %s::int[])
    AS g(tenant_id, server_id, set_id, ts, since, newest, first, last)
), points AS (
  INSERT INTO public.metrics_points (tenant_id, server_id, set_id, ts, values)
  SELECT tenant_id, server_id, set_id, ts, values FROM given
  ON CONFLICT (tenant_id, server_id, set_id, ts) DO UPDATE SET values = excluded.values
)
INSERT INTO public.metrics_latest AS known (tenant_id, server_id, set_id, ts, since, values)
SELECT tenant_id, server_id, set_id, ts, since, values FROM given WHERE newest
ON CONFLICT (tenant_id, server_id, set_id) DO UPDATE SET
  ts = CASE WHEN excluded.ts >= known.ts OR known.ts > %s THEN excluded.ts ELSE known.ts END,
  since = least(known.since, excluded.since),
  values =
    CASE WHEN excluded.ts >= known.ts OR known.ts > %s THEN excluded.values ELSE known.values END
WHERE excluded.ts >= known.ts OR known.ts > %s OR excluded.since < known.since
"""

_WRITE_SETS = """
INSERT INTO public.metrics_set (tenant_id, id, measurements, columns)
SELECT tenant_id, id, ARRAY(SELECT jsonb_array_elements_text(measurements)), columns
FROM unnest(%s::bigint[], %s::bigint[], %s::jsonb[], %s::jsonb[])
  AS g(tenant_id, id, measurements, columns)
ON CONFLICT DO NOTHING
"""

_SERVER_SETS = """
SELECT set_id FROM public.metrics_latest
WHERE tenant_id = %s AND server_id = %s AND ts >= %s AND since < %s
"""

_TENANT_SETS = "SELECT id FROM public.metrics_set WHERE tenant_id = %s AND measurements @> %s"

_WANTED_SETS = "SELECT id, measurements && %s FROM public.metrics_set WHERE tenant_id = %s"

_COLUMNS = "SELECT id, columns FROM public.metrics_set WHERE tenant_id = %s AND id = ANY(%s)"

_VALUES = """
SELECT {server} w.series, p.ts, p.values[w.place] AS v
FROM unnest(%(sets)s::bigint[], %(places)s::int[], %(series)s::int[]) AS w(set_id, place, series)
JOIN public.metrics_points p ON p.tenant_id = %(tenant)s AND p.set_id = w.set_id {and_server}
 AND p.ts >= %(since)s AND p.ts < %(until)s
"""

_INCREASES = """
SELECT *, CASE WHEN v >= before THEN v - before ELSE v END AS increase, ts - ts_before AS span
FROM (SELECT *, lag(v) OVER w AS before, lag(ts) OVER w AS ts_before FROM ({values}) AS p
      WINDOW w AS (PARTITION BY {server} series ORDER BY ts)) AS q
WHERE before IS NOT NULL AND ts >= %(start)s
"""


@dataclass(frozen=True)
class _Places:
    """Where the wanted series are in the sets' rows."""

    columns: list[Column]
    arguments: dict[str, Any]


class PostgresStore:
    """Shared tables, never asked without naming a tenant; row-level security stands behind."""

    def write(self, rows: Sequence[Row], cursor: Any) -> None:
        """Write into the cursor's transaction, which must have named the rows' tenants."""
        last = {(row.tenant_id, row.server_id, row.set_id, row.ts): row for row in rows}
        if not last:
            return
        ordered = [last[key] for key in sorted(last)]  # one order everywhere: no deadlock
        _write_sets(ordered, cursor)
        cursor.execute(_WRITE, _arguments(ordered))

    def range(
        self,
        tenant_id: int,
        server_id: int,
        measurement: str,
        fields: Sequence[str],
        tags: Mapping[str, str],
        start: int,
        end: int,
        step: int,
        agg: str,
    ) -> list[Series]:
        with isolation.only(tenant_id) as cursor:
            cursor.execute(_SERVER_SETS, [tenant_id, server_id, start, end])
            set_ids = [row[0] for row in cursor.fetchall()]
            columns_of = _columns(cursor, tenant_id, set_ids)
            places = _places(columns_of, measurement, set(fields), tags)
            if not places.columns:
                return []
            rows = _aggregate(
                cursor,
                agg,
                by="series, (ts - %(start)s) / %(step)s",
                of_server=True,
                arguments={
                    **places.arguments,
                    "tenant": tenant_id,
                    "server": server_id,
                    "start": start,
                    "until": end,
                    "step": step,
                    "lookback": max(LOOKBACK, 2 * step),
                },
            )
        times: dict[int, list[int]] = defaultdict(list)
        values: dict[int, list[float]] = defaultdict(list)
        for series, bucket, value, _, _ in rows:
            times[series].append(start + bucket * step)
            values[series].append(value)
        return [
            Series(column, times[number], values[number])
            for number, column in enumerate(places.columns)
            if number in times
        ]

    def latest(
        self, tenant_id: int, server_ids: Iterable[int], measurements: Iterable[str] | None = None
    ) -> list[Newest]:
        wanted = None if measurements is None else set(measurements)
        with isolation.only(tenant_id) as cursor:
            cursor.execute(
                "SELECT server_id, set_id, ts, values FROM public.metrics_latest"
                " WHERE tenant_id = %s AND server_id = ANY(%s) ORDER BY server_id, ts",
                [tenant_id, list(server_ids)],
            )
            rows = cursor.fetchall()
            columns_of = _columns(cursor, tenant_id, {row[1] for row in rows})
        places = {
            set_id: [
                (place, column)
                for place, column in enumerate(columns)
                if wanted is None or column.measurement in wanted
            ]
            for set_id, columns in columns_of.items()
        }
        newest: list[Newest] = []
        for server_id, of_server in itertools.groupby(rows, key=operator.itemgetter(0)):
            found: dict[Column, Newest] = {}
            for _, set_id, ts, values in of_server:  # oldest first: the newest stays
                for place, column in places.get(set_id, ()):
                    found[column] = Newest(server_id, column, ts, values[place])
            newest.extend(found.values())
        return newest

    def window(
        self,
        tenant_id: int,
        measurement: str,
        field: str,
        since: int,
        until: int,
        agg: str,
        tags: Mapping[str, str] | None = None,
    ) -> list[Windowed]:
        with isolation.only(tenant_id) as cursor:
            cursor.execute(_TENANT_SETS, [tenant_id, [measurement]])
            set_ids = [row[0] for row in cursor.fetchall()]
            columns_of = _columns(cursor, tenant_id, set_ids)
            places = _places(columns_of, measurement, {field}, tags or {})
            if not places.columns:
                return []
            rows = _aggregate(
                cursor,
                agg,
                by="server_id, series",
                of_server=False,
                arguments={
                    **places.arguments,
                    "tenant": tenant_id,
                    "start": since,
                    "until": until,
                    "lookback": max(LOOKBACK, until - since),
                },
            )
        return [
            Windowed(server_id, places.columns[series].tags, value, count, last)
            for server_id, series, value, count, last in rows
        ]

    def points(
        self,
        tenant_id: int,
        wanted: Sequence[tuple[str, str]],
        spans: Sequence[tuple[int, int]],
        server_ids: Iterable[int] | None = None,
    ) -> list[Points]:
        measurements = sorted({measurement for measurement, _ in wanted})
        with isolation.only(tenant_id) as cursor:
            cursor.execute(_WANTED_SETS, [measurements, tenant_id])
            rows = cursor.fetchall()
            set_ids = [set_id for set_id, is_wanted in rows if is_wanted]
            columns_of = _columns(cursor, tenant_id, set_ids)
            times = " OR ".join(["(ts >= %s AND ts < %s)"] * len(spans))
            where = f"tenant_id = %s AND ({times or 'false'})"
            arguments: list[object] = [tenant_id, *itertools.chain.from_iterable(spans)]
            if len(set_ids) < len(rows) or not rows:
                where += " AND set_id = ANY(%s::bigint[])"
                arguments.append(set_ids)
            if server_ids is not None:
                where += " AND server_id = ANY(%s::bigint[])"
                arguments.append(list(server_ids))
            records = copying.read(cursor, where, arguments)
        return copying.points(records, columns_of, wanted, tenant_id)

    def labels(self, tenant_id: int, server_id: int | None = None) -> list[Label]:
        with isolation.only(tenant_id) as cursor:
            cursor.execute(
                "SELECT DISTINCT set_id FROM public.metrics_latest"
                " WHERE tenant_id = %s AND (%s::bigint IS NULL OR server_id = %s)",
                [tenant_id, server_id, server_id],
            )
            columns_of = _columns(cursor, tenant_id, [row[0] for row in cursor.fetchall()])
        fields: dict[str, set[str]] = defaultdict(set)
        tags: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
        for columns in columns_of.values():
            for column in columns:
                fields[column.measurement].add(column.field)
                for name, value in column.tags:
                    tags[column.measurement][name].add(value)
        return [
            Label(
                measurement,
                sorted(fields[measurement]),
                {name: sorted(values) for name, values in sorted(tags[measurement].items())},
            )
            for measurement in sorted(fields)
        ]

    def forget(self, tenant_id: int, server_id: int | None = None) -> None:
        tables = ["metrics_points", "metrics_latest"]
        if server_id is None:
            tables.append("metrics_set")
        which = "" if server_id is None else " AND server_id = %(server)s"
        with isolation.only(tenant_id) as cursor:
            for table in tables:
                cursor.execute(
                    f"DELETE FROM public.{table} WHERE tenant_id = %(tenant)s{which}",  # noqa: S608
                    {"tenant": tenant_id, "server": server_id},
                )


def _arguments(rows: list[Row]) -> list[Any]:
    """The rows as one flat array of values and parallel arrays of keys.

    Only the newest row of a (server, set) goes on to `latest`, with the oldest time of them all.
    """
    since: dict[tuple[int, int, int], int] = {}
    newest: dict[tuple[int, int, int], int] = {}
    flat: list[str] = []
    firsts, lasts = [], []
    for number, row in enumerate(rows):
        pair = (row.tenant_id, row.server_id, row.set_id)
        since.setdefault(pair, row.ts)  # the rows are in order of time
        newest[pair] = number
        firsts.append(len(flat) + 1)
        flat.extend(map(repr, row.values))
        lasts.append(len(flat))
    chosen = set(newest.values())
    return [
        "{" + ",".join(flat) + "}",
        [row.tenant_id for row in rows],
        [row.server_id for row in rows],
        [row.set_id for row in rows],
        [row.ts for row in rows],
        [since[row.tenant_id, row.server_id, row.set_id] for row in rows],
        [number in chosen for number in range(len(rows))],
        firsts,
        lasts,
        *[time.time_ns() // 1_000_000 + AHEAD] * 3,
    ]


def _write_sets(rows: list[Row], cursor: Any) -> None:
    """Write down what the columns of each new (tenant, set) are; most batches have none."""
    given = {(row.tenant_id, row.set_id): row.columns for row in rows}
    unknown = given.keys() - _known_in(cursor, given.keys())
    if not unknown:
        return
    ordered = sorted(unknown)
    cursor.execute(
        _WRITE_SETS,
        [
            [tenant_id for tenant_id, _ in ordered],
            [set_id for _, set_id in ordered],
            [json.dumps(sorted({c.measurement for c in given[key]})) for key in ordered],
            [sets.encode(given[key]) for key in ordered],
        ],
    )


def _known_in(cursor: Any, keys: Iterable[tuple[int, int]]) -> set[tuple[int, int]]:
    wanted = sorted(keys)
    cursor.execute(
        "SELECT tenant_id, id FROM public.metrics_set JOIN"
        " unnest(%s::bigint[], %s::bigint[]) AS g(tenant_id, id) USING (tenant_id, id)",
        [[tenant_id for tenant_id, _ in wanted], [set_id for _, set_id in wanted]],
    )
    return set(cursor.fetchall())


def _columns(cursor: Any, tenant_id: int, set_ids: Iterable[int]) -> dict[int, tuple[Column, ...]]:
    """The columns of these sets, without sets that are being forgotten.

    An id is a hash of its columns, so they can be kept for ever; other threads may clear what is.
    """
    wanted = set(set_ids)
    found = {set_id: known for set_id in wanted if (known := _decoded.get(set_id)) is not None}
    missing = list(wanted - found.keys())
    if missing:
        if len(_decoded) + len(missing) > REMEMBERED_SETS:
            _decoded.clear()
        cursor.execute(_COLUMNS, [tenant_id, missing])
        for set_id, columns in cursor.fetchall():
            rows = json.loads(columns) if isinstance(columns, str) else columns
            found[set_id] = _decoded[set_id] = sets.decode(rows)
    return found


def _places(
    columns_of: Mapping[int, tuple[Column, ...]],
    measurement: str,
    fields: set[str],
    tags: Mapping[str, str],
) -> _Places:
    wanted_tags = set(tags.items())
    numbers: dict[Column, int] = {}
    set_ids, places, series = [], [], []
    for set_id, columns in columns_of.items():
        for place, column in enumerate(columns, start=1):
            if (
                column.measurement == measurement
                and column.field in fields
                and wanted_tags.issubset(column.tags)
            ):
                set_ids.append(set_id)
                places.append(place)
                series.append(numbers.setdefault(column, len(numbers)))
    return _Places(list(numbers), {"sets": set_ids, "places": places, "series": series})


def _aggregate(
    cursor: Any, agg: str, *, by: str, of_server: bool, arguments: dict[str, Any]
) -> list[tuple[Any, ...]]:
    """Group by two expressions: (first, second, value, points, time of the last), in order."""
    server = "" if of_server else "server_id,"
    values = _VALUES.format(
        server="" if of_server else "p.server_id,",
        and_server="AND p.server_id = %(server)s" if of_server else "",
    )
    arguments = {**arguments, "since": arguments["start"]}
    if agg == "rate":
        arguments["since"] = arguments["start"] - arguments["lookback"]
        source = _INCREASES.format(values=values, server=server)
        expression = "1000 * sum(increase) / nullif(sum(span), 0)"
    elif agg == "changes":
        arguments["since"] = arguments["start"] - arguments["lookback"]
        source = _INCREASES.format(values=values, server=server)
        expression = "count(*) FILTER (WHERE v <> before)::float8"
    else:
        source = values
        expression = _expression(agg, arguments)
    cursor.execute(
        f"SELECT {by}, {expression} AS value, count(*), max(ts) FROM ({source}) AS r"  # noqa: S608
        " GROUP BY 1, 2 HAVING count(v) > 0 ORDER BY 1, 2",
        arguments,
    )
    return [row for row in cursor.fetchall() if row[2] is not None]


def _expression(agg: str, arguments: dict[str, Any]) -> str:
    if agg in ("avg", "min", "max", "sum"):
        return f"{agg}(v)"
    if agg == "count":
        return "count(v)::float8"
    if agg == "last":
        return "(array_agg(v ORDER BY ts DESC))[1]"
    if agg == "delta":
        change = "(array_agg(v ORDER BY ts DESC))[1] - (array_agg(v ORDER BY ts))[1]"
        return f"CASE WHEN count(v) > 1 THEN {change} END"
    if agg == "stddev":
        return "stddev_pop(v)"
    arguments["fraction"] = percentile(agg)
    if arguments["fraction"] is None:
        raise ValueError(f"{agg!r} is no aggregation")
    return "percentile_cont(%(fraction)s) WITHIN GROUP (ORDER BY v)"


_decoded: dict[int, tuple[Column, ...]] = {}
