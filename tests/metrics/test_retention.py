"""Whole days are dropped when all in them is too old; the next days are made ahead."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.conf import settings
from django.db import IntegrityError, connection

from clouds.models import Server
from metrics import events, isolation, knocks, partitions, queries, retention, tasks
from metrics.events import Matcher
from metrics.models import Knock
from tests.metrics.builders import event, now, point, report
from tests.metrics.test_ingest import send

DAY = timedelta(days=1)


def days_of(table: partitions.Partitioned) -> list[str]:
    with connection.cursor() as cursor:
        return partitions.older_than(cursor, table, (now() + 1000 * DAY).date())


def test_the_next_days_are_ready_before_they_begin(acme):
    at = now()
    retention.expire(at)
    for table in (partitions.POINTS, partitions.EVENTS):
        ahead = [table.partition((at + n * DAY).date()) for n in range(4)]
        assert set(ahead) <= set(days_of(table))


def test_days_past_their_retention_are_dropped_and_no_other(acme):
    at = now().replace(hour=12)
    edge = at - settings.RETENTION_RAW
    for number, time in enumerate((edge + timedelta(minutes=1), at - DAY, at)):
        send(
            acme,
            report(
                time,
                sequence=number,
                points=[point(percent=number)],
                events=[event(time, str(number))],
            ),
            at=at,
        )
    dropped = retention.expire(at)
    assert dropped == []
    dropped = retention.expire(at + DAY)
    assert sorted(dropped) == sorted(
        table.partition(edge.date()) for table in (partitions.POINTS, partitions.EVENTS)
    )
    assert not set(dropped) & set(days_of(partitions.POINTS) + days_of(partitions.EVENTS))
    assert len(events.search(acme.pk, Matcher()).events) == 2
    assert retention.expire(at + DAY) == []


def test_what_was_heard_long_ago_leaves_no_newest_values(acme):
    at = now()
    send(acme, report(at, points=[point(percent=1)]), at=at)
    server = Server.objects.get()
    retention.expire(at + settings.RETENTION_RAW + 2 * DAY)
    assert queries.latest(acme.pk, [server.pk]) == {}
    assert queries.last_seen(acme.pk) == {server.pk: at}, "since when it is silent stays known"
    with isolation.only(acme.pk) as cursor:
        cursor.execute("SELECT count(*) FROM public.metrics_set")
        assert cursor.fetchone()[0] == 0


def test_points_for_a_day_that_was_dropped_and_is_written_again(acme):
    at = now()
    send(acme, report(at, points=[point(percent=1)]))
    with connection.cursor() as cursor:
        partitions.drop(cursor, partitions.POINTS.partition(at.date()))
    assert send(acme, report(at, sequence=2, points=[point(percent=2)])).accepted == 1


def test_making_a_partition_twice_makes_one(acme):
    day = (now() + 40 * DAY).date()
    with connection.cursor() as cursor:
        assert partitions.make(cursor, partitions.POINTS, [day, day]) == [
            partitions.POINTS.partition(day)
        ]
        assert partitions.make(cursor, partitions.POINTS, [day]) == []


@pytest.mark.parametrize(
    "insert",
    [
        "INSERT INTO metrics_points VALUES (%s, 1, 1, 32503680000000, '{1}')",
        "INSERT INTO metrics_event VALUES"
        " (%s, '2999-01-01', 1, 1, now(), 0, '', '', '', 1, '', '', '', 1, '')",
    ],
)
def test_a_row_that_fits_no_day_is_an_error_not_a_row_that_stays_for_ever(acme, insert):
    with pytest.raises(IntegrityError, match="no partition"), isolation.only(acme.pk) as cursor:
        cursor.execute(insert, [acme.pk])


def test_a_knock_that_is_heard_no_more_is_forgotten(acme):
    at = now()
    for number, tenant_id in enumerate((knocks.NOBODY, acme.pk)):
        knocks.note(Knock.Kind.ACCOUNT, f"old {number}", "h", at, tenant_id=tenant_id)
    later = at + settings.RETENTION_RAW + DAY
    knocks.note(Knock.Kind.ACCOUNT, "new", "h", later)
    retention.expire(later)
    with isolation.only(knocks.NOBODY, acme.pk):
        assert [knock.last_at for knock in Knock.objects.all()] == [later]


def test_the_task_is_on_a_schedule(acme, monkeypatch, settings):
    called: list[Any] = []
    monkeypatch.setattr(retention, "expire", called.append)
    tasks.expire()
    assert len(called) == 1
    assert settings.CELERY_BEAT_SCHEDULE["expire"]["task"] == tasks.expire.name
