"""Signed CloudEvents, against a real HTTP server on this machine."""

from __future__ import annotations

import base64
import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from django.conf import settings as site

from alerts.models import Notification, NotificationChannel
from alerts.notifiers import Undelivered
from alerts.notifiers.outgoing import wait
from alerts.notifiers.webhook import Webhook, event, new_secret, signature
from alerts.telling import delivery
from tests.alerts.builders import NOON, make_message, make_rule, make_server
from tests.alerts.test_breaches import read

pytestmark = pytest.mark.usefixtures("loopback")
MANUAL = Path(site.BASE_DIR) / "docs" / "channels.md"


def manual(language: str) -> str:
    (found,) = re.findall(rf"```{language}\n(.*?)```", MANUAL.read_text(), re.S)
    return found


def test_a_receiver_verifies_it_as_the_manual_says(receiver):
    told = {}
    exec(manual("python"), told)  # noqa: S102  our own manual
    secret = new_secret()
    Webhook().send({"url": receiver.url, "secret": secret}, make_message())
    headers, body = receiver.requests[0]
    headers = {name.lower(): value for name, value in headers.items()}
    assert told["verify"](secret, headers, body)
    assert not told["verify"](secret, headers, body + b" ")
    assert not told["verify"](new_secret(), headers, body)
    old = {**headers, "webhook-timestamp": str(int(headers["webhook-timestamp"]) - 301)}
    assert not told["verify"](secret, old, body)


def test_the_signature_is_that_of_the_specification():
    """Reckoned with `openssl dgst -sha256 -mac HMAC`."""
    secret = "whsec_" + base64.b64encode(bytes(range(24))).decode()
    assert (
        signature(secret, "msg_1", "1674087231", b'{"type":"contact.created"}')
        == "v1,/lCHl0LcetwRfeTUd59qDWRj6aa6hi3xSZ0Xj8oTfeQ="
    )


def test_the_body_is_the_cloudevent_of_the_manual(receiver):
    Webhook().send({"url": receiver.url, "secret": new_secret()}, make_message())
    headers, body = receiver.requests[0]
    sent, shown = json.loads(body), json.loads(manual("json"))
    assert headers["Content-Type"].startswith("application/cloudevents+json")
    assert headers["X-Idempotency-Key"] == headers["webhook-id"] == sent["id"] == "k-1"
    assert (sent.keys(), sent["data"].keys()) == (shown.keys(), shown["data"].keys())
    assert (sent["type"], sent["time"]) == (
        "org.sentinella.incident.opened",
        "2026-03-01T12:00:00Z",
    )
    assert (sent["subject"], sent["data"]["text"]) == ("nova-1", "98 % & rising")


@pytest.mark.parametrize(
    ("transition", "kind"),
    [
        ("raised:3", "org.sentinella.incident.raised"),
        ("acknowledged:3", "org.sentinella.incident.acknowledged"),
        ("resolved:3", "org.sentinella.incident.resolved"),
        ("test", "org.sentinella.test"),
    ],
)
def test_the_type_says_what_happened(transition, kind):
    assert event(make_message(transition=transition))["type"] == kind


def test_while_receivers_change_over_both_secrets_sign(receiver):
    new, old = new_secret(), new_secret()
    Webhook().send({"url": receiver.url, "secret": f"{new} {old}"}, make_message())
    headers, body = receiver.requests[0]
    sent_at = headers["webhook-timestamp"]
    signed = [signature(one, "k-1", sent_at, body) for one in (new, old)]
    assert headers["webhook-signature"].split() == signed


@pytest.mark.parametrize(
    ("answer", "for_good"),
    [
        *((status, True) for status in (400, 401, 403, 404, 410, 422)),
        *((status, False) for status in (302, 308, 408, 429, 500, 502, 503)),
    ],
)
def test_what_stays_as_it_is_is_given_up_and_what_passes_is_tried_again(receiver, answer, for_good):
    receiver.answer, receiver.body = answer, b"so it is"
    with pytest.raises(Undelivered, match=str(answer)) as failure:
        Webhook().send({"url": receiver.url, "secret": new_secret()}, make_message())
    assert failure.value.for_good is for_good
    assert answer < 400 or "so it is" in str(failure.value)


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("form", ["30", "date"])
def test_it_is_tried_again_when_the_receiver_says(receiver, status, form):
    now = datetime.now(UTC)
    date = (now + timedelta(seconds=1800)).strftime("%a, %d %b %Y %H:%M:%S GMT")
    receiver.answer, receiver.headers = status, {"Retry-After": date if form == "date" else form}
    with pytest.raises(Undelivered) as failure:
        Webhook().send({"url": receiver.url, "secret": new_secret()}, make_message())
    asked = failure.value.retry_after
    expected = timedelta(seconds=30 if form == "30" else 1800)
    assert expected - timedelta(minutes=2) < asked <= expected


