"""What goes into the store comes out, whatever the order; checked against a naive model."""

from __future__ import annotations

import json
import math
import re
import statistics
from collections import defaultdict
from typing import Any

import pytest
from django.db import connection
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metrics import isolation, partitions
from metrics.batch import Point
from metrics.stores import sets
from metrics.stores.base import Row
from metrics.stores.postgres import PostgresStore

STORE = PostgresStore()
DAY = 86_400_000
BASE = 1_700_000_000_000 // DAY * DAY  # a midnight of 2023
AGGREGATIONS = ["avg", "min", "max", "last", "sum", "count", "p50", "p95"]


def write(tenant: Any, server_id: int, ts: int, *points: Point) -> None:
    write_all(tenant, [(server_id, ts, list(points))])


def write_all(tenant: Any, given: list[tuple[int, int, list[Point]]]) -> None:
    rows = [
        Row(tenant.pk, server_id, ts, sets.set_id(columns), columns, values)
        for server_id, ts, points in given
        for columns, values in sets.widen(points)
    ]
    with isolation.only(tenant.pk) as cursor:
        days = {_day(ts) for _, ts, _ in given}
        partitions.make(cursor, partitions.POINTS, days)
        STORE.write(rows, cursor)


def _day(ts: int) -> Any:
    from tests.metrics.builders import utc

    return utc(ts).date()


def read(tenant: Any, server_id: int = 1, agg: str = "last", step: int = 1, **more: Any) -> Any:
    asked = {"measurement": "cpu", "fields": ["percent"], "tags": {}, "start": BASE, **more}
    end = asked.pop("end", BASE + DAY)
    found = STORE.range(
        tenant.pk,
        server_id,
        asked["measurement"],
        asked["fields"],
        asked["tags"],
        asked["start"],
        end,
        step,
        agg,
    )
    return {
        (one.column.field, one.column.tags): dict(zip(one.times, one.values, strict=True))
        for one in found
    }


def cpu(value: float, **more: float) -> Point:
    return Point("cpu", (), {"percent": value, **more})


