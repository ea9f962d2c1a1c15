"""Who hears what of an incident that was muted, shelved, merged, or whose channel fails."""

from __future__ import annotations

from datetime import timedelta

import pytest

from accounts.access import Access
from accounts.models import AuditEntry, Role
from alerts.dispatching import escalations
from alerts.lifecycle import care, incidents, joining, muting
from alerts.models import (
    Alert,
    Attempt,
    ChannelState,
    Escalation,
    Event,
    Incident,
    Notification,
)
from alerts.notifiers import Undelivered
from alerts.rulebook import rules
from alerts.telling import delivery, fallback
from clouds import suppression
from clouds.suppression import Why
from tests.alerts.builders import MINUTE, NOON, SECOND, make_rule, make_server
from tests.alerts.test_breaches import read
from tests.alerts.test_delivery import channel, open_incidents, recorder  # noqa: F401
from tests.alerts.test_routes import NOW, make_route

HOUR = timedelta(hours=1)
WHY = Why("disk is being changed", by=1)

pytestmark = pytest.mark.usefixtures("recorder")


@pytest.fixture
def access(acme, alice):
    return Access(acme, Role.OWNER, alice)


def told(to=None):
    """Transitions in their order, to one channel or to all."""
    rows = Notification.objects.order_by("pk")
    if to is not None:
        rows = rows.filter(channel__name=f"To {to}")
    return [row.split(":")[0] for row in rows.values_list("transition", flat=True)]


def lift(at):
    suppression.expire(at)
    muting.tell_what_was_muted(at)


# -- muted --------------------------------------------------------------------


def test_what_gets_worse_while_muted_is_told_when_that_is_over():
    channel("a")
    rule, server = make_rule(thresholds={"warning": 60, "critical": 95}), make_server()
    read(rule, server, 70, NOON)
    suppression.black_out(server, WHY, NOON + MINUTE, NOON + 10 * MINUTE)
    read(rule, server, 99, NOON + 2 * MINUTE)
    muting.tell_what_was_muted(NOON + 3 * MINUTE)
    assert told() == ["opened"]
    lift(NOON + 10 * MINUTE)
    assert told() == ["opened", "unmuted"]
    assert Notification.objects.latest("pk").severity == "critical"
    lift(NOON + 11 * MINUTE)
    assert told() == ["opened", "unmuted"], "once"
    assert Incident.objects.get().event_set.filter(kind=Event.Kind.UNMUTED).count() == 1


def test_what_comes_back_while_muted_is_told_when_that_is_over():
    channel("a")
    rule, server = make_rule(), make_server()
    read(rule, server, 90, NOON)
    read(rule, server, 10, NOON + MINUTE)
    suppression.start_maintenance(server, WHY, NOON + MINUTE, NOON + 10 * MINUTE)
    read(rule, server, 90, NOON + 2 * MINUTE)
    assert Alert.objects.get().suppressed == "maintenance", "the banner counts it"
    assert told() == ["opened", "resolved"]
    lift(NOON + 10 * MINUTE)
    assert told() == ["opened", "resolved", "unmuted"]
    assert Alert.objects.get().suppressed == ""


def test_what_got_worse_while_muted_and_is_over_is_told_as_over_only():
    channel("a")
    rule, server = make_rule(thresholds={"warning": 60, "critical": 95}), make_server()
    read(rule, server, 70, NOON)
    suppression.black_out(server, WHY, NOON + MINUTE, NOON + 10 * MINUTE)
    read(rule, server, 99, NOON + 2 * MINUTE)
    read(rule, server, 10, NOON + 3 * MINUTE)
    lift(NOON + 10 * MINUTE)
    assert told() == ["opened", "resolved"]


def test_at_the_end_of_a_mute_routes_are_asked_by_how_bad_it_is_then():
    a, b = channel("a"), channel("b")
    make_route("Worst", (NOW, [b]), least_severity="critical", position=1)
    make_route("Rest", (NOW, [a]), position=2)
    rule, server = make_rule(thresholds={"warning": 60, "critical": 95}), make_server()
    read(rule, server, 70, NOON)
    suppression.black_out(server, WHY, NOON + MINUTE, NOON + 10 * MINUTE)
    read(rule, server, 99, NOON + 2 * MINUTE)
    lift(NOON + 10 * MINUTE)
    assert (told("a"), told("b")) == (["opened"], ["unmuted"])


