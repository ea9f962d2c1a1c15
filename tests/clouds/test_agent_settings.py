"""A server's agent is asked for interval, levels and collectors; it takes them if it consents."""

from __future__ import annotations

from datetime import timedelta
from uuid import uuid4

import pytest
from django.utils import timezone

from accounts import keys
from accounts.models import AuditEntry, Key
from clouds import agent_settings
from clouds.agent_settings import Wanted
from clouds.forms import AgentSettingsForm
from clouds.models import AgentSettings
from sentinel_site.kit.tenancy import connection, in_schema
from tests.alerts.builders import make_server

INFO = {"default": "info"}


@pytest.fixture(autouse=True)
def _nothing_cached():
    agent_settings.forget_cached()
    yield
    agent_settings.forget_cached()


@pytest.fixture
def server(acme):
    return make_server("nova-1", interval=timedelta(seconds=60))


def put(client, server, **body):
    path = f"/o/acme/api/v1/servers/{server.pk}/settings/"
    return client.put(path, body, content_type="application/json")


def report(client, key, agent):
    """One report of an agent; what it is answered."""
    body = {
        "agent": str(agent), "epoch": uuid4().hex, "sequence": 1, "host": "nova-1",
        "at": timezone.now().timestamp(), "interval": 60,
    }  # fmt: skip
    answer = client.post(
        "/api/v1/reports", [body], content_type="application/json",
        headers={"Authorization": f"Bearer {key}"},
    )  # fmt: skip
    assert answer.status_code == 200, answer.json()
    return answer.json()


def test_what_is_asked_for_comes_with_the_answer_to_a_report(
    client, bob, acme, server, django_capture_on_commit_callbacks
):
    _, key = keys.issue(acme, Key.Scope.INGEST, agent_id=server.agent_id)
    assert "settings" not in report(client, key, server.agent_id)
    client.force_login(bob)
    until = (timezone.now() + timedelta(minutes=30)).replace(microsecond=0)
    with django_capture_on_commit_callbacks(execute=True):
        answer = put(
            client, server, interval=10, levels=INFO, levels_until=until.isoformat(),
            collectors={"swap": False},
        )  # fmt: skip
    assert answer.status_code == 200, answer.json()
    assert (answer.json()["version"], answer.json()["applied"]) == (1, None)
    assert report(client, key, server.agent_id)["settings"] == {
        "version": 1, "interval": 10, "levels": INFO, "levels_until": until.timestamp(),
        "collectors": {"swap": False},
    }  # fmt: skip
    connection.set_schema(acme.schema_name)
    other = make_server("nova-2")
    _, ingest = keys.issue(acme, Key.Scope.INGEST)
    assert "settings" not in report(client, ingest, other.agent_id)
    assert AuditEntry.objects.get(verb="server.settings").user == bob


def test_each_change_is_a_version_and_replaces_the_one_before(client, bob, acme, server):
    client.force_login(bob)
    put(client, server, interval=10, levels=INFO)
    assert put(client, server, interval=30).json()["version"] == 2
    connection.set_schema(acme.schema_name)
    row = AgentSettings.objects.get()
    assert (row.interval, row.levels) == (30, {})
    server.specs = {"settings": {"remote": True, "version": 2}}
    server.save()
    said = client.get(f"/o/acme/api/v1/servers/{server.pk}/settings/").json()
    assert (said["version"], said["applied"]) == (2, 2)


@pytest.mark.parametrize(
    "body",
    [
        {"interval": 1},
        {"interval": 100_000},
        {"levels": {"default": "loud"}},
        {"levels": {"no name": "info"}},
        {"levels": {"default": "info"}, "levels_until": "2001-01-01T00:00:00Z"},
        {"collectors": {"swap": "maybe"}},
        {"collectors": {f"c{number}": False for number in range(60)}},
    ],
)
def test_what_makes_no_sense_is_refused_by_field(client, bob, acme, server, body):
    client.force_login(bob)
    answer = put(client, server, **body)
    assert answer.status_code == 422
    assert list(body)[-1] in answer.json()["errors"]
    connection.set_schema(acme.schema_name)
    assert not AgentSettings.objects.exists()


