"""A Prometheus can use us as its Alertmanager, and an Alertmanager can hand its alerts on to us."""

from __future__ import annotations

import base64
import json
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from accounts import keys
from accounts.models import Key
from alerts.api import alertmanager as views
from alerts.doors import alertmanager
from alerts.doors.alerta import stamp
from alerts.engines import evaluation
from alerts.lifecycle import external
from alerts.models import Alert, Incident, Notification, Received
from sentinel_site.kit.tenancy import current_schema, in_schema
from tests.alerts.builders import MINUTE, make_server


def post(key: str, given: Any, path: str = "api/v2/alerts", **headers: str) -> Any:
    headers.setdefault("Authorization", f"Bearer {key}")
    body = given if isinstance(given, bytes) else json.dumps(given)
    with in_schema(current_schema()):  # a request ends in the public one
        return Client(headers=headers).post(
            f"/alertmanager/{path}", body, content_type="application/json"
        )


def firing(name: str = "HighLoad", ends: timedelta = 4 * MINUTE, **labels: str) -> dict[str, Any]:
    """As Prometheus sends it."""
    now = timezone.now()
    return {
        "labels": {"alertname": name, "instance": "web01:9100", "job": "node", **labels},
        "annotations": {"summary": f"{name} on web01", "runbook_url": "http://wiki/load"},
        "startsAt": stamp(now - MINUTE),
        "endsAt": stamp(now + ends),
        "generatorURL": "http://prometheus.example/graph?g0.expr=up",
    }


def test_what_fires_opens_an_incident_that_is_told(ingest):
    server = make_server("web01")
    answer = post(ingest, [firing(severity="critical", mountpoint="/var")])
    assert answer.status_code == 200, answer.content
    alert = Alert.objects.get()
    assert (alert.origin, alert.server, alert.severity) == ("alertmanager", server, "critical")
    assert (alert.title, alert.service, alert.subject) == ("HighLoad", "node", "/var")
    assert alert.advice == "http://wiki/load"
    assert Notification.objects.filter(incident=alert.incident).count() == 1


def test_repetitions_are_counted_and_tell_nobody(ingest):
    for _ in range(3):
        post(ingest, [firing()])
    assert Alert.objects.get().count == 3
    assert Notification.objects.count() == 1


def test_an_end_in_the_past_resolves_it(ingest):
    post(ingest, [firing()])
    post(ingest, [firing(ends=-MINUTE)])
    assert Incident.objects.get().resolved_at is not None
    assert [one.transition for one in Notification.objects.order_by("pk")][1:] == ["resolved:1"]


def test_what_prometheus_no_longer_repeats_is_over(ingest):
    post(ingest, [firing()])
    now = timezone.now()
    evaluation.evaluate(now + MINUTE)
    assert Alert.objects.get().resolved_at is None
    evaluation.evaluate(now + 5 * MINUTE)
    assert Alert.objects.get().resolved_at is not None


def test_labels_are_what_it_is_known_by(ingest):
    post(ingest, [firing(device="sda"), firing(device="sdb"), firing(device="sda")])
    assert sorted(Alert.objects.values_list("subject", flat=True)) == ["sda", "sdb"]


@pytest.mark.parametrize(
    ("label", "severity"),
    [
        ("page", "critical"),
        ("high", "error"),
        ("warning", "warning"),
        ("info", "info"),
        ("?", "warning"),
    ],
)
def test_severities_are_understood(ingest, label, severity):
    post(ingest, [firing(severity=label)])
    assert Alert.objects.get().severity == severity


def test_a_webhook_of_an_alertmanager_is_the_same_alert(ingest):
    post(ingest, [firing()])
    one = {**firing(), "status": "firing", "endsAt": "0001-01-01T00:00:00Z", "fingerprint": "f"}
    payload = {"version": "4", "status": "firing", "receiver": "us", "alerts": [one]}
    assert post(ingest, payload, "webhook").status_code == 200
    assert Alert.objects.get().count == 2
    payload["alerts"] = [{**one, "status": "resolved", "endsAt": stamp(timezone.now())}]
    post(ingest, payload, "webhook")
    assert Alert.objects.get().resolved_at is not None


def test_without_an_end_it_waits_for_a_repetition(ingest):
    post(ingest, [{"labels": {"alertname": "Plain"}}])
    ends = Alert.objects.get().received.expires_at
    assert ends - timezone.now() <= alertmanager.RESOLVE_TIMEOUT


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "JSON list"),
        ([1], "[0] must be"),
        ([firing(), {"labels": {}}], "[1] needs the label alertname"),
        ([{"labels": {"alertname": 5}}], "[0].labels"),
        ([{"labels": "x"}], "[0].labels"),
        ([{"labels": {"alertname": "a"}, "annotations": []}], "[0].annotations"),
        ([{"labels": {"alertname": "a"}, "endsAt": "soon"}], "[0].endsAt"),
        ([{"labels": {f"l{n}": "" for n in range(101)}}], "[0].labels"),
        ([{"labels": {"alertname": "x" * 8001}}], "[0].labels"),
        ([{"labels": {"alertname": "x"}}] * 10_001, "10000"),
        (b"nonsense", "JSON"),
    ],
)
def test_what_is_wrong_is_named_and_nothing_is_kept(ingest, given, said):
    answer = post(ingest, given)
    assert answer.status_code == 400
    assert said in answer.json()["detail"]
    assert not Alert.objects.exists()


