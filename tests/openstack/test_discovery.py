"""On a real cloud every service is found with its project, and seen to end and to start."""

from __future__ import annotations

import json
import subprocess
import time

import pytest

from tests.openstack import host
from tests.openstack.conftest import AtWork, project_of, sentinella
from tests.openstack.layer import REPOSITORY

pytestmark = pytest.mark.openstack

UNITS = [service.name for service in host.SERVICES]
EXPECTED = {unit: project_of(unit) for unit in UNITS}


@pytest.fixture(scope="module")
def discovered(agent: AtWork) -> dict:
    done = subprocess.run(
        [*sentinella(agent.config), "discover", "--json"],
        cwd=REPOSITORY, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_every_service_is_found_with_the_right_project(discovered: dict) -> None:
    found = {one["name"]: one["project"] for one in discovered["services"]}
    assert EXPECTED.items() <= found.items()


def test_nothing_of_openstack_is_found_that_does_not_run(discovered: dict) -> None:
    projects = {"nova", "neutron", "keystone", "glance", "placement", "cinder", "heat"}
    ours = {one["name"] for one in discovered["services"] if one["project"] in projects}
    assert ours <= set(EXPECTED)


def test_the_release_is_zed(discovered: dict) -> None:
    assert discovered["release"] == "Zed"


def test_all_are_up(agent: AtWork) -> None:
    agent.wait_for(
        "every service to be up",
        lambda: all(agent.states().get(name, {}).get("state") == "up" for name in EXPECTED),
        30,
    )


@pytest.mark.parametrize("name", UNITS)
def test_a_service_that_ends_is_down_within_two_intervals_and_up_again_when_started(
    agent: AtWork, name: str
) -> None:
    host.order("stop", name)
    ended = time.time()
    try:
        agent.wait_for(f"{name} down", lambda: agent.when(name, "down", ended - 1), 30)
        seen = agent.when(name, "down", ended - 1)
        assert seen is not None
        assert seen - ended <= 2 * agent.interval
    finally:
        host.order("start", name)
    began = time.time()
    agent.wait_for(f"{name} up", lambda: agent.when(name, "up", began - 1), 30)
    seen = agent.when(name, "up", began - 1)
    assert seen is not None
    assert seen - began <= 2 * agent.interval
