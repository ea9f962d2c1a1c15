"""How channels are told: each for itself, under a lease, together in a storm, and what is kept."""

from __future__ import annotations

import json
from datetime import timedelta
from types import SimpleNamespace
from uuid import uuid4

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from alerts import notifiers
from alerts.dispatching import dispatch
from alerts.lifecycle import incidents
from alerts.models import (
    Alert,
    Attempt,
    ChannelState,
    Incident,
    Notification,
    NotificationChannel,
)
from alerts.notifiers import Receipt, Undelivered
from alerts.notifiers.webhook import new_secret
from alerts.telling import delivery, messages
from tests.alerts.builders import MINUTE, NOON, SECOND

HOUR = timedelta(hours=1)


class Recorder:
    """A notifier that keeps what it is given by channel, and fails on command."""

    name, label = "email", "E-mail"
    most, storm_pause, shows_pictures = None, notifiers.STORM_PAUSE, False
    fields = (notifiers.Field("to", "To"), notifiers.Field("token", "Token", secret=True))

    def __init__(self):
        self.sent, self.failures = {}, {}
        self.meanwhile = lambda config: None

    def errors(self, config):
        return []

    def public(self, config):
        return {}

    def send(self, config, message):
        self.meanwhile(config)
        failures = self.failures.get(config["to"])
        if failures:
            raise failures.pop(0)
        self.sent.setdefault(config["to"], []).append(message)
        return Receipt(200, "taken", "ref-1")


@pytest.fixture
def recorder(monkeypatch, acme):
    recorder = Recorder()
    monkeypatch.setattr(notifiers, "NOTIFIERS", (recorder,))
    NotificationChannel.objects.all().delete()
    return recorder


def channel(to="a", **more):
    more.setdefault("name", f"To {to}")
    more.setdefault("config", {"to": to, "token": "xoxb-very-secret"})
    return NotificationChannel.objects.create(kind="email", **more)


def open_incidents(count, at, first=0, severity="warning", server=None, service="system"):
    """So many incidents, each of its own server."""
    incidents.open_all(
        [
            incidents.Found(
                rule=None,
                fingerprint=f"storm-{number}",
                reading=1.0,
                limit=0.0,
                severity=incidents.Severity(severity),
                server=server,
                service=service,
                subject="thing",
                unit="",
                text=f"Thing {number} fails",
                held_since=at,
                title=f"Thing {number} fails",
                origin="test",
                resource="" if server else f"thing-{number}",
            )
            for number in range(first, first + count)
        ],
        at,
    )


# -- leases -------------------------------------------------------------------


def test_a_late_answer_changes_nothing_that_another_worker_has_settled(recorder):
    one = channel()
    open_incidents(1, NOON)

    def sleep_through_the_lease(config):
        recorder.meanwhile = lambda config: None
        recorder.failures["a"] = [Undelivered("too late")]
        delivery.deliver_to(one.pk, lambda: NOON + delivery.CLAIM)  # fails, in the other's hands
        later = Notification.objects.get()
        recorder.failures["a"] = [Undelivered("mine came late", retry_after=9 * HOUR)]
        assert later.due_at == NOON + delivery.CLAIM + delivery.FIRST_RETRY

    recorder.meanwhile = sleep_through_the_lease
    delivery.deliver_to(one.pk, lambda: NOON)
    row = Notification.objects.get()
    assert row.due_at == NOON + delivery.CLAIM + delivery.FIRST_RETRY
    assert row.error == "too late"
    assert ChannelState.objects.get().next_at == row.due_at
    assert [a.answer for a in Attempt.objects.order_by("pk")] == ["too late", "mine came late"]


def test_a_worker_that_slept_before_sending_leaves_it_to_others(recorder, monkeypatch):
    channel()
    open_incidents(1, NOON)
    asleep = [0.0]
    monkeypatch.setattr(delivery, "time", SimpleNamespace(monotonic=lambda: asleep[0]))
    write = messages.message_of

    def sleep_then_write(notification):
        asleep[0] = 100.0
        return write(notification)

    monkeypatch.setattr(messages, "message_of", sleep_then_write)
    delivery.deliver_to(NotificationChannel.objects.get().pk, lambda: NOON)
    assert recorder.sent == {}
    assert Notification.objects.get().state == "waiting"


def test_what_is_withdrawn_while_a_worker_looks_for_work_is_not_sent(recorder, monkeypatch):
    one = channel()
    open_incidents(2, NOON)
    first = Incident.objects.get(title__startswith="Thing 0")
    look = delivery._next

    def look_and_lose(*given):
        monkeypatch.setattr(delivery, "_next", look)
        found = look(*given)
        assert [row.incident for row in found[0]] == [first]
        assert dispatch.withdraw(first) == 1
        return found

    monkeypatch.setattr(delivery, "_next", look_and_lose)
    assert delivery.deliver_to(one.pk, lambda: NOON) == 1
    [message] = recorder.sent["a"]
    assert "Thing 1" in message.title


