"""The page of a cloud group: how it is, what is wrong in it, its servers and their uptime."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from alerts.models import Incident
from clouds import suppression
from clouds.models import CloudGroup
from clouds.suppression import Why
from sentinel_site.kit.tenancy import in_schema
from tests.alerts.builders import make_rule, make_server
from tests.alerts.test_breaches import read

HOUR = timedelta(hours=1)


@pytest.fixture
def munich(acme):
    return CloudGroup.objects.create(name="Munich", location="Munich, DE")


def shown(client, group, fragment=""):
    answer = client.get(f"/o/acme/groups/{group.pk}/{fragment}")
    assert answer.status_code == 200
    return answer.content.decode()


def test_a_group_shows_its_incidents_and_servers_and_no_others(acme, alice, client, munich):
    now = timezone.now()
    rule = make_rule()
    for server in (make_server("munich-1", group=munich), make_server("berlin-1")):
        read(rule, server, 90, now)
    assert Incident.objects.count() == 2
    client.force_login(alice)
    assert "Its one server reports." in shown(client, munich)
    main = shown(client, munich, "?fragment=state") + shown(client, munich, "?fragment=servers")
    assert "munich-1" in main
    assert "berlin-1" not in main
    assert main.count("<article") == 1


def test_a_group_says_that_all_of_it_is_muted(acme, alice, client, munich):
    make_server("munich-1", group=munich)
    client.force_login(alice)
    assert "Nobody is told of alerts here" not in shown(client, munich)
    now = timezone.now()
    with in_schema(acme.schema_name):
        suppression.start_maintenance(munich, Why("New switches"), now, now + HOUR)
    assert "Maintenance of group Munich: New switches." in shown(client, munich)


def test_a_group_without_servers_says_how_one_comes_in(acme, alice, client, munich):
    client.force_login(alice)
    page = shown(client, munich)
    assert "No server is in this group" in page
    assert "choose Classify" in page


def test_uptime_of_a_group_is_what_the_api_says(acme, alice, client, munich):
    now = timezone.now()
    past = {"registered_at": now - 2 * HOUR, "status_since": now - HOUR}
    make_server("munich-1", group=munich, status="silent", **past)
    client.force_login(alice)
    told = client.get(f"/o/acme/api/v1/cloud-groups/{munich.pk}/uptime/").json()["windows"]
    assert told["30d"]["shown"] in shown(client, munich, "?fragment=uptime")


def test_more_servers_and_incidents_take_no_more_statements(acme, alice, client, munich):
    client.force_login(alice)
    rule, now = make_rule(), timezone.now()
    counts = []
    for upto in (range(3), range(3, 12)):
        with in_schema(acme.schema_name):
            for number in upto:
                read(rule, make_server(f"m-{number}", group=munich), 90, now)
        with CaptureQueriesContext(connection) as asked:
            shown(client, munich, "?fragment=state")
        counts.append(len(asked))
    assert counts[1] <= counts[0]
