"""Hosts of real deployments' shapes: what the agent takes them for."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent_client.config import Config
from agent_client.discovery.host import Host
from agent_client.discovery.report import discover, told

from .recorded import HOSTS, engine_of, expected, load

NAMES = sorted(path.name for path in HOSTS.iterdir() if path.is_dir())


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "r"  # short: a socket's path may hold 107 characters


@pytest.mark.parametrize("name", NAMES)
def test_every_service_of_a_host_is_found_and_nothing_else(name: str, root: Path) -> None:
    load(name, root)
    engine = engine_of(name, root / "run/docker.sock")
    try:
        found = discover(Config(state_dir=str(root / "state")), Host(str(root)))
    finally:
        if engine is not None:
            engine.close()
    wanted = expected(name)
    services = {service["name"]: service["project"] for service in found["services"]}
    assert services == wanted["services"]
    assert {service["state"] for service in found["services"]} == {"up"}
    assert found["role"] == wanted["role"]
    assert found["release"] == wanted["release"]
    workers = {service["name"]: service["workers"] for service in found["services"]}
    assert {one: workers[one] for one in wanted["workers"]} == wanted["workers"]
    logs: dict[str, set[str]] = {}
    for source in found["logs"]:
        kind = "" if source["kind"] == "file" else f"{source['kind']} "
        logs.setdefault(source["service"], set()).add(kind + source["from"])
    for service, log in wanted["logs"].items():
        assert log in logs[service]
    assert found["release"] in told(found)


def test_kolla_s_containers_are_named_by_the_engine(root: Path) -> None:
    load("kolla-controller", root)
    engine = engine_of("kolla-controller", root / "run/docker.sock")
    assert engine is not None
    try:
        found = discover(Config(state_dir=str(root / "state")), Host(str(root)))
    finally:
        engine.close()
    conductor = next(one for one in found["services"] if one["name"] == "nova-conductor")
    assert any("nova_conductor (quay.io/openstack.kolla/nova-conductor:" in how
               for how in conductor["how"])  # fmt: skip
    assert found["containers"]["total"] == found["containers"]["running"] + 1
    assert found["uncertain"] == []


def test_an_engine_that_may_not_be_asked_is_said_and_costs_no_service(root: Path) -> None:
    load("kolla-controller", root)
    (root / "run").mkdir(exist_ok=True)
    (root / "run/docker.sock").write_text("")  # nobody listens here
    found = discover(Config(state_dir=str(root / "state")), Host(str(root)))
    services = {service["name"]: service["project"] for service in found["services"]}
    assert services == expected("kolla-controller")["services"]
    assert any("docker.sock" in doubt for doubt in found["uncertain"])
