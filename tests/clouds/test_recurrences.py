"""What comes again comes by the clocks of its place, also where these are put forward and back."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime, timedelta
from itertools import islice
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clouds.recurrences import NotARule, check, in_words, starts

BERLIN = "Europe/Berlin"


def local(*parts: int, zone: str = BERLIN, fold: int = 0) -> datetime:
    return datetime(*parts, tzinfo=ZoneInfo(zone), fold=fold)  # type: ignore[arg-type, misc]


def first(rule: str, begins: datetime, count: int, zone: str = BERLIN) -> list[str]:
    found = islice(starts(rule, zone, begins.astimezone(UTC)), count)
    return [f"{at.astimezone(ZoneInfo(zone)):%m-%d %H:%M} {at:%H:%MZ}" for at in found]


def test_it_keeps_its_time_of_day_when_clocks_change():
    assert first("FREQ=DAILY", local(2026, 3, 28, 4), 3) == [
        "03-28 04:00 03:00Z", "03-29 04:00 02:00Z", "03-30 04:00 02:00Z",
    ]  # fmt: skip


def test_a_time_that_does_not_exist_comes_an_hour_later_by_the_clock():
    assert first("FREQ=DAILY", local(2026, 3, 28, 2, 30), 3) == [
        "03-28 02:30 01:30Z", "03-29 03:30 01:30Z", "03-30 02:30 00:30Z",
    ]  # fmt: skip


def test_a_time_that_exists_twice_comes_the_first_time_and_once():
    assert first("FREQ=DAILY", local(2026, 10, 24, 2, 30), 3) == [
        "10-24 02:30 00:30Z", "10-25 02:30 00:30Z", "10-26 02:30 01:30Z",
    ]  # fmt: skip


def test_one_that_begins_in_the_second_of_two_hours_begins_then():
    begins = local(2026, 10, 25, 2, 30, fold=1).astimezone(UTC)
    found = list(islice(starts("FREQ=DAILY", BERLIN, begins), 2))
    assert found[0] == begins == datetime(2026, 10, 25, 1, 30, tzinfo=UTC)
    assert found[1] == datetime(2026, 10, 26, 1, 30, tzinfo=UTC)


def test_every_hour_is_every_hour_of_the_clock_and_none_comes_twice():
    found = list(islice(starts("FREQ=HOURLY", BERLIN, datetime(2026, 3, 29, 0, tzinfo=UTC)), 3))
    assert found == [datetime(2026, 3, 29, hour, tzinfo=UTC) for hour in (0, 1, 2)]


def test_the_southern_half_and_half_hours():
    assert first("FREQ=DAILY", local(2026, 10, 3, 2, 15, zone="Australia/Lord_Howe"), 2,
                 "Australia/Lord_Howe") == ["10-03 02:15 15:45Z", "10-04 02:45 15:45Z"]  # fmt: skip


def test_an_end_in_utc_and_one_that_is_a_day():
    begins = local(2026, 3, 28, 4)
    assert len(first("FREQ=DAILY;UNTIL=20260330T020000Z", begins, 9)) == 3
    assert len(first("FREQ=DAILY;UNTIL=20260330T015959Z", begins, 9)) == 2
    assert len(first("FREQ=DAILY;UNTIL=20260330", begins, 9)) == 3


def test_the_first_sunday_of_a_month():
    assert first("FREQ=MONTHLY;BYDAY=1SU", local(2026, 1, 4, 3), 3) == [
        "01-04 03:00 02:00Z", "02-01 03:00 02:00Z", "03-01 03:00 02:00Z",
    ]  # fmt: skip


@given(
    begins=st.datetimes(datetime(2025, 1, 1), datetime(2027, 1, 1), timezones=st.just(UTC)).map(  # noqa: DTZ001
        lambda at: at.replace(microsecond=0)
    ),
    zone=st.sampled_from(
        [BERLIN, "America/Sao_Paulo", "Australia/Lord_Howe", "UTC", "Asia/Kolkata"]
    ),
    frequency=st.sampled_from(["HOURLY", "DAILY", "WEEKLY"]),
)
@settings(max_examples=80, deadline=None)
def test_they_come_in_order_and_none_is_lost_by_asking_in_parts(begins, zone, frequency):
    rule = f"FREQ={frequency}"
    whole = list(islice(starts(rule, zone, begins), 40))
    assert whole == sorted(set(whole))
    assert whole[0] == begins
    after = list(islice(starts(rule, zone, begins, after=whole[19]), 20))
    assert after == whole[20:]


@given(text=st.text(max_size=60))
@settings(max_examples=150, deadline=None)
def test_any_text_is_a_rule_or_is_refused(text):
    begins = datetime(2026, 1, 1, tzinfo=UTC)
    with contextlib.suppress(NotARule):
        found = list(islice(starts(text, "UTC", begins), 3))
        assert found == sorted(found)


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("FREQ=DAILY", "every day at 02:00 (Europe/Berlin)"),
        ("FREQ=WEEKLY", "every Sunday at 02:00 (Europe/Berlin)"),
        ("FREQ=WEEKLY;BYDAY=MO,TU,WE,TH,FR", "Monday to Friday at 02:00 (Europe/Berlin)"),
        ("FREQ=WEEKLY;BYDAY=SA,SU", "every Saturday and Sunday at 02:00 (Europe/Berlin)"),
        ("FREQ=MONTHLY", "on day 29 of every month at 02:00 (Europe/Berlin)"),
        ("FREQ=MONTHLY;BYDAY=1SU", "FREQ=MONTHLY;BYDAY=1SU at 02:00 (Europe/Berlin)"),
        ("FREQ=WEEKLY;BYDAY=1SU", "FREQ=WEEKLY;BYDAY=1SU at 02:00 (Europe/Berlin)"),
    ],
)
def test_a_rule_in_words(rule, said):
    assert in_words(rule, BERLIN, local(2026, 11, 29, 2)) == said


def test_an_occurrence_lasts_as_long_as_it_says_though_clocks_change():
    (begin,) = islice(starts("FREQ=WEEKLY", BERLIN, local(2026, 3, 29, 1, 30).astimezone(UTC)), 1)
    end = begin + timedelta(hours=1)
    assert f"{end.astimezone(ZoneInfo(BERLIN)):%H:%M}" == "03:30"


@pytest.mark.parametrize(
    "rule",
    [
        "FREQ=DAILY;INTERVAL=0",
        "FREQ=YEARLY;INTERVAL=-1",
        "FREQ=HOURLY;BYMONTH=2;BYMONTHDAY=30",
        "FREQ=DAILY;BYSETPOS=2",
        "FREQ=DAILY;INTERVAL=7;BYDAY=MO",
        "FREQ=YEARLY;BYMONTH=2;BYYEARDAY=200",
        "FREQ=WEEKLY;BYDAY=MO;BYSETPOS=9",
        "FREQ=MONTHLY;BYMONTHDAY=x;BYMONTH=1",
        "FREQ=DAILY;UNTIL=99991231T235959Z",
    ],
)
def test_what_would_be_looked_for_until_the_year_9999_is_refused(rule):
    with pytest.raises(NotARule):
        check(rule, "Europe/Berlin", datetime(2026, 3, 1, tzinfo=UTC), timedelta(hours=1))


def test_what_begins_too_far_ahead_is_refused():
    with pytest.raises(NotARule):
        check("FREQ=DAILY", "UTC", datetime(9998, 1, 1, tzinfo=UTC), timedelta(hours=1))
