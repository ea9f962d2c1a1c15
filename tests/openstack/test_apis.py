"""What the agent asks the APIs is what the `openstack` command prints."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent_client.collector import Points
from agent_client.collectors.openstack_api import OpenStackApi
from agent_client.config import Config, OpenStack
from agent_client.openstack.parts import QUESTIONS
from tests.openstack.conftest import AtWork, openstack
from tests.openstack.settings import KEYSTONE

pytestmark = pytest.mark.openstack


@pytest.fixture(scope="module")
def since(agent: AtWork) -> float:
    """A time after which a whole round was asked while every service was up."""
    began = time.time()
    # The round under way now may have asked before: its successor counts.
    agent.wait_for("two rounds", lambda: len(agent.points("openstack_round", began)) >= 2, 120)
    return began


def rows(agent: AtWork, project: str, since: float) -> dict[tuple[str, str], int]:
    """(service, host) -> up, by the newest round."""
    return {
        (one["tags"]["service"], one["tags"]["host"]): one["fields"]["up"]
        for one in agent.points("openstack_service", since)
        if one["tags"]["project"] == project
    }


def said(project: str) -> dict[tuple[str, str], int]:
    """The same by the command line."""
    if project == "neutron":
        return {(one["Binary"], one["Host"]): int(one["Alive"]) for one in openstack("network", "agent", "list")}  # fmt: skip # noqa: E501
    words = {"nova": ("compute",), "cinder": ("volume",), "heat": ("orchestration",)}[project]
    listed = openstack(*words, "service", "list")
    state = "Status" if project == "heat" else "State"
    return {(one["Binary"], one["Host"]): int(one[state] == "up") for one in listed}


@pytest.mark.parametrize("project", ["nova", "neutron", "cinder", "heat"])
def test_the_states_of_services_and_agents_are_those_of_the_command(
    agent: AtWork, project: str, since: float
) -> None:
    seen = rows(agent, project, since)
    assert seen == said(project)
    assert set(seen.values()) == {1}


def test_hypervisors_are_those_of_the_command(agent: AtWork, since: float) -> None:
    seen = {one["tags"]["hypervisor"]: one["fields"] for one in agent.points("openstack_hypervisor", since)}  # fmt: skip # noqa: E501
    listed = openstack("hypervisor", "list", "--long", "--os-compute-api-version", "2.53")
    assert {one["Hypervisor Hostname"]: one["State"] == "up" for one in listed} == {
        name: bool(fields["up"]) for name, fields in seen.items()
    }
    for one in listed:
        fields = seen[one["Hypervisor Hostname"]]
        assert (fields["vcpus"], fields["vcpus_used"]) == (one["vCPUs"], one["vCPUs Used"])
        assert fields["memory_used_bytes"] == one["Memory MB Used"] * 1024**2


def test_instances_and_volumes_by_status_are_those_of_the_command(
    agent: AtWork, since: float
) -> None:

    def by_status(listed: list[dict[str, Any]]) -> dict[str, int]:
        counts: dict[str, int] = {}
        for one in listed:
            counts[one["Status"].lower()] = counts.get(one["Status"].lower(), 0) + 1
        return counts

    def seen(measurement: str, field: str) -> dict[str, int]:
        return {one["tags"]["status"]: one["fields"][field] for one in agent.points(measurement, since)}  # fmt: skip # noqa: E501

    assert seen("openstack_instances", "instances") == by_status(
        openstack("server", "list", "--all-projects")
    )
    assert seen("openstack_volumes", "volumes") == by_status(
        openstack("volume", "list", "--all-projects")
    )


def test_every_endpoint_of_the_catalogue_answers(agent: AtWork, since: float) -> None:
    seen = agent.points("openstack_endpoint", since)
    listed = {one["Service Type"] for one in openstack("endpoint", "list")}
    assert {one["tags"]["type"] for one in seen} == listed
    assert all(one["fields"]["up"] == 1 for one in seen)


def test_a_compute_that_is_gone_is_down_by_the_api_as_by_the_command_and_an_event(
    agent: AtWork, stopped: Callable[[str], float]
) -> None:
    since = stopped("nova-compute")

    def down() -> bool:
        return any(
            one["fields"]["up"] == 0
            for one in agent.points("openstack_service", since)
            if one["tags"]["service"] == "nova-compute"
        )

    agent.wait_for("nova to call its compute down", down, 180)
    assert said("nova")["nova-compute", "controller-1"] == 0
    agent.wait_for(
        "the event",
        lambda: any(
            event["message"].startswith("nova-compute on controller-1 is down, says the API")
            for event in agent.events(since)
        ),
        60,
    )
    hypervisors = agent.points("openstack_hypervisor", since)
    (listed,) = openstack("hypervisor", "list", "--os-compute-api-version", "2.53")
    assert (listed["State"], hypervisors[-1]["fields"]["up"]) == ("down", 0)


def test_without_keystone_the_log_in_fails_and_the_other_endpoints_are_still_looked_at(
    agent: AtWork, stopped: Callable[[str], float]
) -> None:
    since = stopped("keystone")

    def failed() -> list[dict[str, Any]]:
        return [
            one
            for one in agent.points("openstack_api", since)
            if one["tags"]["part"] == "login" and one["fields"]["ok"] == 0
        ]

    agent.wait_for("a round without a token", failed, 120)
    newest = {
        one["tags"]["type"]: one["fields"]["up"]
        for one in agent.points("openstack_endpoint", since)
    }
    assert newest["identity"] == 0
    assert newest["compute"] == 1
    assert any("log" in event["message"] for event in agent.events(since))


def test_without_its_database_no_empty_list_is_taken_for_the_truth(
    agent: AtWork, stopped: Callable[[str], float]
) -> None:
    since = stopped("mariadb")
    agent.wait_for("two rounds", lambda: len(agent.points("openstack_round", since)) >= 2, 180)
    rounds = agent.points("openstack_round", since)
    assert rounds[-1]["fields"]["ok"] == 0
    totals = [one["fields"] for one in agent.points("openstack_services", since)]
    assert all(one["services"] > 0 for one in totals)


def test_a_round_is_a_process_of_its_own_that_tells_what_it_used(agent: AtWork) -> None:
    agent.wait_for("a round", lambda: agent.points("openstack_round"), 90)
    used = agent.points("openstack_round")[-1]["fields"]
    assert used["memory_bytes"] > 20 * 1024**2
    own = agent.points("agent")[-1]["fields"]
    assert own["memory"] < 60 * 1024**2


@pytest.mark.parametrize("python", [sys.executable, "/usr/bin/python3"])
def test_an_application_credential_is_enough_with_our_openstacksdk_and_with_debians(
    agent: AtWork, tmp_path: Path, python: str
) -> None:
    name = f"watch-{Path(python).name}"
    made = openstack("application", "credential", "create", name)
    config = Config(
        server=agent.server.url,
        key="snt_k",
        state_dir=str(tmp_path),
        openstack=OpenStack(
            enabled=True,
            auth_url=KEYSTONE,
            application_credential_id=made["id"] if "id" in made else made["ID"],
            application_credential_secret=made["secret"] if "secret" in made else made["Secret"],
            region="RegionOne",
        ),
    )
    collector = OpenStackApi(config)
    collector._pythons = (python,)
    collector.collect(Points())
    collector.settle(120)
    points = Points()
    collector.collect(points)
    ok = {
        one.tags["part"]: one.fields["ok"]
        for one in points.points
        if one.measurement == "openstack_api"
    }
    assert ok == {**dict.fromkeys((question.name for question in QUESTIONS), 1), "login": 1}


def test_a_reader_is_told_what_it_may_not_see_and_nothing_of_it_is_an_outage(
    agent: AtWork, tmp_path: Path
) -> None:
    said = OpenStack(enabled=True, cloud="reader", clouds_file="/etc/openstack/clouds.yaml")
    collector = OpenStackApi(
        Config(server=agent.server.url, key="snt_k", state_dir=str(tmp_path), openstack=said)
    )
    collector.collect(Points())
    collector.settle(120)
    points = Points()
    collector.collect(points)
    no_right = {
        one.tags["part"]
        for one in points.points
        if one.measurement == "openstack_api" and one.fields["no_right"]
    }
    assert no_right == {
        "compute_services", "volume_services", "orchestration_services", "hypervisors",
        "volume_pools", "placement",
    }  # fmt: skip
    assert points.news == []
    (told,) = [one.fields for one in points.points if one.measurement == "openstack_round"]
    assert (told["ok"], told["failed_parts"]) == (1, 0)
