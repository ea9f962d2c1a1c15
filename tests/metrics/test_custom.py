"""Numbers that scripts and plugins bring are on their server's page."""

from __future__ import annotations

import html
import re
from datetime import timedelta
from itertools import count
from uuid import uuid4

import pytest
from django.utils import timezone

from clouds.models import Server
from metrics import custom, ingest
from metrics.batch import Batch, Point, Report

NOW = timezone.now().replace(microsecond=0)
AGENT = uuid4()
SEQUENCE = count(1)


def send(tenant, *points: Point, at=NOW) -> None:
    report = Report(
        number=0,
        host="nova-1",
        agent=AGENT,
        at=at,
        interval=timedelta(seconds=10),
        epoch="e",
        sequence=next(SEQUENCE),
        points=list(points),
    )
    answer = ingest.accept(
        ingest.Holder(tenant.pk, tenant.schema_name), Batch(reports=[report], received_at=NOW)
    )
    assert answer.rejected == []


def point(measurement: str, fields: dict[str, float], **tags: str) -> Point:
    return Point(measurement, tuple(sorted(tags.items())), fields)


@pytest.fixture
def server(acme) -> Server:
    """Its agent measured, and nobody else."""
    send(
        acme,
        point("cpu", {"percent": 5.0}),
        point("agent_collector", {"ok": 1.0}, collector="cpu"),
        point("openstack.nova-api.servers", {"status": 1.0}, id="1"),
        point("net_io", {"bytes_sent": 1.0}, interface="eth0"),
    )
    return Server.objects.get(host="nova-1")


def page(client, server, **query: str) -> str:
    answer = client.get(f"/o/acme/servers/{server.pk}/", {"tab": "vitals", **query})
    assert answer.status_code == 200
    return answer.content.decode()


def test_what_a_script_sends_is_shown_with_value_unit_tags_and_time(acme, server):
    earlier = NOW - timedelta(hours=3)
    send(acme, point("backup", {"seconds": 41.5, "size_bytes": 9e9}, target="s3"), at=earlier)
    send(acme, point("backup", {"seconds": 12.0}, target="tape"))
    found = custom.of_server(acme.pk, server.pk, NOW)
    assert [(one.title, one.whose, one.value, one.unit, one.at) for one in found.shown] == [
        ("backup seconds", [("target", "s3")], 41.5, "seconds", earlier),
        ("backup seconds", [("target", "tape")], 12.0, "seconds", NOW),
        ("backup size_bytes", [("target", "s3")], 9e9, "bytes", earlier),
    ]
    assert found.more == 0


def test_a_plugins_table_is_told_in_its_own_words(acme, server):
    cell = {"plugin": "docker", "id": "c1", "row": "neo4j", "metric": "cpu", "type": "percent"}
    send(acme, point("plugin", {"value": 1.5}, **cell))
    (one,) = custom.of_server(acme.pk, server.pk, NOW).shown
    assert (one.title, one.unit) == ("cpu", "percent")
    assert one.whose == [("plugin", "docker"), ("row", "neo4j")]


def test_of_a_plugins_words_the_newest_is_what_it_says_now(acme, server):
    cell = {"plugin": "docker", "id": "c1", "row": "neo4j", "metric": "status", "type": "text"}
    send(acme, point("plugin_state", {"present": 1.0}, state="running", **cell), at=NOW)
    send(
        acme,
        point("plugin_state", {"present": 1.0}, state="starting", **cell),
        at=NOW - timedelta(minutes=1),
    )
    (one,) = custom.of_server(acme.pk, server.pk, NOW).shown
    assert (one.title, one.word, one.at) == ("status", "running", NOW)


def test_what_the_agent_measures_itself_is_not_from_a_script(acme, server):
    assert custom.of_server(acme.pk, server.pk, NOW) == custom.Customs([])


def test_of_many_series_the_newest_are_shown_and_the_others_counted(acme, server):
    old, new = NOW - timedelta(days=1), NOW
    send(acme, *(point("a", {"value": 1.0}, n=f"{n:02}") for n in range(7)), at=old)
    send(acme, *(point("b", {"value": 1.0}, n=f"{n:02}") for n in range(custom.MOST)), at=new)
    found = custom.of_server(acme.pk, server.pk, NOW)
    assert {one.measurement for one in found.shown} == {"b"}
    assert (len(found.shown), found.more) == (custom.MOST, 7)


def test_a_script_that_brought_nothing_for_a_month_is_gone(acme, server):
    send(acme, point("once", {"value": 1.0}), at=NOW - timedelta(hours=1))
    assert custom.of_server(acme.pk, server.pk, NOW + custom.KEPT).shown == []
    assert custom.of_server(acme.pk, server.pk, NOW).shown


def test_another_tenant_sees_none_of_it(acme, globex, server):
    send(acme, point("backup", {"seconds": 41.5}))
    assert custom.of_server(globex.pk, server.pk, NOW).shown == []


def test_the_page_shows_them_and_nothing_where_there_are_none(client, alice, acme, server):
    client.force_login(alice)
    assert "From scripts and plugins" not in page(client, server)
    assert page(client, server, fragment="custom").strip() == ""
    send(acme, point("backup", {"seconds": 41.0}, target="s3 & tape"))
    for shown in (page(client, server), page(client, server, fragment="custom")):
        assert "From scripts and plugins" in shown
        assert "backup seconds" in shown
        assert "target=s3 &amp; tape" in shown
        assert "41 s" in shown


def test_the_chart_of_a_series_holds_no_other_one(client, alice, acme, server):
    send(acme, point("backup", {"a,b": 41.0}), point("backup", {"a,b": 7.0}, target="tape"))
    client.force_login(alice)
    urls = re.findall(r'data-src="([^"]*measurement=backup[^"]*)"', page(client, server))
    drawn = [client.get(html.unescape(url)).json()["series"] for url in urls]
    assert [[(one["tags"], one["values"][-1]) for one in lines] for lines in drawn] == [
        [({}, 41.0)],
        [({"target": "tape"}, 7.0)],
    ]
