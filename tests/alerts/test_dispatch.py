"""Who is told what: rows first, each delivery once, retried, in order."""

from __future__ import annotations

from datetime import timedelta
from uuid import uuid4

import pytest
from django.core import mail

from alerts import notifiers
from alerts.dispatching import dispatch
from alerts.models import Incident, Notification, NotificationChannel
from alerts.notifiers import Undelivered
from alerts.telling import delivery
from tests.alerts.builders import MINUTE, NOON, SECOND, looked_at, make_rule, make_server
from tests.alerts.test_breaches import read


class Recorder:
    """A notifier that keeps what it is given, and fails on command."""

    name, label, fields = "email", "E-mail", ()
    most, storm_pause, shows_pictures = None, notifiers.STORM_PAUSE, False

    def __init__(self):
        self.sent, self.failures = [], []

    def errors(self, config):
        return []

    def public(self, config):
        return {}

    def send(self, config, message):
        if self.failures:
            raise self.failures.pop(0)
        self.sent.append(message)


@pytest.fixture
def recorder(monkeypatch):
    recorder = Recorder()
    monkeypatch.setattr(notifiers, "NOTIFIERS", (recorder,))
    return recorder


@pytest.fixture
def breach(acme):
    """Open an incident (the tenant has its default channel to Alice)."""
    rule, server = make_rule(), make_server()
    read(rule, server, 90, NOON)
    return lambda value, at: read(rule, server, value, at)


def test_opening_and_resolving_are_told_once_each(breach, recorder):
    assert delivery.deliver_due(NOON) == 1
    assert delivery.deliver_due(NOON) == 0
    breach(10, NOON + MINUTE)
    delivery.deliver_due(NOON + MINUTE)
    assert [message.transition.split(":")[0] for message in recorder.sent] == ["opened", "resolved"]
    assert recorder.sent[0].text == "It is <90> (limit 60.0 %)"
    assert recorder.sent[0].link.endswith(f"/o/acme/incidents/{Incident.objects.get().pk}/")
    assert recorder.sent[1].is_resolved


def test_what_to_do_names_the_service_and_the_server(acme, recorder):
    rule = make_rule(advice="Look at {service} on {server}; braces {of} the author's stay.")
    server = make_server("ctl1")
    read(rule, server, 90, NOON, mount="/var")
    read(rule, server, 90, NOON)
    delivery.deliver_due(NOON)
    assert [message.advice for message in recorder.sent] == [
        "Look at /var on ctl1; braces {of} the author's stay.",
        "Look at ctl1 on ctl1; braces {of} the author's stay.",
    ]


def test_a_failed_delivery_is_tried_again_later_with_the_same_key(breach, recorder):
    recorder.failures = [Undelivered("busy")]
    delivery.deliver_due(NOON)
    row = Notification.objects.get()
    assert (row.state, row.error) == ("waiting", "busy")
    assert delivery.deliver_due(NOON + 5 * SECOND) == 0
    delivery.deliver_due(row.due_at)
    row.refresh_from_db()
    assert row.state == "sent"
    assert recorder.sent[0].key == str(row.key)


def test_a_retry_waits_as_long_as_the_other_side_asks(breach, recorder):
    recorder.failures = [Undelivered("slow down", retry_after=timedelta(seconds=90))]
    delivery.deliver_due(NOON)
    assert Notification.objects.get().due_at == NOON + timedelta(seconds=90)


def test_one_that_breaks_the_notifier_keeps_no_other_back(breach, recorder):
    read(make_rule("Other"), make_server("nova-2"), 90, NOON)
    recorder.failures = [ValueError("Port out of range")]
    assert delivery.deliver_due(NOON) == 2
    broken, told = Notification.objects.order_by("pk")
    assert (broken.state, broken.error) == ("waiting", "ValueError: Port out of range")
    assert broken.due_at > NOON
    assert told.state == "sent"


def test_back_off_grows_to_a_bound_and_ends_after_a_day(breach, recorder):
    recorder.failures = [Undelivered("down")] * 500
    pauses, now = [], NOON
    while Notification.objects.get().state == "waiting":
        delivery.deliver_due(now)
        row = Notification.objects.get()
        pauses.append(row.due_at - now)
        now = row.due_at
    assert pauses == sorted(pauses)
    assert max(pauses) == delivery.LAST_RETRY
    assert row.state == "failed"
    assert timedelta(hours=23) < now - NOON < timedelta(hours=25)


def test_what_can_never_work_is_given_up_at_once(breach, recorder):
    recorder.failures = [Undelivered("no such address", for_good=True)]
    delivery.deliver_due(NOON)
    assert Notification.objects.get().state == "failed"


def test_the_resolution_is_not_told_before_the_opening(breach, recorder):
    recorder.failures = [Undelivered("busy")]
    delivery.deliver_due(NOON)
    breach(10, NOON + 5 * SECOND)
    assert delivery.deliver_due(NOON + 5 * SECOND) == 0
    delivery.deliver_due(NOON + MINUTE)
    assert [m.transition.split(":")[0] for m in recorder.sent] == ["opened", "resolved"]


