"""Maintenance and blackout of a server, a group, everything; at once, planned, recurring."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from django.db import IntegrityError, transaction

from accounts.models import Timer
from clouds import servers, suppression
from clouds.models import CloudGroup, Recurrence, Server, Suppression, SuppressionKind
from clouds.suppression import NotASpan, Over, Repeat, Retired, Why
from tests.alerts.builders import MINUTE, NOON, SECOND, make_server

WHY = Why("new switch", by=1)
MAINTENANCE, BLACKOUT = SuppressionKind.MAINTENANCE, SuppressionKind.BLACKOUT
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


@pytest.fixture
def cloud(acme):
    """Two servers in a group, and one in none."""
    group = CloudGroup.objects.create(name="gru")
    one, two, other = (make_server(name) for name in ("nova-1", "nova-2", "db-1"))
    for server in (one, two):
        servers.classify(server, group, "", NOON - DAY)
    return group, one, two, other


def statuses() -> dict[str, str]:
    return dict(Server.objects.values_list("host", "status"))


def muted(at: datetime) -> dict[str, str]:
    hosts = dict(Server.objects.values_list("pk", "host"))
    return {hosts[pk]: row.kind for pk, row in suppression.active_for(hosts, at).items()}


def test_a_group_is_suppressed_with_all_that_is_in_it(cloud):
    group, *_ = cloud
    suppression.start_maintenance(group, WHY, NOON, NOON + HOUR)
    assert statuses() == {"nova-1": "maintenance", "nova-2": "maintenance", "db-1": "up"}
    assert muted(NOON) == {"nova-1": "maintenance", "nova-2": "maintenance"}


def test_everything_is_suppressed(cloud):
    suppression.black_out(None, WHY, NOON, None)
    assert set(statuses().values()) == {"blackout"}
    assert suppression.end(None, BLACKOUT, NOON + HOUR)
    assert set(statuses().values()) == {"up"}
    assert muted(NOON + HOUR) == {}


def test_a_server_that_joins_a_suppressed_group_is_suppressed_and_one_that_leaves_is_not(cloud):
    group, one, _, other = cloud
    suppression.start_maintenance(group, WHY, NOON, None)
    servers.classify(other, group, "", NOON + MINUTE)
    servers.classify(one, None, "", NOON + MINUTE)
    assert statuses() == {"db-1": "maintenance", "nova-1": "up", "nova-2": "maintenance"}
    assert muted(NOON + MINUTE) == {"db-1": "maintenance", "nova-2": "maintenance"}


def test_maintenance_wins_over_blackout_whatever_it_is_of(cloud):
    group, one, *_ = cloud
    suppression.black_out(one, WHY, NOON, None)
    suppression.start_maintenance(None, WHY, NOON, NOON + 2 * HOUR)
    suppression.black_out(group, WHY, NOON, None)
    assert set(statuses().values()) == {"maintenance"}
    suppression.expire(NOON + 2 * HOUR)
    assert statuses() == {"nova-1": "blackout", "nova-2": "blackout", "db-1": "up"}


def test_of_several_of_a_kind_each_ends_for_itself(cloud):
    group, one, *_ = cloud
    suppression.start_maintenance(one, WHY, NOON, NOON + 3 * HOUR)
    suppression.start_maintenance(group, WHY, NOON, NOON + HOUR)
    suppression.expire(NOON + HOUR)
    assert statuses() == {"nova-1": "maintenance", "nova-2": "up", "db-1": "up"}


def test_the_server_itself_is_named_before_its_group_and_that_before_all(cloud):
    group, one, two, other = cloud
    for target in (None, group, one):
        suppression.black_out(target, WHY, NOON, None)
    holds = suppression.active_for([one.pk, two.pk, other.pk], NOON)
    assert [holds[server.pk].where for server in (one, two, other)] == [
        "nova-1", "group gru", "all servers",
    ]  # fmt: skip


def test_what_is_planned_begins_and_ends_by_itself(cloud):
    _, one, *_ = cloud
    suppression.suppress(one, MAINTENANCE, WHY, NOON, NOON + 3 * HOUR, since=NOON + HOUR)
    assert statuses()["nova-1"] == "up"
    assert suppression.next_change(NOON) == NOON + HOUR
    assert muted(NOON + HOUR) == {"nova-1": "maintenance"}, "it doesn't wait for an evaluation"
    suppression.expire(NOON + HOUR)
    assert statuses()["nova-1"] == "maintenance"
    assert suppression.next_change(NOON + HOUR) == NOON + 3 * HOUR
    suppression.expire(NOON + 3 * HOUR)
    assert statuses()["nova-1"] == "up"


def test_the_tenant_is_looked_at_when_it_begins_and_when_it_ends(cloud, acme):
    _, one, *_ = cloud
    Timer.objects.all().delete()
    suppression.suppress(one, MAINTENANCE, WHY, NOON, NOON + 3 * HOUR, since=NOON + HOUR)
    assert [(one.tenant, one.at) for one in Timer.objects.all()] == [(acme, NOON + HOUR)]


def test_what_is_planned_stands_beside_what_is_on(cloud):
    _, one, *_ = cloud
    suppression.start_maintenance(one, WHY, NOON, NOON + HOUR)
    suppression.suppress(one, MAINTENANCE, WHY, NOON, NOON + DAY + HOUR, since=NOON + DAY)
    assert muted(NOON + MINUTE) == {"nova-1": "maintenance"}
    assert muted(NOON + 2 * HOUR) == {}
    assert muted(NOON + DAY) == {"nova-1": "maintenance"}


def test_what_is_planned_can_be_called_off(cloud):
    _, one, *_ = cloud
    row = suppression.suppress(one, BLACKOUT, WHY, NOON, None, since=NOON + HOUR)
    suppression.end_one(row, NOON + MINUTE)
    assert muted(NOON + DAY) == {}


def test_what_is_over_cannot_be_ended_or_changed(cloud):
    _, one, *_ = cloud
    row = suppression.black_out(one, WHY, NOON, NOON + HOUR)
    with pytest.raises(Over):
        suppression.end_one(row, NOON + HOUR)
    with pytest.raises(Over):
        suppression.change(row, NOON + HOUR, reason="x", until=None)


def test_its_end_and_reason_can_be_changed_and_of_what_is_planned_its_beginning(cloud):
    _, one, *_ = cloud
    row = suppression.suppress(one, BLACKOUT, WHY, NOON, NOON + 2 * HOUR, since=NOON + HOUR)
    row = suppression.change(
        row, NOON, reason="later", since=NOON + 3 * HOUR, until=NOON + 4 * HOUR
    )
    assert muted(NOON + HOUR) == {}
    assert muted(NOON + 3 * HOUR) == {"nova-1": "blackout"}
    suppression.expire(NOON + 3 * HOUR)
    row = suppression.change(
        row, NOON + 3 * HOUR, reason="on", since=NOON + 9 * HOUR, until=NOON + 5 * HOUR
    )
    assert (row.since, row.until) == (NOON + 3 * HOUR, NOON + 5 * HOUR), "it has begun"
    assert statuses()["nova-1"] == "blackout"


@pytest.mark.parametrize(
    ("since", "until"),
    [
        (None, NOON),
        (None, NOON - HOUR),
        (NOON - HOUR, NOON + HOUR),
        (NOON + HOUR, NOON + HOUR),
        (None, NOON + 366 * DAY),
        (NOON + 366 * DAY, NOON + 367 * DAY),
    ],
)
def test_no_time_that_can_be_suppressed(cloud, since, until):
    with pytest.raises(NotASpan):
        suppression.suppress(cloud[1], BLACKOUT, WHY, NOON, until, since)
    assert not Suppression.objects.exists()


def test_a_retired_server_is_not_suppressed_and_its_status_stays(cloud):
    _, one, *_ = cloud
    Server.objects.filter(pk=one.pk).update(status="retired")
    with pytest.raises(Retired):
        suppression.black_out(one, WHY, NOON, None)
    suppression.black_out(None, WHY, NOON, None)
    assert statuses() == {"nova-1": "retired", "nova-2": "blackout", "db-1": "blackout"}


def test_a_silent_server_is_silent_again_afterwards(cloud):
    _, one, *_ = cloud
    servers.note_silence({one.pk: NOON - HOUR}, NOON)
    assert statuses()["nova-1"] == "silent"
    suppression.start_maintenance(None, WHY, NOON, NOON + HOUR)
    assert statuses()["nova-1"] == "maintenance"
    suppression.expire(NOON + HOUR)
    assert statuses() == {"nova-1": "silent", "nova-2": "up", "db-1": "up"}


def test_suppressing_ten_times_the_servers_takes_no_more_statements(
    cloud, django_assert_num_queries, django_assert_max_num_queries
):
    from django.db import connection
    from django.test.utils import CaptureQueriesContext

    group, *_ = cloud
    with CaptureQueriesContext(connection) as few:
        suppression.start_maintenance(group, WHY, NOON, NOON + HOUR)
    suppression.end(group, MAINTENANCE, NOON + MINUTE)
    for number in range(20):
        make_server(f"more-{number}", group=group)
    with django_assert_max_num_queries(len(few)):
        suppression.start_maintenance(group, WHY, NOON + 2 * MINUTE, NOON + HOUR)
    assert list(statuses().values()).count("maintenance") == 22
    ids = list(Server.objects.values_list("pk", flat=True))
    with django_assert_num_queries(2):
        suppression.active_for(ids, NOON + 3 * MINUTE)


def test_the_database_refuses_one_of_a_server_and_a_group(cloud):
    group, one, *_ = cloud
    with pytest.raises(IntegrityError), transaction.atomic():
        Suppression.objects.create(server=one, group=group, kind="blackout", since=NOON)


def test_a_group_that_is_deleted_leaves_its_servers_free_and_their_past_as_it_was(cloud):
    group, one, _, other = cloud
    suppression.start_maintenance(group, WHY, NOON, None)
    suppression.remove_group(group, NOON + HOUR)
    assert set(statuses().values()) == {"up"}
    past = Suppression.objects.filter(server=one)
    assert [(row.since, row.ended_at) for row in past] == [(NOON, NOON + HOUR)]
    assert not Suppression.objects.filter(server=other).exists()


# -- again and again ----------------------------------------------------------


def weekly(target=None, at=NOON, **more) -> Recurrence:
    how = {"rule": "FREQ=DAILY", "zone": "UTC", "lasts": HOUR, **more}
    return suppression.repeat(target, MAINTENANCE, WHY, at, how.pop("begins", at), Repeat(**how))


def tick(at: datetime, until: datetime) -> None:
    """As evaluations do: at each change."""
    while at < until:
        suppression.expire(at)
        following = suppression.next_change(at)
        if following is None or following > until:
            break
        at = following
    suppression.expire(until)


def test_it_comes_again_and_again(cloud):
    weekly(cloud[1])
    assert statuses()["nova-1"] == "maintenance"
    for day in range(4):
        at = NOON + day * DAY
        tick(at, at + 30 * MINUTE)
        assert (statuses()["nova-1"], muted(at)) == ("maintenance", {"nova-1": "maintenance"})
        tick(at + 30 * MINUTE, at + 2 * HOUR)
        assert (statuses()["nova-1"], muted(at + HOUR)) == ("up", {})
    spans = Suppression.objects.order_by("since").values_list("since", "ended_at")
    assert list(spans)[:4] == [(NOON + n * DAY, NOON + n * DAY + HOUR) for n in range(4)]


def test_the_next_one_is_known_before_any_evaluation(cloud):
    weekly(cloud[1])
    assert muted(NOON + DAY) == {"nova-1": "maintenance"}


def test_after_an_outage_of_ours_what_came_meanwhile_is_made_up_for(cloud):
    weekly(cloud[1])
    suppression.expire(NOON + 10 * DAY + 30 * MINUTE)
    assert statuses()["nova-1"] == "maintenance"
    assert Suppression.objects.filter(since__lte=NOON + 10 * DAY).count() == 11
    assert muted(NOON + 5 * DAY + MINUTE) == {"nova-1": "maintenance"}


def test_two_evaluations_at_once_make_an_occurrence_once(cloud):
    row = weekly(cloud[1])
    Recurrence.objects.filter(pk=row.pk).update(made_until=None)
    suppression.expire(NOON)
    assert Suppression.objects.filter(since=NOON).count() == 1


def test_one_occurrence_can_be_ended_and_the_others_come(cloud):
    weekly(cloud[1])
    suppression.end_one(Suppression.objects.get(since=NOON), NOON + MINUTE)
    assert statuses()["nova-1"] == "up"
    assert muted(NOON + DAY) == {"nova-1": "maintenance"}


def test_when_it_comes_no_more_the_present_one_goes_on_to_its_end(cloud):
    row = weekly(cloud[1])
    suppression.end_repeat(row, NOON + MINUTE)
    assert muted(NOON + 2 * MINUTE) == {"nova-1": "maintenance"}
    tick(NOON + MINUTE, NOON + 3 * DAY)
    assert statuses()["nova-1"] == "up"
    assert Suppression.objects.count() == 1
    with pytest.raises(Over):
        suppression.end_repeat(row, NOON + DAY)


def test_other_terms_hold_from_now_on_and_what_was_stays(cloud):
    row = weekly(cloud[1])
    tick(NOON, NOON + DAY + 2 * HOUR)
    suppression.change_repeat(
        row, NOON + DAY + 2 * HOUR, reason="at night", begins=NOON + DAY + 12 * HOUR,
        how=Repeat("FREQ=DAILY", "UTC", 2 * HOUR),
    )  # fmt: skip
    assert muted(NOON + 2 * DAY) == {}
    assert muted(NOON + DAY + 13 * HOUR) == {"nova-1": "maintenance"}
    assert Suppression.objects.filter(since__lte=NOON + DAY).count() == 2


def test_it_ends_with_its_count(cloud):
    row = weekly(cloud[1], rule="FREQ=DAILY;COUNT=3")
    tick(NOON, NOON + 9 * DAY)
    assert Suppression.objects.count() == 3
    row.refresh_from_db()
    assert row.ended_at is not None


def test_it_begins_in_a_month_that_has_the_day(cloud):
    begins = datetime(2026, 3, 31, 2, tzinfo=UTC)
    row = weekly(None, begins=begins, rule="FREQ=MONTHLY")
    assert suppression.next_of(row, begins, 2) == [
        datetime(2026, 5, 31, 2, tzinfo=UTC), datetime(2026, 7, 31, 2, tzinfo=UTC),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("rule", "zone", "lasts"),
    [
        ("FREQ=SECONDLY", "UTC", HOUR),
        ("FREQ=MINUTELY", "UTC", SECOND),
        ("FREQ=DAILY;BYSECOND=1,2,3", "UTC", SECOND),
        ("FREQ=DAILY", "Mars/Olympus", HOUR),
        ("FREQ=DAILY", "UTC", timedelta()),
        ("FREQ=DAILY", "UTC", 40 * DAY),
        ("FREQ=DAILY;BYMONTH=2;BYMONTHDAY=30", "UTC", HOUR),
        ("FREQ=DAILY;COUNT=x", "UTC", HOUR),
        ("FREQ=DAILY;UNTIL=2020", "UTC", HOUR),
        ("BYDAY=MO", "UTC", HOUR),
        ("nonsense", "UTC", HOUR),
        ("FREQ=WEEKLY;BYDAY=XX", "UTC", HOUR),
        ("FREQ=DAILY\nFREQ=DAILY", "UTC", HOUR),
    ],
)
def test_a_rule_that_is_none_is_refused_with_a_reason(cloud, rule, zone, lasts):
    with pytest.raises(NotASpan) as refused:
        weekly(cloud[1], rule=rule, zone=zone, lasts=lasts)
    assert refused.value.detail
    assert not Recurrence.objects.exists()
