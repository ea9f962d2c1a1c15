"""Slack apps with their threads, and Alerta servers."""

from __future__ import annotations

import itertools
import json
from types import SimpleNamespace

import pytest

from accounts.access import Access
from accounts.models import Role
from alerts.lifecycle import incidents
from alerts.models import Attempt, Incident, Notification, NotificationChannel
from alerts.notifiers import Item, Undelivered, alerta
from alerts.notifiers.alerta import Alerta
from alerts.notifiers.email import Email
from alerts.notifiers.slack import SlackApp
from alerts.telling import delivery
from sentinel_site.kit.tenancy import in_schema
from tests.alerts.builders import NOON, SECOND, make_message
from tests.alerts.test_delivery import open_incidents

APP = {"token": "xoxb-1-secret", "channel": "C012345"}


@pytest.fixture
def slack_api(settings, loopback, receiver):
    settings.SLACK_API = f"http://127.0.0.1:{receiver.server_port}/api/"
    receiver.body = b'{"ok":true,"channel":"C012345","ts":"1503435956.000247"}'
    return receiver


def bodies(receiver):
    return [json.loads(body) for _, body in receiver.requests]


def test_what_follows_on_an_incident_stands_in_the_thread_of_its_first_message(
    acme, slack_api, alice
):
    NotificationChannel.objects.all().delete()
    NotificationChannel.objects.create(name="App", kind="slack-app", config=APP)
    open_incidents(1, NOON)
    delivery.deliver_due(NOON)
    incidents.resolve(Incident.objects.get(), alice, NOON + SECOND)
    delivery.deliver_due(NOON + 2 * SECOND)
    first, over = bodies(slack_api)
    assert "thread_ts" not in first
    assert over["thread_ts"] == "1503435956.000247"
    assert first["channel"] == "C012345"
    assert slack_api.paths == ["/api/chat.postMessage"] * 2
    assert slack_api.requests[0][0]["Authorization"] == "Bearer xoxb-1-secret"
    button = first["attachments"][0]["blocks"][-1]["elements"][0]
    assert button["url"].endswith(f"/incidents/{Incident.objects.get().pk}/")
    assert not any(block["type"] == "actions" for block in over["attachments"][0]["blocks"])
    assert Notification.objects.filter(state="sent").count() == 2


@pytest.mark.parametrize(("error", "for_good"), [("not_in_channel", True), ("fatal_error", False)])
def test_what_slack_refuses_with_200_is_not_delivered(slack_api, error, for_good):
    slack_api.body = json.dumps({"ok": False, "error": error}).encode()
    with pytest.raises(Undelivered, match=error) as failure:
        SlackApp().send(APP, make_message())
    assert failure.value.for_good is for_good


def test_an_answer_that_is_none_of_slacks_is_not_delivered(slack_api):
    slack_api.body = b"ok"
    with pytest.raises(Undelivered, match="none of Slack"):
        SlackApp().send(APP, make_message())


def test_a_long_answer_of_slacks_still_names_its_message(slack_api):
    slack_api.body = b'{"ok":true,"ts":"15.02","message":{"text":"' + b"x" * 5000 + b'"}}'
    assert SlackApp().send(APP, make_message()).reference == "15.02"


def test_a_bot_token_that_is_none_is_refused():
    assert SlackApp().errors(APP) == []
    assert len(SlackApp().errors({"token": "secret", "channel": " "})) == 2
    assert "secret" not in str(SlackApp().public(APP))


ALERTA = {"url": "", "key": "demo-key", "environment": "Production"}


