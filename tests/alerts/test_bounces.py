"""Mail that came back is noted at the channels to that address."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from anymail.signals import tracking

from alerts.models import ChannelState, NotificationChannel
from sentinel_site.kit.tenancy import in_schema
from tests.alerts.builders import NOON


def came_back(kind, address, said="550 no such user"):
    event = SimpleNamespace(
        event_type=kind, recipient=address, mta_response=said, description=None, timestamp=NOON
    )
    tracking.send(sender=None, event=event, esp_name="Test")


@pytest.fixture
def ops(acme):
    NotificationChannel.objects.create(
        name="Other", kind="email", config={"to": "not-ops@example.org"}
    )
    return NotificationChannel.objects.create(
        name="Ops", kind="email", config={"to": "a@example.org, Ops@example.org"}
    )


@pytest.mark.parametrize("kind", ["bounced", "rejected", "complained"])
def test_a_channel_whose_mail_came_back_says_so_until_somebody_sees_to_it(
    acme, client, alice, ops, kind
):
    came_back(kind, "ops@example.org")
    with in_schema(acme.schema_name):
        state = ChannelState.objects.get()
        assert (state.channel, state.bounced_at) == (ops, NOON)
    client.force_login(alice)
    assert "Bounced" in client.get("/o/acme/channels/").content.decode()
    path = f"/o/acme/api/v1/channels/{ops.pk}/"
    assert "550 no such user" in client.get(path).json()["bounce"]
    client.patch(path, {"name": "Ops 2"}, content_type="application/json")
    assert client.get(path).json()["bounced_at"] is None


def test_mail_that_arrived_changes_nothing(acme, ops):
    came_back("delivered", "ops@example.org")
    with in_schema(acme.schema_name):
        assert not ChannelState.objects.exists()
