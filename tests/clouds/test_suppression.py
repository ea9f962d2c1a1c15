"""Maintenance and blackout: a server says so with its own key, and it ends by itself."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from django.db import connection as django_connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts import keys
from accounts.models import AuditEntry, Key
from clouds import servers, suppression
from clouds.models import Server, Suppression
from clouds.suppression import Why
from sentinel_site.kit.tenancy import connection, in_schema
from tests.alerts.builders import MINUTE, NOON, SECOND, make_server

PATH = "/api/v1/servers/self/suppression"
UPGRADE = Why("kernel upgrade", by=1)


@pytest.fixture
def enrolled(acme):
    """A server with the key of its own agent."""
    agent = uuid4()
    server = make_server("nova-1", agent_id=agent)
    _, text = keys.issue(acme, Key.Scope.INGEST, agent_id=agent)
    return server, text


def say(client, key, path=PATH, **body):
    """Send it; the test goes on in the schema where it was."""
    schema = connection.schema_name
    answer = client.post(
        path, body, content_type="application/json", headers={"Authorization": f"Bearer {key}"}
    )
    connection.set_schema(schema)
    return answer


def test_a_server_puts_itself_into_maintenance_until_a_time(client, enrolled, acme):
    server, key = enrolled
    before = timezone.now()
    answer = say(client, key, kind="maintenance", seconds=1200, reason="kernel upgrade")
    assert answer.status_code == 200, answer.json()
    until = datetime.fromtimestamp(answer.json()["until"], UTC)
    assert timedelta(minutes=20) <= until - before < timedelta(minutes=21)
    server.refresh_from_db()
    assert server.status == Server.Status.MAINTENANCE
    row = Suppression.objects.get()
    assert (row.server_id, row.reason, row.by) == (server.pk, "kernel upgrade", None)
    entry = AuditEntry.objects.get(verb="server.maintenance")
    assert (entry.tenant, entry.key_id, entry.subject) == (acme, row.by_key, "nova-1")
    assert entry.data["reason"] == "kernel upgrade"


def test_it_ends_it_again(client, enrolled):
    server, key = enrolled
    say(client, key, kind="blackout", seconds=600, reason="disk")
    assert say(client, key, PATH + "/end", kind="blackout").json()["ended"]
    server.refresh_from_db()
    assert server.status == Server.Status.UP
    assert not say(client, key, PATH + "/end", kind="blackout").json()["ended"]


@pytest.mark.parametrize(
    "body",
    [
        {"kind": "holiday", "seconds": 60, "reason": "why"},
        {"kind": "maintenance", "seconds": 0, "reason": "why"},
        {"kind": "maintenance", "seconds": 40 * 86_400, "reason": "why"},
        {"kind": "maintenance", "seconds": 60, "reason": "  "},
        {"kind": "maintenance", "seconds": 60},
    ],
)
def test_what_makes_no_sense_is_refused_by_field(client, enrolled, body):
    assert say(client, enrolled[1], **body).status_code == 422
    assert not Suppression.objects.exists()


def test_only_a_servers_own_key_speaks_and_only_for_that_server(client, enrolled, acme, globex):
    wanted = {"kind": "maintenance", "seconds": 60, "reason": "why"}
    _, ingest = keys.issue(acme, Key.Scope.INGEST)
    _, read = keys.issue(acme, Key.Scope.READ)
    _, stranger = keys.issue(globex, Key.Scope.INGEST, agent_id=enrolled[0].agent_id)
    assert say(client, ingest, **wanted).json()["type"] == "/problems/not-a-servers-key"
    assert say(client, read, **wanted).status_code == 403
    assert say(client, "snt_no_key", **wanted).status_code == 401
    assert say(client, "", **wanted).status_code == 401
    assert say(client, stranger, **wanted).json()["type"] == "/problems/not-reported"
    assert not Suppression.objects.exists()
    with in_schema(globex.schema_name):
        assert not Suppression.objects.exists()


def test_a_key_says_whose_it_is(client, enrolled, acme):
    server, key = enrolled
    said = client.get("/api/v1/servers/self", headers={"Authorization": f"Bearer {key}"}).json()
    assert said == {"agent": str(server.agent_id), "host": "nova-1", "status": "up"}
    connection.set_schema(acme.schema_name)
    _, unused = keys.issue(acme, Key.Scope.INGEST, agent_id=uuid4())
    bearer = {"Authorization": f"Bearer {unused}"}
    assert client.get("/api/v1/servers/self", headers=bearer).json()["host"] is None


def test_it_ends_by_itself_and_the_server_is_judged_by_its_reports_again(acme):
    server = make_server()
    suppression.start_maintenance(server, UPGRADE, NOON, NOON + 20 * MINUTE)
    assert suppression.next_change(NOON) == NOON + 20 * MINUTE
    suppression.expire(NOON + 19 * MINUTE)
    servers.note_silence({}, NOON + 19 * MINUTE)
    server.refresh_from_db()
    assert server.status == Server.Status.MAINTENANCE, "silence does not change what people said"
    suppression.expire(NOON + 20 * MINUTE)
    server.refresh_from_db()
    assert (server.status, server.status_since) == (Server.Status.UP, NOON + 20 * MINUTE)
    servers.note_silence({server.pk: NOON}, NOON + 20 * MINUTE)
    server.refresh_from_db()
    assert server.status == Server.Status.SILENT


def test_what_ends_by_itself_locks_in_the_order_in_which_people_do(acme):
    servers_ = [make_server(f"nova-{number}") for number in range(3)]
    for server in servers_:
        suppression.black_out(server, UPGRADE, NOON, NOON + MINUTE)
    with CaptureQueriesContext(django_connection) as ran:
        suppression.expire(NOON + MINUTE)
    writes = [sql for sql in (one["sql"] for one in ran) if "UPDATE" in sql]
    assert "FOR UPDATE" in writes[0]
    assert 'FROM "clouds_server"' in writes[0]
    assert writes[1].startswith('UPDATE "clouds_suppression"')
    ended = Suppression.objects.values_list("ended_at", flat=True)
    assert set(ended) == {NOON + MINUTE}
    assert set(Server.objects.values_list("status", flat=True)) == {"up"}


def test_what_holds_does_not_wait_for_an_evaluation(acme):
    server = make_server()
    suppression.black_out(server, UPGRADE, NOON, NOON + MINUTE)
    holds = suppression.active_for([server.pk], NOON + MINUTE - SECOND)
    assert holds[server.pk].kind == Suppression.Kind.BLACKOUT
    assert suppression.active_for([server.pk], NOON + MINUTE) == {}
    assert suppression.active_for([server.pk], NOON - SECOND) == {}


def test_maintenance_goes_before_blackout_and_what_is_left_holds_on(acme):
    server = make_server()
    suppression.black_out(server, UPGRADE, NOON, None)
    suppression.start_maintenance(server, UPGRADE, NOON, NOON + MINUTE)
    assert suppression.active_for([server.pk], NOON)[server.pk].kind == "maintenance"
    suppression.expire(NOON + MINUTE)
    server.refresh_from_db()
    assert server.status == Server.Status.BLACKOUT
    assert suppression.end(server, Suppression.Kind.BLACKOUT, NOON + 2 * MINUTE)
    server.refresh_from_db()
    assert server.status == Server.Status.UP


def test_saying_it_again_moves_its_end(acme):
    server = make_server()
    suppression.start_maintenance(server, UPGRADE, NOON, NOON + MINUTE)
    suppression.start_maintenance(server, UPGRADE, NOON + SECOND, NOON + 5 * MINUTE)
    assert Suppression.objects.filter(ended_at=None).count() == 1
    assert suppression.active_for([server.pk], NOON + 4 * MINUTE)


def test_it_must_end_after_it_begins(acme):
    with pytest.raises(suppression.NotASpan):
        suppression.black_out(make_server(), UPGRADE, NOON, NOON)


def test_programs_and_people_see_why_nobody_is_told(client, alice, enrolled):
    server, key = enrolled
    say(client, key, kind="maintenance", seconds=1200, reason="kernel <upgrade>")
    client.force_login(alice)
    said = client.get(f"/o/acme/api/v1/servers/{server.pk}/").json()["suppression"]
    assert (said["kind"], said["reason"]) == ("maintenance", "kernel <upgrade>")
    page = client.get(f"/o/acme/servers/{server.pk}/").content.decode()
    assert "Maintenance: kernel &lt;upgrade&gt;" in page
    assert "Said by the server" in page