def test_the_end_of_a_mute_takes_as_many_statements_for_many_as_for_one(
    django_assert_max_num_queries,
):
    channel("a")
    rule = make_rule()
    suppression.black_out(None, WHY, NOON, NOON + 10 * MINUTE)
    for number in range(12):
        read(rule, make_server(f"n{number}"), 90, NOON + MINUTE)
    suppression.expire(NOON + 10 * MINUTE)
    with django_assert_max_num_queries(25):
        muting.tell_what_was_muted(NOON + 10 * MINUTE)
    assert told() == ["opened"] * 12


# -- routes of what goes on ---------------------------------------------------


def test_that_it_comes_and_goes_is_told_to_whoever_knows_of_it():
    a, b = channel("a"), channel("b")
    make_route("On call", (NOW, [a]))
    rule, server = make_rule(), make_server()
    for minute, value in enumerate([90, 10, 90]):
        read(rule, server, value, NOON + minute * MINUTE)
    assert told("a") == ["opened", "resolved", "flapping"]
    assert told("b") == [], b


def test_what_nobody_was_told_of_and_comes_back_goes_where_routes_say():
    a, b = channel("a"), channel("b")
    rule, server = make_rule(), make_server()
    make_route("Nobody", (NOW, []))
    read(rule, server, 90, NOON)
    read(rule, server, 10, NOON + MINUTE)
    make_route("On call", (NOW, [b]), position=1)
    read(rule, server, 90, NOON + 2 * MINUTE)
    assert (told("a"), told("b")) == ([], ["flapping"]), a


# -- merged -------------------------------------------------------------------


def test_what_is_under_way_of_a_merged_incident_is_sent_again_and_tells_of_the_other(recorder):  # noqa: F811
    one = channel("a")
    open_incidents(2, NOON)
    gone, stays = Incident.objects.order_by("pk")
    recorder.failures["a"] = [Undelivered("busy", status=503)]
    delivery.deliver_to(one.pk, lambda: NOON)
    first = Notification.objects.get(incident=gone)
    assert first.attempts == 1
    joining._merge(gone, stays, NOON + SECOND)
    delivery.deliver_due(NOON + MINUTE)
    messages = {message.key: message for message in recorder.sent["a"]}
    assert messages[str(first.key)].incident == stays.pk
    assert messages[str(first.key)].link.endswith(f"/incidents/{stays.pk}/")
    alerts = Alert.objects.filter(incident=stays)
    over = [incidents.Recovered(alert, None, "over") for alert in alerts]
    incidents.recover_all(over, NOON + 2 * MINUTE)
    delivery.deliver_due(NOON + 2 * MINUTE)
    assert recorder.sent["a"][-1].merged == (gone.pk,), "programs close what they were told of"


def test_an_incident_whose_server_was_deleted_is_still_told(recorder):  # noqa: F811
    channel("a")
    read(make_rule(), make_server(), 90, NOON)
    Alert.objects.all().delete()
    delivery.deliver_due(NOON)
    assert [message.heading for message in recorder.sent["a"]] == ["Busy"]


# -- shelved, given back ------------------------------------------------------


def test_steps_are_not_used_up_on_the_shelf_and_are_counted_anew_after_it(access):
    a, b = channel("a"), channel("b")
    make_route("On call", (NOW, [a]), (10 * MINUTE, [b]))
    open_incidents(1, NOON)
    care.shelve(access, Incident.objects.get(), NOON + HOUR, "", NOON + MINUTE)
    escalations.pursue(NOON + 10 * MINUTE)
    assert (told("a"), told("b")) == (["opened"], [])
    assert escalations.next_at() == NOON + HOUR
    incidents.settle(NOON + HOUR)
    escalations.pursue(NOON + HOUR)
    assert (told("a"), told("b")) == (["opened", "returned"], [])
    escalations.pursue(NOON + HOUR + 10 * MINUTE)
    assert told("b") == ["escalated"]


def test_what_is_given_back_waits_for_somebody_again(access):
    a, b = channel("a"), channel("b")
    make_route("On call", (NOW, [a]), (10 * MINUTE, [b]))
    open_incidents(1, NOON)
    care.acknowledge(access, Incident.objects.get(), NOON + MINUTE)
    escalations.pursue(NOON + 2 * MINUTE)
    assert not Escalation.objects.exists()
    care.release(access, Incident.objects.get(), NOON + 30 * MINUTE)
    escalations.pursue(NOON + 39 * MINUTE)
    assert told("b") == []
    escalations.pursue(NOON + 40 * MINUTE)
    assert told("b") == ["escalated"]