def test_what_a_worker_is_just_taking_is_not_withdrawn(recorder):
    channel()
    open_incidents(1, NOON)
    with CaptureQueriesContext(connection) as asked:
        assert dispatch.withdraw(Incident.objects.get()) == 1
    statements = [one["sql"] for one in asked]
    first = next(n for n, sql in enumerate(statements) if "DELETE" in sql)
    assert any("FOR UPDATE SKIP LOCKED" in sql for sql in statements[:first])


def test_while_one_sends_nobody_else_sends_to_the_same_channel(recorder):
    one = channel()
    open_incidents(2, NOON)
    tried = []
    recorder.meanwhile = lambda config: tried.append(delivery.deliver_to(one.pk, lambda: NOON))
    assert delivery.deliver_to(one.pk, lambda: NOON) == 2
    assert tried == [0, 0]


# -- one channel that fails ---------------------------------------------------


def test_what_a_channel_answers_leaves_the_others_alone(recorder):
    channel("a"), channel("b")
    recorder.failures["a"] = [Undelivered("slow down", retry_after=90 * SECOND, status=429)] * 9
    open_incidents(3, NOON)
    delivery.deliver_due(NOON)
    assert len(recorder.sent["b"]) == 3
    assert "a" not in recorder.sent
    assert Attempt.objects.filter(channel__name="To a").count() == 1, "429 is for all of them"
    assert dispatch.due_channels(NOON + 89 * SECOND) == []
    recorder.failures.clear()
    delivery.deliver_due(NOON + 90 * SECOND)
    assert len(recorder.sent["a"]) == 3


def test_a_message_that_is_refused_again_and_again_keeps_no_other_back(recorder):
    channel()
    open_incidents(2, NOON)
    recorder.failures["a"] = [Undelivered("500", status=500)]
    delivery.deliver_due(NOON)
    poison = Notification.objects.exclude(error="").get().incident_id
    again = NOON + delivery.FIRST_RETRY

    def refuse_that_one(config):
        parcel = Notification.objects.filter(claim__isnull=False, state="waiting").order_by(
            "-due_at"
        )[0]
        if parcel.incident_id == poison:
            raise Undelivered("500", status=500)

    open_incidents(1, NOON, first=7)
    recorder.meanwhile = refuse_that_one
    for _ in range(4):
        delivery.deliver_due(again)
        again += delivery.LAST_RETRY
    told = {m.title for m in recorder.sent["a"]}
    assert len(told) == 2, "the two others are told"


def test_every_try_is_kept_with_its_answer_and_without_secrets(recorder):
    channel()
    open_incidents(1, NOON)
    recorder.failures["a"] = [Undelivered("bad xoxb-very-secret" + "x" * 900, status=503)]
    delivery.deliver_due(NOON)
    delivery.deliver_due(NOON + delivery.FIRST_RETRY)
    first, second = Attempt.objects.order_by("pk")
    assert (first.is_delivered, first.status) == (False, 503)
    assert first.answer.startswith("bad …x")
    assert len(first.answer) == 400
    assert (second.is_delivered, second.status, second.answer) == (True, 200, "taken")
    assert first.key == second.key
    assert second.notification.reference == "ref-1"
    assert "xoxb" not in Notification.objects.get().error


def test_after_an_hour_another_channel_stands_in_and_people_hear_of_it_once(recorder):
    broken, other = channel("a"), channel("b", least_severity="critical")
    recorder.failures["a"] = [Undelivered("down", status=500)] * 50
    open_incidents(1, NOON)
    now = NOON
    while now < NOON + 2 * HOUR:
        delivery.deliver_due(now)
        now = dispatch.next_due(now)
    assert [m.title for m in recorder.sent.get("b", [])] == [
        "Thing 0 fails",
        "Notification channel fails",
    ]
    (alert,) = Alert.objects.filter(origin=Alert.OWN)
    assert "To a" in alert.incident.event_set.get().text
    assert not Notification.objects.filter(channel=broken, incident=alert.incident).exists()
    recorder.failures.clear()
    delivery.deliver_due(now + HOUR)
    alert.refresh_from_db()
    assert alert.resolved_at is not None
    assert ChannelState.objects.get(channel=broken).is_broken is False
    assert other.pk


def test_what_was_given_up_at_once_goes_to_the_channel_that_was_chosen(recorder):
    last = channel("z", least_severity="critical")
    channel("b", least_severity="critical")
    channel("a", fallback=last)
    recorder.failures["a"] = [Undelivered("no such address", for_good=True, status=404)]
    open_incidents(1, NOON)
    delivery.deliver_due(NOON)
    delivery.deliver_due(NOON)
    assert [m.title for m in recorder.sent["z"]] == [
        "Thing 0 fails",
        "Notification channel fails",
    ]
    assert "b" not in recorder.sent


