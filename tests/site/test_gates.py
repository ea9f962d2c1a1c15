"""What is slow goes through a gate, and leaves threads for all else."""

from __future__ import annotations

import json

import pytest

from accounts import keys
from accounts.models import Key
from alerts.engines import previews
from alerts.models import NotificationChannel
from alerts.telling import delivery
from sentinel_site.kit.gates import Busy, Gate
from sentinel_site.kit.tenancy import in_schema


def test_a_gate_lets_so_many_in_of_each_and_of_all():
    gate = Gate(each=2, whole=3)
    with gate.passed("a", "wait"), gate.passed("a", "wait"):
        with pytest.raises(Busy, match="wait"), gate.passed("a", "wait"):
            pass
        with gate.passed("b", "wait"), pytest.raises(Busy), gate.passed("c", "wait"):
            pass
        with gate.passed("c", "wait"):
            pass
    with gate.passed("a", "wait"), gate.passed("a", "wait"):
        pass


def test_who_fails_inside_has_left_the_gate():
    gate = Gate(each=1, whole=1)
    with pytest.raises(ZeroDivisionError), gate.passed("a", "wait"):
        raise ZeroDivisionError
    with gate.passed("b", "wait"):
        pass


RULE = {
    "name": "CPU", "measurement": "cpu", "field": "percent", "window": 20,
    "thresholds": {"warning": 60},
}  # fmt: skip


def test_an_organization_tries_two_rules_at_once(acme, client):
    def ask():
        return client.post(
            "/o/acme/api/v1/rules/preview/",
            json.dumps(RULE),
            content_type="application/json",
            headers={"Authorization": f"Bearer {key}"},
        )

    key = keys.issue(acme, Key.Scope.READ)[1]
    with previews._gate.passed(acme.schema_name, ""):
        assert ask().status_code == 200
        with previews._gate.passed(acme.schema_name, ""):
            refused = ask()
    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "5")
    assert refused.json()["type"] == "/problems/busy"
    assert ask().status_code == 200


def test_one_channel_of_an_organization_is_tested_at_once(acme, client, alice):
    row = NotificationChannel.objects.create(name="M", kind="email", config={"to": "a@x.org"})
    client.force_login(alice)
    with delivery._tests.passed(acme.schema_name, ""):
        answer = client.post(
            f"/o/acme/channels/{row.pk}/test/",
            follow=True,
            headers={"Referer": "http://testserver/o/acme/channels/"},
        )
    assert "Another test of a channel waits for its answer" in answer.content.decode()
    with in_schema(acme.schema_name):
        assert not row.attempt_set.exists()
    answer = client.post(f"/o/acme/channels/{row.pk}/test/", follow=True)
    assert "A test message was sent to M" in answer.content.decode()