def test_a_worker_killed_while_sending_is_followed_by_another_with_the_same_key(
    breach, recorder, monkeypatch
):
    channel = NotificationChannel.objects.get().pk
    claimed = delivery._take(channel, uuid4(), NOON)
    assert delivery._take(channel, uuid4(), NOON) is None, "nobody else has it meanwhile"
    delivery.deliver_due(NOON + delivery.CLAIM)
    assert [message.key for message in recorder.sent] == [str(claimed.key)]


def test_a_queued_notification_wakes_its_tenant(breach, acme):
    assert looked_at(acme) == NOON


def test_a_channel_is_told_of_its_severity_and_worse_only(acme, recorder):
    NotificationChannel.objects.update(least_severity="critical")
    rule, server = make_rule(thresholds={"warning": 60, "critical": 95}), make_server()
    read(rule, server, 70, NOON)
    assert not Notification.objects.exists()
    read(rule, server, 99, NOON + SECOND)
    assert Notification.objects.get().transition == "raised:1"
    read(rule, server, 10, NOON + 2 * SECOND)
    assert Notification.objects.count() == 2, "who was told of the begin is told of the end"


def test_who_was_not_told_of_the_begin_is_not_told_of_the_end(acme):
    NotificationChannel.objects.update(least_severity="critical")
    rule, server = make_rule(), make_server()
    read(rule, server, 70, NOON)
    read(rule, server, 10, NOON + SECOND)
    assert not Notification.objects.exists()


def test_a_switched_off_channel_is_told_nothing(acme):
    NotificationChannel.objects.update(enabled=False)
    read(make_rule(), make_server(), 90, NOON)
    assert not Notification.objects.exists()


def test_mail_names_what_is_wrong_and_can_be_recognized_when_it_comes_twice(breach):
    delivery.deliver_due(NOON)
    (message,) = mail.outbox
    row = Notification.objects.get()
    number = Incident.objects.get().pk
    assert message.subject == f"Busy on nova-1 (incident {number})"
    assert message.body.startswith("Warning: It is <90>")
    assert message.to == ["alice@acme.example"]
    assert str(row.key) in message.extra_headers["Message-ID"]
    assert message.extra_headers["X-Idempotency-Key"] == str(row.key)
    assert "It is <90> (limit 60.0 %)" in message.body
    assert "/o/acme/incidents/" in message.body
    html = message.alternatives[0][0]
    assert "It is &lt;90&gt; (limit 60.0 %)" in html


def test_names_from_a_host_cannot_inject_mail_headers(acme):
    read(make_rule(), make_server("evil\nBcc: all@example.org"), 90, NOON)
    delivery.deliver_due(NOON)
    assert mail.outbox[0].subject.startswith("Busy on evil Bcc: all@example.org (incident ")


def test_a_failure_that_nobody_foresaw_is_kept_and_tried_again(breach, recorder):
    recorder.failures = [UnicodeError("label too long")]
    assert delivery.deliver_due(NOON) == 1
    row = Notification.objects.get()
    assert (row.state, row.error) == ("waiting", "UnicodeError: label too long")
    assert row.due_at < NOON + delivery.CLAIM
    delivery.deliver_due(row.due_at)
    row.refresh_from_db()
    assert row.state == "sent"


def test_a_channel_deleted_while_its_message_is_sent_disturbs_no_other(
    breach, recorder, monkeypatch
):
    NotificationChannel.objects.create(name="Second", kind="email", config={"to": "b@example.org"})
    read(make_rule("Other"), make_server("nova-2"), 90, NOON + MINUTE)
    send = recorder.send

    def delete_then_send(config, message):
        NotificationChannel.objects.exclude(name="Second").delete()
        send(config, message)

    monkeypatch.setattr(recorder, "send", delete_then_send)
    delivery.deliver_due(NOON + 2 * MINUTE)
    assert set(Notification.objects.values_list("state", flat=True)) == {"sent"}


def test_a_claim_counts_from_when_it_is_made(breach, recorder):
    breach(10, NOON)
    assert delivery.deliver_due(NOON, lambda: NOON + 50 * SECOND * len(recorder.sent)) == 2
    assert Notification.objects.order_by("-pk")[0].sent_at == NOON + timedelta(seconds=100)


def test_what_is_held_back_is_told_when_its_time_has_come(breach, recorder, acme):
    delivery.deliver_due(NOON)
    dispatch.queue(Incident.objects.get(), "reopened:1", NOON, not_before=NOON + 30 * SECOND)
    assert looked_at(acme) <= NOON + 30 * SECOND
    assert delivery.deliver_due(NOON + 29 * SECOND) == 0
    assert delivery.deliver_due(NOON + 30 * SECOND) == 1


def test_what_was_not_yet_sent_of_an_incident_can_be_withdrawn(breach, recorder):
    incident = Incident.objects.get()
    delivery.deliver_due(NOON)
    dispatch.queue(incident, "reopened:1", NOON, not_before=NOON + 30 * SECOND)
    assert dispatch.withdraw(incident) == 1
    assert delivery.deliver_due(NOON + MINUTE) == 0
    assert Notification.objects.get().state == "sent", "what was told stays in its history"