def test_a_channel_that_was_switched_off_is_told_nothing_more(recorder):
    one = channel()
    open_incidents(1, NOON)
    NotificationChannel.objects.update(enabled=False)
    assert delivery.deliver_to(one.pk, lambda: NOON) == 0
    row = Notification.objects.get()
    assert (row.state, row.error) == ("failed", "The channel is switched off.")


# -- storms -------------------------------------------------------------------


def test_a_storm_is_one_message_a_minute_with_the_worst_first(recorder):
    channel()
    open_incidents(300, NOON)
    open_incidents(2, NOON, first=300, severity="critical")
    assert delivery.deliver_due(NOON) == 1
    (digest,) = recorder.sent["a"]
    assert digest.title == "302 incidents: 2 critical, 300 warning"
    assert [item.severity for item in digest.items[:3]] == ["critical", "critical", "warning"]
    open_incidents(5, NOON + 10 * SECOND, first=400)
    assert delivery.deliver_due(NOON + 59 * SECOND) == 0
    assert delivery.deliver_due(NOON + 60 * SECOND) == 5, "few are told one by one again"


def test_the_first_of_a_storm_that_begins_with_one_is_followed_by_a_digest_a_minute_later(recorder):
    channel()
    open_incidents(1, NOON)
    delivery.deliver_due(NOON)
    open_incidents(1, NOON + timedelta(milliseconds=6), first=1)
    delivery.deliver_due(NOON)
    open_incidents(40, NOON + timedelta(milliseconds=200), first=2)
    delivery.deliver_due(NOON + SECOND)
    assert len(recorder.sent["a"]) == 1
    delivery.deliver_due(NOON + MINUTE)
    assert [len(m.items) for m in recorder.sent["a"]] == [0, 41]


def test_a_storm_an_instant_after_an_unrelated_message_is_told_at_once(recorder):
    channel()
    open_incidents(1, NOON)
    delivery.deliver_due(NOON)
    open_incidents(40, NOON + 10 * SECOND, first=1)
    delivery.deliver_due(NOON + 10 * SECOND)
    assert [len(m.items) for m in recorder.sent["a"]] == [0, 40]


def test_a_digest_that_failed_is_sent_again_with_the_same_key_and_the_same_incidents(recorder):
    channel()
    open_incidents(30, NOON)
    recorder.failures["a"] = [Undelivered("busy", status=503)]
    delivery.deliver_due(NOON)
    key = Attempt.objects.get().key
    open_incidents(30, NOON + SECOND, first=30)
    delivery.deliver_due(NOON + delivery.FIRST_RETRY)
    (digest,) = recorder.sent["a"]
    assert digest.key == str(key)
    assert len(digest.items) == 30
    delivery.deliver_due(NOON + 2 * MINUTE)
    assert [len(m.items) for m in recorder.sent["a"]] == [30, 30]
    assert not Notification.objects.filter(state="waiting").exists()


def test_what_may_have_arrived_alone_is_told_again_alone_and_not_by_a_storms_digest(recorder):
    """Whoever sent it died before it was written down; meanwhile many more came."""
    to = channel()
    open_incidents(1, NOON)
    lost = delivery._take(to.pk, uuid4(), NOON)
    open_incidents(30, NOON + 2 * SECOND, first=1)
    delivery.deliver_due(NOON + delivery.CLAIM)
    delivery.deliver_due(NOON + delivery.CLAIM + MINUTE)
    alone, digest = recorder.sent["a"]
    assert (alone.key, len(alone.items)) == (str(lost.key), 0)
    assert len(digest.items) == 30
    assert lost.rows[0].incident_id not in {item.incident for item in digest.items}


def test_a_digest_says_what_is_over_by_now(recorder):
    channel()
    open_incidents(20, NOON)
    over = Alert.objects.order_by("pk")[:15]
    incidents.recover_all([incidents.Recovered(one, None, "over") for one in over], NOON + SECOND)
    delivery.deliver_due(NOON + SECOND)
    (digest,) = recorder.sent["a"]
    assert digest.title == "20 incidents: 5 warning, 15 over"
    assert [item.is_resolved for item in digest.items] == [False] * 5 + [True] * 15


def test_a_digest_names_each_transition_that_it_tells(recorder):
    channel()
    open_incidents(20, NOON)
    over = Alert.objects.order_by("pk")[:15]
    incidents.recover_all([incidents.Recovered(one, None, "over") for one in over], NOON + SECOND)
    delivery.deliver_due(NOON + SECOND)
    (digest,) = recorder.sent["a"]
    told = [(item.incident, one) for item in digest.items for one in item.transitions]
    rows = Notification.objects.values_list("incident", "transition")
    assert sorted(told) == sorted(rows)
    assert len(told) == 35
    assert {item.transitions[-1] for item in digest.items if item.is_resolved} == {"resolved:1"}


