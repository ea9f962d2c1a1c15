"""An incident's life: taken, given back, assigned, noted, shelved; back again, flapping, calm."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from dataclasses import replace
from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from accounts.access import Access
from accounts.models import AuditEntry, Membership, Role
from alerts.engines import breaches
from alerts.lifecycle import care, external, incidents, joining, muting
from alerts.models import Alert, Event, Incident, Notification, NotificationChannel, Rule, Severity
from clouds import suppression
from sentinel_site.kit.tenancy import in_schema
from tests.alerts.builders import MINUTE, NOON, SECOND, make_rule, make_server
from tests.alerts.test_breaches import read

HOUR = timedelta(hours=1)


@pytest.fixture
def breach(acme):
    """Let the value be this at a time, and time do its work."""
    rule, server = make_rule(), make_server()

    def breach(value, at):
        read(rule, server, value, at)
        incidents.settle(at)

    breach(90, NOON)
    return breach


@pytest.fixture
def incident(breach):
    return Incident.objects.get()


@pytest.fixture
def access(acme, alice):
    return Access(acme, Role.OWNER, alice)


@pytest.fixture
def pager(acme):
    """A channel that hears of what is critical only."""
    return NotificationChannel.objects.create(
        name="Pager", kind="webhook", least_severity="critical"
    )


def told_to(channel):
    rows = Notification.objects.filter(channel=channel).order_by("pk")
    return [one.transition.split(":")[0] for one in rows]


def told():
    return [
        transition.split(":")[0]
        for transition in Notification.objects.order_by("pk").values_list("transition", flat=True)
    ]


def oscillate(change, up, down, lasts=HOUR):
    """Let it be bad and fine in turns for so long, with time passing meanwhile; when it ended."""
    turn, bad, at = NOON, True, NOON
    while at < NOON + lasts:
        if at >= turn:
            change(bad, at)
            turn, bad = at + (up if bad else down), not bad
        at = pass_time(at, turn)
    return at


def pass_time(at, until):
    """Let time do its work up to then, each time that it has something to do, and in between."""
    incidents.settle(at)
    while (following := min(incidents.next_change(at) or until, at + 10 * MINUTE, until)) < until:
        at = following
        incidents.settle(at)
    return until


OSCILLATIONS = [
    (20 * SECOND, 20 * SECOND),
    (MINUTE, MINUTE),
    (9 * MINUTE, 9 * MINUTE),
    (12 * MINUTE, 12 * MINUTE),
    (16 * MINUTE, 16 * MINUTE),
    (25 * MINUTE, 20 * MINUTE),
    (MINUTE, 5 * MINUTE),
    (MINUTE, 17 * MINUTE),
    (11 * MINUTE, MINUTE),
    (MINUTE, 29 * MINUTE),
]


@pytest.mark.parametrize(("up", "down"), OSCILLATIONS)
def test_what_oscillates_for_an_hour_is_told_three_times_and_once_when_it_is_over(acme, up, down):
    rule, server = make_rule(), make_server()
    at = oscillate(lambda bad, at: read(rule, server, 90 if bad else 10, at), up, down)
    assert told()[:2] == ["opened", "resolved"]
    assert told()[2:] in (["flapping"], ["reopened"])
    read(rule, server, 10, at)
    while (following := incidents.next_change(at)) is not None:
        at = following
        incidents.settle(at)
    assert told()[3:] == ["resolved"]
    incident = Incident.objects.get()
    assert incident.resolved_at == at
    assert (incident.flapping_until, incident.calm_after) == (None, None)
    assert at <= NOON + HOUR + incidents.LONGEST_CALM + MINUTE


def test_a_severity_that_oscillates_for_an_hour_is_not_told_as_worse_than_it_was(acme):
    rule, server = make_rule(thresholds={"warning": 60, "critical": 95}), make_server()
    oscillate(lambda bad, at: read(rule, server, 99 if bad else 70, at), 2 * MINUTE, 3 * MINUTE)
    assert told() == ["opened"], "it was critical at first, as people know"
    lines = Incident.objects.get().event_set.filter(kind=Event.Kind.RAISED)
    assert lines.count() > 5, "its history has each"


def test_what_gets_worse_and_less_bad_in_turns_is_told_as_worse_once(acme):
    rule, server = make_rule(thresholds={"warning": 60, "critical": 95}), make_server()
    oscillate(lambda bad, at: read(rule, server, 70 if bad else 99, at), MINUTE, MINUTE)
    assert told() == ["opened", "raised"]


LADDER = {"warning": 60, "critical": 95}
FINE, WARNING, CRITICAL = 10, 70, 99


def saw(chance, period):
    """Values over a ladder and how long each stays: up and at once down, in steps, or the reverse.

    Each level is reached in each period, and the value may be anywhere in it at first.
    """
    ways = [
        (FINE, WARNING, CRITICAL),
        (FINE, WARNING, CRITICAL, WARNING),
        (FINE, CRITICAL, WARNING),
    ]
    way = chance.choice(ways)
    shares = [chance.uniform(0.02, 1) for _ in way]
    steps = [
        (value, max(SECOND, period * share / sum(shares)))
        for value, share in zip(way, shares, strict=True)
    ]
    first = chance.randrange(len(way))
    return steps[first:] + steps[:first]


@pytest.mark.parametrize("minutes", [1, 3, 5, 8, 11, 14])
def test_what_goes_over_a_whole_ladder_for_an_hour_is_told_three_times(pager, minutes):
    rule, server = make_rule(thresholds=LADDER), make_server()
    at, began, steps = NOON, None, saw(random.Random(minutes), minutes * MINUTE)  # noqa: S311
    for value, stays in itertools.cycle(steps):
        if began and at >= began + HOUR:
            break
        began = began or (at if value != FINE else None)
        read(rule, server, value, at)
        at = pass_time(at, at + stays)
    every, paged_ = told_to(NotificationChannel.objects.exclude(pk=pager.pk).get()), told_to(pager)
    within = Notification.objects.filter(created_at__lt=began + HOUR)
    counts = Counter(within.values_list("channel", flat=True))
    assert max(counts.values()) <= 3, (every, paged_)
    assert every[0] == "opened"
    assert paged_, "who hears of the worst only hears of it"
    read(rule, server, FINE, at)
    while (following := incidents.next_change(at)) is not None:
        at = following
        incidents.settle(at)
    assert Incident.objects.get().resolved_at is not None
    for channel in NotificationChannel.objects.all():
        assert told_to(channel)[-1] == "resolved", "its end is told, to whoever heard of it"


def test_what_opened_and_got_worse_is_over_when_it_stays_fine_for_a_while(acme):
    rule, server = make_rule(thresholds=LADDER), make_server()
    for minute, value in ((0, WARNING), (2, CRITICAL), (5, FINE)):
        read(rule, server, value, NOON + minute * MINUTE)
    assert told() == ["opened", "raised"]
    line = Incident.objects.get().event_set.last()
    assert line.text.endswith("You are told of its end when it has been fine for 15 min.")
    assert not Alert.objects.filter(resolved_at=None).exists()
    over = NOON + 5 * MINUTE + incidents.REOPEN
    assert incidents.next_change(NOON + 5 * MINUTE) == over
    incidents.settle(over)
    assert told() == ["opened", "raised", "resolved"]
    incident = Incident.objects.get()
    assert (incident.resolved_at, incident.flapping_until) == (over, None)
    assert incident.event_set.last().text == "It has been fine for 15 min."


def test_what_is_back_before_it_was_surely_over_is_told_as_coming_and_going_once(acme):
    rule, server = make_rule(thresholds=LADDER), make_server()
    for minute in (0, 10, 20):
        for later, value in ((0, WARNING), (2, CRITICAL), (5, FINE)):
            read(rule, server, value, NOON + (minute + later) * MINUTE)
    assert told() == ["opened", "raised", "flapping"]


def test_whoever_has_what_got_worse_is_told_at_once_that_it_is_over(acme, alice):
    rule, server = make_rule(thresholds=LADDER), make_server()
    read(rule, server, WARNING, NOON)
    read(rule, server, CRITICAL, NOON + MINUTE)
    incidents.acknowledge(Incident.objects.get(), alice, NOON + 2 * MINUTE)
    read(rule, server, FINE, NOON + 3 * MINUTE)
    assert told() == ["opened", "raised", "resolved"]


def test_what_got_worse_long_ago_is_over_at_once(acme):
    rule, server = make_rule(thresholds=LADDER), make_server()
    read(rule, server, WARNING, NOON)
    read(rule, server, CRITICAL, NOON + MINUTE)
    read(rule, server, FINE, NOON + MINUTE + HOUR)
    assert told() == ["opened", "raised", "resolved"]


def test_what_only_one_of_two_heard_of_twice_is_held_back_and_what_nobody_did_is_not(pager):
    """The pager alone: that it got worse was the first that anybody heard."""
    NotificationChannel.objects.exclude(pk=pager.pk).delete()
    rule, server = make_rule(thresholds=LADDER), make_server()
    for minute, value in ((0, WARNING), (2, CRITICAL), (5, FINE)):
        read(rule, server, value, NOON + minute * MINUTE)
    assert told_to(pager) == ["raised", "resolved"]


def test_what_is_resolved_by_hand_after_it_got_worse_is_over_at_once(acme, access):
    rule, server = make_rule(thresholds=LADDER), make_server()
    read(rule, server, WARNING, NOON)
    read(rule, server, CRITICAL, NOON + MINUTE)
    care.resolve(access, Incident.objects.get(), NOON + 2 * MINUTE)
    read(rule, server, CRITICAL, NOON + 3 * MINUTE)
    read(rule, server, FINE, NOON + 4 * MINUTE)
    assert told() == ["opened", "raised", "resolved", "reopened", "resolved"]


def test_what_was_told_before_it_came_back_is_told_anew_when_it_gets_worse(pager):
    """Its end was told meanwhile: who believes in a warning must hear that it is critical."""
    rule, server = make_rule(thresholds=LADDER), make_server()
    for minute, value in ((0, CRITICAL), (1, FINE), (20, WARNING), (21, CRITICAL)):
        read(rule, server, value, NOON + minute * MINUTE)
    (other,) = NotificationChannel.objects.exclude(pk=pager.pk)
    assert told_to(other) == ["opened", "resolved", "reopened", "raised"]
    assert told_to(pager) == ["opened", "resolved", "raised"]


def test_what_got_worse_while_nobody_was_told_is_told_when_it_does_again(pager):
    """Muted it was critical and less bad again: the pager never heard of it."""
    rule, server = make_rule(thresholds=LADDER), make_server()
    why = suppression.Why("kernel update")
    suppression.start_maintenance([server.pk], why, NOON, NOON + 10 * MINUTE)
    for minute, value in ((1, WARNING), (2, CRITICAL), (3, WARNING)):
        read(rule, server, value, NOON + minute * MINUTE)
    suppression.expire(NOON + 10 * MINUTE)
    muting.tell_what_was_muted(NOON + 10 * MINUTE)
    assert told_to(pager) == []
    read(rule, server, CRITICAL, NOON + 12 * MINUTE)
    assert told_to(pager) == ["raised"]


def held_back(acme):
    """An incident that opened and got worse, and has been fine since 12:05."""
    rule, server = make_rule(thresholds=LADDER), make_server()
    for minute, value in ((0, WARNING), (2, CRITICAL), (5, FINE)):
        read(rule, server, value, NOON + minute * MINUTE)
    incident = Incident.objects.get()
    assert incident.resolved_at is None
    return incident


def test_what_is_fine_already_is_over_when_somebody_takes_it(acme, alice):
    incident = held_back(acme)
    incidents.acknowledge(incident, alice, NOON + 6 * MINUTE)
    assert incident.resolved_at == NOON + 6 * MINUTE
    assert told() == ["opened", "raised", "resolved"]


def test_what_is_fine_already_does_not_return_from_the_shelf(acme):
    incident = held_back(acme)
    Incident.objects.update(shelved_until=NOON + 10 * MINUTE)
    incidents.settle(NOON + 10 * MINUTE)
    assert told() == ["opened", "raised"]
    incidents.settle(NOON + 5 * MINUTE + incidents.REOPEN)
    assert told() == ["opened", "raised", "resolved"]
    incident.refresh_from_db()
    assert incident.shelved_until is None


def test_what_is_fine_already_is_not_told_as_still_there_after_a_maintenance(acme):
    held_back(acme)
    Incident.objects.update(untold=True)
    muting.tell_what_was_muted(NOON + 10 * MINUTE)
    assert told() == ["opened", "raised"]


def test_what_ends_because_nobody_looks_any_more_is_over_at_once(acme):
    rule, server = make_rule(thresholds=LADDER), make_server()
    read(rule, server, WARNING, NOON)
    read(rule, server, CRITICAL, NOON + MINUTE)
    Rule.objects.update(enabled=False)
    breaches.resolve_orphans(NOON + 2 * MINUTE)
    assert told() == ["opened", "raised", "resolved"]


def test_time_does_nothing_to_what_was_merged(acme):
    incident = held_back(acme)
    read(make_rule("Full"), make_server("nova-2"), WARNING, NOON + 6 * MINUTE)
    into = Incident.objects.exclude(pk=incident.pk).get()
    joining._merge(incident, into, NOON + 7 * MINUTE)
    late = NOON + 2 * HOUR
    incidents.settle(late)
    assert incidents.next_change(late, NOON) is None


def test_what_comes_back_critical_is_told_to_whom_it_was_not_bad_enough(pager):
    rule, server = make_rule(thresholds={"warning": 60, "critical": 95}), make_server()
    for minute, value in ((0, 70), (1, 10), (6, 99)):
        read(rule, server, value, NOON + minute * MINUTE)
    assert told_to(pager) == ["raised"]
    others = Notification.objects.exclude(channel=pager).order_by("pk")
    assert [one.transition for one in others][2:] == ["raised:1"], "one message, not two"


def test_what_already_flaps_and_comes_back_critical_is_told_once_as_worse(pager):
    rule, server = make_rule(thresholds={"warning": 60, "critical": 95}), make_server()
    for minute, value in ((0, 70), (1, 10), (3, 70), (4, 10), (6, 99), (7, 10), (8, 99)):
        read(rule, server, value, NOON + minute * MINUTE)
    assert told_to(pager) == ["raised"]


def test_an_alert_that_comes_back_critical_in_an_open_incident_is_told_as_worse(pager):
    rule, server = make_rule(thresholds={"warning": 60, "critical": 95}), make_server()
    read(rule, server, 70, NOON)
    read(make_rule("Full"), server, 90, NOON)
    incident, other = Incident.objects.order_by("pk")
    Alert.objects.filter(incident=other).update(incident=incident)
    Incident.objects.filter(pk=incident.pk).update(severity="warning")
    Alert.objects.exclude(rule=rule).update(severity="warning")
    Notification.objects.all().delete()
    read(rule, server, 10, NOON + MINUTE)
    read(rule, server, 99, NOON + 6 * MINUTE)
    assert told_to(pager) == ["raised"]
    incident.refresh_from_db()
    assert incident.severity == "critical"


def test_another_tools_alert_that_oscillates_is_told_three_times(acme):
    statement = external.Statement(
        origin="alertmanager", names={"alertname": "Down"}, severity=Severity.CRITICAL,
        resource="switch-7", service="network", subject="port 1", title="Down", text="It is down.",
    )  # fmt: skip
    over = replace(statement, severity=None)
    oscillate(
        lambda bad, at: external.accept([statement if bad else over], at), 2 * MINUTE, 18 * MINUTE
    )
    assert told() == ["opened", "resolved", "reopened"]


def test_what_flaps_and_then_stays_is_told_as_no_longer_flapping(breach):
    breach(10, NOON + MINUTE)
    breach(90, NOON + 2 * MINUTE)
    breach(90, NOON + 2 * MINUTE + incidents.CALM)
    assert told() == ["opened", "resolved", "flapping", "calm"]
    incident = Incident.objects.get()
    assert (incident.resolved_at, incident.flapping_until) == (None, None)
    breach(10, NOON + HOUR)
    assert told()[-1] == "resolved"


def test_what_comes_back_within_an_hour_is_the_same_incident(breach, incident):
    breach(10, NOON + MINUTE)
    breach(90, NOON + MINUTE + incidents.RETURNS)
    alert = Alert.objects.get()
    assert (alert.incident, alert.resolved_at, alert.count) == (incident, None, 2)


def test_what_comes_back_after_a_while_is_opened_again_and_nobody_has_it(breach, incident, access):
    care.acknowledge(access, incident, NOON)
    breach(10, NOON + MINUTE)
    breach(90, NOON + MINUTE + incidents.REOPEN + SECOND)
    assert told() == ["opened", "resolved", "reopened"]
    incident.refresh_from_db()
    assert incident.acknowledged_at is None
    breach(90, NOON + 2 * HOUR)
    assert told() == ["opened", "resolved", "reopened"], "that it stays is nothing new"


def test_what_comes_back_later_is_a_new_one(breach):
    breach(10, NOON + MINUTE)
    breach(90, NOON + MINUTE + incidents.RETURNS + SECOND)
    assert told() == ["opened", "resolved", "opened"]


def test_a_flapping_incident_can_be_resolved_by_hand(breach, incident, access):
    breach(10, NOON + MINUTE)
    breach(90, NOON + 2 * MINUTE)
    breach(10, NOON + 3 * MINUTE)
    care.resolve(access, incident, NOON + 4 * MINUTE)
    assert incident.resolved_at == NOON + 4 * MINUTE


def test_what_somebody_has_can_be_given_back_and_taken_by_another(incident, access, bob):
    with pytest.raises(care.NotTaken):
        care.release(access, incident, NOON)
    care.acknowledge(access, incident, NOON)
    care.release(access, incident, NOON + SECOND)
    incidents.acknowledge(incident, bob, NOON + 2 * SECOND)
    assert incident.taken_by == bob.pk
    assert [one.kind for one in incident.event_set.all()] == [
        "opened", "acknowledged", "released", "acknowledged",
    ]  # fmt: skip


def test_only_a_member_can_be_given_an_incident(incident, access, bob, mallory):
    care.assign(access, incident, bob.pk, NOON)
    assert incident.assigned_to == bob.pk
    with pytest.raises(care.NotAMember):
        care.assign(access, incident, mallory.pk, NOON)
    care.assign(access, incident, None, NOON)
    assert incident.assigned_to is None


def test_a_comment_is_a_line_of_history_also_when_it_is_over(incident, access, breach):
    breach(10, NOON + MINUTE)
    care.comment(access, incident, " It was the\0 fan. ", NOON + HOUR)
    assert incident.event_set.last().text == "It was the� fan."
    for text in (" ", "x" * 2001):
        with pytest.raises(care.NotAComment):
            care.comment(access, incident, text, NOON)


def test_what_is_shelved_tells_nobody_and_returns_by_itself(incident, access, breach):
    rule = make_rule("Worse", thresholds={"critical": 95})
    until = NOON + HOUR
    care.shelve(access, incident, until, "waits for a part", NOON + SECOND)
    assert incidents.next_change(NOON + SECOND) == until
    Alert.objects.update(rule=rule)
    turned = incidents.Turned(Alert.objects.get(), incidents.Severity.CRITICAL)
    incidents.note_severities([turned], NOON + MINUTE)
    assert told() == ["opened"]
    incidents.settle(until)
    assert told() == ["opened", "returned"]
    incident.refresh_from_db()
    assert incident.shelved_until is None


def test_what_is_shelved_and_over_is_told_as_over(incident, access, breach):
    care.shelve(access, incident, NOON + HOUR, "", NOON + SECOND)
    breach(10, NOON + MINUTE)
    assert told() == ["opened", "resolved"]
    incidents.settle(NOON + HOUR)
    assert told() == ["opened", "resolved"]


def test_what_is_shelved_and_resolved_by_hand_stays_away_till_then(incident, access, breach):
    care.shelve(access, incident, NOON + HOUR, "", NOON + SECOND)
    care.resolve(access, incident, NOON + 2 * SECOND)
    breach(90, NOON + MINUTE)
    assert Incident.objects.filter(resolved_at=None).count() == 0
    incidents.settle(NOON + HOUR)
    breach(90, NOON + HOUR + SECOND)
    assert Incident.objects.filter(resolved_at=None).count() == 1


@pytest.mark.parametrize("until", [NOON, NOON - SECOND, NOON + timedelta(days=91)])
def test_a_shelf_has_an_end(incident, access, until):
    with pytest.raises(care.NotATime):
        care.shelve(access, incident, until, "", NOON)


def test_a_severity_that_changes_by_a_symptom_pages_nobody_who_knows(acme):
    rule, server = make_rule(thresholds={"warning": 60, "critical": 95}), make_server()
    read(rule, server, 70, NOON)
    Alert.objects.update(part=Alert.Part.SYMPTOM)
    read(rule, server, 99, NOON + SECOND)
    assert Incident.objects.get().severity == "critical"
    assert told() == ["opened"]


def worsens(servers, at):
    """How many statements it takes that this many alerts become critical at once."""
    rule = make_rule(f"Rule {servers}", thresholds={"warning": 60, "critical": 95})
    for number in range(servers):
        read(rule, make_server(f"s{servers}-{number}"), 70, at)
    alerts = Alert.objects.filter(rule=rule).select_related("incident")
    turned = [incidents.Turned(one, incidents.Severity.CRITICAL, "It is 99 %.") for one in alerts]
    with CaptureQueriesContext(connection) as queries:
        incidents.note_severities(turned, at + SECOND)
    assert set(Incident.objects.filter(alert__rule=rule).values_list("severity", flat=True)) == {
        "critical"
    }
    return len(queries)


def test_any_number_of_alerts_becomes_worse_in_the_same_number_of_statements(acme):
    assert worsens(1, NOON) == worsens(7, NOON)
    assert told().count("raised") == 8


def test_many_alerts_of_one_incident_that_become_worse_are_told_once(acme):
    worsens(1, NOON)
    rule = make_rule("More", thresholds={"warning": 60, "error": 80, "critical": 95})
    servers = [make_server(f"m{number}") for number in range(3)]
    for server in servers:
        read(rule, server, 70, NOON)
    incident = Incident.objects.filter(alert__rule=rule).first()
    stale = list(Alert.objects.filter(rule=rule).select_related("incident").order_by("pk"))
    Alert.objects.filter(rule=rule).update(incident=incident)  # they were merged meanwhile
    severities = (incidents.Severity.ERROR, incidents.Severity.CRITICAL, incidents.Severity.ERROR)
    turned = [
        incidents.Turned(alert, severity, f"{alert.host} turned.")
        for alert, severity in zip(stale, severities, strict=True)
    ]
    before = told().count("raised")
    incidents.note_severities(turned, NOON + SECOND)
    incident.refresh_from_db()
    assert incident.severity == "critical"
    assert incident.event_set.get(kind="raised").text == "Now critical. m1 turned."
    assert told().count("raised") == before + 1


def test_what_is_done_by_the_api_is_in_the_history_and_the_audit_log(
    incident, bob, client, acme, alice
):
    path = f"/o/acme/api/v1/incidents/{incident.pk}"
    client.force_login(bob)

    def post(action, **body):
        return client.post(f"{path}/{action}/", body, content_type="application/json")

    Membership.objects.filter(user=bob, tenant=acme).update(role=Role.VIEWER)
    assert post("comment", text="Hello").status_code == 403
    Membership.objects.filter(user=bob, tenant=acme).update(role=Role.MEMBER)
    assert post("acknowledge").json()["acknowledged_by"] == bob.pk
    assert post("unacknowledge").json()["acknowledged_by"] is None
    assert post("unacknowledge").json()["type"] == "/problems/not-acknowledged"
    assert post("assign", user=alice.pk).json()["assigned_to"] == alice.pk
    assert post("assign", user="x").status_code == 422
    assert post("comment", text="Looking").json()["events"][-1]["text"] == "Looking"
    assert post("shelve", until="2001-01-01T00:00:00Z").status_code == 422
    assert post("shelve", until="later").status_code == 422
    assert post("unshelve").status_code == 409
    assert post("resolve").json()["resolved_at"]
    assert post("resolve").status_code == 409
    with in_schema("public"):
        verbs = set(AuditEntry.objects.filter(tenant=acme).values_list("verb", flat=True))
    assert verbs >= {
        f"incident.{verb}"
        for verb in ("acknowledged", "released", "assigned", "commented", "resolved")
    }


def test_nobody_of_another_organization_can_act(incident, mallory, client):
    client.force_login(mallory)
    for action in ("acknowledge", "comment", "resolve"):
        assert client.post(f"/o/acme/api/v1/incidents/{incident.pk}/{action}/").status_code == 404
