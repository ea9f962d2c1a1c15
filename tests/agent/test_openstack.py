"""What a cloud's APIs say, asked by a process of its own: each part fails alone, and says so."""

from __future__ import annotations

import json
import os
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from agent_client import units
from agent_client.collector import Points
from agent_client.collectors.openstack_api import Lease, OpenStackApi
from agent_client.config import Config, OpenStack
from agent_client.openstack import rounds
from agent_client.openstack.__main__ import work
from agent_client.openstack.client import Cloud
from agent_client.openstack.parts import QUESTIONS
from agent_client.openstack.rounds import look, version_document
from agent_client.wire import LEASE_PATH
from tests.agent.cloud_stub import SECRET, CloudStub
from tests.agent.conftest import ReportServer, problem

REPOSITORY = Path(__file__).resolve().parent.parent.parent


@pytest.fixture
def cloud() -> Iterator[CloudStub]:
    made = CloudStub()
    yield made
    made.close()


class Asker:
    """An agent's collector with the cloud's credentials; `round` is one round, waited for.

    What the process of a round does is done here, for speed, but by `apart`.
    """

    def __init__(self, stub: CloudStub, server: ReportServer, state_dir: Path, **more: Any):
        said: dict[str, Any] = {
            "enabled": True, "interval": 300.0, "auth_url": f"{stub.url}/identity/v2.0",
            "user": "ops", "password": SECRET, "project": "ops", **more,
        }  # fmt: skip
        self.config = Config(
            server=server.url, key="snt_k", state_dir=str(state_dir), openstack=OpenStack(**said)
        )
        state_dir.mkdir(exist_ok=True)
        self.collector = OpenStackApi(self.config)
        self._run = self.collector._run
        self.collector._run = self._here  # type: ignore[method-assign]

    def apart(self) -> None:
        """From now on in a process of its own, as an agent does it."""
        self.collector._run = self._run  # type: ignore[method-assign]

    def _here(self, task: Any) -> Any:
        told = json.loads(json.dumps({"openstack": asdict(self.config.openstack), **task}))
        answer, code = work(told)
        if code:
            raise RuntimeError(answer["error"])
        return json.loads(json.dumps(answer))

    def round(self) -> Points:
        self.collector._next_at = 0.0
        self.collector.collect(Points())
        self.collector.settle(60)
        self.collector._next_at = float("inf")
        points = Points()
        self.collector.collect(points)
        return points


@pytest.fixture
def asker(cloud: CloudStub, server: ReportServer, tmp_path: Path) -> Asker:
    held = json.dumps({"held": True, "until": 1.0, "seconds": 900.0}).encode()
    server.refuse = lambda body: (200, {}, held) if "cloud" in body else None
    return Asker(cloud, server, tmp_path / "state")


def fields(points: Points, measurement: str, **tags: str) -> dict[str, float]:
    """The fields of the one point with these tags."""
    found = [
        point.fields for point in points.points
        if point.measurement == measurement and tags.items() <= point.tags.items()
    ]  # fmt: skip
    assert len(found) == 1, (measurement, tags, found)
    return dict(found[0])


def part(points: Points, name: str) -> dict[str, float]:
    return fields(points, "openstack_api", part=name)


def test_a_round_asks_every_part_and_each_is_well(asker: Asker) -> None:
    asker.apart()
    points = asker.round()
    assert points.warnings == []
    told = {one.tags["part"] for one in points.points if one.measurement == "openstack_api"}
    assert told == {"login", *(question.name for question in QUESTIONS)}
    assert all(part(points, question.name)["ok"] == 1 for question in QUESTIONS)
    used = fields(points, "openstack_round")
    assert used["ok"] == 1
    assert used["cpu_seconds"] > 0
    assert used["memory_bytes"] > 10 * 1024**2
    assert part(points, "placement")["calls"] == 3


