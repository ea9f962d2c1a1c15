"""Health, logs and what a page may do."""

from __future__ import annotations

import json
import logging
from datetime import timedelta

import pytest
from django.db import OperationalError, connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts.models import Tenant
from metrics import outages, roundtrips
from sentinel_site import health
from sentinel_site.kit import heartbeat, listening
from sentinel_site.kit.redis_client import client as redis_client


@pytest.fixture(autouse=True)
def _no_tick():
    redis_client.cache_clear()
    redis_client().flushdb()
    yield
    redis_client.cache_clear()


def test_a_living_process_says_so_without_asking_anybody(client, db, django_assert_num_queries):
    with django_assert_num_queries(0):
        assert client.get("/healthz").content == b"ok\n"


def test_readiness_names_each_component_with_its_lag(client, db):
    heartbeat.beat(timezone.now())
    answer = client.get("/readyz")
    assert answer.status_code == 200
    state = answer.json()
    assert state["state"] == "up"
    assert set(state["components"]) == {"database", "redis", "evaluation", "canary", "ingest"}
    assert state["components"]["evaluation"]["lag_seconds"] < 5
    assert state["components"]["evaluation"]["behind_seconds"] == 0


def test_rules_that_are_judged_late_degrade(client, acme):
    now = timezone.now()
    heartbeat.beat(now)
    Tenant.objects.update(timer_at=None, evaluated_at=now, evaluated_in=timedelta(seconds=50))
    evaluation = client.get("/readyz").json()["components"]["evaluation"]
    assert (evaluation["state"], evaluation["behind_seconds"]) == ("up", 50)
    Tenant.objects.filter(pk=acme.pk).update(timer_at=now - timedelta(minutes=7))
    evaluation = client.get("/readyz").json()["components"]["evaluation"]
    assert evaluation["state"] == "down"
    assert evaluation["behind_seconds"] >= 420


def test_a_beat_that_stands_still_degrades(client, db):
    heartbeat.beat(timezone.now() - timezone.timedelta(minutes=5))
    state = client.get("/readyz").json()
    assert state["state"] == "degraded"
    assert state["components"]["evaluation"]["state"] == "down"


def test_the_canarys_last_round_trip_is_told_and_an_old_one_degrades(client, db):
    now = timezone.now()
    heartbeat.beat(now)
    assert client.get("/readyz").json()["components"]["canary"]["state"] == "up", "none yet"
    roundtrips.set_out(now - timedelta(minutes=10))
    assert client.get("/readyz").json()["components"]["canary"]["state"] == "down"
    roundtrips.arrived(now - timedelta(minutes=2))
    told = client.get("/readyz").json()
    assert (told["state"], told["components"]["canary"]["state"]) == ("up", "up")
    assert 119 < told["components"]["canary"]["age_seconds"] < 140
    roundtrips.arrived(now - timedelta(minutes=4))
    told = client.get("/readyz").json()
    assert (told["state"], told["components"]["canary"]["state"]) == ("degraded", "down")
    listening.note(now)
    assert client.get("/readyz").json()["state"] == "up", "after a start there is time for one"


def test_people_read_the_same_on_a_page(client, db):
    heartbeat.beat(timezone.now())
    page = client.get("/status/").content.decode()
    assert "Sentinella works" in page
    assert "behind at most" in page
    assert "No trial has set out yet." in page
    heartbeat.beat(timezone.now() - timedelta(minutes=5))
    assert "A part of Sentinella does not work" in client.get("/status/").content.decode()


def test_the_page_is_there_when_the_database_is_not(client, alice, monkeypatch):
    client.force_login(alice)
    client.get("/status/")

    def away():
        raise OperationalError("connection refused")

    monkeypatch.setattr(health, "_database", away)
    monkeypatch.setattr(health.timers, "lag", lambda _: away())
    monkeypatch.setattr(health.roundtrips, "last", away)
    with CaptureQueriesContext(connection) as asked:
        page = client.get("/status/").content.decode()
    assert "Sentinella does not work now" in page
    assert "OperationalError" in page
    assert not asked.captured_queries, "who asks is not looked up"


def test_our_own_last_outage_is_told(client, db):
    now = timezone.now()
    outages.note(now - timedelta(minutes=9), now - timedelta(minutes=5))
    told = client.get("/readyz").json()["components"]["canary"]["last_outage"]
    assert told["until"] == (now - timedelta(minutes=5)).isoformat()


