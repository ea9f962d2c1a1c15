"""What does not work of the installation itself is told to those who run it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from accounts.models import Tenant
from metrics import roundtrips
from metrics.models import Alarm
from sentinel_site import alarms
from sentinel_site.kit import heartbeat
from sentinel_site.kit.redis_client import client as redis_client

NOON = datetime(2026, 11, 2, 12, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _operated(db, settings):
    settings.OPERATOR_EMAIL = ["ops@example.org"]
    redis_client.cache_clear()
    redis_client().flushdb()
    yield
    redis_client.cache_clear()


def watch(seconds: float, last_tick: float | None = None) -> None:
    """At so many seconds after noon, with the last tick at so many; none given: just now."""
    at = NOON + timedelta(seconds=seconds)
    heartbeat.beat(NOON + timedelta(seconds=last_tick) if last_tick is not None else at)
    alarms.watch(at)


def test_ticks_that_stay_away_are_told_once_and_their_return_once(mailoutbox):
    for seconds in (60, 90, 125, 130, 200):
        watch(seconds, last_tick=0)
    assert [mail.subject for mail in mailoutbox] == ["Sentinella judges its rules late"]
    assert mailoutbox[0].to == ["ops@example.org"]
    assert "/readyz" in mailoutbox[0].body
    for seconds in (210, 215):
        watch(seconds)
    assert [mail.subject for mail in mailoutbox[1:]] == [
        "Sentinella judges its rules in time again"
    ]
    assert Alarm.objects.get().until == NOON + timedelta(seconds=210)


def test_what_mends_itself_within_a_minute_is_told_to_nobody(mailoutbox):
    watch(60, last_tick=0)
    watch(100, last_tick=0)
    watch(110)
    assert not mailoutbox


def test_an_organization_that_waits_for_its_judgement_is_an_alarm_though_ticks_come(mailoutbox):
    Tenant.objects.filter(provisioned_at__isnull=False).update(timer_at=None, evaluated_at=None)
    tenant = Tenant.objects.create(
        slug="late", name="Late", schema_name="t_late", provisioned_at=NOON, timer_at=NOON
    )
    for seconds in (30, 90, 155):
        watch(seconds)
    assert [mail.subject for mail in mailoutbox] == ["Sentinella judges its rules late"]
    Tenant.objects.filter(pk=tenant.pk).update(timer_at=None)
    watch(160)
    assert mailoutbox[-1].subject == "Sentinella judges its rules in time again"


def test_a_canary_that_does_not_arrive_is_an_alarm_of_its_own(mailoutbox):
    roundtrips.set_out(NOON - timedelta(minutes=10))
    for seconds in (0, 65):
        watch(seconds)
    assert [mail.subject for mail in mailoutbox] == [
        "Sentinella's own test message does not come through"
    ]


def test_two_processes_that_watch_tell_it_once(mailoutbox):
    for seconds in (60, 60, 121, 121, 126):
        watch(seconds, last_tick=0)
    assert len(mailoutbox) == 1
    assert Alarm.objects.count() == 1


def test_mail_that_fails_is_tried_again(mailoutbox, settings, monkeypatch):
    watch(60, last_tick=0)
    refused = []

    def refuse(*args, **kwargs):
        refused.append(args)
        raise OSError("no route to host")

    with monkeypatch.context() as away:
        away.setattr("sentinel_site.kit.operators.send_mail", refuse)
        watch(125, last_tick=0)
    assert refused
    assert not mailoutbox
    watch(130, last_tick=0)
    assert len(mailoutbox) == 1
    with monkeypatch.context() as away:
        away.setattr("sentinel_site.kit.operators.send_mail", refuse)
        watch(135)
    assert len(mailoutbox) == 1
    watch(140)
    assert mailoutbox[-1].subject == "Sentinella judges its rules in time again"


def test_without_anybody_to_tell_it_is_in_the_log_and_kept(settings, mailoutbox):
    settings.OPERATOR_EMAIL = []
    for seconds in (60, 125):
        watch(seconds, last_tick=0)
    assert not mailoutbox
    assert Alarm.objects.get().told_at == NOON + timedelta(seconds=125)
