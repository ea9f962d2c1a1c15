"""What rules ask: one number a series, over arrays, checked against a naive model."""

from __future__ import annotations

import itertools
import math
import statistics
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metrics.batch import Point
from metrics.stores import copying
from metrics.stores.base import Points
from metrics.windows import LOOKBACK, over
from tests.metrics.test_postgres_store import BASE, STORE, cpu, write, write_all

MINUTE = 60_000
ROWS = st.lists(
    st.tuples(
        st.sampled_from([3, 7, 40]),
        st.integers(0, 2),
        st.integers(-15 * MINUTE, 5 * MINUTE),
        st.sampled_from([0.0, 1.0, 2.5, -4.0, 100.0]),
    ),
    max_size=40,
    unique_by=lambda row: row[:3],
)


def points_of(rows) -> Points:
    rows = sorted(rows, key=lambda row: row[2])
    ids = np.unique(np.array([row[0] for row in rows], np.int64))
    return Points(
        ids,
        np.searchsorted(ids, [row[0] for row in rows]).astype(np.intp),
        [(), (("mount", "/"),), (("mount", "/var"),)],
        np.array([row[1] for row in rows], np.intp),
        np.array([BASE + row[2] for row in rows], np.int64),
        np.array([row[3] for row in rows], np.float64),
    )


def naive(rows, agg: str) -> dict[tuple[int, int], float]:
    series = defaultdict(list)
    for server, tag, at, value in sorted(rows, key=lambda row: row[2]):
        if at >= -LOOKBACK:
            series[server, tag].append((at, value))
    found = {}
    for key, pairs in series.items():
        inside = [value for at, value in pairs if at >= 0]
        if inside:
            value = naive_value(agg, inside, pairs)
            if value is not None:
                found[key] = value
    return found


def naive_value(agg, inside, pairs):
    steps = [
        (now_at - at, now - before, now)
        for (at, before), (now_at, now) in itertools.pairwise(pairs)
        if now_at >= 0
    ]
    if agg == "rate":
        span = sum(step[0] for step in steps)
        return sum(d if d >= 0 else now for _, d, now in steps) * 1000 / span if span else None
    if agg[0] == "p":
        ordered = sorted(inside)
        rank = (len(ordered) - 1) * float(agg[1:]) / 100
        low = ordered[math.floor(rank)]
        return low + (ordered[math.ceil(rank)] - low) * (rank % 1)
    return {
        "avg": lambda: statistics.fmean(inside),
        "min": lambda: min(inside),
        "max": lambda: max(inside),
        "last": lambda: inside[-1],
        "sum": lambda: sum(inside),
        "count": lambda: len(inside),
        "delta": lambda: inside[-1] - inside[0] if len(inside) > 1 else None,
        "stddev": lambda: statistics.pstdev(inside),
        "changes": lambda: sum(1 for _, difference, _ in steps if difference),
    }[agg]()


@settings(max_examples=200, deadline=None)
@given(
    rows=ROWS,
    agg=st.sampled_from(
        [
            "avg",
            "min",
            "max",
            "last",
            "sum",
            "count",
            "rate",
            "delta",
            "stddev",
            "changes",
            "p0",
            "p50",
            "p95",
            "p100",
        ]
    ),
)
def test_an_aggregation_over_arrays_is_what_it_is_over_lists(rows, agg):
    found = over(points_of(rows), agg, BASE, BASE + 5 * MINUTE + 1)
    got = {
        (int(server), int(series)): value
        for server, series, value in zip(found.servers, found.series, found.values, strict=True)
    }
    assert got == pytest.approx(naive(rows, agg), abs=1e-9)


def test_an_aggregation_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="mode"):
        over(points_of([(3, 0, 0, 1.0)]), "mode", BASE, BASE + MINUTE)


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    written=st.dictionaries(
        st.tuples(st.sampled_from([1, 2, 3]), st.integers(-30, 30)),
        st.tuples(
            st.floats(-1e9, 1e9),
            st.dictionaries(st.sampled_from(["/", "/var", "/srv"]), st.floats(0, 100)),
        ),
        max_size=25,
    ),
    since=st.integers(-30, 20),
)
def test_points_come_out_of_the_store_as_they_were_written(acme, written, since):
    STORE.forget(acme.pk)
    write_all(
        acme,
        [
            (
                server,
                BASE + second * 1000,
                [
                    cpu(value),
                    *(Point("disk", (("mount", m),), {"percent": v}) for m, v in d.items()),
                ],
            )
            for (server, second), (value, d) in written.items()
        ],
    )
    start, end = BASE + since * 1000, BASE + 25_000
    found = STORE.points(
        acme.pk, [("cpu", "percent"), ("disk", "percent"), ("cpu", "none")], [(start, end)]
    )
    inside = {key: row for key, row in written.items() if since <= key[1] < 25}
    assert read(found[0]) == {
        (server, (), BASE + second * 1000, value) for (server, second), (value, _) in inside.items()
    }
    assert read(found[1]) == {
        (server, (("mount", mount),), BASE + second * 1000, value)
        for (server, second), (_, disks) in inside.items()
        for mount, value in disks.items()
    }
    assert len(found[2].values) == 0
    assert all((np.diff(one.times) >= 0).all() for one in found)


def read(points: Points) -> set[tuple[int, object, int, float]]:
    return {
        (int(points.server_ids[server]), points.tags[series], int(at), float(value))
        for server, series, at, value in zip(
            points.servers, points.series, points.times, points.values, strict=True
        )
    }


def test_points_are_of_one_tenant_of_the_servers_and_within_the_spans_named(acme, globex):
    for server in (1, 2):
        write_all(acme, [(server, BASE + n * MINUTE, [cpu(n)]) for n in range(5)])
    write(globex, 1, BASE, cpu(99))
    spans = [(BASE, BASE + 1), (BASE + 3 * MINUTE, BASE + 4 * MINUTE)]
    [found] = STORE.points(acme.pk, [("cpu", "percent")], spans, [2])
    assert [(at - BASE, value) for _, _, at, value in sorted(read(found), key=lambda r: r[2])] == [
        (0, 0),
        (3 * MINUTE, 3),
    ]
    [none] = STORE.points(acme.pk, [("cpu", "percent")], [], [2])
    assert len(none.values) == 0


def test_a_record_of_a_shape_not_known_is_refused_and_never_misread():
    header = b"PGCOPY\n\xff\r\n\0" + bytes(8)
    with pytest.raises(ValueError, match="expected length"):
        copying.parse([header + bytes(70), b"\xff\xff"])
    with pytest.raises(ValueError, match="no binary COPY"):
        copying.parse([])
