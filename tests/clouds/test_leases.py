"""One agent of an organization asks a cloud's APIs; when it is gone, another does."""

from __future__ import annotations

import threading
from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from django.db import connection as django_connection
from django.utils import timezone

from accounts import keys
from accounts.models import Key
from agent_client.collectors.openstack_api import Lease as AgentsLease
from agent_client.config import Config
from agent_client.identity import agent_id
from clouds import leases
from clouds.models import Lease, Server
from sentinel_site.kit.tenancy import connection, in_schema
from tests.alerts.builders import MINUTE, NOON, make_server

PATH = "/api/v1/lease"
CLOUD = "https://cloud.example.org:5000"
ONE, TWO = uuid4(), uuid4()
SPAN = 3 * MINUTE


def ask(client, key, **body):
    """Ask for the lease; the test goes on in the schema where it was."""
    schema = connection.schema_name
    answer = client.post(
        PATH, body, content_type="application/json", headers={"Authorization": f"Bearer {key}"}
    )
    connection.set_schema(schema)
    return answer


@pytest.fixture
def key(acme):
    """An organization's key; its two servers have reported."""
    for number, agent in enumerate((ONE, TWO)):
        make_server(f"ctl-{number}", agent_id=agent)
    return keys.issue(acme, Key.Scope.INGEST)[1]


def test_the_first_agent_gets_the_lease_and_the_second_does_not(client, key):
    first = ask(client, key, cloud=CLOUD, agent=str(ONE), seconds=900)
    second = ask(client, key, cloud=CLOUD, agent=str(TWO), seconds=900)
    assert (first.status_code, first.json()["held"]) == (200, True)
    assert first.json()["seconds"] == pytest.approx(900)
    assert second.json() == {"held": False, "until": None, "seconds": 0.0}


def test_its_holder_prolongs_it(acme):
    leases.take(CLOUD, ONE, SPAN, NOON)
    later = leases.take(CLOUD, ONE, SPAN, NOON + MINUTE)
    assert later.until == NOON + MINUTE + SPAN
    assert leases.take(CLOUD, TWO, SPAN, NOON + SPAN) is None


def test_ever_new_clouds_are_refused_in_the_end(acme, client, key, monkeypatch):
    monkeypatch.setattr(leases, "MOST", 3)
    now = timezone.now()
    for number in range(3):
        assert leases.take(f"{CLOUD}/{number}", ONE, SPAN, now)
    refused = ask(client, key, cloud=f"{CLOUD}/3", agent=str(ONE), seconds=900)
    assert refused.json()["type"] == "/problems/too-many-clouds"
    assert leases.take(f"{CLOUD}/0", ONE, SPAN, now + MINUTE), "what is known goes on"


def test_an_agent_that_is_gone_is_followed_by_the_next_that_asks(acme):
    leases.take(CLOUD, ONE, SPAN, NOON)
    assert leases.take(CLOUD, TWO, SPAN, NOON + SPAN).holder == TWO
    assert leases.take(CLOUD, ONE, SPAN, NOON + SPAN) is None


def test_each_cloud_has_a_lease_of_its_own(acme):
    assert leases.take(CLOUD, ONE, SPAN, NOON)
    assert leases.take("https://other.example.org:5000", TWO, SPAN, NOON)


def test_a_lease_never_lasts_longer_than_its_bound(acme):
    assert leases.take(CLOUD, ONE, timedelta(days=400), NOON).until == NOON + leases.LONGEST


def test_clouds_that_nobody_asks_about_any_more_are_forgotten(acme):
    leases.take(CLOUD, ONE, SPAN, NOON)
    leases.take("https://new.example.org", ONE, SPAN, NOON + timedelta(days=60))
    assert [lease.cloud for lease in Lease.objects.all()] == ["https://new.example.org"]


def test_an_organizations_key_takes_no_lease_for_who_is_no_server_of_it(client, key, acme, globex):
    with in_schema(globex.schema_name):
        theirs = make_server("theirs", agent_id=uuid4())
    retired = make_server("gone", agent_id=uuid4(), status=Server.Status.RETIRED)
    for agent in (uuid4(), theirs.agent_id, retired.agent_id):
        refused = ask(client, key, cloud=CLOUD, agent=str(agent), seconds=900)
        assert (refused.status_code, refused.json()["type"]) == (403, "/problems/unknown-agent")
        assert int(refused.headers["Retry-After"]) <= 60
    assert not Lease.objects.exists()


