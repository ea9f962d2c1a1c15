"""Whoever sends to an Alerta can send to us: its alerts are counted, raised, ended and told of."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from accounts import keys
from accounts.models import AuditEntry, Key
from alerts import evaluation, external
from alerts.doors import alerta
from alerts.models import Alert, Incident, Notification
from clouds.models import CloudGroup, Server
from sentinel_site.kit.tenancy import current_schema, in_schema
from tests.alerts.builders import MINUTE, NOON, make_server


@pytest.fixture
def admin(acme) -> str:
    return keys.issue(acme, Key.Scope.ADMIN)[1]


@pytest.fixture
def ingest(acme) -> str:
    return keys.issue(acme, Key.Scope.INGEST)[1]


def ask(key: str, method: str, path: str, given: Any = None, **headers: str) -> Any:
    headers.setdefault("Authorization", f"Key {key}")
    body = {} if given is None else {"data": json.dumps(given), "content_type": "application/json"}
    with in_schema(current_schema()):  # a request ends in the public one
        return Client(headers=headers).generic(method, f"/alerta{path}", **body)


def send(key: str, **given: Any) -> Any:
    return ask(key, "POST", "/alert", {"resource": "web01", "event": "NodeDown", **given})


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
    acme.refresh_from_db()
    assert acme.timer_at <= now + 61 * MINUTE / 60
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
    suppression.start_maintenance(server, suppression.Decision("planned"), timezone.now(), None)
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


@pytest.mark.parametrize("content", [b"", b"[]", b"nonsense", b"\xff", b"[" * 100_000])
def test_what_is_no_alert_is_refused(ingest, content):
    answer = Client(headers={"Authorization": f"Key {ingest}"}).post(
        "/alerta/alert", content, content_type="application/json"
    )
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


# -- asking and acting --------------------------------------------------------


@pytest.fixture
def three(ingest) -> None:
    """A critical one on web01, a warning on web02 of Development, and one that is over."""
    send(ingest, severity="critical", environment="Production", service=["Web"], tags=["a"])
    send(ingest, resource="web02", event="DiskFull", severity="warning", environment="Development")
    send(ingest, resource="db01", event="Slow", severity="major")
    send(ingest, resource="db01", event="Slow", severity="normal")


@pytest.mark.parametrize(
    ("query", "events"),
    [
        ("", {"NodeDown", "DiskFull", "Slow"}),
        ("status=open", {"NodeDown", "DiskFull"}),
        ("status=closed", {"Slow"}),
        ("status=!closed", {"NodeDown", "DiskFull"}),
        ("severity=critical", {"NodeDown"}),
        ("severity=critical&severity=warning", {"NodeDown", "DiskFull"}),
        ("severity=normal", {"Slow"}),
        ("resource=web01", {"NodeDown"}),
        ("resource=~web", {"NodeDown", "DiskFull"}),
        ("resource=!~web", {"Slow"}),
        ("environment=Development", {"DiskFull"}),
        ("service=Web", {"NodeDown"}),
        ("tag=a", {"NodeDown"}),
        ("event=DiskFull", {"DiskFull"}),
        ("q=severity:critical", {"NodeDown"}),
        ("q=severity:critical OR event:Slow", {"NodeDown", "Slow"}),
        ("q=resource:web* AND NOT event:DiskFull", {"NodeDown"}),
        ('q=environment:"Development"', {"DiskFull"}),
        ("q=(status:open) resource:(web01 OR web02)", {"NodeDown", "DiskFull"}),
        ("q=DiskFull", {"DiskFull"}),
        ("from-date=2020-01-01T00:00:00.000Z&status=closed", {"Slow"}),
        ("to-date=2020-01-01T00:00:00.000Z", set()),
    ],
)
def test_alerts_are_found(admin, three, query, events):
    answer = ask(admin, "GET", f"/alerts?{query}")
    assert answer.status_code == 200, answer.content
    found = answer.json()
    assert {one["event"] for one in found["alerts"]} == events
    assert found["total"] == len(events) == sum(found["severityCounts"].values())
    counts = ask(admin, "GET", f"/alerts/count?{query}").json()
    assert counts["total"] == len(events) == sum(counts["statusCounts"].values())


@pytest.mark.parametrize(
    "query",
    [
        "colour=red",
        "page=0",
        "page-size=many",
        "from-date=today",
        "q=severity:",
        "q=" + "(" * 200,
        "q=a~0.5",
        "q=value:[1 TO 2]",
        "q=colour:red",
        "q=" + "x" * 2000,
        "q=" + " ".join("(" for _ in range(40)) + "a" + ")" * 40,
    ],
)
def test_what_cannot_be_searched_for_is_said(admin, query):
    answer = ask(admin, "GET", f"/alerts?{query}")
    assert (answer.status_code, answer.json()["status"]) == (400, "error"), answer.content
    assert answer.json()["message"]


def test_pages_go_on(admin, three):
    first = ask(admin, "GET", "/alerts?page-size=2").json()
    second = ask(admin, "GET", "/alerts?page-size=2&page=2").json()
    assert (len(first["alerts"]), len(second["alerts"])) == (2, 1)
    assert (first["more"], second["more"], first["pages"]) == (True, False, 2)


def test_listing_takes_the_same_queries_for_any_number(
    admin, ingest, django_assert_max_num_queries
):
    for number in range(20):
        send(ingest, event=f"e{number}", severity="major")
    with django_assert_max_num_queries(6):
        assert len(ask(admin, "GET", "/alerts").json()["alerts"]) == 20


def test_alerts_of_own_rules_are_shown_in_alertas_words(acme, admin):
    from tests.alerts.builders import make_rule
    from tests.alerts.test_breaches import read

    group = CloudGroup.objects.create(name="dc1")
    server = make_server("nova-1", group=group)
    read(make_rule("Busy"), server, 90, NOON)
    (shown,) = ask(admin, "GET", "/alerts").json()["alerts"]
    assert (shown["resource"], shown["event"], shown["environment"], shown["severity"]) == (
        "nova-1",
        "Busy",
        "dc1",
        "warning",
    )
    assert ask(admin, "GET", "/alerts?severity=warning&environment=dc1").json()["total"] == 1


def test_to_acknowledge_takes_the_incident(admin, ingest):
    number = send(ingest, severity="major").json()["id"]
    action = f"/alert/{number[:8]}/action"
    assert ask(admin, "PUT", action, {"action": "ack", "text": "mine"}).status_code == 200
    assert Incident.objects.get().acknowledged_at is not None
    assert ask(admin, "GET", f"/alert/{number}").json()["alert"]["status"] == "ack"
    assert ask(admin, "PUT", action, {"action": "ack"}).status_code == 409
    assert AuditEntry.objects.filter(verb="alert.ack").count() == 1


def test_to_close_ends_it_and_the_next_opens_it_again(admin, ingest):
    number = send(ingest, severity="major").json()["id"]
    assert ask(admin, "PUT", f"/alert/{number}/action", {"action": "close"}).status_code == 200
    assert Incident.objects.get().resolved_at is not None
    assert ask(admin, "PUT", f"/alert/{number}/action", {"action": "close"}).status_code == 409
    assert send(ingest, severity="major").json()["alert"]["status"] == "open"


@pytest.mark.parametrize("given", [{}, {"action": "explode"}, [], {"action": None}])
def test_unknown_actions_are_refused(admin, ingest, given):
    number = send(ingest, severity="major").json()["id"]
    assert ask(admin, "PUT", f"/alert/{number}/action", given).status_code == 400


@pytest.mark.parametrize("number", ["0", "zzzzzzzz", "ffffffff", "00000001-wrong", "%00"])
def test_alerts_that_are_not_there_are_not_found(admin, three, number):
    answer = ask(admin, "GET", f"/alert/{number}")
    assert (answer.status_code, answer.json()["status"]) == (404, "error")


def test_history_tells_what_happened(admin, three):
    lines = ask(admin, "GET", "/alerts/history").json()["history"]
    assert [line["type"] for line in lines if line["event"] == "Slow"] == ["resolved", "opened"]


def test_parts_of_alerta_that_are_not_here_say_so(admin):
    answer = ask(admin, "GET", "/blackouts")
    assert (answer.status_code, answer.json()["status"]) == (404, "error")
    assert "send" in answer.json()["message"]


def test_too_many_open_alerts_are_refused_and_change_nothing(ingest, monkeypatch):
    monkeypatch.setattr(external, "MOST_OPEN", 2)
    for number in range(2):
        assert send(ingest, event=f"e{number}", severity="major").status_code == 201
    answer = send(ingest, event="e3", severity="major")
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "60")
    assert send(ingest, event="e1", severity="major").status_code == 201
    assert Alert.objects.count() == 2
    assert Server.objects.count() == 0
