"""From readings to alerts: open once, count, change, resolve, reopen."""

from __future__ import annotations

import pytest
from django.db import IntegrityError, transaction

from alerts.engines import breaches, sheets
from alerts.engines.sheets import Reading
from alerts.lifecycle import incidents
from alerts.models import Alert, Event, Incident, Pending, Severity
from clouds.models import Server
from tests.alerts.builders import MINUTE, NOON, SECOND, make_rule, make_server


@pytest.fixture
def server(acme):
    return make_server()


def read(rule, server, value, at, **tags):
    reading = Reading(
        server=server.pk,
        value=value,
        service="system",
        subject=tags.get("mount", "cpu percent"),
        unit="percent",
        explained=f"It is <{value}>",
        tags=tags,
    )
    with transaction.atomic():
        breaches.settle([sheets.of(rule, [reading])], at)


def test_a_breach_opens_one_alert_in_an_incident_of_its_own(server):
    read(make_rule(), server, 90, NOON)
    alert = Alert.objects.get()
    assert (alert.severity, alert.value, alert.limit) == ("warning", 90, 60)
    assert (alert.service, alert.subject, alert.server) == ("system", "cpu percent", server)
    assert alert.incident.title == "Busy"
    assert list(alert.incident.event_set.values_list("kind", flat=True)) == [Event.Kind.OPENED]
    server.refresh_from_db()
    assert server.health == "warning"


def test_a_second_breach_counts_on_the_open_alert(server):
    rule = make_rule()
    read(rule, server, 90, NOON)
    read(rule, server, 91, NOON + 5 * SECOND)
    alert = Alert.objects.get()
    assert (alert.count, alert.value, alert.breached_at) == (2, 91, NOON + 5 * SECOND)
    assert alert.opened_at == NOON


def test_a_rule_must_hold_long_enough(server):
    rule = make_rule(hold=20 * SECOND)
    for seconds in (0, 5, 10, 15):
        read(rule, server, 90, NOON + seconds * SECOND)
        assert not Alert.objects.exists()
    read(rule, server, 90, NOON + 20 * SECOND)
    assert Alert.objects.get().opened_at == NOON + 20 * SECOND


def test_a_rule_holds_from_the_point_not_from_when_it_was_seen(server):
    rule = make_rule(hold=20 * SECOND)
    late = Reading(server.pk, 90, "system", "cpu", taken_at=NOON - 4 * SECOND)
    breaches.settle([sheets.of(rule, [late])], NOON)
    breaches.settle([sheets.of(rule, [late])], NOON + 16 * SECOND)
    assert Alert.objects.count() == 1


def test_a_good_value_in_between_starts_the_wait_anew(server):
    rule = make_rule(hold=20 * SECOND)
    read(rule, server, 90, NOON)
    read(rule, server, 10, NOON + 10 * SECOND)
    read(rule, server, 90, NOON + 15 * SECOND)
    read(rule, server, 90, NOON + 30 * SECOND)
    assert not Alert.objects.exists()
    read(rule, server, 90, NOON + 35 * SECOND)
    assert Alert.objects.count() == 1


def test_the_wait_survives_a_restart_since_it_is_a_row(server):
    rule = make_rule(hold=20 * SECOND)
    read(rule, server, 90, NOON)
    assert Pending.objects.get().since == NOON


def test_recovery_resolves_alert_and_incident_and_the_servers_health(server):
    rule = make_rule()
    read(rule, server, 90, NOON)
    read(rule, server, 20, NOON + MINUTE)
    alert = Alert.objects.get()
    assert alert.resolved_at == alert.incident.resolved_at == NOON + MINUTE
    assert alert.incident.event_set.last().kind == Event.Kind.RESOLVED
    server.refresh_from_db()
    assert server.health == "ok"
    assert not Pending.objects.exists()


def test_no_reading_is_not_good_news(server):
    rule = make_rule()
    read(rule, server, 90, NOON)
    breaches.settle([sheets.of(rule, [])], NOON + MINUTE)
    assert Alert.objects.get().resolved_at is None


def test_a_series_that_is_gone_ends_its_alert_unless_the_whole_server_is_silent(server):
    rule = make_rule()
    read(rule, server, 90, NOON)
    Server.objects.update(status="silent")
    breaches.settle([sheets.of(rule, [])], NOON + 16 * MINUTE)
    assert Alert.objects.get().resolved_at is None
    Server.objects.update(status="up")
    breaches.settle([sheets.of(rule, [])], NOON + 17 * MINUTE)
    assert Alert.objects.get().resolved_at == NOON + 17 * MINUTE
    assert not Pending.objects.exists()


def test_a_series_that_comes_back_waits_anew(server):
    rule = make_rule(hold=20 * SECOND)
    read(rule, server, 90, NOON)
    breaches.settle([sheets.of(rule, [])], NOON + MINUTE)
    breaches.settle([sheets.of(rule, [])], NOON + 17 * MINUTE)
    read(rule, server, 90, NOON + 18 * MINUTE)
    assert not Alert.objects.exists()


def test_a_change_of_severity_updates_and_never_adds(server):
    rule = make_rule(thresholds={"warning": 60, "critical": 95})
    read(rule, server, 70, NOON)
    read(rule, server, 99, NOON + 5 * SECOND)
    read(rule, server, 70, NOON + 10 * SECOND)
    alert = Alert.objects.get()
    assert alert.severity == alert.incident.severity == Severity.WARNING
    assert list(alert.incident.event_set.values_list("kind", flat=True)) == [
        Event.Kind.OPENED,
        Event.Kind.RAISED,
        Event.Kind.LOWERED,
    ]