def test_redis_away_degrades_and_does_not_fail(client, db, settings):
    settings.REDIS_URL = "redis://127.0.0.1:9/0"
    redis_client.cache_clear()
    answer = client.get("/readyz")
    assert answer.status_code == 200
    assert answer.json()["components"]["redis"]["state"] == "down"
    heartbeat.beat(timezone.now())  # logged, and no error


@pytest.mark.parametrize(
    ("path", "written"),
    [
        ("/ping/12-s3cret_x/start", "/ping/12-…/start"),
        ("/ping/12-s3cret_x/no-such-word", "/ping/12-…/no-such-word"),
        ("/signin/MQ/s3cret/", "/signin/MQ/…/"),
        ("/invitations/s3cret/", "/invitations/…/"),
        ("/confirm-email/s3cret/", "/confirm-email/…/"),
        ("/password/reset/key/1-s3cret/", "/password/reset/key/…/"),
        ("/unsubscribe/WzEsMl0:1x:s3cret/", "/unsubscribe/…/"),
        ("/o/acme/servers/12/", "/o/acme/servers/12/"),
    ],
)
def test_an_address_that_is_a_secret_is_not_written_down(client, db, caplog, path, written):
    with caplog.at_level(logging.INFO):
        client.get(path)
    line = next(r.msg for r in caplog.records if isinstance(r.msg, dict) and "path" in r.msg)
    assert line["path"] == written
    assert not any("s3cret" in str(record.msg) for record in caplog.records)


@pytest.mark.parametrize("path", ["/ping/12-s3cret_x/start", "/unsubscribe/WzEsMl0:1x:s3cret/"])
def test_nor_is_it_by_djangos_own_line_about_what_it_refuses(client, db, capsys, path):
    from sentinel_site import logs

    logs.configure("json", "INFO")
    try:
        assert client.put(path).status_code == 405
        written = capsys.readouterr().err
    finally:
        logs.configure("console", "INFO")
    assert "Method Not Allowed" in written
    assert "s3cret" not in written


def test_each_line_of_a_request_names_it_and_its_tenant(client, alice, caplog):
    client.force_login(alice)
    with caplog.at_level(logging.INFO):
        answer = client.get("/o/acme/settings/members/")
    line = next(r.msg for r in caplog.records if isinstance(r.msg, dict) and "path" in r.msg)
    assert line["request_id"] == answer["X-Request-ID"]
    assert line["tenant"] == "acme"
    assert line["status"] == 200


def test_production_logs_are_json_lines(capsys):
    from sentinel_site import logs

    logs.configure("json", "INFO")
    try:
        logging.getLogger("some.library").warning("disk %s", "full", extra={"a": 1})
        line = json.loads(capsys.readouterr().err.splitlines()[-1])
    finally:
        logs.configure("console", "INFO")
    assert (line["event"], line["level"], line["logger"]) == (
        "disk full",
        "warning",
        "some.library",
    )


@pytest.mark.parametrize("path", ["/", "/login/", "/signup/", "/no/such/page/"])
def test_every_answer_forbids_inline_scripts_and_framing(client, db, path):
    answer = client.get(path)
    policy = answer["Content-Security-Policy"]
    assert "script-src 'self'" in policy
    assert "style-src 'self'" in policy
    assert "unsafe-inline" not in policy
    assert "frame-ancestors 'none'" in policy


def test_the_staffs_admin_wants_a_second_factor(client, db):
    from allauth.mfa.totp.internal.auth import TOTP, generate_totp_secret

    from accounts.models import User

    staff = User.objects.create_superuser("staff@sentinella.example", "a long walk along the shore")
    client.force_login(staff)
    refused = client.get("/staff/", follow=True)
    assert refused.redirect_chain[-1][0].startswith("/2fa/")
    TOTP.activate(staff, generate_totp_secret())
    assert client.get("/staff/").status_code == 200


def test_members_are_no_staff(client, alice):
    client.force_login(alice)
    assert client.get("/staff/", follow=True).status_code == 404
    assert client.get("/o/acme/staff/").status_code == 404


@pytest.mark.parametrize(
    ("path", "kind"), [("/o/acme/", "text/html"), ("/o/acme/api/v1/servers/", "problem+json")]
)
def test_a_database_that_is_away_is_said_to_be(client, alice, monkeypatch, path, kind):
    def away(*args, **kwargs):
        raise OperationalError("server closed the connection")

    client.force_login(alice)
    client.raise_request_exception = False
    monkeypatch.setattr("accounts.middleware.Membership.objects.select_related", away)
    answer = client.get(path)
    assert (answer.status_code, answer["Retry-After"]) == (503, "5")
    assert kind in answer["Content-Type"]
