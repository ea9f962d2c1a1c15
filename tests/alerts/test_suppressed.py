"""In maintenance and blackout nobody is told; afterwards they are told of what still holds."""

from __future__ import annotations

import pytest

from alerts.dispatching import dispatch
from alerts.lifecycle import external, muting
from alerts.lifecycle.external import Statement
from alerts.models import Alert, Incident, Notification, Severity
from clouds import servers, suppression
from clouds.models import CloudGroup
from clouds.suppression import Why
from tests.alerts.builders import MINUTE, NOON, make_rule, make_server
from tests.alerts.test_breaches import read

WHY = Why("disk is being changed", by=1)


@pytest.fixture(params=["maintenance", "blackout"])
def muted(request, acme):
    """A server of which nobody is to hear for ten minutes, and how that is called."""
    server = make_server()
    start = {
        "maintenance": suppression.start_maintenance, "blackout": suppression.black_out,
    }[request.param]  # fmt: skip
    start(server, WHY, NOON, NOON + 10 * MINUTE)
    return server, request.param


def test_an_alert_is_recorded_as_suppressed_and_nobody_is_told(muted):
    server, kind = muted
    read(make_rule(), server, 90, NOON + MINUTE)
    assert Alert.objects.get().suppressed == kind
    assert not Notification.objects.exists()


def test_what_recovers_meanwhile_is_never_told(muted):
    server, kind = muted
    rule = make_rule()
    read(rule, server, 90, NOON + MINUTE)
    read(rule, server, 10, NOON + 2 * MINUTE)
    muting.tell_what_was_muted(NOON + 11 * MINUTE)
    assert not Notification.objects.exists()
    assert Alert.objects.get().suppressed == kind


def test_what_still_holds_when_it_is_over_is_told_once(muted):
    server, _ = muted
    read(make_rule(), server, 90, NOON + MINUTE)
    muting.tell_what_was_muted(NOON + 9 * MINUTE)
    assert not Notification.objects.exists()
    suppression.expire(NOON + 10 * MINUTE)
    muting.tell_what_was_muted(NOON + 10 * MINUTE)
    muting.tell_what_was_muted(NOON + 11 * MINUTE)
    assert Notification.objects.get().transition.startswith("opened")
    assert Alert.objects.get().suppressed == ""


def test_what_is_told_on_another_way_meanwhile_is_not_told_again_as_still_there(muted):
    server, _ = muted
    read(make_rule(), server, 90, NOON + MINUTE)
    incident = Incident.objects.get()
    assert incident.untold
    free = make_server("nova-2")
    read(make_rule("Full"), free, 90, NOON + 2 * MINUTE)
    Alert.objects.filter(server=free).update(incident=incident)
    Notification.objects.all().delete()
    dispatch.queue(incident, f"opened:{incident.pk}", NOON + 3 * MINUTE)
    muting.tell_what_was_muted(NOON + 3 * MINUTE)
    assert [one.transition for one in Notification.objects.all()] == [f"opened:{incident.pk}"]


def test_other_servers_are_told_of_as_ever(muted):
    other = make_server("nova-2")
    read(make_rule(), other, 90, NOON + MINUTE)
    assert Alert.objects.get().suppressed == ""
    assert Notification.objects.count() == 1


def test_an_evaluation_ends_what_is_over_and_tells(muted, monkeypatch):
    from alerts.engines.evaluation import evaluate

    server, _ = muted
    read(make_rule(window=20 * MINUTE), server, 90, NOON + MINUTE)
    monkeypatch.setattr(dispatch, "hand_over", lambda schema: None)
    evaluate(NOON + 5 * MINUTE)
    assert not Notification.objects.filter(incident__title="Busy").exists()
    evaluate(NOON + 10 * MINUTE)
    server.refresh_from_db()
    assert server.status not in ("maintenance", "blackout")
    assert Notification.objects.filter(incident__title="Busy").count() == 1


def everything(server):
    return None


def itself(server):
    return server


def its_group(server):
    group = CloudGroup.objects.create(name="gru")
    servers.classify(server, group, "", NOON)
    return group


@pytest.mark.parametrize("scope", [itself, its_group, everything])
def test_whatever_is_suppressed_is_told_at_its_end_and_recoveries_go_to_whoever_knows(acme, scope):
    """One problem was told before it began, one opened meanwhile and stays, one opens and goes."""
    server = make_server()
    known, stays, goes = (make_rule(name, measurement=name) for name in ("known", "stays", "goes"))
    read(known, server, 90, NOON)
    assert Notification.objects.count() == 1
    target = scope(server)
    suppression.black_out(target, WHY, NOON + MINUTE, NOON + 10 * MINUTE)
    read(stays, server, 90, NOON + 2 * MINUTE)
    read(goes, server, 90, NOON + 2 * MINUTE)
    read(goes, server, 10, NOON + 3 * MINUTE)
    assert Notification.objects.count() == 1
    read(known, server, 10, NOON + 4 * MINUTE)
    told = Notification.objects.order_by("pk").values_list("incident__title", "transition")
    assert [title for title, _ in told] == ["known", "known"]
    assert told[1][1].startswith("resolved")
    suppression.expire(NOON + 10 * MINUTE)
    muting.tell_what_was_muted(NOON + 10 * MINUTE)
    assert [title for title, _ in told.all()] == ["known", "known", "stays"]
    read(stays, server, 10, NOON + 11 * MINUTE)
    read(goes, server, 10, NOON + 11 * MINUTE)
    assert [title for title, _ in told.all()] == ["known", "known", "stays", "stays"]


def test_what_is_on_no_server_is_muted_with_everything_and_told_at_the_end(acme):
    alone = Statement(
        origin="alerta", names={"event": "down"}, severity=Severity.CRITICAL, resource="switch-7",
        service="network", subject="port 1", title="Port down", text="Port 1 is down.",
    )  # fmt: skip
    suppression.start_maintenance(None, WHY, NOON, NOON + 10 * MINUTE)
    external.accept([alone], NOON + MINUTE)
    assert Alert.objects.get().suppressed == "maintenance"
    assert not Notification.objects.exists()
    muting.tell_what_was_muted(NOON + 2 * MINUTE)
    assert not Notification.objects.exists()
    suppression.expire(NOON + 10 * MINUTE)
    muting.tell_what_was_muted(NOON + 10 * MINUTE)
    assert Notification.objects.count() == 1