def test_every_number_is_in_base_units_and_tagged_with_its_cloud(asker: Asker) -> None:
    points = asker.round()
    assert {point.tags["cloud"] for point in points.points} == {asker.collector._cloud_name()}
    hypervisor = fields(points, "openstack_hypervisor", hypervisor="c1.example.org")
    assert hypervisor["memory_bytes"] == 1024**3
    assert hypervisor["disk_used_bytes"] == 1024**3
    assert fields(points, "openstack_instances", status="active") == {"instances": 2}
    assert fields(points, "openstack_instances_total")["errors"] == 1
    memory = fields(points, "openstack_placement", resource="memory")
    assert memory["capacity_bytes"] == (1000 - 200) * 1.5 * 1024**2
    assert memory["used_percent"] == 50
    assert fields(points, "openstack_addresses", network="inside")["used_percent"] == 25
    assert "total" not in fields(points, "openstack_addresses", network="six")
    pool = fields(points, "openstack_pool", pool="s1@ceph#ceph")
    assert pool == {
        "total_bytes": 100 * 1024**3, "free_bytes": 25 * 1024**3, "used_percent": 75
    }  # fmt: skip
    assert fields(points, "openstack_quota", resource="cores")["used_percent"] == 25
    unlimited = [one for one in points.points if one.tags.get("resource") == "ram"]
    assert unlimited == []


def test_every_field_of_a_round_has_its_unit_in_the_table(asker: Asker) -> None:
    missing = {
        (one.measurement, name)
        for one in asker.round().points
        for name in one.fields
        if name not in units.FIELDS.get(one.measurement, {})
    }
    assert not missing


def test_microversions_are_ours_and_not_the_newest(asker: Asker, cloud: CloudStub) -> None:
    asker.round()
    headers = cloud.headers_of("/compute/v2.1/os-hypervisors/detail")
    assert headers["OpenStack-API-Version"] == "compute 2.53"


def test_an_engine_that_was_started_anew_counts_once_and_is_up(asker: Asker) -> None:
    points = asker.round()
    assert fields(points, "openstack_service", service="heat-engine")["up"] == 1
    assert fields(points, "openstack_services", project="heat")["services"] == 1


def test_a_part_that_fails_stops_no_other_and_its_age_grows(asker: Asker, cloud: CloudStub) -> None:
    asker.round()
    cloud.answers["/network/v2.0/agents"] = (500, {"NeutronError": {"message": "no database"}})
    points = asker.round()
    failed = part(points, "network_agents")
    assert (failed["ok"], failed["status"]) == (0, 500)
    assert failed["age_seconds"] > part(points, "compute_services")["age_seconds"]
    assert part(points, "hypervisors")["ok"] == 1
    assert points.warnings == ["network_agents: HTTP 500 no database"]
    assert [news.text for news in points.news] == [
        "the cloud's API, network agents: HTTP 500 no database"
    ]
    assert asker.round().news == []  # said once


def test_a_missing_right_is_no_outage(asker: Asker, cloud: CloudStub) -> None:
    cloud.answers["/compute/v2.1/os-services"] = 403
    points = asker.round()
    assert part(points, "compute_services")["no_right"] == 1
    assert fields(points, "openstack_round")["ok"] == 1
    assert points.news == []
    assert points.warnings == ["compute_services: our role has no right to this"]


def test_without_the_right_to_all_instances_those_of_the_own_project_count(
    asker: Asker, cloud: CloudStub
) -> None:
    own = {"servers": [{"id": "1", "status": "ACTIVE"}]}
    cloud.answers["/compute/v2.1/servers/detail"] = lambda query: (
        403 if "all_tenants" in query else own
    )
    points = asker.round()
    assert fields(points, "openstack_instances_total")["instances"] == 1
    assert part(points, "instances")["ok"] == 1


def test_a_list_that_is_empty_and_was_not_is_an_outage_and_not_the_truth(
    asker: Asker, cloud: CloudStub
) -> None:
    asker.round()
    cloud.answers["/compute/v2.1/os-services"] = {"services": []}
    points = asker.round()
    assert part(points, "compute_services")["ok"] == 0
    assert [one for one in points.points if one.tags.get("project") == "nova"] == []
    assert "had 2 before: not taken as true" in points.news[0].text


def test_a_service_that_is_listed_no_more_is_missing_and_said(
    asker: Asker, cloud: CloudStub
) -> None:
    asker.round()
    listed = cloud.answers["/compute/v2.1/os-services"]["services"]
    gone = listed.pop()
    points = asker.round()
    assert fields(points, "openstack_services", project="nova")["missing"] == 1
    assert [news.text for news in points.news] == [
        "nova lists nova-compute on c2 no more: deleted, or its cell is down"
    ]
    listed.append(gone)
    assert [news.text for news in asker.round().news] == ["nova-compute on c2 is listed again"]


