"""What Alerta's clients ask and do: queries, counts, history, acknowledge, close."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db.models import Q
from django.db.models.expressions import RawSQL
from django.utils import timezone

from accounts.models import AuditEntry
from alerts.doors import alerta_heartbeats, alerta_query
from alerts.jobs import checkins
from alerts.lifecycle import incidents
from alerts.models import Alert, CheckIn, Incident
from clouds.models import CloudGroup
from tests.alerts.alertas import ask, send
from tests.alerts.builders import NOON, make_rule, make_server
from tests.alerts.test_breaches import read


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
        "q=" + " ".join("a" for _ in range(51)),
        "&".join(f"service={number}" for number in range(51)),
        "q=" + " ".join("(" for _ in range(40)) + "a" + ")" * 40,
    ],
)
def test_what_cannot_be_searched_for_is_said(admin, query):
    answer = ask(admin, "GET", f"/alerts?{query}")
    assert (answer.status_code, answer.json()["status"]) == (400, "error"), answer.content
    assert answer.json()["message"]


@pytest.mark.parametrize("path", ["alerts", "alerts/count", "alerts/history"])
def test_a_query_that_takes_too_long_says_so(admin, three, monkeypatch, path):
    monkeypatch.setattr(alerta_query, "_WITHIN", "1ms")
    monkeypatch.setitem(
        alerta_query._FIELDS,
        "event",
        lambda value, how: Q(pk=RawSQL("(SELECT 1 FROM pg_sleep(9))", [])),
    )
    answer = ask(admin, "GET", f"/{path}?event=x")
    assert (answer.status_code, answer.json()["status"]) == (422, "error")


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
    with django_assert_max_num_queries(10):  # four of them bound the time of the others
        assert len(ask(admin, "GET", "/alerts").json()["alerts"]) == 20


def test_alerts_of_own_rules_are_shown_in_alertas_words(acme, admin):
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
    assert AuditEntry.objects.filter(verb="incident.acknowledged").count() == 1


def test_to_close_ends_it_and_the_next_opens_it_again(admin, ingest):
    number = send(ingest, severity="major").json()["id"]
    assert ask(admin, "PUT", f"/alert/{number}/action", {"action": "close"}).status_code == 200
    assert Incident.objects.get().resolved_at is not None
    assert ask(admin, "PUT", f"/alert/{number}/action", {"action": "close"}).status_code == 409
    assert send(ingest, severity="major").json()["alert"]["status"] == "open"


def test_what_ended_in_the_meantime_was_not_closed(admin, ingest, monkeypatch):
    number = send(ingest, severity="major").json()["id"]
    wait = incidents.one_at_a_time

    def wait_while_it_ends():
        wait()
        Alert.objects.update(resolved_at=timezone.now())

    monkeypatch.setattr(incidents, "one_at_a_time", wait_while_it_ends)
    assert ask(admin, "PUT", f"/alert/{number}/action", {"action": "close"}).status_code == 409
    assert not AuditEntry.objects.filter(verb="alert.closed").exists()


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


def test_history_is_paged_newest_first_whatever_happened_to_how_many(admin, ingest):
    """Pages are of lines: one alert's many lines push out no other's."""
    for number in range(3):
        send(ingest, event=f"e{number}", severity="major")
    for severity in ("critical", "minor", "critical", "normal"):
        send(ingest, event="e0", severity=severity)

    def page(number: int) -> list[tuple[str, str]]:
        answer = ask(admin, "GET", f"/alerts/history?page-size=3&page={number}").json()
        return [(line["event"], line["type"]) for line in answer["history"]]

    assert page(1) == [("e0", "resolved"), ("e0", "raised"), ("e0", "lowered")]
    assert page(2) == [("e0", "raised"), ("e2", "opened"), ("e1", "opened")]
    assert page(3) == [("e0", "opened")]
    assert page(4) == []


def test_history_takes_the_same_queries_for_any_number(
    admin, ingest, django_assert_max_num_queries
):
    for number in range(20):
        send(ingest, event=f"e{number}", severity="major")
    with django_assert_max_num_queries(11):
        assert len(ask(admin, "GET", "/alerts/history").json()["history"]) == 20


def test_parts_of_alerta_that_are_not_here_say_so(admin):
    answer = ask(admin, "GET", "/blackouts")
    assert (answer.status_code, answer.json()["status"]) == (404, "error")
    assert "send" in answer.json()["message"]


def test_an_incident_is_given_back_shelved_and_brought_back(admin, ingest):
    number = send(ingest, severity="major").json()["id"]

    def act(action: str, **more: Any) -> Any:
        return ask(admin, "PUT", f"/alert/{number}/action", {"action": action, **more})

    def status() -> str:
        return ask(admin, "GET", f"/alert/{number}").json()["alert"]["status"]

    for action, after in (
        ("ack", "ack"),
        ("unack", "open"),
        ("shelve", "shelved"),
        ("unshelve", "open"),
    ):
        answer = act(action)
        assert answer.status_code == 200, answer.content
        assert status() == after
        assert ask(admin, "GET", f"/alerts?status={after}").json()["statusCounts"] == {after: 1}
    assert act("shelve", timeout="soon").status_code == 400
    assert act("shelve", timeout=600).status_code == 200
    until = Incident.objects.get().shelved_until
    assert timedelta(seconds=590) < until - timezone.now() <= timedelta(seconds=600)


def test_a_note_is_a_comment(admin, ingest):
    number = send(ingest, severity="major").json()["id"]
    answer = ask(admin, "PUT", f"/alert/{number}/note", {"text": "seen before"})
    assert (answer.status_code, answer.json()["note"]["text"]) == (201, "seen before")
    assert Incident.objects.get().event_set.get(kind="commented").text == "seen before"
    assert ask(admin, "PUT", f"/alert/{number}/note", {"text": ""}).status_code in (400, 422)


# -- heartbeats ---------------------------------------------------------------


def beat(key: str, **given: Any) -> Any:
    return ask(key, "POST", "/heartbeat", {"origin": "backup/db01", "timeout": 600, **given})


def test_a_heartbeat_is_a_check_in_and_its_absence_an_alert(admin, ingest):
    for _ in range(2):
        answer = beat(ingest, attributes={"severity": "critical"})
        assert answer.status_code == 201, answer.content
    row = CheckIn.objects.get()
    assert (row.name, row.period, row.state) == ("backup/db01", timedelta(seconds=600), "up")
    (shown,) = ask(admin, "GET", "/heartbeats").json()["heartbeats"]
    assert (shown["origin"], shown["status"], shown["timeout"]) == ("backup/db01", "ok", 600)
    checkins.judge(timezone.now() + timedelta(minutes=12), None)
    alert = Alert.objects.get()
    assert (alert.severity, alert.resolved_at) == ("critical", None)
    beat(ingest)
    assert Alert.objects.get().resolved_at is not None


def test_a_heartbeat_is_deleted_by_who_may(admin, ingest):
    number = beat(ingest).json()["id"]
    assert ask(ingest, "DELETE", f"/heartbeat/{number}").status_code == 403
    assert ask(admin, "DELETE", f"/heartbeat/{number}").status_code == 200
    assert ask(admin, "GET", f"/heartbeat/{number}").status_code == 404


@pytest.mark.parametrize(
    "given", [{"origin": ""}, {"timeout": "x"}, {"attributes": {"severity": "ok"}}, {"tags": "a"}]
)
def test_bad_heartbeats_are_refused(ingest, given):
    assert beat(ingest, **given).status_code == 400
    assert not CheckIn.objects.exists()


def test_more_origins_than_anyone_has_are_refused(ingest, monkeypatch):
    monkeypatch.setattr(alerta_heartbeats, "MOST", 1)
    assert beat(ingest).status_code == 201
    assert beat(ingest).status_code == 201
    assert beat(ingest, origin="another").status_code == 429


def test_a_heartbeat_leaves_the_check_ins_of_people_alone(ingest):
    mine = CheckIn.objects.create(name="backup/db01", cron="0 2 * * *")
    answer = beat(ingest)
    assert answer.status_code == 409
    assert "people made" in answer.json()["message"]
    mine.refresh_from_db()
    assert (mine.state, mine.cron, mine.period) == ("new", "0 2 * * *", None)


def test_two_programs_of_one_name_and_different_timeouts_fill_no_audit_log(acme, ingest):
    for timeout in (600, 900, 600, 900):
        assert beat(ingest, timeout=timeout).status_code == 201
    assert CheckIn.objects.get().period == timedelta(seconds=900)
    entries = AuditEntry.objects.filter(tenant=acme, verb__startswith="checkin")
    assert [one.verb for one in entries] == ["checkin.added"]


def test_of_two_first_heartbeats_at_once_the_second_finds_the_check_in(acme, ingest, monkeypatch):
    """It looks after its turn has come: another one has made it by then."""
    turn = incidents.one_at_a_time

    def while_another_one_makes_it() -> None:
        turn()
        if not CheckIn.objects.exists():
            CheckIn.objects.create(
                name="backup/db01", period=timedelta(seconds=600), by_heartbeats=True
            )

    monkeypatch.setattr(incidents, "one_at_a_time", while_another_one_makes_it)
    assert beat(ingest).status_code == 201
    assert CheckIn.objects.get().state == "up"
