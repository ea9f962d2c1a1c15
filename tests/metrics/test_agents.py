"""What an agent says of itself, as the server page shows it."""

from __future__ import annotations

from datetime import timedelta
from uuid import uuid4

import pytest
from django.utils import timezone

from agent_client.wire import VERSION
from clouds.models import Server
from metrics import agents, ingest
from metrics.batch import Batch, Point, Report, State

NOW = timezone.now().replace(microsecond=0)


@pytest.fixture
def server(acme) -> Server:
    """It reported of itself, of two collectors and of one service."""
    report = Report(
        number=0,
        host="nova-1",
        agent=uuid4(),
        at=NOW,
        interval=timedelta(seconds=10),
        epoch="e",
        sequence=1,
        version="1.9.0",
        points=[
            Point("agent", (), {"cpu_percent": 0.5, "dropped_points": 7, "dropped_events": 2}),
            Point(
                "agent_collector",
                (("collector", "cpu"),),
                {"ok": 1, "seconds": 0.01, "points": 1, "failures": 0},
            ),
            Point(
                "agent_collector",
                (("collector", "disk"),),
                {"ok": 0, "seconds": 5, "points": 0, "failures": 3},
            ),
            Point(
                "service",
                (("project", "nova"), ("service", "nova-api")),
                {"up": 1, "memory": 412e6, "restarts": 1},
            ),
        ],
        services=[State("nova-api", "nova", "up", 4, "")],
    )
    ingest.accept(
        ingest.Holder(acme.pk, acme.schema_name), Batch(reports=[report], received_at=NOW)
    )
    return Server.objects.get(host="nova-1")


def test_an_agent_tells_its_costs_its_drops_and_which_collector_fails(acme, server):
    told = agents.health(acme.pk, server.pk)
    assert [(one.name, one.value, one.unit) for one in told.costs] == [
        ("cpu_percent", 0.5, "percent")
    ]
    assert told.lost == 9
    assert [(one.name, one.failures) for one in told.failing] == [("disk", 3)]
    assert [one.name for one in told.collectors] == ["disk", "cpu"], "what fails comes first"


def test_a_collector_that_finds_nothing_says_so_and_why(client, alice, acme, server):
    Server.objects.update(specs={"collectors": {"cpu": "busy", "disk": "none", "swap": "none"}})
    server.refresh_from_db()
    told = agents.health(acme.pk, server.pk, server.specs)
    assert told.idle == [], "one measured, one fails, and one is unknown"
    ingest.accept(
        ingest.Holder(acme.pk, acme.schema_name),
        Batch(
            reports=[
                Report(
                    number=0,
                    host="nova-1",
                    agent=server.agent_id,
                    at=NOW + timedelta(seconds=10),
                    interval=timedelta(seconds=10),
                    epoch="e",
                    sequence=2,
                    points=[
                        Point(
                            "agent_collector",
                            (("collector", "rabbitmq"),),
                            {"ok": 1, "seconds": 0.01, "points": 0, "failures": 0},
                        )
                    ],
                    specs={"collectors": {"rabbitmq": "no RabbitMQ <listens> here"}},
                )
            ],
            received_at=NOW + timedelta(seconds=10),
        ),
    )
    client.force_login(alice)
    page = client.get(f"/o/acme/servers/{server.pk}/?tab=agent").content.decode()
    assert "Nothing to report" in page
    assert "no RabbitMQ &lt;listens&gt; here" in page
    assert "1 has nothing to report" in page


@pytest.mark.parametrize("said", [None, [], "x", {"cpu": {"a": 1}}])
def test_what_an_agent_says_of_idle_collectors_in_another_shape_breaks_nothing(acme, server, said):
    assert agents.health(acme.pk, server.pk, {"collectors": said}).collectors


def test_another_tenants_agent_tells_nothing(globex, server):
    told = agents.health(globex.pk, server.pk)
    assert told == agents.AgentHealth([], [], [])
    assert agents.of_services(globex.pk, server.pk) == {}


def test_the_pages_of_services_and_agent_show_it(client, alice, acme, server):
    client.force_login(alice)
    page = client.get(f"/o/acme/servers/{server.pk}/?tab=agent").content.decode()
    assert "Version 2" in page
    assert "is offered" in page
    assert "1 of 2 fails" in page
    assert "9 items were dropped" in page
    services = client.get(f"/o/acme/servers/{server.pk}/?tab=services").content.decode()
    assert "nova-api" in services
    assert "412 MB" in services or "393 MB" in services


def test_the_version_of_a_project_stands_beside_it(client, alice, acme, server):
    server.specs = {"openstack": {"release": "Zed", "projects": {"nova": "26.1.0"}}}
    server.save()
    client.force_login(alice)
    page = client.get(f"/o/acme/servers/{server.pk}/?tab=services").content.decode()
    assert "26.1.0" in page


@pytest.mark.parametrize("specs", [{"openstack": "26"}, {"openstack": {"projects": ["nova"]}}, {}])
def test_facts_of_another_shape_break_no_page(client, alice, acme, server, specs):
    server.specs = specs
    server.save()
    client.force_login(alice)
    assert client.get(f"/o/acme/servers/{server.pk}/?tab=services").status_code == 200


def test_only_an_older_agent_is_offered_a_newer_one():
    assert agents.offered("1.9.9") == VERSION
    assert agents.offered(VERSION) == ""
    assert agents.offered("99.0.0") == ""
    assert agents.offered("custom build") == ""