def test_an_alerta_server_gets_an_alert_and_its_end(loopback, receiver):
    receiver.answer, receiver.body = 201, b'{"status":"ok"}'
    config = {**ALERTA, "url": f"http://127.0.0.1:{receiver.server_port}/api/"}
    Alerta().send(config, make_message(severity="error", incident=7))
    named_anew = {"title": "RabbitMQ is down", "server": "", "incident": 7, "merged": (5,)}
    Alerta().send(config, make_message(transition="resolved:1", is_resolved=True, **named_anew))
    opened, over, merged = bodies(receiver)
    assert receiver.paths == ["/api/alert"] * 3
    assert (merged["resource"], merged["severity"]) == ("incident 5", "normal")
    assert receiver.requests[0][0]["Authorization"] == "Key demo-key"
    names = ("environment", "resource", "event")
    assert [opened[name] for name in names] == ["Production", "incident 7", "SentinellaIncident"]
    assert [opened[name] for name in names] == [over[name] for name in names]
    assert opened["value"] == "Disk <full> on nova-1"
    assert (opened["severity"], over["severity"]) == ("major", "normal")
    assert opened["createTime"] == "2026-03-01T12:00:00.000Z"
    assert opened["attributes"]["link"].endswith("/incidents/1/")


def test_of_a_digest_alerta_gets_each_incident(loopback, receiver):
    config = {**ALERTA, "url": f"http://127.0.0.1:{receiver.server_port}/api"}
    items = tuple(
        Item(number, "opened:1", "warning", f"Disk {number}", "http://x/", is_resolved=number == 2)
        for number in (1, 2)
    )
    Alerta().send(config, make_message(server="", items=items))
    found = [(body["resource"], body["severity"]) for body in bodies(receiver)]
    assert found == [("incident 1", "warning"), ("incident 2", "normal")]


def test_an_alerta_that_is_slow_is_left_before_the_lease_ends(loopback, receiver, monkeypatch):
    config = {**ALERTA, "url": f"http://127.0.0.1:{receiver.server_port}/api"}
    items = tuple(
        Item(number, "opened:1", "warning", f"Disk {number}", "http://x/", is_resolved=False)
        for number in range(3)
    )
    passed = itertools.count(step=6)
    monkeypatch.setattr(alerta, "time", SimpleNamespace(monotonic=lambda: next(passed)))
    with pytest.raises(Undelivered, match="within 10 s"):
        Alerta().send(config, make_message(server="", items=items))
    assert len(receiver.requests) == 1


def test_an_alerta_channel_says_what_it_lacks():
    assert len(Alerta().errors({"url": "alerta", "key": "", "environment": ""})) == 3
    assert "demo-key" not in str(Alerta().public(ALERTA))


def test_a_secret_that_would_be_cut_in_two_is_not_shown(acme, alice, loopback, receiver):
    access = Access(acme, Role.OWNER, alice)
    hook = NotificationChannel.objects.create(name="S", kind="slack", config={"url": receiver.url})
    receiver.answer = 500
    receiver.body = b"x" * 190 + b" no /services/T/B/secret here"
    said = delivery.send_test(access, hook, NOON)
    assert "/services" not in said
    assert "no … here" in said
    assert Attempt.objects.get().answer == said


@pytest.mark.parametrize(
    ("url", "asks"),
    [
        ("https://alerta.example.org/v2", False),
        ("https://elsewhere.example.org/api", True),
        ("http://alerta.example.org/api", True),
    ],
)
def test_a_key_is_asked_for_again_when_it_would_go_to_another_host(acme, client, alice, url, asks):
    found = NotificationChannel.objects.create(
        name="Alerta", kind="alerta", config={**ALERTA, "url": "https://alerta.example.org/api"}
    )
    client.force_login(alice)
    form = {
        "name": "Alerta", "enabled": "on", "least_severity": "warning", "most_a_minute": "60",
        "config_url": url, "config_key": "", "config_environment": "Production",
    }  # fmt: skip
    page = client.post(f"/o/acme/channels/{found.pk}/", form)
    assert ("another host" in page.content.decode()) is asks
    given = json.dumps({"config": {"url": url, "environment": "Production"}})
    answer = client.patch(
        f"/o/acme/api/v1/channels/{found.pk}/", given, content_type="application/json"
    )
    assert answer.status_code == (422 if asks else 200)
    with in_schema(acme.schema_name):
        found.refresh_from_db()
    assert (found.config["url"] == url) is not asks


def test_a_mail_channel_writes_to_no_more_than_it_may():
    people = [f"p{number}@example.org" for number in range(51)]
    assert Email().errors({"to": ", ".join(people[:50])}) == []
    assert Email().errors({"to": ", ".join(people)}) == [
        "Give at most 50 addresses, or that of a mailing list."
    ]
