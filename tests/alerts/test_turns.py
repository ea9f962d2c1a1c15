"""Who changes alerts waits for its turn before it holds a row: two never wait for each other."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from accounts.access import Access
from accounts.models import Role
from alerts.engines import evaluation
from alerts.jobs import checkins
from alerts.jobs.checkins import Ping
from alerts.lifecycle import care, external
from alerts.lifecycle.external import Statement
from alerts.models import Alert, CheckIn, Incident, NotificationChannel, Rule, Severity
from alerts.rulebook import rules
from clouds import suppression
from clouds.models import Server
from clouds.suppression import Why
from tests.alerts.builders import MINUTE, NOON, SECOND, make_rule, make_server
from tests.alerts.test_breaches import read

WRITES = re.compile(r'(?s)(INSERT INTO|UPDATE|DELETE FROM|FOR (NO KEY )?UPDATE).*"(alerts|clouds)_')
LATER = NOON + 5 * MINUTE


def statement(severity: Severity | None = Severity.ERROR) -> Statement:
    return Statement(
        origin="alerta", names={"event": "down"}, severity=severity, resource="switch-7",
        service="network", subject="port 1", title="Port down", text="Port 1 is down.",
        expires_at=NOON + MINUTE,
    )  # fmt: skip


@pytest.fixture
def verbs(acme, alice):
    """Things that may happen at the same time, each of which changes something here."""
    access = Access(acme, Role.OWNER, alice)
    Rule.objects.all().delete()
    Rule.objects.create(name="Server silent", kind="silence", thresholds={"critical": 0})
    Rule.objects.create(
        name="Quiet", kind="event", aggregation="absent", thresholds={"error": 1}, words="alive",
        changed_at=NOON - MINUTE, server=make_server("quiet-1", registered_at=NOON),
    )  # fmt: skip
    make_server("gone-1", registered_at=NOON - timedelta(hours=1))
    muted = make_server("muted-1")
    suppression.black_out(muted, Why("fan"), NOON, NOON + MINUTE)
    rule = make_rule()
    read(rule, muted, 90, NOON)
    external.accept([statement()], NOON)
    row = checkins.save(access, CheckIn(name="backup", period=10 * MINUTE, grace=MINUTE), NOON)
    CheckIn.objects.update(state="up", due_at=NOON, deadline_at=NOON + MINUTE)
    incident = Incident.objects.get(title="Port down")
    channel = NotificationChannel.objects.create(
        name="Team", kind="email", config={"to": "a@example.org"}
    )
    channel.enabled = False
    return {
        "an evaluation": lambda: evaluation.evaluate(LATER),
        "another tool's alert": lambda: external.accept([statement(Severity.CRITICAL)], LATER),
        "another tool's end": lambda: external.accept([statement(None)], LATER),
        "an end by hand": lambda: care.resolve(access, incident, LATER),
        "a shelf": lambda: care.shelve(access, incident, LATER + MINUTE, "", LATER),
        "a ping": lambda: checkins.note(row.secret, Ping.FAIL, LATER),
        "a pause": lambda: checkins.pause(access, row, LATER),
        "a check-in that goes": lambda: checkins.delete(access, row, LATER),
        "a rule that changes": lambda: rules.save_rule(
            access, Rule(pk=rule.pk, name="B", measurement="m", field="f", thresholds={"info": 1}),
            LATER,
        ),
        "a rule that goes": lambda: rules.delete_rule(access, rule, LATER),
        "a channel that changes": lambda: rules.save_channel(access, channel, LATER),
    }  # fmt: skip


@pytest.mark.parametrize(
    "what",
    [
        "an evaluation", "another tool's alert", "another tool's end", "an end by hand", "a shelf",
        "a ping", "a pause", "a check-in that goes", "a rule that changes", "a rule that goes",
        "a channel that changes",
    ],
)  # fmt: skip
def test_nothing_is_held_by_whoever_waits_for_its_turn(verbs, what):
    with CaptureQueriesContext(connection) as asked:
        verbs[what]()
    statements = [one["sql"] for one in asked]
    turn = next(n for n, sql in enumerate(statements) if "pg_advisory_xact_lock" in sql)
    assert [sql for sql in statements[:turn] if WRITES.search(sql)] == []
    assert any(WRITES.search(sql) for sql in statements[turn:]), "it changes something"


def test_an_evaluation_changes_what_the_test_of_its_turn_needs(verbs):
    verbs["an evaluation"]()
    assert Server.objects.get(host="gone-1").status == "silent"
    assert Server.objects.get(host="muted-1").status != "blackout"
    assert Alert.objects.filter(title="Server silent").exists()
    assert Alert.objects.filter(origin="alerta").exclude(resolved_at=None).exists()
    assert CheckIn.objects.get().state == "down"
    assert Rule.objects.get(name="Quiet").learned_at == LATER


def test_what_another_tool_repeats_after_its_end_by_hand_is_the_same_incident(acme, alice):
    access = Access(acme, Role.OWNER, alice)
    external.accept([statement()], NOON)
    incident = Incident.objects.get()
    care.resolve(access, incident, NOON + SECOND)
    external.accept([statement()], NOON + MINUTE)
    assert Alert.objects.get().resolved_at is None
    assert [one.kind for one in incident.event_set.all()] == ["opened", "resolved", "reopened"]


def test_what_another_tool_repeats_while_it_is_shelved_and_resolved_stays_away(acme, alice):
    access = Access(acme, Role.OWNER, alice)
    external.accept([statement()], NOON)
    care.shelve(access, Incident.objects.get(), NOON + 60 * MINUTE, "", NOON)
    care.resolve(access, Incident.objects.get(), NOON + SECOND)
    for minutes in (1, 20, 59):
        assert external.accept([statement()], NOON + minutes * MINUTE) == {}
    assert Incident.objects.count() == Alert.objects.count() == 1
    assert Alert.objects.get().resolved_at is not None


def test_what_another_tool_ended_after_people_did_comes_and_goes_when_it_is_back(acme, alice):
    external.accept([statement()], NOON)
    care.resolve(Access(acme, Role.OWNER, alice), Incident.objects.get(), NOON + SECOND)
    external.accept([statement(None)], NOON + MINUTE)
    external.accept([statement()], NOON + 2 * MINUTE)
    kinds = [one.kind for one in Incident.objects.get().event_set.all()]
    assert kinds == ["opened", "resolved", "flapping"], "it is not said to hold still"
