"""What is over for long goes, in the order in which nothing is left that names it."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from alerts import tasks
from alerts.lifecycle import external, incidents, retention
from alerts.lifecycle.external import Statement
from alerts.models import (
    Alert,
    Event,
    Incident,
    Notification,
    NotificationChannel,
    Received,
    Severity,
)
from tests.alerts.builders import MINUTE, NOON

DAY = timedelta(days=1)
HOUR = timedelta(hours=1)


def statement(name: str, severity: Severity | None) -> Statement:
    return Statement(
        origin="alerta", names={"event": name}, severity=severity, resource="switch-7",
        service="network", subject=name, title=name, text="It is down.", said={"event": name},
    )  # fmt: skip


def tell(name: str, at, ends=None) -> Incident:
    external.accept([statement(name, Severity.ERROR)], at)
    incident = Alert.objects.get(title=name).incident
    if ends is not None:
        external.accept([statement(name, None)], ends)
    return incident


def all_is_told():
    Notification.objects.update(state=Notification.State.SENT)


@pytest.fixture(params=[1, 500])
def at_once(request, monkeypatch):
    monkeypatch.setattr(retention, "AT_ONCE", request.param)


def test_an_incident_goes_with_all_that_belongs_to_it(acme, at_once):
    for number in range(3):
        tell(f"old {number}", NOON, NOON + MINUTE)
    tell("open", NOON)
    tell("lately", NOON, NOON + 2 * DAY)
    assert retention.forget(NOON + DAY) == 3
    assert set(Incident.objects.values_list("title", flat=True)) == {"open", "lately"}
    for model in (Alert, Event, Notification):
        assert not model.objects.exclude(incident__title__in=["open", "lately"]).exists()
    assert {one.alert.title for one in Received.objects.all()} == {"open", "lately"}
    assert retention.forget(NOON + DAY) == 0


def test_one_that_others_were_merged_into_stays_as_long_as_they(acme):
    into, merged = tell("into", NOON, NOON + MINUTE), tell("merged", NOON, NOON + MINUTE)
    Incident.objects.filter(pk=merged.pk).update(merged_into=into, resolved_at=NOON + 2 * DAY)
    assert retention.forget(NOON + DAY) == 0
    assert retention.forget(NOON + 3 * DAY) == 2


def test_what_a_tool_said_goes_before_its_alert_does(acme, at_once):
    for number in range(3):
        tell(f"old {number}", NOON, NOON + MINUTE)
    tell("open", NOON)
    assert retention.forget_words(NOON + DAY) == 3
    assert Alert.objects.count() == 4
    assert Received.objects.get().alert.title == "open"


def test_the_task_keeps_what_the_installation_wants_kept(acme, settings):
    tell("old", NOON - 500 * DAY, NOON - 499 * DAY)
    settings.RETENTION_INCIDENTS = timedelta(days=100_000)
    tasks.tidy()
    assert Incident.objects.count() == 1
    assert not Received.objects.exists()
    settings.RETENTION_INCIDENTS = timedelta(days=400)
    tasks.tidy()
    assert not Incident.objects.exists()


def test_of_other_tools_alerts_that_are_over_only_the_newest_stay(acme, at_once, monkeypatch):
    monkeypatch.setattr(retention, "MOST_CLOSED", 2)
    for number in range(5):
        tell(f"over {number}", NOON, NOON + (9 - number) * MINUTE)
    tell("open", NOON)
    own = tell("own", NOON, NOON + MINUTE)
    Alert.objects.filter(incident=own).update(origin="")
    merged = tell("merged", NOON)
    Alert.objects.filter(incident=merged).delete()
    into = Incident.objects.get(title="over 4")
    Incident.objects.filter(pk=merged.pk).update(merged_into=into, resolved_at=NOON + MINUTE)
    all_is_told()
    assert retention.trim(NOON + DAY) == 3
    left = {"over 0", "over 1", "open", "own"}
    assert set(Alert.objects.values_list("title", flat=True)) == left
    assert set(Incident.objects.values_list("title", flat=True)) == left
    assert retention.trim(NOON + DAY) == 0


def test_an_incident_outlives_those_of_its_alerts_that_are_too_many(acme, monkeypatch):
    monkeypatch.setattr(retention, "MOST_CLOSED", 0)
    open_one, over = tell("open", NOON), tell("over", NOON, NOON + MINUTE)
    Alert.objects.filter(incident=over).update(incident=open_one)
    all_is_told()
    assert retention.trim(NOON + DAY) == 1
    assert list(open_one.alert_set.values_list("title", flat=True)) == ["open"]


@pytest.mark.parametrize("where", ["its own", "of one that was merged into it"])
def test_of_what_somebody_is_still_to_be_told_nothing_goes(acme, monkeypatch, at_once, where):
    monkeypatch.setattr(retention, "MOST_CLOSED", 0)
    incident = tell("over", NOON, NOON + MINUTE)
    tell("told", NOON, NOON + MINUTE)
    all_is_told()
    about = incident
    if where != "its own":
        about = tell("merged", NOON)
        Alert.objects.filter(incident=about).delete()
        Incident.objects.filter(pk=about.pk).update(merged_into=incident, resolved_at=NOON)
        all_is_told()
    channel = NotificationChannel.objects.create(name="Slow", kind="slack", config={})
    row = Notification.objects.create(incident=about, channel=channel, transition="resolved:1")
    assert retention.trim(NOON + DAY) == 1
    assert Alert.objects.get().title == "over"
    assert Notification.objects.get(pk=row.pk).state == Notification.State.WAITING
    all_is_told()
    assert retention.trim(NOON + DAY) == 1
    assert not Incident.objects.exists()


def test_what_ended_lately_is_the_same_when_it_is_back(acme, monkeypatch):
    monkeypatch.setattr(retention, "MOST_CLOSED", 0)
    tell("old", NOON, NOON + MINUTE)
    incident = tell("back", NOON, NOON + 30 * MINUTE)
    all_is_told()
    now = NOON + 30 * MINUTE + incidents.RETURNS
    assert retention.trim(now) == 1
    assert tell("back", now).pk == incident.pk
    external.accept([statement("back", None)], now)
    all_is_told()
    assert retention.trim(now + 2 * HOUR) == 1


def test_of_what_ended_lately_the_newest_stay_in_a_flood(acme, at_once, monkeypatch):
    monkeypatch.setattr(retention, "MOST_CLOSED", 0)
    monkeypatch.setattr(retention, "MOST_LATELY", 2)
    for number in range(5):
        tell(f"over {number}", NOON, NOON + (9 - number) * MINUTE)
    all_is_told()
    assert retention.trim(NOON + 10 * MINUTE) == 3
    assert set(Alert.objects.values_list("title", flat=True)) == {"over 0", "over 1"}


def test_trimming_goes_through_all_organizations(acme, monkeypatch):
    monkeypatch.setattr(retention, "MOST_CLOSED", 0)
    now = timezone.now()
    tell("over", now - 3 * HOUR, now - 2 * HOUR)
    all_is_told()
    tasks.trim()
    assert not Alert.objects.exists()