def test_no_channel_is_told_more_a_minute_than_it_takes(recorder):
    channel(most_a_minute=3)
    open_incidents(5, NOON)
    assert delivery.deliver_due(NOON) == 3
    assert delivery.deliver_due(NOON + 59 * SECOND) == 0
    assert delivery.deliver_due(NOON + MINUTE) == 2


# -- acknowledging ------------------------------------------------------------


def test_who_wants_to_know_is_told_that_somebody_has_it(recorder, alice):
    channel("a", tells_acknowledged=True), channel("b")
    open_incidents(1, NOON)
    incidents.acknowledge(Incident.objects.get(), alice, NOON + SECOND)
    delivery.deliver_due(NOON + SECOND)
    assert [m.state for m in recorder.sent["a"]] == ["Warning", "Taken"]
    assert recorder.sent["a"][1].text == f"{alice} has it."
    assert [m.state for m in recorder.sent["b"]] == ["Warning"]


# -- bad receivers, by real connections ---------------------------------------


BAD = {
    "429 with Retry-After": (429, {"Retry-After": "120"}, b"rate_limited", 120),
    "500": (500, {}, b"oops", 10),
    "a web page": (200, {"Content-Type": "text/html"}, b"<!DOCTYPE html><p>Sign in", 10),
}


@pytest.mark.parametrize("what", BAD)
def test_a_slack_that_answers_badly_loses_nothing_and_its_log_says_why(
    acme, loopback, receiver, what
):
    status, headers, body, pause = BAD[what]
    NotificationChannel.objects.all().delete()
    NotificationChannel.objects.create(name="S", kind="slack", config={"url": receiver.url})
    receiver.answer, receiver.headers, receiver.body = status, headers, body
    open_incidents(2, NOON)
    delivery.deliver_due(NOON)
    assert len(receiver.requests) == 1, "the second would fare no better"
    attempt = Attempt.objects.get()
    assert (attempt.status, attempt.is_delivered) == (status, False)
    assert body.decode()[:8] in attempt.answer
    assert ChannelState.objects.get().next_at == NOON + pause * SECOND
    receiver.answer, receiver.headers, receiver.body = 200, {}, b"ok"
    delivery.deliver_due(NOON + pause * SECOND)
    assert Notification.objects.filter(state="sent").count() == 2
    keys = [headers["X-Idempotency-Key"] for headers, _ in receiver.requests]
    assert keys.count(keys[0]) == 2, "the first was sent again under its key"
    assert len(set(keys)) == 2


def test_a_digest_for_programs_lists_its_incidents(acme, loopback, receiver):
    NotificationChannel.objects.all().delete()
    config = {"url": receiver.url, "secret": new_secret()}
    NotificationChannel.objects.create(name="W", kind="webhook", config=config)
    open_incidents(12, NOON)
    delivery.deliver_due(NOON)
    ((_, body),) = receiver.requests
    event = json.loads(body)
    assert event["type"] == "org.sentinella.digest"
    assert {one["transition"] for one in event["data"]["incidents"]} == set(
        Notification.objects.values_list("transition", flat=True)
    )


def test_a_digest_in_slack_names_ten_and_escapes_them(acme, loopback, receiver):
    NotificationChannel.objects.all().delete()
    NotificationChannel.objects.create(name="S", kind="slack", config={"url": receiver.url})
    open_incidents(12, NOON)
    Incident.objects.update(title="<!channel> & co")
    delivery.deliver_due(NOON)
    ((_, body),) = receiver.requests
    text = json.loads(body)["attachments"][0]["blocks"][0]["text"]["text"]
    assert text.count("•") == 10
    assert "&lt;!channel&gt; &amp; co" in text
    assert "<!channel>" not in text


def test_who_is_asked_to_deliver_is_asked_once_a_channel(recorder, monkeypatch):
    one = channel()
    asked = []
    monkeypatch.setattr(dispatch, "ask_workers", lambda schema, who, eta=None: asked.extend(who))
    open_incidents(1, NOON)
    first = Notification.objects.get().pk
    dispatch._ask("t", first)
    open_incidents(1, NOON, first=1)
    dispatch._ask("t", Notification.objects.latest("pk").pk)
    assert asked == [one.pk], "whoever comes for the first looks once more when it is done"


def test_a_worker_that_never_came_is_asked_again_soon(recorder):
    channel()
    open_incidents(1, NOON)
    assert dispatch.next_due(NOON) == NOON + dispatch.AGAIN
