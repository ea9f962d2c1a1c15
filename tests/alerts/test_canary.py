"""The canary: a report becomes an alert becomes a message, in an organization that nobody sees."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from accounts.models import Tenant
from alerts import notifiers
from alerts.dispatching import dispatch
from alerts.engines.evaluation import evaluate
from alerts.models import Alert, Incident, Notification, Rule
from alerts.telling import canary, delivery
from clouds.models import Server
from metrics import roundtrips
from sentinel_site.kit.tenancy import in_schema


@pytest.fixture
def quiet(db, monkeypatch):
    """Nothing goes to the broker; what is due is delivered by hand."""
    monkeypatch.setattr(dispatch, "hand_over", lambda *args, **more: None)
    monkeypatch.setattr("alerts.engines.fleet.listening_since", lambda at: None)


def test_it_goes_all_the_way_each_time(quiet):
    now = timezone.now()
    for minute in range(3):
        at = now + minute * timedelta(minutes=1)
        canary.fly(at)
        with in_schema(canary.SCHEMA):
            evaluate(at + timedelta(seconds=1))
            assert [one.title for one in Alert.objects.all()] == ["Canary"]
            assert Notification.objects.count() == 1
            before = timezone.now()
            delivery.deliver_due(at + timedelta(seconds=2))
            assert Notification.objects.get().state == Notification.State.SENT
            assert (Incident.objects.count(), Server.objects.count()) == (1, 1)
        last = roundtrips.last()
        assert last.arrived_at >= before
        assert last.set_out_at == at
    assert Tenant.objects.filter(schema_name=canary.SCHEMA).count() == 1
    with in_schema(canary.SCHEMA):
        assert Rule.objects.count() == 1


def test_nobody_sees_it_or_can_choose_its_channel(quiet, client, alice):
    canary.fly(timezone.now())
    home = Tenant.objects.get(schema_name=canary.SCHEMA)
    client.force_login(alice)
    assert client.get(f"/o/{home.slug}/").status_code == 404
    assert not home.membership_set.exists()
    assert client.get("/o/acme/channels/new/canary/").status_code == 404
    assert "anary" not in client.get("/o/acme/channels/").content.decode()
    assert "anary" not in client.get("/home/", follow=True).content.decode()
    assert "canary" not in dict(notifiers.choices())