@pytest.mark.parametrize(
    ("value", "minutes"),
    [
        ("Sun, 01 Mar 2026 12:10:00 GMT", 10),
        ("Sun, 01 Mar 2026 12:10:00 -0000", 10),
        ("Sun, 01 Mar 2026 11:10:00 GMT", None),
        ("Mon, 02 Mar 2026 12:10:00 GMT", 60),
        ("600", 10),
        ("9" * 5000, 60),
        ("0", None),
        ("-5", None),
        ("\u00b2", None),
        ("soon", None),
        ("", None),
        (None, None),
    ],
)
def test_what_a_retry_after_asks_for(value, minutes):
    assert wait(value, NOON) == (minutes and timedelta(minutes=minutes))


@pytest.mark.parametrize("page", [b"<!DOCTYPE html><title>Sign in", b"\n <html><body>proxy"])
def test_a_web_page_is_no_receiver(receiver, page):
    receiver.body = page
    with pytest.raises(Undelivered, match="web page") as failure:
        Webhook().send({"url": receiver.url, "secret": new_secret()}, make_message())
    assert not failure.value.for_good


def test_a_short_answer_is_fine_whatever_it_is_called(receiver):
    receiver.answer, receiver.body, receiver.headers = 202, b"ok", {"Content-Type": "text/html"}
    Webhook().send({"url": receiver.url, "secret": new_secret()}, make_message())
    assert len(receiver.requests) == 1


def test_an_incident_is_told_and_a_repeat_is_recognized(acme, receiver):
    config = {"url": receiver.url, "secret": new_secret()}
    NotificationChannel.objects.all().delete()
    NotificationChannel.objects.create(name="Bot", kind="webhook", config=config)
    receiver.answer = 500
    read(make_rule(), make_server(), 90, NOON)
    delivery.deliver_due(NOON)
    receiver.answer = 200
    delivery.deliver_due(NOON + delivery.LAST_RETRY)
    row = Notification.objects.get()
    assert (row.state, row.attempts) == ("sent", 2)
    first, second = (json.loads(body) for _, body in receiver.requests)
    assert first == second
    assert first["id"] == str(row.key)
    assert first["source"].endswith("/o/acme/")
    assert first["data"]["link"].startswith(first["source"])


def test_a_receiver_that_is_gone_is_given_up_with_what_it_said(acme, receiver):
    config = {"url": receiver.url, "secret": new_secret()}
    NotificationChannel.objects.all().delete()
    NotificationChannel.objects.create(name="Bot", kind="webhook", config=config)
    receiver.answer, receiver.body = 410, b"moved out"
    read(make_rule(), make_server(), 90, NOON)
    delivery.deliver_due(NOON)
    row = Notification.objects.get()
    assert (row.state, row.error) == ("failed", "It answered 410: moved out")


@pytest.mark.parametrize(
    "secret",
    [
        "word",
        "whsec_",
        "whsec_é",
        "whsec_" + base64.b64encode(b"x" * 23).decode(),
        "whsec_" + base64.b64encode(b"x" * 65).decode(),
        " ".join(new_secret() for _ in range(3)),
    ],
)
def test_a_secret_that_signs_nothing_is_refused(secret):
    (said,) = Webhook().errors({"url": "https://bot.example.org/", "secret": secret})
    assert "whsec_" in said


def test_neither_secret_nor_path_is_shown():
    config = {"url": "https://bot.example.org/in/t0?token=t1", "secret": new_secret()}
    assert Webhook().errors(config) == []
    assert Webhook().public(config) == {"url": "bot.example.org/…", "secret": "…"}