def test_a_service_that_goes_down_is_an_event_once_and_again_when_it_is_up(
    asker: Asker, cloud: CloudStub
) -> None:
    asker.round()
    service = cloud.answers["/compute/v2.1/os-services"]["services"][0]
    service.update(state="down", status="disabled", disabled_reason="AUTO: libvirt is gone")
    points = asker.round()
    (news,) = points.news
    assert (news.level, news.service) == ("error", "nova-compute")
    assert news.text == ("nova-compute on c1 is down, says the API of nova (AUTO: libvirt is gone)")
    assert fields(points, "openstack_service", service="nova-compute", host="c1") == {
        "up": 0, "enabled": 0,
        "heartbeat_age_seconds": pytest.approx(0, abs=1e10),
    }  # fmt: skip
    assert asker.round().news == []
    service["state"] = "up"
    assert [news.level for news in asker.round().news] == ["info"]


def test_endpoints_are_looked_at_without_a_token_also_while_nobody_can_log_in(
    asker: Asker, cloud: CloudStub
) -> None:
    points = asker.round()
    assert fields(points, "openstack_endpoint", type="compute")["up"] == 1
    assert "X-Auth-Token" not in cloud.headers_of("/compute/")
    cloud.answers["/identity/v3/auth/tokens"] = 500
    cloud.answers["/compute/"] = 503
    points = asker.round()
    assert part(points, "login")["ok"] == 0
    assert fields(points, "openstack_endpoint", type="compute")["up"] == 0
    assert fields(points, "openstack_endpoint", type="image")["up"] == 1
    assert len(points.warnings) == 1
    assert any("the endpoint of compute" in news.text for news in points.news)


