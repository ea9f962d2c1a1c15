"""Whoever sends to an Alerta can send to us: its alerts are counted, raised, ended and told of."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest
from django.utils import timezone

from accounts import keys
from accounts.models import Key
from alerts.doors import alerta
from alerts.engines import evaluation
from alerts.jobs import checkins
from alerts.jobs.checkins import Ping
from alerts.lifecycle import external
from alerts.models import Alert, CheckIn, Incident, Notification
from clouds.models import Server
from sentinel_site.kit.tenancy import in_schema
from tests.alerts.alertas import ask, send, through
from tests.alerts.builders import MINUTE, looked_at, make_server


@pytest.fixture(params=["django", "hot"], autouse=True)
def door(request: pytest.FixtureRequest) -> Iterator[None]:
    """Both ways in answer alike."""
    with through(request.param):
        yield


def test_an_alert_opens_an_incident_that_is_told(ingest):
    make_server("web01")
    answer = send(
        ingest,
        severity="major",
        environment="Production",
        service=["Web"],
        group="OS",
        value="97%",
        text="It does not answer.",
        tags=["rack:7"],
        attributes={"runbook": "r1"},
    )
    assert answer.status_code == 201, answer.content
    alert = Alert.objects.get()
    assert (alert.origin, alert.severity, alert.service, alert.value) == (
        "alerta",
        "error",
        "Web",
        97.0,
    )
    assert (alert.server.host, alert.title) == ("web01", "NodeDown")
    assert Notification.objects.filter(incident=alert.incident).count() == 1
    shown = answer.json()["alert"]
    assert answer.json()["id"] == shown["id"] == alerta.identity(alert)
    assert shown["severity"] == "major"
    assert shown["status"] == "open"
    assert shown["value"] == "97%"
    assert shown["tags"] == ["rack:7"]
    assert shown["attributes"]["runbook"] == "r1"
    assert shown["duplicateCount"] == 0


def test_the_same_alert_again_is_counted_and_tells_nobody(ingest):
    for _ in range(3):
        answer = send(ingest, severity="major")
    assert answer.json()["alert"]["duplicateCount"] == 2
    assert answer.json()["alert"]["repeat"] is True
    assert Alert.objects.get().count == 3
    assert Notification.objects.count() == 1


def test_a_worse_severity_raises_it_and_normal_ends_it(ingest):
    send(ingest, severity="minor")
    send(ingest, severity="critical")
    assert Alert.objects.get().severity == "critical"
    assert send(ingest, severity="normal", text="It answers.").json()["alert"]["status"] == "closed"
    assert Incident.objects.get().resolved_at is not None
    assert list(Notification.objects.order_by("pk").values_list("transition", flat=True)) == [
        f"opened:{Incident.objects.get().pk}",
        "raised:1",
        "resolved:1",
    ]


def test_what_ends_without_being_open_is_taken_and_makes_nothing(ingest):
    answer = send(ingest, severity="ok")
    assert (answer.status_code, answer.json()["status"]) == (202, "ok")
    assert not Alert.objects.exists()


def test_correlated_events_replace_each_other(ingest):
    both = ["NodeDown", "NodeUp"]
    send(ingest, severity="major", correlate=both)
    send(ingest, event="NodeUp", severity="normal", correlate=both)
    assert Alert.objects.get().resolved_at is not None


def test_environments_keep_apart(ingest):
    for environment in ("Production", "Development"):
        send(ingest, severity="major", environment=environment)
    assert Alert.objects.count() == 2


@pytest.mark.parametrize(
    ("resource", "host"),
    [
        ("web01", "web01"),
        ("web01:eth0", "web01"),
        ("WEB01.dc1.example.org", "web01"),
        ("db-7", "db-7.dc1.example.org"),
        ("db-7.dc2.example.org", None),
        ("twin", None),
        ("elsewhere", None),
    ],
)
def test_a_server_is_found_by_its_name(ingest, resource, host):
    for name in ("web01", "db-7.dc1.example.org", "twin.a", "twin.b"):
        make_server(name)
    send(ingest, resource=resource, severity="major")
    alert = Alert.objects.get()
    assert (alert.server.host if alert.server else None) == host
    assert alert.host


def test_what_is_not_repeated_in_time_is_over(acme, ingest):
    send(ingest, severity="major", timeout=60)
    now = timezone.now()
    external.expire(now)
    assert Alert.objects.get().resolved_at is None
    assert looked_at(acme) <= now + 61 * MINUTE / 60
    evaluation.evaluate(now + 2 * MINUTE)
    assert Alert.objects.get().resolved_at is not None
    assert "repeated" in Incident.objects.get().event_set.get(kind="resolved").text


def test_a_repetition_puts_its_end_off(ingest):
    send(ingest, severity="major", timeout=60)
    send(ingest, severity="major", timeout=3600)
    external.expire(timezone.now() + 2 * MINUTE)
    assert Alert.objects.get().resolved_at is None


def test_without_a_timeout_it_stays(ingest):
    send(ingest, severity="major", timeout=0)
    external.expire(timezone.now() + timedelta(days=400))
    assert Alert.objects.get().resolved_at is None


def test_in_maintenance_nobody_is_told(ingest, acme):
    from clouds import suppression

    server = make_server("web01")
    suppression.start_maintenance(server, suppression.Why("planned"), timezone.now(), None)
    answer = send(ingest, severity="critical")
    assert answer.json()["alert"]["status"] == "blackout"
    assert not Notification.objects.exists()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"event": ""}, 'Missing mandatory value for "event"'),
        ({"resource": None}, 'Missing mandatory value for "resource"'),
        ({"severity": "terrible"}, "is not one of security, critical"),
        ({"service": "Web"}, "service must be a list"),
        ({"tags": [1]}, "tags must be a list"),
        ({"attributes": []}, "attributes must be a JSON object"),
        ({"attributes": {"a.b": "c"}}, "must not contain"),
        ({"timeout": "soon"}, "timeout must be an integer"),
        ({"timeout": -1}, "between 0 and"),
        ({"createTime": "yesterday"}, "createTime must be as in"),
        ({"event": "x" * 301}, "longer than 300"),
        ({"tags": ["a"] * 101}, "more than 100"),
        ({"text": {"a": 1}}, "text must be text"),
    ],
)
def test_bad_alerts_are_refused_in_alertas_words(ingest, given, said):
    answer = send(ingest, **given)
    assert answer.status_code == 400, answer.content
    assert answer.json()["status"] == "error"
    assert said in answer.json()["message"]
    assert not Alert.objects.exists()


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"nonsense", b"\xff", b"[" * 100_000, b'{"event": "\\ud800"}']
)
def test_what_is_no_alert_is_refused(ingest, content):
    answer = ask(ingest, "POST", "/alert", content)
    assert (answer.status_code, answer.json()["status"]) == (400, "error")


def test_a_nul_becomes_a_mark(ingest):
    send(ingest, resource="web\0", event="a\0b", text="c\0d", severity="major", tags=["\0"])
    assert Alert.objects.get().title == "a�b"


# -- keys ---------------------------------------------------------------------


def test_keys_may_what_their_scope_allows(acme, admin, ingest):
    read = keys.issue(acme, Key.Scope.READ)[1]
    number = send(ingest, severity="major").json()["id"]
    for key, sends, reads, acts in (
        (ingest, 201, 403, 403),
        (read, 403, 200, 403),
        (admin, 201, 200, 200),
    ):
        assert send(key, severity="major").status_code == sends
        assert ask(key, "GET", "/alerts").status_code == reads
        assert ask(key, "GET", f"/alert/{number}").status_code == reads
        assert ask(key, "PUT", f"/alert/{number}/action", {"action": "ack"}).status_code == acts


def test_a_key_is_taken_wherever_alertas_clients_put_it(admin):
    for headers in (
        {"Authorization": f"Key {admin}"},
        {"Authorization": f"Bearer {admin}"},
        {"Authorization": "", "X-API-Key": admin},
    ):
        assert ask(admin, "GET", "/alerts", **headers).status_code == 200
    assert ask("", "GET", f"/alerts?api-key={admin}", Authorization="").status_code == 200


@pytest.mark.parametrize("key", ["", "nonsense", "snt_aaaaaaaaaaaa_" + "a" * 40])
@pytest.mark.parametrize("path", ["/alerts", "/alerts/count", "/userinfo", "/management/status"])
def test_without_a_valid_key_nothing_is_said(acme, key, path):
    answer = ask(key, "GET", path)
    assert (answer.status_code, answer.json()["status"]) == (401, "error")


def test_a_servers_own_key_sends_no_alerts_of_others(acme):
    from uuid import uuid4

    own = keys.issue(acme, Key.Scope.INGEST, agent_id=uuid4())[1]
    assert send(own, severity="major").status_code == 403
    assert not Alert.objects.exists()


def test_another_organization_sees_and_touches_nothing(acme, globex, ingest):
    theirs = keys.issue(globex, Key.Scope.ADMIN)[1]
    number = send(ingest, severity="major").json()["id"]
    assert ask(theirs, "GET", "/alerts").json()["alerts"] == []
    assert ask(theirs, "GET", f"/alert/{number}").status_code == 404
    assert ask(theirs, "PUT", f"/alert/{number}/action", {"action": "ack"}).status_code == 404
    send(theirs, severity="normal")
    assert Alert.objects.get().resolved_at is None
    with in_schema(globex.schema_name):
        assert not Alert.objects.exists()


def test_too_many_open_alerts_are_refused_and_change_nothing(ingest, monkeypatch):
    monkeypatch.setattr(external, "MOST_OPEN", 2)
    for number in range(2):
        assert send(ingest, event=f"e{number}", severity="major").status_code == 201
    answer = send(ingest, event="e3", severity="major")
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "60")
    assert send(ingest, event="e1", severity="major").status_code == 201
    assert Alert.objects.count() == 2
    assert Server.objects.count() == 0


def test_check_ins_are_raised_also_where_other_tools_have_filled_the_limit(ingest, monkeypatch):
    monkeypatch.setattr(external, "MOST_OPEN", 1)
    send(ingest, severity="major")
    at = timezone.now()
    row = CheckIn.objects.create(name="backup", period=MINUTE, grace=MINUTE)
    checkins.note(row.secret, Ping.FAIL, at)
    assert Alert.objects.filter(resolved_at=None).count() == 2


def test_an_alert_that_is_too_long_is_refused(ingest):
    answer = send(ingest, rawData="x" * 30_000, tags=["y" * 200] * 20)
    assert answer.status_code == 400
    assert answer.json()["message"] == "The alert is longer than 32 KiB"
    assert send(ingest, rawData="x" * 30_000).status_code in (201, 202)
    assert send(ingest, rawData="x" * 33_000).status_code == 400


def test_a_password_that_is_none_is_refused(ingest):
    assert ask(ingest, "GET", "/alerts", Authorization="Basic é").status_code == 401
