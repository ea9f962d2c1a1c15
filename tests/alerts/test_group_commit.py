"""Alerts that arrive together are stored together, and none of them can hurt another."""

from __future__ import annotations

import asyncio
import json
from contextlib import closing
from types import SimpleNamespace

import psycopg2
import pytest
from asgiref.sync import async_to_sync
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts import keys
from accounts.models import Key
from alerts.doors import alerta, entry, group_commit, hot
from alerts.doors.entry import Answer, Busy, Held
from alerts.doors.group_commit import GroupCommit
from alerts.lifecycle import external, incidents
from alerts.models import Alert, Incident
from metrics import committer
from tests.alerts import alertas


def statement(event, **more):
    given = {"resource": "web01", "event": event, "severity": "major", **more}
    return alerta.parse(given, timezone.now())


def take(acme, *events, **more):
    return entry.take_alertas(
        acme.schema_name, [statement(event, **more) for event in events], timezone.now()
    )


def test_one_that_cannot_be_stored_sinks_no_other(acme, monkeypatch):
    accept = external.accept

    def fails(statements, at):
        if any(one.title == "bad" for one in statements):
            raise ValueError("nobody foresaw this")
        return accept(statements, at)

    monkeypatch.setattr(external, "accept", fails)
    answers = take(acme, "a", "b", "bad", "c", "d")
    assert [one.status for one in answers] == [201, 201, 500, 201, 201]
    assert [one.body["alert"]["event"] for one in answers if one.status == 201] == list("abcd")
    assert Alert.objects.count() == 4


def test_where_there_is_room_for_some_these_are_stored_and_the_rest_is_asked_to_wait(
    acme, monkeypatch
):
    take(acme, "known")
    monkeypatch.setattr(external, "MOST_OPEN", 2)
    answers = take(acme, "a", "b", "known", "c")
    assert [one.status for one in answers] == [201, 429, 201, 429]
    assert answers[1].headers["Retry-After"] == "60"
    assert sorted(Alert.objects.values_list("title", flat=True)) == ["a", "known"]


def test_who_holds_the_alerts_of_an_organization_is_not_waited_for_without_end(acme, monkeypatch):
    monkeypatch.setattr(entry, "LOCK_WITHIN", 0.05)
    lock = "SELECT pg_advisory_xact_lock(%s, hashtext(%s))"
    with closing(psycopg2.connect(**committer._parameters())) as other, other.cursor() as cursor:
        cursor.execute(lock, [incidents._INCIDENTS, acme.schema_name])
        with pytest.raises(Held):
            take(acme, "a")
    assert not Incident.objects.exists()


def test_alerts_that_are_held_up_are_tried_again_and_then_asked_to_come_back(monkeypatch):
    tries = []

    async def once_held(self, schema, statements):
        tries.append(schema)
        if len(tries) == 1:
            raise Held
        return [Answer(201, {}) for _ in statements]

    monkeypatch.setattr(GroupCommit, "_in_thread", once_held)
    together = GroupCommit()
    assert asyncio.run(together.take("acme", statement("a"), 10)).status == 201
    assert len(tries) == 2

    async def always_held(self, schema, statements):
        raise Held

    monkeypatch.setattr(GroupCommit, "_in_thread", always_held)
    monkeypatch.setattr(group_commit, "PATIENCE", 0)
    with pytest.raises(Busy):
        asyncio.run(together.take("acme", statement("a"), 10))


def test_what_waits_in_memory_is_bounded_and_given_free(monkeypatch):
    stored = []

    async def in_thread(self, schema, statements):
        await asyncio.sleep(0)
        stored.extend(one.title for one in statements)
        return [Answer(201, {}) for _ in statements]

    monkeypatch.setattr(GroupCommit, "_in_thread", in_thread)
    monkeypatch.setattr(group_commit, "MOST_BYTES", 100)
    together = GroupCommit()

    async def many():
        taken = [together.take("acme", statement(f"{n}"), 40) for n in range(3)]
        return await asyncio.gather(*taken, return_exceptions=True)

    answers = asyncio.run(many())
    assert [type(one) for one in answers] == [Answer, Answer, Busy]
    assert stored == ["0", "1"]
    assert asyncio.run(together.take("acme", statement("later"), 100)).status == 201


def test_a_great_body_is_left_to_the_application_behind(acme):
    seen = {}

    async def behind(scope, receive, send):
        seen.update(await receive())
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})

    content = json.dumps({"rawData": "x" * hot.MOST_PARSED}).encode()
    answered = alertas.Answered(
        async_to_sync(alertas._hot)("POST", "/alerta/alert", {}, content, behind)
    )
    assert answered.status_code == 200
    assert seen["body"] == content


def test_made_up_keys_hold_up_a_bounded_number_of_requests(acme, settings, monkeypatch):
    keys.forget_cached()
    settings.COMMIT_INLINE = False
    monkeypatch.setattr(hot, "MOST_UNKNOWN", 0)
    answer = async_to_sync(alertas._hot)(
        "POST",
        "/alerta/alert",
        {"Authorization": "Key snt_aaaaaaaaaaaa_" + "a" * 40},
        b"{}",
    )
    assert alertas.Answered(answer).status_code == 503


def test_a_key_that_is_not_valid_is_not_looked_up_each_time(acme, monkeypatch):
    keys.forget_cached()
    now = [1000.0]
    monkeypatch.setattr(keys, "time", SimpleNamespace(monotonic=lambda: now[0]))
    text = "snt_aaaaaaaaaaaa_" + "a" * 40
    for is_looked_up, passed in ((True, 0), (False, 1), (True, keys.REFUSED_SECONDS)):
        now[0] += passed
        with CaptureQueriesContext(connection) as queries, pytest.raises(keys.UnknownKey):
            keys.find(text, Key.Scope.INGEST)
        assert any("accounts_key" in one["sql"] for one in queries) is is_looked_up
    keys.forget_cached()