def test_a_webhook_without_alerts_is_refused(ingest):
    for given in ([], {"alerts": {}}, {}):
        assert post(ingest, given, "webhook").status_code == 400


def test_basic_authentication_takes_the_key_as_password(ingest):
    text = base64.b64encode(f"prometheus:{ingest}".encode()).decode()
    assert post("", [firing()], Authorization=f"Basic {text}").status_code == 200
    assert post("", [firing()], Authorization="Basic ???").status_code == 401


def test_who_has_no_key_or_the_wrong_one_is_refused(acme, globex, ingest):
    assert post("", [firing()], Authorization="").status_code == 401
    assert post("nonsense", [firing()]).status_code == 401
    assert post(keys.issue(acme, Key.Scope.READ)[1], [firing()]).status_code == 403
    theirs = keys.issue(globex, Key.Scope.INGEST)[1]
    post(ingest, [firing()])
    post(theirs, [firing(ends=-MINUTE)])
    assert Alert.objects.get().resolved_at is None


@pytest.mark.parametrize("name", ["startsAt", "endsAt"])
def test_a_time_that_no_clock_shows_is_refused(ingest, name):
    answer = post(ingest, [{**firing(), name: "9999-12-31T23:59:59-05:00"}])
    assert answer.status_code == 400
    assert f"[0].{name} must be a time" in answer.json()["detail"]


def test_an_end_in_ages_is_one_in_a_year(ingest):
    post(ingest, [{**firing(), "endsAt": "9999-12-31T23:59:59Z"}])
    (row,) = Received.objects.all()
    assert row.expires_at - row.repeated_at == alertmanager.LONGEST


def test_a_label_has_no_name_of_many_pages(ingest):
    answer = post(ingest, [{**firing(), "annotations": {"a" * 201: "b"}}])
    assert answer.status_code == 400
    assert "names of at most 200" in answer.json()["detail"]


def test_open_alerts_are_listed(acme, ingest):
    post(ingest, [firing(), firing("Gone")])
    post(ingest, [firing("Gone", ends=-MINUTE)])
    read = keys.issue(acme, Key.Scope.READ)[1]
    answer = Client(headers={"Authorization": f"Bearer {read}"}).get("/alertmanager/api/v2/alerts")
    (shown,) = answer.json()
    assert shown["labels"]["alertname"] == "HighLoad"
    assert shown["status"]["state"] == "active"


def test_a_thousand_alerts_take_the_same_queries_as_one(ingest, django_assert_max_num_queries):
    with django_assert_max_num_queries(60):
        post(ingest, [firing(device=f"d{number}") for number in range(1000)])
    assert Alert.objects.count() == 1000


def test_what_is_over_ends_also_where_no_more_may_open(ingest, monkeypatch):
    post(ingest, [firing("Old")])
    monkeypatch.setattr(external, "MOST_OPEN", 1)
    answer = post(ingest, [firing("New"), firing("Newer"), firing("Old", ends=-MINUTE)])
    assert answer.status_code == 429
    assert Alert.objects.get().resolved_at is not None


def test_an_alert_that_is_too_long_is_refused(ingest):
    answer = post(ingest, [{**firing(), "annotations": {f"n{i}": "x" * 8000 for i in range(5)}}])
    assert answer.status_code == 400
    assert "[0] is longer than 32 KiB" in answer.content.decode()
    assert post(ingest, [{**firing(), "annotations": {"n": "x" * 8000}}]).status_code == 200


def test_no_character_of_an_address_sinks_what_was_sent_with_it(ingest):
    answer = post(ingest, [{**firing(), "generatorURL": "http://a/\0"}, firing("Other")])
    assert answer.status_code == 200
    assert Received.objects.filter(said__generatorURL="http://a/�").count() == 1
    assert Alert.objects.count() == 2


def test_a_password_that_is_none_is_refused(ingest):
    assert post(ingest, [firing()], Authorization="Basic é").status_code == 401


def test_a_list_ends_where_it_is_too_long_for_one_answer(acme, ingest, monkeypatch):
    post(ingest, [firing(device=f"d{number}") for number in range(5)])
    read = keys.issue(acme, Key.Scope.READ)[1]
    client = Client(headers={"Authorization": f"Bearer {read}"})
    whole = client.get("/alertmanager/api/v2/alerts").json()
    assert len(whole) == 5
    monkeypatch.setattr(views, "MOST_BYTES", 3 * len(json.dumps(whole[0])))
    assert client.get("/alertmanager/api/v2/alerts").json() == whole[:3]