def test_an_original_agent_takes_none(client, bob, acme):
    client.force_login(bob)
    old = make_server("old", agent_id=None)
    assert put(client, old, interval=10).json()["type"] == "/problems/no-agent"


def test_a_viewers_key_reads_and_does_not_ask(client, acme, server):
    _, text = keys.issue(acme, Key.Scope.READ)
    bearer = {"Authorization": f"Bearer {text}"}
    path = f"/o/acme/api/v1/servers/{server.pk}/settings/"
    assert client.get(path, headers=bearer).json()["version"] == 0
    assert client.put(path, {}, content_type="application/json", headers=bearer).status_code == 403


def test_another_tenants_agent_of_the_same_id_is_asked_for_nothing(acme, globex, alice, server):
    access = _access(acme, alice)
    agent_settings.change(access, server, Wanted(interval=10), timezone.now())
    assert agent_settings.for_agent(acme.schema_name, server.agent_id)["interval"] == 10
    assert agent_settings.for_agent(globex.schema_name, server.agent_id) is None
    with in_schema(globex.schema_name):
        assert not AgentSettings.objects.exists()


def test_a_report_costs_a_look_into_the_tables_once_in_a_while_only(
    acme, server, django_assert_num_queries
):
    agent_settings.for_agent(acme.schema_name, server.agent_id)
    with django_assert_num_queries(0):
        assert agent_settings.for_agent(acme.schema_name, server.agent_id) is None


def test_the_form_of_the_server_page_asks_for_info_for_half_an_hour(client, bob, acme, server):
    client.force_login(bob)
    page = client.get(f"/o/acme/servers/{server.pk}/?tab=agent").content.decode()
    assert "takes no settings from here" in page
    assert f"/o/acme/servers/{server.pk}/agent/" in page
    before = timezone.now()
    answer = client.post(
        f"/o/acme/servers/{server.pk}/agent/",
        {"interval": "10", "levels": "info, nova-api=debug", "levels_for": "1800",
         "collectors": "swap, +network"},
    )  # fmt: skip
    assert answer.status_code == 302
    connection.set_schema(acme.schema_name)
    row = AgentSettings.objects.get()
    assert row.levels == {"default": "info", "nova-api": "debug"}
    assert row.collectors == {"swap": False, "network": True}
    assert timedelta(minutes=30) <= row.levels_until - before < timedelta(minutes=31)
    server.specs = {"settings": {"remote": True, "version": 1}}
    server.save()
    page = client.get(f"/o/acme/servers/{server.pk}/?tab=agent").content.decode()
    assert "takes no settings from here" not in page
    assert "nova-api debug" in page
    assert "applied" in page


def test_levels_for_a_while_do_not_become_levels_for_good_by_saving_again(acme, alice, server):
    now = timezone.now()
    access = _access(acme, alice)
    row = agent_settings.change(
        access, server, Wanted(levels=INFO, levels_until=now + timedelta(minutes=20)), now
    )
    form = AgentSettingsForm.of(row, now)
    assert (form.initial["levels"], form.initial["levels_for"]) == (INFO, "1800")
    later = AgentSettingsForm.of(row, now + timedelta(minutes=21))
    assert later.initial["levels"] == {}


def test_a_form_with_a_mistake_comes_back_with_it(client, bob, acme, server):
    client.force_login(bob)
    answer = client.post(f"/o/acme/servers/{server.pk}/agent/", {"levels": "loud"})
    assert answer.status_code == 422
    assert "one of critical, error" in answer.content.decode()
    connection.set_schema(acme.schema_name)
    assert not AgentSettings.objects.exists()


def _access(tenant, user):
    from accounts.access import Access
    from accounts.models import Role

    return Access(tenant, Role.OWNER, user=user)