def test_a_spent_budget_leaves_the_last_parts_out_and_says_so(
    asker: Asker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent_client.collectors.openstack_api.CALLS_PER_MINUTE", 4)
    points = asker.round()
    assert part(points, "compute_services")["ok"] == 1
    assert part(points, "quotas")["ok"] == 0
    assert "quotas: the calls of this round are spent" in points.warnings


def test_pages_are_followed_on_the_host_that_we_know(asker: Asker, cloud: CloudStub) -> None:
    first = {
        "servers": [{"id": "1", "status": "ACTIVE"}],
        "servers_links": [
            {"rel": "next", "href": "http://10.9.9.9/compute/v2.1/servers/detail?marker=1"}
        ],
    }
    second = {"servers": [{"id": "2", "status": "ACTIVE"}]}
    cloud.answers["/compute/v2.1/servers/detail"] = lambda query: (
        second if "marker" in query else first
    )
    assert fields(asker.round(), "openstack_instances", status="active")["instances"] == 2


def test_the_secret_is_in_no_argument_no_environment_no_state_and_no_answer(
    asker: Asker, cloud: CloudStub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    real = subprocess.Popen

    def spy(*words: Any, **more: Any) -> Any:
        seen.append((words, more["env"]))
        return real(*words, **more)

    asker.apart()
    monkeypatch.setenv("SENTINELLA_OPENSTACK_PASSWORD", SECRET)
    monkeypatch.setattr(subprocess, "Popen", spy)
    cloud.answers["/identity/v3/auth/tokens"] = (401, {"error": {"message": f"not {SECRET[:4]}"}})
    points = asker.round()
    assert part(points, "login")["status"] == 401
    said = json.dumps([str(seen), points.warnings, [news.text for news in points.news]])
    kept = "".join(path.read_text() for path in (tmp_path / "state").iterdir() if path.is_file())
    assert SECRET not in said + kept
    assert (tmp_path / "state" / "openstack.json").stat().st_mode & 0o077 == 0


def test_wrong_settings_are_one_clear_line(
    cloud: CloudStub, server: ReportServer, tmp_path: Path
) -> None:
    asker = Asker(cloud, server, tmp_path / "state", cloud="nowhere", clouds_file="/nonexistent")
    asker.apart()
    points = asker.round()
    assert fields(points, "openstack_round")["ok"] == 0
    assert points.warnings[0].startswith("RuntimeError: the credentials cannot be used: ")
    assert "nowhere" in points.warnings[0]


def test_where_the_agents_python_has_no_openstacksdk_the_distributions_is_asked(
    asker: Asker, tmp_path: Path
) -> None:
    bare = tmp_path / "python"
    bare.write_text('#!/bin/sh\ncat > /dev/null\necho \'{"missing": "openstacksdk"}\'\nexit 2\n')
    bare.chmod(0o755)
    asker.apart()
    asker.collector._pythons = (str(bare), sys.executable)
    assert fields(asker.round(), "openstack_round")["ok"] == 1
    asker.collector._pythons = (str(bare),)
    points = asker.round()
    assert fields(points, "openstack_round")["ok"] == 0
    assert "apt install python3-openstacksdk" in points.warnings[0]


# -- the lease -------------------------------------------------------------------


def test_an_agent_without_the_lease_asks_nothing(
    asker: Asker, cloud: CloudStub, server: ReportServer
) -> None:
    refused = json.dumps({"held": False, "until": None, "seconds": 0}).encode()
    server.refuse = lambda body: (200, {}, refused)
    points = asker.round()
    assert cloud.requests == []
    assert fields(points, "openstack_round") == {"lease": 0}
    (request,) = [one for one in server.requests if one["path"] == LEASE_PATH]
    assert request["body"]["cloud"] == f"{cloud.url}/identity"
    assert request["body"]["seconds"] == 900


def test_while_the_server_is_away_a_held_lease_goes_on_to_its_end_and_none_is_taken(
    asker: Asker, server: ReportServer
) -> None:
    lease = Lease(asker.config)
    server_away = lambda body: problem(503)  # noqa: E731
    granted = server.refuse
    server.refuse = server_away
    assert lease.held("c", 300) == (False, "the lease of the cloud: 503: refused")
    server.refuse = granted
    assert lease.held("c", 300) == (True, "")
    server.refuse = server_away
    assert lease.held("c", 300) == (True, "")


def test_a_server_that_knows_no_leases_stops_nobody(asker: Asker, server: ReportServer) -> None:
    server.refuse = lambda body: problem(404)
    assert Lease(asker.config).held("c", 300) == (True, "")


@pytest.mark.parametrize(
    ("url", "document"),
    [
        ("http://a:8774/v2.1/%(tenant_id)s", "http://a:8774/"),
        ("https://a/compute/v2.1", "https://a/compute/"),
        ("https://a:9292", "https://a:9292/"),
        ("https://a/swift/v1/AUTH_0", "https://a/swift/"),
        ("https://a/placement", "https://a/placement/"),
    ],
)
def test_an_endpoints_version_document_is_above_version_and_project(
    url: str, document: str
) -> None:
    assert version_document(url) == document


@pytest.mark.parametrize(
    ("url", "base"),
    [
        ("http://a:8774/v2.1/p1", "http://a:8774/v2.1/"),
        ("http://a/compute", "http://a/compute/v2.1/"),
        ("http://a:8774/v2.1/", "http://a:8774/v2.1/"),
    ],
)
def test_an_api_is_found_whatever_its_endpoint_ends_with(url: str, base: str) -> None:
    cloud = Cloud(None)
    cloud.catalogue = [
        {"type": "compute", "name": "nova", "endpoints": [{"interface": "public", "url": url}]}
    ]
    assert cloud.base("compute", "v2.1") == base


def test_the_agent_itself_never_imports_openstacksdk(make_config: Callable[..., Config]) -> None:
    said = subprocess.run(
        [sys.executable, "-c",
         "import sys, agent_client.agent, agent_client.openstack.rounds;"
         "print(sorted({'openstack', 'keystoneauth1', 'yaml'} & set(sys.modules)))"],
        cwd=REPOSITORY, env={**os.environ}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert said.stdout.strip() == "[]"


def test_an_endpoint_with_tls_tells_when_its_certificate_ends(tmp_path: Path) -> None:
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
         "-nodes", "-keyout", "key", "-out", "cert", "-days", "40", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost"],
        cwd=tmp_path, check=True, capture_output=True,
    )  # fmt: skip
    stub = CloudStub()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert", tmp_path / "key")
    stub.server.socket = context.wrap_socket(stub.server.socket, server_side=True)
    url = stub.url.replace("http://127.0.0.1", "https://localhost") + "/image/"
    try:
        seen = look(url, str(tmp_path / "cert"))
        untrusted = look(url)
    finally:
        stub.close()
    assert (seen.status, seen.up) == (200, True)
    assert seen.expires_at is not None
    assert 39 * 86_400 < seen.expires_at - time.time() <= 40 * 86_400
    assert not untrusted.up
    assert "certificate is not good" in untrusted.reason
    assert untrusted.expires_at == seen.expires_at


def test_an_endpoint_that_swallows_everything_is_waited_for_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rounds, "TIMEOUT", 0.2)
    asked: list[str] = []
    monkeypatch.setattr(rounds, "of_host", lambda *said: asked.append(said[0]))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        seen = look(f"https://127.0.0.1:{silent.getsockname()[1]}/")
    assert (seen.up, seen.reason) == (False, "no answer within 0.2 s")
    assert asked == [], "nor for its certificate"
