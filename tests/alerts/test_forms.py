"""Rules and channels as people fill them in."""

from __future__ import annotations

import html
from datetime import timedelta

import pytest
from django.core.exceptions import ValidationError

from alerts.models import NotificationChannel, Rule
from alerts.pages.forms import ChannelForm, RuleForm, SpanField, TagsField
from sentinel_site.kit.tenancy import in_schema

RULE = {
    "name": "CPU high",
    "kind": "metric",
    "enabled": "on",
    "measurement": "cpu",
    "field": "percent",
    "aggregation": "avg",
    "window": "20 s",
    "comparison": ">",
    "hold": "20 s",
    "warning": "60",
}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("20", 20), ("20 s", 20), ("5min", 300), ("5 m", 300), ("1 h 30 min", 5400), ("1d", 86400)],
)
def test_a_span_is_read_as_people_write_it(text, seconds):
    assert SpanField().clean(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["soon", "5 parsecs", "-3 s", "5 min later", "é"])
def test_what_is_no_span_says_how_to_write_one(text):
    with pytest.raises(ValidationError, match="20 s"):
        SpanField().clean(text)


@pytest.mark.parametrize("text", ["mount", "=x", "a=b, c"])
def test_tags_say_how_to_write_them(text):
    with pytest.raises(ValidationError, match="mount=/var"):
        TagsField().clean(text)


def test_a_rule_is_made_in_the_form_and_shown_in_it_again(acme, client, bob):
    client.force_login(bob)
    answer = client.post("/o/acme/rules/new/", {**RULE, "tags": "mount=/var"})
    assert answer.status_code == 302, answer.content.decode()
    with in_schema(acme.schema_name):
        rule = Rule.objects.get(name="CPU high")
    assert (rule.thresholds, rule.hold) == ({"warning": 60.0}, timedelta(seconds=20))
    assert rule.tags == {"mount": "/var"}
    page = client.get(f"/o/acme/rules/{rule.pk}/").content.decode()
    assert 'value="20 s"' in page
    assert 'value="mount=/var"' in page
    assert 'value="60"' in page


def test_what_is_wrong_is_said_at_its_field(acme, client, bob):
    client.force_login(bob)
    page = client.post("/o/acme/rules/new/", {**RULE, "measurement": "", "warning": ""})
    assert page.status_code == 422
    text = page.content.decode()
    assert "Say which one" in text
    assert "Give a limit for at least one severity." in text


def test_a_worse_severity_needs_a_higher_limit(acme):
    form = RuleForm({**RULE, "critical": "50"})
    assert not form.is_valid()
    assert "higher" in form.non_field_errors()[0]


def test_a_deleted_rule_is_gone(acme, client, bob):
    rule = Rule.objects.first()
    client.force_login(bob)
    assert client.post(f"/o/acme/rules/{rule.pk}/delete/").status_code == 302
    with in_schema(acme.schema_name):
        assert not Rule.objects.filter(pk=rule.pk).exists()


def test_viewers_change_no_rule(acme, client, bob):
    from accounts.models import Membership, Role

    rule = Rule.objects.first()
    Membership.objects.filter(user=bob).update(role=Role.VIEWER)
    client.force_login(bob)
    for path in ("rules/new/", f"rules/{rule.pk}/", f"rules/{rule.pk}/delete/"):
        assert client.post(f"/o/acme/{path}", RULE).status_code == 403


def test_a_channel_keeps_its_secret_when_the_form_leaves_it_empty(acme, client, alice):
    channel = NotificationChannel.objects.create(
        name="Ops", kind="slack", config={"url": "https://hooks.slack.com/T/B/secret"}
    )
    client.force_login(alice)
    page = client.get(f"/o/acme/channels/{channel.pk}/").content.decode()
    assert "secret" not in page
    data = {"name": "Ops 2", "enabled": "on", "least_severity": "error", "config_url": ""}
    assert client.post(f"/o/acme/channels/{channel.pk}/", data).status_code == 302
    with in_schema(acme.schema_name):
        channel.refresh_from_db()
    assert channel.name == "Ops 2"
    assert channel.config == {"url": "https://hooks.slack.com/T/B/secret"}


def test_a_wrong_webhook_is_said_at_its_field(acme):
    form = ChannelForm(
        {"name": "x", "least_severity": "info", "config_url": "nowhere"}, kind="slack"
    )
    assert "https://" in form.errors["config_url"][0]


def test_a_test_message_says_what_came_of_it(acme, client, alice, loopback):
    channel = NotificationChannel.objects.create(
        name="Nobody", kind="slack", config={"url": "http://127.0.0.1:9/hook"}
    )
    client.force_login(alice)
    page = client.post(f"/o/acme/channels/{channel.pk}/test/", follow=True).content.decode()
    assert "Nobody didn" in page
    assert "Connection" in page


def test_members_do_not_change_channels(acme, client, bob):
    channel = NotificationChannel.objects.first()
    client.force_login(bob)
    for path in ("new/slack/", f"{channel.pk}/", f"{channel.pk}/delete/", f"{channel.pk}/test/"):
        assert client.post(f"/o/acme/channels/{path}").status_code == 403


@pytest.mark.parametrize("text", ["9" * 30 + " d", "9" * 400, "99999999999 d"])
def test_a_span_beyond_all_time_is_refused(text):
    with pytest.raises(ValidationError):
        SpanField().clean(text)


def test_a_secret_that_was_made_is_shown_once(acme, client, alice):
    client.force_login(alice)
    data = {"name": "Bot", "enabled": "on", "least_severity": "info"}
    given = {
        **data,
        "config_url": "https://bot.example.org/in?token=hidden-from-pages",
        "config_secret": "",
    }
    answer = client.post("/o/acme/channels/new/webhook/", given)
    with in_schema(acme.schema_name):
        channel = NotificationChannel.objects.get(name="Bot")
    secret = channel.config["secret"]
    assert secret in html.unescape(answer.content.decode())
    assert "no-store" in answer["Cache-Control"]
    kept = client.post(f"/o/acme/channels/{channel.pk}/", {**data, "name": "Bot 2"}, follow=True)
    shown = [kept, client.get("/o/acme/channels/"), client.get(f"/o/acme/channels/{channel.pk}/")]
    for page in shown:
        assert secret not in html.unescape(page.content.decode())
        assert "hidden-from-pages" not in page.content.decode()
    with in_schema(acme.schema_name):
        channel.refresh_from_db()
    assert (channel.name, channel.config["secret"]) == ("Bot 2", secret)