# -- a channel that fails -----------------------------------------------------


def broken(name="a", **more):
    """A channel of which it is known that it takes nothing."""
    found = channel(name, **more)
    ChannelState.objects.create(channel=found, failing_since=NOON - HOUR)
    fallback.report(found, "down", NOON)
    return found


def open_alert():
    return Alert.objects.filter(origin=Alert.OWN, resolved_at=None).exists()


def test_what_is_new_goes_at_once_to_the_one_that_stands_in_for_a_broken_channel():
    broken("a")
    channel("b", least_severity="critical")
    open_incidents(1, NOON)
    names = Notification.objects.filter(incident__title="Thing 0 fails").order_by("channel__name")
    assert list(names.values_list("channel__name", flat=True)) == ["To a", "To b"]


def test_who_stands_in_and_is_told_anyway_is_told_once():
    broken("a")
    channel("b")
    open_incidents(1, NOON)
    rows = Notification.objects.filter(incident__title="Thing 0 fails", channel__name="To b")
    assert rows.count() == 1


def test_whom_people_chose_stands_in_unless_it_is_broken_itself():
    last, spare = channel("last"), channel("spare")
    second = broken("second", fallback=last)
    first = broken("first", fallback=second)
    assert fallback.other_than(first) == last, "whom people chose for the one that is broken too"
    last.enabled = False
    last.save()
    assert fallback.other_than(first) == spare, "the next that works"
    spare.delete()
    assert fallback.other_than(first) == second, "it may work again sooner"
    second.fallback = first
    second.save()
    assert fallback.other_than(first) == second, "a circle ends"


def test_a_broken_channel_that_is_deleted_fails_no_longer(access):
    rules.delete_channel(access, broken(), NOON + MINUTE)
    assert not open_alert()
    assert "was deleted" in Event.objects.latest("pk").text


def test_a_broken_channel_that_is_switched_off_fails_no_longer(access):
    found = broken()
    found.enabled = False
    assert open_alert()
    rules.save_channel(access, found, NOON + MINUTE)
    assert not open_alert()
    assert not ChannelState.objects.get(channel=found).is_broken


def test_a_test_that_arrives_mends_a_broken_channel_and_hurries_what_waits(access, recorder):  # noqa: F811
    found = broken()
    open_incidents(1, NOON)
    ChannelState.objects.update(next_at=NOON + HOUR)
    assert delivery.send_test(access, found, NOON + MINUTE) == ""
    assert not open_alert()
    delivery.deliver_due(NOON + MINUTE)
    assert [message.title for message in recorder.sent["a"]] == ["Test message", "Thing 0 fails"]


def test_that_a_channel_fails_is_noted_after_what_became_of_the_message(recorder, monkeypatch):  # noqa: F811
    """Who opens alerts waits for other transactions, and must hold no row of a channel then."""
    one = channel("a")
    open_incidents(1, NOON)
    recorder.failures["a"] = [Undelivered("no such address", for_good=True, status=404)]
    seen = []
    report = fallback.report

    def look_then_report(*args):
        seen.append((Attempt.objects.count(), Notification.objects.get().state))
        report(*args)

    monkeypatch.setattr(fallback, "report", look_then_report)
    delivery.deliver_to(one.pk, lambda: NOON)
    assert seen == [(1, "failed")]
    assert open_alert()


# -- tests and storms ---------------------------------------------------------


def test_who_tests_a_channel_is_in_the_audit_log(acme, client, alice, bob):
    found = channel("a")
    client.force_login(bob)
    path = f"/o/acme/api/v1/channels/{found.pk}/test/"
    assert client.post(path).status_code == 403
    client.force_login(alice)
    assert client.post(path).json() == {"delivered": True, "answer": ""}
    client.post(f"/o/acme/channels/{found.pk}/test/")
    entries = AuditEntry.objects.filter(tenant=acme, verb="channel.tested")
    assert [(one.user, one.subject) for one in entries] == [(alice, "To a")] * 2


def test_a_storm_goes_to_a_program_in_parts_that_it_can_take(recorder):  # noqa: F811
    recorder.most, recorder.storm_pause = 20, SECOND
    channel("a")
    open_incidents(45, NOON)
    for second in range(3):
        delivery.deliver_due(NOON + second * SECOND)
    assert [len(message.items) for message in recorder.sent["a"]] == [20, 20, *[0] * 5]
