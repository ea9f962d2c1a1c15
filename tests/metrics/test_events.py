"""Log events are found by words, level, service, server and time; newest first, page by page."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metrics import events, queries
from metrics.events import BadCursor, Matcher, TooMuchToSearch, fingerprint
from tests.metrics.builders import HOUR, MINUTE, OTHER_AGENT, SECOND, event, now, report
from tests.metrics.test_ingest import send


@pytest.fixture
def logged(acme: Any) -> datetime:
    """Seven events of two servers within the last hours."""
    at = now()
    of_one = [
        event(at - 1 * SECOND, "1", level="critical", message="MySQL server has gone away"),
        event(at - 2 * SECOND, "2", level="error", message="No valid host was found"),
        event(at - 3 * MINUTE, "3", level="warning", message="Quota 100% reached_now"),
        event(at - 2 * HOUR, "4", level="error", message="no Valid HOST again", service="nova-api"),
    ]
    of_two = [
        event(at - 2 * SECOND, "5", level="info", message="started", request_id="req-77"),
        event(at - 5 * HOUR, "6", level="error", message="old", component="neutron.db"),
        event(at - 5 * HOUR, "7", level="debug", message="C:\\path"),
    ]
    send(acme, report(at, events=of_one))
    send(acme, report(at, agent=str(OTHER_AGENT), host="nova-2", events=of_two))
    return at


def found(tenant: Any, matcher: Matcher, **more: Any) -> list[str]:
    return [one.message for one in events.search(tenant.pk, matcher, **more).events]


def test_the_newest_come_first(acme, logged):
    times = [one.at for one in events.search(acme.pk, Matcher()).events]
    assert times == sorted(times, reverse=True)
    assert len(times) == 7


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("valid host", ["No valid host was found", "no Valid HOST again"]),
        ("HOST found", ["No valid host was found"]),
        ('"host was"', ["No valid host was found"]),
        ("100%", ["Quota 100% reached_now"]),
        ("1%0", []),
        ("reached_now", ["Quota 100% reached_now"]),
        ("reached.now", []),
        ("reached_no_", []),
        ("c:\\path", ["C:\\path"]),
        ("nova-api", ["no Valid HOST again"]),
        ("neutron.db", ["old"]),
        ("req-77", ["started"]),
        ("'; DROP TABLE", []),
        ("", None),
    ],
)
def test_every_word_must_be_in_the_line(acme, logged, words, expected):
    lines = found(acme, Matcher.parse(words))
    assert len(lines) == 7 if expected is None else lines == expected


def test_levels_services_servers_and_times_narrow_the_search(acme, logged):
    assert len(found(acme, Matcher(levels=("error",)))) == 3
    assert len(found(acme, Matcher(levels=events.levels_from("error")))) == 4
    assert found(acme, Matcher(services=("nova-api",))) == ["no Valid HOST again"]
    ids = {one.server_id for one in events.search(acme.pk, Matcher()).events}
    assert sorted(len(found(acme, Matcher(server_ids=(one,)))) for one in ids) == [3, 4]
    assert found(acme, Matcher(server_ids=(0,))) == []
    recent = Matcher(start=logged - 10 * SECOND)
    assert len(found(acme, recent)) == 3
    assert len(found(acme, Matcher(end=logged - HOUR))) == 3
    assert found(acme, Matcher(request_id="req-77")) == ["started"]


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(size=st.integers(1, 8))
def test_pages_of_any_size_hold_every_event_once(acme, logged, size):
    whole = [one.id for one in events.search(acme.pk, Matcher()).events]
    pages, cursor = [], None
    while True:
        page = events.search(acme.pk, Matcher(), cursor=cursor, limit=size)
        pages.append([one.id for one in page.events])
        cursor = page.next
        if cursor is None:
            break
    assert [number for page in pages for number in page] == whole
    assert all(len(page) == size for page in pages[:-1])


def test_a_page_stays_where_it_is_while_events_arrive(acme, logged):
    first = events.search(acme.pk, Matcher(), limit=3)
    send(acme, report(logged, sequence=2, events=[event(logged, "new", message="brand new")]))
    second = events.search(acme.pk, Matcher(), cursor=first.next)
    ids = [one.id for one in first.events + second.events]
    assert len(ids) == len(set(ids)) == 7


@pytest.mark.parametrize(
    "cursor", ["x", "AAAA", "é", "MTIz", "OTk5OTk5OTk5OTk5OTk5OTk5OTkuMQ", "!"]
)
def test_a_cursor_that_nobody_gave_is_refused(acme, cursor):
    with pytest.raises(BadCursor):
        events.search(acme.pk, Matcher(), cursor=cursor)


def test_a_search_that_takes_too_long_says_what_to_do(acme, logged, monkeypatch):
    slow = (["tenant_id = %s", "pg_sleep(1) IS NOT NULL"], [acme.pk])
    monkeypatch.setattr(events, "_conditions", lambda *_: slow)
    monkeypatch.setattr(events, "SEARCH_WITHIN", "20ms")
    monkeypatch.setattr(events, "SORT_WITHIN", "20ms")
    with pytest.raises(TooMuchToSearch, match="shorter time"):
        events.search(acme.pk, Matcher())
    with pytest.raises(TooMuchToSearch):
        events.sorts(acme.pk, Matcher(), 10)


def test_a_search_leaves_the_callers_transaction_with_its_own_limit(acme, logged):
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL statement_timeout = '7s'")
        assert events.search(acme.pk, Matcher()).events
        cursor.execute("SHOW statement_timeout")
        assert cursor.fetchone() == ("7s",)


def test_events_per_hour_count_each_level_and_leave_no_hour_out(acme):
    start = now().replace(minute=0, second=0, microsecond=0) - 5 * HOUR
    given = [
        event(start + 10 * MINUTE, "1", level="critical"),
        event(start + 59 * MINUTE, "2", level="error"),
        event(start + 61 * MINUTE, "3", level="error"),
        event(start + 4 * HOUR, "4", level="warning"),
    ]
    send(acme, report(start + 4 * HOUR, events=given))
    hours = events.per_hour(acme.pk, start, start + 5 * HOUR)
    assert [hour.at for hour in hours] == [start + n * HOUR for n in range(5)]
    assert [hour.counts for hour in hours] == [
        {"critical": 1, "error": 1},
        {"error": 1},
        {},
        {},
        {"warning": 1},
    ]
    assert events.per_hour(acme.pk, start, start + HOUR, server_id=0)[0].counts == {}
    chart = queries.events_per_hour(acme.pk, start - 19 * HOUR, start + 5 * HOUR).to_json()
    assert [line["name"] for line in chart["series"]] == ["critical", "error", "warning"]
    assert [line["values"][19:] for line in chart["series"]] == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [0, 0, 0, 0, 1],
    ]
    assert chart["step"] == 3600


def test_a_window_is_counted_for_all_servers_at_once(acme, logged, django_assert_max_num_queries):
    with django_assert_max_num_queries(8):
        found = events.met(
            acme.pk, Matcher(levels=events.levels_from("error"), start=logged - timedelta(days=1))
        )
    assert sorted((one.service, one.count) for one in found) == [
        ("", 1),
        ("", 1),
        ("", 1),
        ("nova-api", 1),
    ], "by server, service and pattern"


def test_services_that_logged_are_offered(acme, logged):
    assert events.services(acme.pk, logged - timedelta(days=1)) == ["nova-api"]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("Instance 7 failed", "Instance 8 failed", True),
        ("at 0xdeadbeef", "at 0x12", True),
        (
            "vm 3f0a2c5e-8f5d-4f69-a0bb-2f6f1d1e9a77 lost",
            "vm 00000000-8f5d-4f69-a0bb-2f6f1d1e9a78 lost",
            True,
        ),
        ("[req-1 admin] failed", "[None req-2 demo - -] failed", True),
        ("first\nTraceback a", "first\nTraceback b", True),
        ("Instance failed", "Instance started", False),
    ],
)
def test_messages_of_one_pattern_have_one_fingerprint(one, other, same):
    assert (fingerprint("nova", "", one) == fingerprint("nova", "", other)) is same
    assert fingerprint("nova", "", one) != fingerprint("cinder", "", one)


def test_times_are_kept_to_the_millisecond_in_utc(acme):
    at = datetime(2026, 1, 1, 12, 0, 0, 123000, tzinfo=UTC)
    moved = now().replace(microsecond=123000)
    send(acme, report(moved, events=[event(moved)]))
    [one] = events.search(acme.pk, Matcher()).events
    assert one.at == moved
    assert one.at.microsecond == at.microsecond
