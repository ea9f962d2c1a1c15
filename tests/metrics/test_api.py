"""Series and events for programs, charts and the log search for pages; each below its tenant."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

import pytest
from django.test import Client
from django.urls import reverse

from clouds.models import Server
from tests.metrics.builders import MINUTE, SECOND, event, now, point, report, request
from tests.metrics.test_ingest import send


def get(path: str, key: str = "", client: Any = None, **query: Any) -> Any:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    url = f"/o/acme/{path}?{urlencode(query, doseq=True)}"
    return request("GET", url, headers=headers, client=client)


@pytest.fixture
def server(acme: Any) -> Server:
    """One that reported every 10 s for a minute: CPU 0 to 5, a counter, two disks, events."""
    at = now()
    for n in range(6):
        time = at - (6 - n) * 10 * SECOND
        send(
            acme,
            report(
                time,
                sequence=n,
                points=[
                    point(percent=n, user=10 + n),
                    point("network", {"interface": "eth0"}, sent_bytes=n * 1000),
                    point("disk", {"device": "/dev/a"}, percent=10),
                    point("disk", {"device": "/dev/b"}, percent=20),
                ],
                events=[event(time, str(n), message=f"event {n}", service="nova-api")],
            ),
        )
    return Server.objects.get()


@pytest.fixture
def page(alice: Any) -> Client:
    client = Client()
    client.force_login(alice)
    return client


def series(server: Server, key: str, **query: Any) -> Any:
    return get(f"api/v1/servers/{server.pk}/series/", key, **query)


def test_a_series_comes_back(server, read_key):
    answer = series(server, read_key, measurement="cpu", field="percent", points=2000)
    assert answer.status_code == 200
    chart = answer.json()
    [line] = chart["series"]
    assert line["values"] == [0, 1, 2, 3, 4, 5]
    assert (line["name"], line["unit"], line["tags"]) == ("percent", "percent", {})
    assert chart["step"] == pytest.approx(10, abs=2)
    assert chart["start"] < line["times"][0] < line["times"][-1] < chart["end"]


def test_several_fields_and_aggregations(server, read_key):
    asked = {"measurement": "cpu", "field": "user,percent", "points": 1}
    chart = series(server, read_key, agg="max", **asked).json()
    assert [line["name"] for line in chart["series"]] == ["user", "percent"]
    assert max(chart["series"][1]["values"]) == 5
    median = series(server, read_key, agg="p50", **asked).json()
    assert 0 <= median["series"][1]["values"][0] <= 5


def test_a_counter_is_a_rate_unless_asked_otherwise(server, read_key):
    asked = {"measurement": "network", "field": "sent_bytes", "points": 2000}
    [line] = series(server, read_key, **asked).json()["series"]
    assert line["values"] == pytest.approx([100] * 5, rel=0.01)
    assert line["unit"] == "bytes_per_second"
    [line] = series(server, read_key, agg="last", **asked).json()["series"]
    assert line["values"][-1] == 5000
    assert line["unit"] == "bytes"


def test_tags_choose_series(server, read_key):
    asked = {"measurement": "disk", "field": "percent"}
    assert len(series(server, read_key, **asked).json()["series"]) == 2
    [line] = series(server, read_key, tags="device:/dev/b", **asked).json()["series"]
    assert line["tags"] == {"device": "/dev/b"}


def test_a_span_may_be_named_in_iso_or_unix_seconds(server, read_key):
    at = now() - timedelta(hours=2)
    asked = {"measurement": "cpu", "field": "percent"}
    for start, end in (
        (at.isoformat(), (at + MINUTE).isoformat()),
        (at.timestamp(), (at + MINUTE).timestamp()),
        (f"{at:%Y-%m-%dT%H:%M:%SZ}", f"{at + MINUTE:%Y-%m-%dT%H:%M:%SZ}"),
    ):
        answer = series(server, read_key, start=start, end=end, **asked)
        assert (answer.status_code, answer.json()["series"]) == (200, [])
        assert answer.json()["end"] - answer.json()["start"] == pytest.approx(60, abs=1)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"measurement": ""}, "measurement"),
        ({"field": ""}, "field"),
        ({"agg": "median"}, "agg"),
        ({"agg": "p101"}, "agg"),
        ({"agg": "pNaN"}, "agg"),
        ({"points": 0}, "points"),
        ({"points": "many"}, "points"),
        ({"points": 10**9}, "points"),
        ({"start": "yesterday"}, "start"),
        ({"end": "1e99"}, "end"),
        ({"start": "2026-99-99T00:00:00Z"}, "start"),
        ({"start": 2_000_000_000, "end": 1_900_000_000}, "end"),
        ({"tags": "device"}, "tags"),
    ],
)
def test_a_faulty_parameter_is_named(server, read_key, change, field):
    answer = series(server, read_key, **{"measurement": "cpu", "field": "percent", **change})
    assert answer.status_code == 422
    assert answer["Content-Type"] == "application/problem+json"
    assert set(answer.json()["errors"]) == {field}


def test_an_unknown_server_or_a_strangers_is_not_there(server, read_key, mallory):
    asked = {"measurement": "cpu", "field": "percent"}
    assert get(f"api/v1/servers/{server.pk + 99}/series/", read_key, **asked).status_code == 404
    stranger = Client()
    stranger.force_login(mallory)
    for path in (f"api/v1/servers/{server.pk}/series/", "api/v1/events/", "charts/", "logs/"):
        mine = get(path, client=stranger, server=server.pk, **asked)
        assert mine.status_code == 404


def test_without_a_key_nothing_is_said(acme):
    for path in ("api/v1/servers/1/series/", "api/v1/events/", "api/v1/unknown-plugins/"):
        assert get(path).status_code == 401


def test_an_ingest_key_does_not_read(server, ingest_key):
    assert get("api/v1/events/", ingest_key).status_code == 403


def test_events_page_by_page(server, read_key):
    first = get("api/v1/events/", read_key, size=4).json()
    assert [one["message"] for one in first["results"]] == [f"event {n}" for n in (5, 4, 3, 2)]
    assert first["results"][0]["server"] == server.pk
    assert first["results"][0]["level"] == "error"
    path = first["next"].partition("/o/acme/")[2].partition("?")
    rest = request(
        "GET", f"/o/acme/{path[0]}?{path[2]}", headers={"Authorization": f"Bearer {read_key}"}
    ).json()
    assert [one["message"] for one in rest["results"]] == ["event 1", "event 0"]
    assert rest["next"] is None


def test_events_by_words_level_server_and_service(server, read_key):
    def count(**query: Any) -> int:
        return len(get("api/v1/events/", read_key, **query).json()["results"])

    assert count(q="event 3") == 1
    assert count(q="nothing") == 0
    assert count(level="error") == 6
    assert count(level="critical") == 0
    assert count(level=["critical", "error"]) == 6
    assert count(level="critical,error") == 6
    assert count(at_least="warning") == 6
    assert count(at_least="critical") == 0
    assert count(server=server.pk) == 6
    assert count(server=server.pk + 1) == 0
    assert count(service="nova-api") == 6
    assert count(start=(now() - timedelta(days=3)).isoformat(), end=now().timestamp()) == 6


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"level": "loud"}, "level"),
        ({"at_least": "loud"}, "at_least"),
        ({"server": "nova"}, "server"),
        ({"server": 2**70}, "server"),
        ({"size": 501}, "size"),
        ({"start": "x"}, "start"),
    ],
)
def test_a_faulty_filter_is_named(acme, read_key, query, field):
    answer = get("api/v1/events/", read_key, **query)
    assert answer.status_code == 422
    assert set(answer.json()["errors"]) == {field}


def test_a_cursor_from_elsewhere_is_refused(acme, read_key):
    answer = get("api/v1/events/", read_key, cursor="abc")
    assert (answer.status_code, answer.json()["type"]) == (422, "/problems/bad-cursor")


def test_charts_are_drawn_for_pages(server, page):
    drawn = get(
        "charts/",
        client=page,
        server=server.pk,
        measurement="cpu",
        field="percent,user",
        range=3600,
    )
    assert drawn.status_code == 200
    assert [line["name"] for line in drawn.json()["series"]] == ["percent", "user"]
    one = get(
        "charts/",
        client=page,
        server=server.pk,
        measurement="disk",
        field="percent",
        range="1h",
        **{"tag.device": "/dev/a"},
    )
    assert [line["tags"] for line in one.json()["series"]] == [{"device": "/dev/a"}]


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ({"measurement": "cpu", "field": "percent"}, 404),
        ({"server": "x", "measurement": "cpu", "field": "percent"}, 404),
        ({"server": 10**30, "measurement": "cpu", "field": "percent"}, 404),
    ],
)
def test_a_chart_of_no_server_is_not_there(server, page, query, status):
    answer = request(
        "GET",
        f"/o/acme/charts/?{urlencode(query)}",
        headers={"Accept": "application/json"},
        client=page,
    )
    assert answer.status_code == status


def test_events_per_hour_are_drawn_for_pages(server, page):
    chart = get("charts/events/", client=page, server=server.pk, range=86400).json()
    by_name = {line["name"]: sum(line["values"]) for line in chart["series"]}
    assert by_name == {"critical": 0, "error": 6, "warning": 0}


def test_the_log_page_and_its_fragments(server, page, monkeypatch):
    whole = get("logs/", client=page, q="event", level="error")
    assert whole.status_code == 200
    assert "event 5" in whole.content.decode()
    assert server.host in whole.content.decode()
    monkeypatch.setattr("metrics.events.PAGE", 100)
    found = get("logs/", client=page, fragment="list", q="event 3").content.decode()
    assert "event 3" in found
    assert "event 4" not in found
    assert "<html" not in found


def test_older_lines_follow_the_newest(acme, server, page):
    at = now()
    many = [event(at - n * SECOND, f"m{n}", message=f"many {n:03}") for n in range(120)]
    send(acme, report(at, sequence=99, events=many))
    first = get("logs/", client=page, fragment="list", q="many", span=900)
    older = first.context["older_url"]
    assert len(first.context["events"]) == 100
    rest = request("GET", older if older.startswith("/o/") else f"/o/acme{older}", client=page)
    assert [one.message for one in rest.context["events"]] == [f"many {n}" for n in range(100, 120)]
    assert rest.context["older_url"] == ""


def test_what_makes_no_sense_in_a_log_search_is_left_out(server, page):
    answer = get(
        "logs/", client=page, server="x", level="loud", span="-5", start="?", fragment="list"
    )
    assert answer.status_code == 200
    assert get("logs/", client=page, server=server.pk, span="1h").status_code == 200
    assert get("logs/", client=page, service="\0", request_id="\0").status_code == 200


def test_the_names_that_others_link_to():
    assert reverse("metrics:chart") == "/charts/"
    assert reverse("metrics:events-per-hour") == "/charts/events/"
    assert reverse("metrics:logs") == "/logs/"