VALUES = st.floats(-1e12, 1e12, allow_nan=False).map(lambda value: round(value, 3))
WRITES = st.lists(
    st.tuples(
        st.sampled_from([1, 2]),  # server
        st.integers(-40, 3000).map(lambda n: BASE + n * 1000),  # some before midnight
        st.sampled_from(["", "eth0", "eth1"]),  # a tag, or none
        VALUES,
    ),
    min_size=1,
    max_size=40,
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    writes=WRITES,
    agg=st.sampled_from(AGGREGATIONS),
    step=st.sampled_from([1000, 7000, 60_000, 3_600_000]),
    batches=st.integers(1, 4),
)
def test_late_duplicate_and_unordered_points_come_out_as_the_model_says(
    acme, writes, agg, step, batches
):
    STORE.forget(acme.pk)
    model: dict[int, dict[str, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    size = math.ceil(len(writes) / batches)
    for start in range(0, len(writes), size):
        chunk = []
        for server, ts, tag, value in writes[start : start + size]:
            tags = (("interface", tag),) if tag else ()
            chunk.append((server, ts, [Point("cpu", tags, {"percent": value})]))
            model[server][tag][ts] = value  # the later write stays
        write_all(acme, chunk)
    first, last = BASE - 60_000, BASE + 3_600_000
    for server in (1, 2):
        found = read(acme, server, agg, step, start=first, end=last)
        expected = {}
        for tag, values in model[server].items():
            buckets: dict[int, list[tuple[int, float]]] = defaultdict(list)
            for ts, value in sorted(values.items()):
                buckets[first + (ts - first) // step * step].append((ts, value))
            tags = (("interface", tag),) if tag else ()
            expected["percent", tags] = {
                at: aggregate([value for _, value in pairs], agg) for at, pairs in buckets.items()
            }
        assert found.keys() == expected.keys()
        for series, values in expected.items():
            assert found[series] == pytest.approx(values)
        newest = {one.column.tags: (one.ts, one.value) for one in STORE.latest(acme.pk, [server])}
        assert newest == {
            (("interface", tag),) if tag else (): max(values.items())
            for tag, values in model[server].items()
        }


def aggregate(values: list[float], agg: str) -> float:
    if agg == "avg":
        return math.fsum(values) / len(values)
    if agg == "last":
        return values[-1]
    if agg == "count":
        return len(values)
    if agg == "p50":
        return statistics.median(values)
    if agg == "p95":
        ordered = sorted(values)
        place = 0.95 * (len(ordered) - 1)
        low, high = ordered[math.floor(place)], ordered[math.ceil(place)]
        return low + (high - low) * (place - math.floor(place))
    return {"min": min, "max": max, "sum": math.fsum}[agg](values)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    increases=st.lists(
        st.tuples(st.integers(1, 120), st.integers(0, 10**9), st.booleans()),
        min_size=2,
        max_size=30,
    ),
    order=st.randoms(use_true_random=False),
)
def test_the_rate_of_a_counter_survives_restarts(acme, increases, order):
    STORE.forget(acme.pk)
    at, counter, grown, points = BASE, 0, 0, []
    for number, (seconds, increase, restarts) in enumerate(increases):
        at += seconds * 1000
        before = counter
        counter = increase if restarts and number else counter + increase
        if number:  # after a restart the counter may have come by what it shows, or more
            grown += counter - before if counter >= before else counter
        points.append((1, at, [Point("network", (), {"sent_bytes": float(counter)})]))
    order.shuffle(points)
    write_all(acme, points)
    first = BASE + increases[0][0] * 1000
    found = read(acme, agg="rate", step=DAY, measurement="network", fields=["sent_bytes"], tags={})
    expected = grown / ((at - first) / 1000)
    assert found["sent_bytes", ()][BASE] == pytest.approx(expected)


def test_the_rate_of_a_bucket_begins_with_the_value_before_it(acme):
    for second, counter in ((0, 100), (10, 200), (20, 400)):
        point = Point("network", (), {"sent_bytes": float(counter)})
        write(acme, 1, BASE + second * 1000, point)
    found = read(
        acme,
        agg="rate",
        step=10_000,
        measurement="network",
        fields=["sent_bytes"],
        start=BASE + 10_000,
    )
    assert found["sent_bytes", ()] == {BASE + 10_000: 10.0, BASE + 20_000: 20.0}


def test_a_series_goes_on_when_the_shape_of_its_reports_changes(acme):
    write(acme, 1, BASE, cpu(1), Point("disk", (("device", "a"),), {"used": 1}))
    write(acme, 1, BASE + 1000, cpu(2), Point("disk", (("device", "b"),), {"used": 1}))
    write(acme, 1, BASE + 2000, cpu(3, user=9))
    assert read(acme)["percent", ()] == {BASE: 1, BASE + 1000: 2, BASE + 2000: 3}


def test_many_interfaces_do_not_change_the_shape_of_the_rest():
    many = [
        Point("network", (("interface", f"tap{n}"),), {"sent_bytes": 1, "received_bytes": 1})
        for n in range(40)
    ]
    few = many[:2]
    assert [len(columns) for columns, _ in sets.widen([cpu(1), *many])] == [80, 1]
    assert [len(columns) for columns, _ in sets.widen([cpu(1), *few])] == [5]


def test_tags_choose_series(acme):
    points = [
        Point("disk", (("device", d), ("mount", m)), {"used": u})
        for d, m, u in (("a", "/", 1), ("b", "/srv", 2))
    ]
    write(acme, 1, BASE, *points)
    asked = {"measurement": "disk", "fields": ["used"]}
    assert len(read(acme, tags={}, **asked)) == 2
    assert [*read(acme, tags={"device": "b"}, **asked).values()] == [{BASE: 2}]
    assert read(acme, tags={"device": "b", "mount": "/"}, **asked) == {}


def test_a_window_is_answered_for_all_servers_at_once(acme, django_assert_max_num_queries):
    for server in range(1, 31):
        for second in range(3):
            disks = [
                Point("disk", (("device", d),), {"used": server + n}) for n, d in enumerate("ab")
            ]
            write(acme, server, BASE + second * 1000, *disks)
    with django_assert_max_num_queries(12):
        found = STORE.window(acme.pk, "disk", "used", BASE, BASE + DAY, "avg")
    assert len(found) == 60
    first = min(found, key=lambda one: (one.server_id, one.tags))
    assert (first.server_id, first.tags, first.value, first.count, first.last) == (
        1,
        (("device", "a"),),
        1,
        3,
        BASE + 2000,
    )
    [one] = [
        one
        for one in STORE.window(acme.pk, "disk", "used", BASE, BASE + 1, "max", {"device": "b"})
        if one.server_id == 7
    ]
    assert (one.value, one.count) == (8, 1)


def test_a_window_knows_the_rate_of_counters(acme):
    for second, counter in ((0, 0), (10, 50), (20, 20)):
        write(acme, 1, BASE + second * 1000, Point("network", (), {"sent_bytes": counter}))
    [found] = STORE.window(acme.pk, "network", "sent_bytes", BASE + 1, BASE + DAY, "rate")
    assert (found.value, found.count) == (70 / 20, 2)


def test_labels_say_what_can_be_asked_for(acme):
    write(acme, 1, BASE, cpu(1, user=2), Point("disk", (("device", "a"),), {"used": 1}))
    write(acme, 2, BASE, Point("disk", (("device", "b"),), {"used": 1}))
    both = STORE.labels(acme.pk)
    assert [(one.measurement, one.fields, one.tags) for one in both] == [
        ("cpu", ["percent", "user"], {}),
        ("disk", ["used"], {"device": ["a", "b"]}),
    ]
    assert [one.measurement for one in STORE.labels(acme.pk, 2)] == ["disk"]


def test_forgetting_a_server_leaves_the_others(acme):
    write(acme, 1, BASE, cpu(1))
    write(acme, 2, BASE, cpu(2))
    STORE.forget(acme.pk, 1)
    assert read(acme, 1) == {}
    assert read(acme, 2)["percent", ()] == {BASE: 2}
    assert [one.server_id for one in STORE.latest(acme.pk, [1, 2])] == [2]


def test_the_id_of_a_set_does_not_depend_on_the_order_of_points():
    a, b = cpu(1, user=2), Point("load", (), {"load1": 1})
    [(one, _)], [(other, _)] = sets.widen([a, b]), sets.widen([b, a])
    assert sets.set_id(one) == sets.set_id(other)
    assert sets.decode(json.loads(sets.encode(one))) == one


def test_of_a_series_given_twice_in_one_report_the_last_value_stays():
    [(_, values)] = sets.widen([cpu(1), cpu(2)])
    assert values == [2]


def test_a_range_reads_no_more_partitions_than_it_spans(acme):
    for day in range(4):
        write(acme, 1, BASE + day * DAY, cpu(day))
    plans = []

    def explain(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if "metrics_points" in sql and sql.lstrip().startswith("SELECT"):
            with context["connection"].connection.cursor() as cursor:
                cursor.execute("EXPLAIN " + sql, params)
                plans.append("\n".join(row[0] for row in cursor.fetchall()))
        return execute(sql, params, many, context)

    with connection.execute_wrapper(explain):
        read(acme, start=BASE + DAY, end=BASE + 2 * DAY)
    [plan] = plans
    assert set(re.findall(r"metrics_points_[0-9]{8}", plan)) == {
        partitions.POINTS.partition(_day(BASE + DAY))
    }
