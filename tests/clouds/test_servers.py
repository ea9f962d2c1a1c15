"""A server registers once, falls silent when it is not heard, and comes back."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from django.db import connections

from clouds import servers, services
from clouds.models import Server, Service
from metrics.batch import State
from sentinel_site.kit.tenancy import in_schema

AGENT = UUID("0b7f5a52-54a1-4a6e-9c60-5a2f1f9f3c11")
NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def test_registering_again_changes_what_is_new_and_makes_no_second_server(acme):
    first = servers.register(AGENT, "nova-1", NOON)
    again = servers.register(
        AGENT, "nova-renamed", NOON + MINUTE, interval=timedelta(seconds=10), version="2.1"
    )
    assert again.pk == first.pk
    server = Server.objects.get()
    assert (server.host, server.interval, server.agent_version) == (
        "nova-renamed",
        timedelta(seconds=10),
        "2.1",
    )
    assert server.registered_at == NOON


def test_an_agent_and_a_host_without_one_are_two_servers(acme):
    servers.register(AGENT, "nova-1", NOON)
    servers.register(None, "nova-1", NOON)
    servers.register(None, "nova-1", NOON)
    assert Server.objects.count() == 2


@pytest.mark.committer
@pytest.mark.django_db(transaction=True)
def test_many_first_reports_at_once_make_one_server(acme):
    def register(number: int) -> int:
        try:
            with in_schema(acme.schema_name):
                return servers.register(AGENT, "nova-1", NOON).pk
        finally:
            connections.close_all()

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(register, range(8)))) == 1
    assert Server.objects.count() == 1


def test_specs_add_to_what_is_known(acme):
    server = servers.register(AGENT, "nova-1", NOON)
    servers.note_specs(server, {"kernel": "6.1", "openstack": {"version": "28.1"}})
    servers.note_specs(server, {"kernel": "6.2"})
    server.refresh_from_db()
    assert server.specs == {"kernel": "6.2", "openstack": {"version": "28.1"}}
    assert server.openstack_release == "28.1"


def test_specs_of_ever_new_names_do_not_grow_for_ever(acme):
    server = servers.register(AGENT, "nova-1", NOON)
    for number in range(12):
        servers.note_specs(server, {f"name{number}": "x" * 100_000})
    server.refresh_from_db()
    assert "name11" in server.specs
    assert len(str(server.specs)) <= servers.MOST_SPECS


def test_what_the_agent_found_is_the_server_s_role_and_release(acme):
    server = servers.register(AGENT, "nova-1", NOON)
    zed = {"release": "Zed", "version": "26.2.2", "projects": {"nova": "26.2.2"}}
    servers.note_specs(server, {"role": "controller", "openstack": zed})
    server.refresh_from_db()
    assert (server.role, server.openstack_release) == ("controller", "Zed")
    servers.note_specs(server, {"kernel": "6.2"})
    servers.note_specs(server, {"role": "all-in-one", "openstack": {"release": "", **zed}})
    server.refresh_from_db()
    assert (server.role, server.openstack_release) == ("all-in-one", "Zed")


@pytest.mark.parametrize("odd", [None, 7, ["controller"], "x" * 300])
def test_an_odd_role_does_no_harm(acme, odd):
    server = servers.register(AGENT, "nova-1", NOON)
    servers.note_specs(server, {"role": odd, "openstack": {"release": ["Zed"] * 99}})
    server.refresh_from_db()
    assert len(server.role) <= 40
    assert len(server.openstack_release) <= 60


def test_a_server_is_silent_three_intervals_and_half_a_minute_after_its_last_report(acme):
    server = servers.register(AGENT, "nova-1", NOON, interval=timedelta(seconds=10))
    heard = {server.pk: NOON}
    assert servers.note_silence(heard, NOON + timedelta(seconds=60)) == []
    [silent] = servers.note_silence(heard, NOON + timedelta(seconds=61))
    assert (silent.status, silent.status_since) == ("silent", NOON + timedelta(seconds=60))
    assert servers.note_silence(heard, NOON + timedelta(seconds=62)) == []
    [back] = servers.note_silence({server.pk: NOON + 5 * MINUTE}, NOON + 5 * MINUTE)
    assert (back.status, back.status_since) == ("up", NOON + 5 * MINUTE)
    assert Server.objects.get().status == "up"


@pytest.mark.parametrize("status", ["maintenance", "blackout", "retired"])
def test_what_people_said_of_a_server_is_not_overruled(acme, status):
    server = servers.register(AGENT, "nova-1", NOON)
    Server.objects.update(status=status)
    assert servers.note_silence({server.pk: NOON}, NOON + timedelta(days=1)) == []
    assert Server.objects.get().status == status


# -- services -----------------------------------------------------------------


def state(name: str, word: str, **more: object) -> State:
    return State(name, "nova", word, **more)  # type: ignore[arg-type]


def test_since_is_when_the_state_began(acme):
    server = servers.register(AGENT, "nova-1", NOON)
    for minute, word in enumerate(["up", "up", "down", "down", "up"]):
        services.note_states(server, [state("nova-api", word)], NOON + minute * MINUTE)
    service = Service.objects.get()
    assert (service.state, service.since) == ("up", NOON + 4 * MINUTE)
    assert (service.seen_at, service.seen_up_at) == (NOON + 4 * MINUTE, NOON + 4 * MINUTE)


def test_an_older_word_changes_nothing(acme):
    server = servers.register(AGENT, "nova-1", NOON)
    services.note_states(server, [state("nova-api", "down")], NOON)
    services.note_states(server, [state("nova-api", "up", workers=3)], NOON - MINUTE)
    service = Service.objects.get()
    assert (service.state, service.workers, service.seen_at) == ("down", 0, NOON)


def test_a_partial_word_says_nothing_of_the_others(acme):
    server = servers.register(AGENT, "nova-1", NOON)
    services.note_states(server, [state("nova-api", "up"), state("nova-cert", "down")], NOON)
    services.note_states(server, [], NOON + MINUTE, complete=False)
    assert dict(Service.objects.values_list("name", "state")) == {
        "nova-api": "up",
        "nova-cert": "down",
    }


def test_a_service_that_comes_back_down_after_a_gap_is_down(acme):
    """Its agent restarted, and did not look for a moment: that it has been up is not forgotten."""
    server = servers.register(AGENT, "nova-1", NOON)
    services.note_states(server, [state("nova-api", "up")], NOON)
    services.note_states(server, [], NOON + MINUTE)
    assert Service.objects.get().state == "unknown"
    services.note_states(server, [state("nova-api", "down")], NOON + 2 * MINUTE)
    assert Service.objects.get().is_down