def test_an_agents_own_key_may_ask_before_its_first_report(client, acme):
    _, own = keys.issue(acme, Key.Scope.INGEST, agent_id=ONE)
    assert ask(client, own, cloud=CLOUD, agent=str(ONE), seconds=900).json()["held"]


def test_organizations_with_the_same_cloud_know_nothing_of_each_other(client, key, acme, globex):
    _, theirs = keys.issue(globex, Key.Scope.INGEST)
    with in_schema(globex.schema_name):
        make_server(agent_id=TWO)
    assert ask(client, key, cloud=CLOUD, agent=str(ONE), seconds=900).json()["held"]
    assert ask(client, theirs, cloud=CLOUD, agent=str(TWO), seconds=900).json()["held"]
    with in_schema(acme.schema_name):
        assert Lease.objects.get().holder == ONE
    with in_schema(globex.schema_name):
        assert Lease.objects.get().holder == TWO


def test_an_agents_own_key_takes_no_lease_for_another_agent(client, acme):
    _, own = keys.issue(acme, Key.Scope.INGEST, agent_id=ONE)
    assert ask(client, own, cloud=CLOUD, agent=str(ONE), seconds=900).json()["held"]
    refused = ask(client, own, cloud=CLOUD, agent=str(TWO), seconds=900)
    assert (refused.status_code, refused.json()["type"]) == (403, "/problems/wrong-agent")


@pytest.mark.parametrize("scope", [Key.Scope.READ, Key.Scope.ADMIN])
def test_a_key_for_something_else_is_refused(client, acme, scope):
    _, other = keys.issue(acme, scope)
    assert ask(client, other, cloud=CLOUD, agent=str(ONE), seconds=900).status_code == 403


def test_without_a_key_and_with_an_unknown_one_nothing_is_said(client, db):
    assert client.post(PATH, {}, content_type="application/json").status_code == 401
    assert ask(client, "snt_unknown", cloud=CLOUD, agent=str(ONE), seconds=9).status_code == 401


def test_bad_fields_are_named(client, key):
    answer = ask(client, key, cloud="", agent="no id", seconds=0)
    assert answer.status_code == 422
    assert set(answer.json()["errors"]) == {"cloud", "agent", "seconds"}


def test_another_kind_of_content_is_refused_in_words(client, key):
    refused = client.post(
        PATH, b"cloud=a", content_type="text/csv", headers={"Authorization": f"Bearer {key}"}
    )
    said = refused.json()
    assert (refused.status_code, said["type"]) == (415, "/problems/unsupported-media-type")
    assert "text/csv" in said["detail"]
    assert "{" not in refused.content.decode()[1:]


@pytest.mark.django_db(transaction=True)
def test_of_agents_that_ask_at_once_one_gets_it(acme):
    agents = [uuid4() for _ in range(6)]
    held, start = [], threading.Barrier(len(agents))

    def work(agent):
        try:
            with in_schema(acme.schema_name):
                start.wait(10)
                if leases.take(CLOUD, agent, SPAN, NOON):
                    held.append(agent)
        finally:
            django_connection.close()

    threads = [threading.Thread(target=work, args=(agent,)) for agent in agents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(held) == 1
    with in_schema(acme.schema_name):
        assert Lease.objects.get().holder == held[0]
        Lease.objects.all().delete()


@pytest.mark.django_db(transaction=True)
def test_two_real_agents_settle_it_over_http(live_server, acme, tmp_path):
    _, text = keys.issue(acme, Key.Scope.INGEST)
    agents = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        config = Config(server=live_server.url, key=text, state_dir=str(tmp_path / name))
        agents.append(AgentsLease(config))
    assert agents[0].held(CLOUD, 300) == (False, "")
    assert agents[0].again == 15, "it has not reported yet, and asks again soon"
    for name in ("one", "two"):
        make_server(name, agent_id=UUID(agent_id(str(tmp_path / name))))
    assert agents[0].held(CLOUD, 300) == (True, "")
    assert agents[1].held(CLOUD, 300) == (False, "")
    with in_schema(acme.schema_name):
        Lease.objects.update(until=NOON)
    assert agents[1].held(CLOUD, 300) == (True, "")
    assert agents[0].held(CLOUD, 300) == (False, "")
    with in_schema(acme.schema_name):
        Lease.objects.all().delete()
        Server.objects.all().delete()
