"""Slack's incoming webhook, against a real HTTP server on this machine."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from alerts.notifiers import Undelivered
from alerts.notifiers.slack import Slack
from tests.alerts.builders import make_message as message

pytestmark = pytest.mark.usefixtures("loopback")


def test_a_message_names_what_is_wrong_where_and_what_to_do(receiver):
    Slack().send({"url": receiver.url}, message())
    headers, body = receiver.requests[0][0], json.loads(receiver.requests[0][1])
    assert headers["X-Idempotency-Key"] == "k-1"
    assert body["text"] == "Critical: Disk &lt;full&gt; on nova-1"
    text = body["attachments"][0]["blocks"][0]["text"]["text"]
    assert "98 % &amp; rising" in text
    assert "<http://localhost/o/acme/incidents/1/|Critical: Disk &lt;full&gt; on nova-1>" in text
    assert "Delete old images." in text


def test_a_resolution_says_so_and_gives_no_advice(receiver):
    Slack().send({"url": receiver.url}, message(is_resolved=True))
    body = json.loads(receiver.requests[0][1])
    assert body["text"].startswith("Resolved: ")
    assert "Delete old images." not in json.dumps(body)


def test_too_many_requests_are_retried_when_slack_says(receiver):
    receiver.answer, receiver.headers = 429, {"Retry-After": "30"}
    with pytest.raises(Undelivered) as failure:
        Slack().send({"url": receiver.url}, message())
    assert failure.value.retry_after == timedelta(seconds=30)
    assert not failure.value.for_good


@pytest.mark.parametrize(("answer", "for_good"), [(500, False), (404, True), (410, True)])
def test_a_hook_that_is_gone_is_given_up_and_a_broken_one_is_not(receiver, answer, for_good):
    receiver.answer = answer
    with pytest.raises(Undelivered) as failure:
        Slack().send({"url": receiver.url}, message())
    assert failure.value.for_good is for_good


def test_nobody_listening_is_retried():
    with pytest.raises(Undelivered) as failure:
        Slack().send({"url": "http://127.0.0.1:9/hook"}, message())
    assert not failure.value.for_good


def test_plain_http_would_give_the_secret_away(resolver):
    resolver.leads("hooks.example.org", "93.184.215.14")
    with pytest.raises(Undelivered, match="https"):
        Slack().send({"url": "http://hooks.example.org/services/T/B/secret"}, message())


def test_a_redirect_is_not_followed(receiver):
    receiver.answer, receiver.headers = 302, {"Location": receiver.url}
    with pytest.raises(Undelivered, match="302"):
        Slack().send({"url": receiver.url}, message())
    assert len(receiver.requests) == 1


@pytest.mark.parametrize(
    "url",
    [
        "https://me:word@hooks.slack.com/services/T/B/secret",
        "",
        "slack",
        "ftp://x/y",
        "https://",
        "http://[",
        "http://x:99999/",
        "https://x/é",
        "https://x y/",
        "https://x:y/",
    ],
)
def test_a_webhook_must_be_an_address(url):
    assert Slack().errors({"url": url})


def test_the_secret_path_is_not_shown():
    assert Slack().public({"url": "https://hooks.slack.com/services/T/B/secret"}) == {
        "url": "hooks.slack.com/…"
    }