def test_each_series_of_a_server_has_an_alert_of_its_own(server):
    rule = make_rule(measurement="disk")
    read(rule, server, 90, NOON, mount="/")
    read(rule, server, 90, NOON, mount="/var")
    assert set(Alert.objects.values_list("subject", flat=True)) == {"/", "/var"}
    read(rule, server, 10, NOON + MINUTE, mount="/")
    assert Alert.objects.get(resolved_at=None).subject == "/var"


def test_resolved_by_hand_while_it_holds_opens_again_at_the_next_slot(server, alice):
    rule = make_rule()
    read(rule, server, 90, NOON)
    incident = Incident.objects.get()
    incidents.resolve(incident, alice, NOON + SECOND)
    read(rule, server, 90, NOON + 5 * SECOND)
    incident.refresh_from_db()
    assert incident.resolved_at is None
    assert Alert.objects.count() == 1
    assert incident.event_set.last().kind == Event.Kind.REOPENED


def test_resolved_by_hand_and_recovered_opens_a_new_incident_later(server, alice):
    rule = make_rule()
    read(rule, server, 90, NOON)
    incidents.resolve(Incident.objects.get(), alice, NOON + SECOND)
    read(rule, server, 10, NOON + 5 * SECOND)
    read(rule, server, 90, NOON + MINUTE)
    assert Incident.objects.count() == 2


def test_the_database_lets_no_second_alert_of_a_fingerprint_be_open(server):
    read(make_rule(), server, 90, NOON)
    alert = Alert.objects.get()
    alert.pk = None
    with pytest.raises(IntegrityError), transaction.atomic():
        alert.save(force_insert=True)


def test_an_alert_always_names_service_and_subject(server):
    read(make_rule(), server, 90, NOON)
    with pytest.raises(IntegrityError), transaction.atomic():
        Alert.objects.update(subject="")


def test_two_evaluations_that_overlap_open_one_alert(server):
    rule = make_rule()
    found = incidents.Found(
        rule=rule,
        fingerprint="same",
        reading=90,
        limit=60,
        severity=Severity.WARNING,
        server=server.pk,
        service="system",
        subject="cpu",
        unit="percent",
        text="",
        held_since=NOON,
        title="Busy",
    )
    first = incidents.open_all([found], NOON)["same"]
    second = incidents.open_all([found], NOON)["same"]
    assert (first.alert, first.is_new, second.is_new) == (second.alert, True, False)
    assert Alert.objects.get().count == 2
    assert Incident.objects.count() == 1


def test_an_alert_ends_with_its_rule(server):
    rule = make_rule()
    read(rule, server, 90, NOON)
    rule.enabled = False
    rule.save()
    breaches.resolve_orphans(NOON + MINUTE)
    assert Alert.objects.get().resolved_at == NOON + MINUTE
    assert not Pending.objects.exists()


def test_an_alert_ends_with_its_server(server):
    read(make_rule(hold=20 * SECOND), server, 90, NOON)
    other = make_rule("Full")
    read(other, server, 90, NOON)
    Server.objects.update(status="retired")
    breaches.resolve_orphans(NOON + MINUTE)
    alert = Alert.objects.get()
    assert alert.resolved_at == alert.incident.resolved_at == NOON + MINUTE
    assert alert.incident.event_set.last().text == "nova-1 was removed."
    assert not Pending.objects.exists()


def test_settling_many_readings_asks_a_fixed_number_of_questions(
    acme, django_assert_max_num_queries
):
    rule = make_rule()
    servers = [make_server(f"nova-{number}") for number in range(30)]
    readings = [
        Reading(server=one.pk, value=10, service="system", subject="cpu") for one in servers
    ]
    with django_assert_max_num_queries(4):
        breaches.settle([sheets.of(rule, readings)], NOON)


def test_what_opens_at_once_waits_nowhere_and_its_alert_tells_since_when(server, alice):
    rule = make_rule(recovery_hold=MINUTE)
    read(rule, server, 90, NOON)
    read(rule, server, 90, NOON + 5 * SECOND)
    assert Alert.objects.get().held_since == NOON
    assert not Pending.objects.exists()
    incidents.resolve(Incident.objects.get(), alice, NOON + 10 * SECOND)
    assert Pending.objects.get().since == NOON
    read(rule, server, 90, NOON + 15 * SECOND)
    alert = Alert.objects.get()
    assert (alert.resolved_at, alert.held_since) == (None, NOON)


def test_what_is_about_to_end_and_goes_on_holds_since_it_began(server):
    rule = make_rule(recovery_hold=MINUTE, thresholds={"warning": 60, "critical": 95})
    read(rule, server, 90, NOON)
    read(rule, server, 10, NOON + 10 * SECOND)
    waiting = Pending.objects.get()
    assert (waiting.since, waiting.recovering) == (NOON, NOON + 10 * SECOND)
    read(rule, server, 90, NOON + 50 * SECOND)
    read(rule, server, 10, NOON + 80 * SECOND)
    assert Alert.objects.get().resolved_at is None, "it was not over for a minute"
    assert Pending.objects.get().since == NOON
    read(rule, server, 10, NOON + 140 * SECOND)
    assert Alert.objects.get().resolved_at == NOON + 140 * SECOND
    assert not Pending.objects.exists()


def test_an_alert_of_an_earlier_version_still_knows_since_when_it_holds(server, alice):
    rule = make_rule()
    read(rule, server, 90, NOON)
    alert = Alert.objects.get()
    Alert.objects.update(held_since=None)
    name = alert.fingerprint
    Pending.objects.create(rule=rule, server_id=alert.server_id, fingerprint=name, since=NOON)
    read(rule, server, 90, NOON + 5 * SECOND)
    incidents.resolve(Incident.objects.get(), alice, NOON + 10 * SECOND)
    read(rule, server, 90, NOON + 15 * SECOND)
    assert Alert.objects.get().resolved_at is None, "the same, not another one"
