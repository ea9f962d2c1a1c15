"""POST /api/v1/reports and /api/v1/enrol: clear answers to good and bad input."""

from __future__ import annotations

import gzip
import json
import time
import tracemalloc
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
import zstandard
from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from accounts import keys
from accounts.models import Key
from agent_client import wire
from clouds.models import Server
from metrics import events, queries
from metrics.doors import native
from metrics.doors.body import NotJSON, TooDeep
from metrics.doors.native import NotReports
from metrics.events import Matcher
from tests.metrics.builders import (
    AGENT,
    OTHER_AGENT,
    body,
    event,
    now,
    point,
    post,
    report,
    request,
)

URL = "/api/v1/reports"


def send(key: str, content: bytes, **headers: str) -> Any:
    return post(URL, content, Authorization=f"Bearer {key}", **headers)


def problem(answer: Any) -> tuple[int, str]:
    assert answer["Content-Type"] == "application/problem+json"
    document = answer.json()
    assert document["status"] == answer.status_code
    assert document["title"]
    return answer.status_code, document["type"].removeprefix("/problems/")


def test_a_report_of_the_agents_own_wire_module_is_taken(acme, ingest_key):
    at = now()
    given = wire.Report(
        agent=str(AGENT),
        epoch="e1",
        sequence=7,
        host="nova-1",
        at=at.timestamp(),
        interval=10,
        points=[wire.Point("cpu", {"percent": 12.5}), wire.Point("disk", {"used": 1}, {"d": "a"})],
        events=[wire.LogEvent("1", at.timestamp(), "error", "broken\n", service="nova-api")],
        services=[wire.ServiceState("nova-api", "nova", "up", workers=2)],
        specs={"kernel": "6.1"},
    )
    answer = send(ingest_key, json.dumps(given.to_json()).encode())
    assert answer.status_code == 200
    said = answer.json()
    assert abs(said["server_time"] - time.time()) < 60
    assert said == {**wire.Answer(accepted=1).to_json(), "server_time": said["server_time"]}
    assert Server.objects.get().specs == {"kernel": "6.1"}


def test_specs_that_are_no_description_of_a_host_are_refused(acme, ingest_key):
    given = report(points=[point(percent=1)]) | {"specs": {f"k{n}": "x" * 4096 for n in range(40)}}
    answer = send(ingest_key, body(given)).json()
    assert [reject["item"] for reject in answer["rejected"]] == ["specs"]
    assert answer["accepted"] == 1


def test_gzip_is_unpacked(acme, ingest_key):
    answer = send(
        ingest_key,
        gzip.compress(body(report(points=[point(percent=1)]))),
        **{"Content-Encoding": "gzip"},
    )
    assert answer.json()["accepted"] == 1


@pytest.mark.parametrize("accept", ["text/html", "application/xml", "", "nonsense"])
def test_what_a_client_accepts_does_not_matter(acme, ingest_key, accept):
    answer = send(ingest_key, body(report(points=[point(percent=1)])), Accept=accept)
    assert (answer.status_code, answer["Content-Type"]) == (200, "application/json")


def test_only_post_is_served(acme, ingest_key):
    answer = request("GET", URL, headers={"Authorization": f"Bearer {ingest_key}"})
    assert problem(answer) == (405, "method-not-allowed")
    assert "POST" in answer["Allow"]


@pytest.mark.parametrize("wrap", [lambda r: r, lambda r: [r], lambda r: {"reports": [r]}])
def test_one_report_a_list_or_an_object_of_reports(acme, ingest_key, wrap):
    answer = send(ingest_key, json.dumps(wrap(report(points=[point(percent=1)]))).encode())
    assert answer.json()["accepted"] == 1


def test_no_reports_are_no_error(acme, ingest_key):
    said = send(ingest_key, b"[]").json()
    assert (said["accepted"], said["duplicates"], said["rejected"]) == (0, 0, [])


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", (400, "not-json")),
        (b"hello", (400, "not-json")),
        (b"\xff\xfe", (400, "not-json")),
        (b"17", (400, "not-reports")),
        (b'{"reports": 3}', (400, "not-reports")),
        (b"[" * 100_000, (400, "too-deep")),
        (b'{"a":' * 50_000 + b"1" + b"}" * 50_000, (400, "too-deep")),
        (json.dumps([{}] * 501).encode(), (413, "too-many-reports")),
    ],
)
def test_what_is_no_request_gets_a_problem_document(acme, ingest_key, content, expected):
    assert problem(send(ingest_key, content)) == expected


def test_200_megabytes_are_refused_before_they_are_read(acme, ingest_key):
    class Unread:
        def read(self, size: int = -1) -> bytes:
            raise AssertionError("it was read")

        readline = read

    answer = request(
        "POST",
        URL,
        headers={"Authorization": f"Bearer {ingest_key}"},
        **{"CONTENT_LENGTH": str(200 * 1024**2), "wsgi.input": Unread()},
    )
    assert problem(answer) == (413, "too-large")


def test_a_small_body_that_unpacks_to_much_is_not_unpacked(acme, ingest_key):
    bomb = gzip.compress(b"[" + b" " * (40 * 1024**2) + b"]")
    assert len(bomb) < 100_000
    answer = send(ingest_key, bomb, **{"Content-Encoding": "gzip"})
    assert problem(answer) == (413, "too-large")


@pytest.mark.parametrize("sized", [True, False], ids=["sized", "streamed"])
def test_zstd_is_unpacked_and_every_answer_says_so(acme, ingest_key, sized):
    packer = zstandard.ZstdCompressor(write_content_size=sized, write_checksum=True)
    plain = body(report(points=[point(percent=1)]))
    answer = send(ingest_key, packer.compress(plain), **{"Content-Encoding": "ZSTD"})
    assert answer.json()["accepted"] == 1
    assert answer["Accept-Encoding"] == "zstd, gzip, identity"
    assert send(ingest_key, b"17")["Accept-Encoding"] == "zstd, gzip, identity"


@pytest.mark.parametrize("sized", [True, False], ids=["sized", "streamed"])
def test_a_small_zstd_body_that_unpacks_to_much_is_not_unpacked(acme, ingest_key, sized):
    packer = zstandard.ZstdCompressor(write_content_size=sized)
    bomb = packer.compress(b"[" + b" " * (400 * 1024**2) + b"]")
    assert len(bomb) < 100_000
    tracemalloc.start()
    try:
        answer = send(ingest_key, bomb, **{"Content-Encoding": "zstd"})
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert problem(answer) == (413, "too-large")
    assert most < 64 * 1024**2


def test_a_body_that_is_no_zstd_frame(acme, ingest_key):
    def sent(content):
        return problem(send(ingest_key, content, **{"Content-Encoding": "zstd"}))

    frame = zstandard.compress(body(report()))
    assert sent(b"[]") == (400, "not-zstd")
    assert sent(b"") == (400, "not-zstd")
    assert sent(frame[:-1]) == (400, "not-zstd")
    assert sent(frame + b" ") == (400, "not-zstd")
    assert sent(frame + frame) == (400, "not-zstd")
    assert sent(frame + b"\0" * 5000) == (400, "not-zstd")


def test_a_zstd_frame_may_not_ask_for_a_large_window(acme, ingest_key):
    def frame(log):
        wide = zstandard.ZstdCompressionParameters.from_level(1, window_log=log)
        packer = zstandard.ZstdCompressor(compression_params=wide).compressobj()
        return packer.compress(body(report(points=[point(percent=1)]))) + packer.flush()

    largest = send(ingest_key, frame(23), **{"Content-Encoding": "zstd"})
    assert largest.json()["accepted"] == 1
    answer = send(ingest_key, frame(24), **{"Content-Encoding": "zstd"})
    assert problem(answer) == (400, "not-zstd")
    assert "8 MiB" in answer.json()["detail"]


def test_a_body_that_is_not_what_its_encoding_says(acme, ingest_key):
    assert problem(send(ingest_key, b"[]", **{"Content-Encoding": "gzip"})) == (400, "not-gzip")
    cut = gzip.compress(body(report()))[:-9]
    assert problem(send(ingest_key, cut, **{"Content-Encoding": "gzip"})) == (400, "not-gzip")
    twice = gzip.compress(b"[") + gzip.compress(b"]")
    assert problem(send(ingest_key, twice, **{"Content-Encoding": "gzip"})) == (400, "not-gzip")
    answer = send(ingest_key, b"[]", **{"Content-Encoding": "br"})
    assert problem(answer) == (415, "unknown-encoding")
    assert answer["Accept-Encoding"] == "zstd, gzip, identity"


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer ", "Basic abc"])
def test_without_a_key_a_key_is_asked_for(db, header):
    answer = post(URL, b"[]", Authorization=header)
    assert problem(answer) == (401, "key-missing")
    assert answer["WWW-Authenticate"] == "Bearer"


def test_an_unknown_key_is_refused(db):
    assert problem(send("snt_abcdefabcdef_" + "x" * 40, b"[]")) == (401, "unknown-key")
    assert problem(send("nonsense", b"[]")) == (401, "unknown-key")


def test_a_revoked_key_is_refused(acme):
    key, text = keys.issue(acme, Key.Scope.INGEST)
    assert send(text, b"[]").status_code == 200
    keys.revoke(key, timezone.now())
    keys.forget_cached()  # other processes forget within 30 s
    assert problem(send(text, b"[]")) == (401, "revoked-key")


def test_a_key_that_only_reads_may_not_send(acme, read_key):
    assert problem(send(read_key, b"[]")) == (403, "wrong-scope")


def test_a_servers_own_key_writes_that_server_only(acme, server_key):
    stranger = report(agent=str(OTHER_AGENT), points=[point(percent=1)])
    assert problem(send(server_key, body(stranger))) == (403, "wrong-agent")
    answer = send(server_key, body(stranger, report(points=[point(percent=1)]))).json()
    assert answer["accepted"] == 1
    assert [(r["report"], r["item"], r["code"]) for r in answer["rejected"]] == [
        (0, "agent", "wrong-agent")
    ]
    assert Server.objects.get().agent_id == AGENT


def test_the_use_of_a_key_is_noted(acme, ingest_key):
    send(ingest_key, b"[]")
    assert Key.objects.get(scope=Key.Scope.INGEST).used_at is not None


def rejects_of(key: str, *reports: dict[str, Any]) -> list[tuple[int, str, str]]:
    answer = send(key, body(*reports)).json()
    return [(r["report"], r["item"], r["code"]) for r in answer["rejected"]]


GOOD = point("load", load1=1.0)


@pytest.mark.parametrize(
    ("bad", "item", "code"),
    [
        (3, "points[0]", "not-valid"),
        ({"fields": {"a": 1}}, "points[0].measurement", "not-valid"),
        (point("x" * 201, a=1), "points[0].measurement", "too-long"),
        ({"measurement": "cpu"}, "points[0].fields", "not-valid"),
        ({"measurement": "cpu", "fields": {}}, "points[0].fields", "not-valid"),
        ({"measurement": "cpu", "fields": [1]}, "points[0].fields", "not-valid"),
        (point(percent="high"), "points[0].fields.percent", "not-a-number"),
        (point(percent=True), "points[0].fields.percent", "not-a-number"),
        (point(percent=None), "points[0].fields.percent", "not-a-number"),
        (point(percent=float("nan")), "points[0].fields.percent", "not-finite"),
        (point(percent=float("inf")), "points[0].fields.percent", "not-finite"),
        (point(percent=10**400), "points[0].fields.percent", "not-finite"),
        (point(percent=1e200), "points[0].fields.percent", "too-large"),
        (point(tags={"a": 1}, percent=1), "points[0].tags.a", "not-valid"),
        (point(tags={"a": "x" * 201}, percent=1), "points[0].tags.a", "too-long"),
        (
            point(tags={str(n): "x" for n in range(100_000)}, percent=1),
            "points[0].tags",
            "too-many-tags",
        ),
        (point(**{f"f{n}": 1 for n in range(257)}), "points[0].fields", "too-many-fields"),
    ],
)
def test_one_bad_point_is_named_and_spoils_nothing_else(acme, ingest_key, bad, item, code):
    found = rejects_of(ingest_key, report(points=[bad, GOOD]))
    assert (0, item, code) in found
    server = Server.objects.get()
    assert ("load", ()) in queries.latest(acme.pk, [server.pk])[server.pk]


def test_a_bad_field_leaves_the_other_fields_of_its_point(acme, ingest_key):
    given = point(percent=float("nan"), user=3)
    assert rejects_of(ingest_key, report(points=[given])) == [
        (0, "points[0].fields.percent", "not-finite")
    ]
    server = Server.objects.get()
    assert queries.latest(acme.pk, [server.pk])[server.pk]["cpu", ()]["user"].value == 3


@pytest.mark.parametrize(
    ("change", "item"),
    [
        ({"agent": "not-a-uuid"}, "agent"),
        ({"agent": None}, "agent"),
        ({"epoch": ""}, "epoch"),
        ({"epoch": 5}, "epoch"),
        ({"sequence": -1}, "sequence"),
        ({"sequence": 1.5}, "sequence"),
        ({"sequence": 2**70}, "sequence"),
        ({"host": ""}, "host"),
        ({"host": "x" * 256}, "host"),
        ({"at": "yesterday"}, "at"),
        ({"at": 1e18}, "at"),
        ({"at": -5}, "at"),
        ({"interval": 0}, "interval"),
        ({"interval": "60"}, "interval"),
        ({"interval": 10**9}, "interval"),
    ],
)
def test_a_report_that_cannot_be_placed_is_rejected_alone(acme, ingest_key, change, item):
    good = report(sequence=9, points=[GOOD])
    answer = send(ingest_key, body({**report(), **change}, good)).json()
    assert answer["accepted"] == 1
    assert [(r["report"], r["item"]) for r in answer["rejected"]] == [(0, item)]


@pytest.mark.parametrize(
    ("change", "item"),
    [
        ({"id": ""}, "events[0].id"),
        ({"level": "loud"}, "events[0].level"),
        ({"message": 5}, "events[0].message"),
        ({"message": "x" * 65_537}, "events[0].message"),
        ({"at": None}, "events[0].at"),
        ({"pid": "12"}, "events[0].pid"),
        ({"service": []}, "events[0].service"),
    ],
)
def test_a_bad_event_is_rejected_alone(acme, ingest_key, change, item):
    at = now()
    given = report(at, events=[{**event(at), **change}, event(at, "2")])
    assert [found[1] for found in rejects_of(ingest_key, given)] == [item]
    assert len(events.search(acme.pk, Matcher()).events) == 1


def test_text_that_no_database_takes_is_stored_readable(acme, ingest_key):
    at = now()
    given = report(at, events=[event(at, message="a\0b \ud800 c")], host="n\0va", points=[GOOD])
    assert send(ingest_key, body(given)).json()["rejected"] == []
    [found] = events.search(acme.pk, Matcher()).events
    assert found.message == "a\ufffdb ? c"


def test_more_points_than_a_report_may_have_are_cut_off_and_named(acme, ingest_key):
    points = [point("cpu", {"n": "1"}, a=1)] * (wire.MAX_POINTS + 3)
    found = rejects_of(ingest_key, report(points=points))
    assert found == [(0, f"points[{wire.MAX_POINTS}:]", "too-many")]


def test_a_million_mistakes_are_counted_not_listed(acme, ingest_key):
    answer = send(ingest_key, body(report(points=[0] * 5000))).json()
    assert len(answer["rejected"]) == 1001
    assert answer["rejected"][-1]["code"] == "more-rejects"
    assert "4000" in answer["rejected"][-1]["detail"]


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(["agent", "cpu", "error", "up", str(AGENT), "e1"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
REPORTS = st.fixed_dictionaries(
    {},
    optional={
        "agent": st.just(str(AGENT)) | JSON,
        "epoch": st.just("e1") | JSON,
        "sequence": st.integers(0, 50) | JSON,
        "host": st.text() | JSON,
        "at": st.just(0) | st.floats() | JSON,
        "interval": st.just(10) | JSON,
        "version": st.text() | JSON,
        "points": st.lists(
            st.fixed_dictionaries(
                {},
                optional={
                    "measurement": st.text() | JSON,
                    "fields": st.dictionaries(
                        st.text(), st.floats() | st.integers() | JSON, max_size=4
                    )
                    | JSON,
                    "tags": st.dictionaries(st.text(), st.text() | JSON, max_size=4) | JSON,
                },
            )
            | JSON,
            max_size=4,
        )
        | JSON,
        "events": st.lists(
            st.fixed_dictionaries(
                {},
                optional={
                    "id": st.text() | JSON,
                    "at": st.floats() | JSON,
                    "level": st.sampled_from(wire.LEVELS) | JSON,
                    "message": st.text() | JSON,
                    "pid": st.integers() | JSON,
                    "service": st.text() | JSON,
                },
            )
            | JSON,
            max_size=3,
        )
        | JSON,
        "services": st.lists(
            st.fixed_dictionaries(
                {},
                optional={
                    "name": st.text() | JSON,
                    "project": st.text() | JSON,
                    "state": st.sampled_from(wire.SERVICE_STATES) | JSON,
                    "workers": st.integers() | JSON,
                },
            )
            | JSON,
            max_size=3,
        )
        | JSON,
        "specs": JSON,
    },
)


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(given_reports=st.lists(REPORTS | JSON, max_size=3) | JSON, good=st.booleans())
def test_whatever_is_sent_is_answered_clearly_and_nothing_else_is_lost(
    acme, ingest_key, given_reports, good
):
    at = now()
    if good and isinstance(given_reports, list):
        for one in given_reports:
            if isinstance(one, dict) and one.get("at") == 0:
                one["at"] = at.timestamp()
        sequence = int(at.timestamp() * 1000)
        given_reports = [
            *given_reports,
            report(at, epoch=f"fuzz {sequence}", sequence=sequence, points=[GOOD]),
        ]
    answer = send(ingest_key, json.dumps(given_reports).encode())
    assert answer.status_code in (200, 400)
    if answer.status_code == 200:
        said = answer.json()
        if good and isinstance(given_reports, list):
            assert said["accepted"] + said["duplicates"] >= 1
        for reject in said["rejected"]:
            assert reject["code"]
            assert reject["detail"]
    else:
        problem(answer)


@given(st.binary(max_size=300))
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_parsed_or_refused_with_a_problem(content):
    with suppress(NotJSON, TooDeep, NotReports):
        assert native.parse(content, now()).rejected >= 0


# -- enrolling ----------------------------------------------------------------


def enrol(token: str, **given: Any) -> Any:
    return post("/api/v1/enrol", json.dumps(given).encode(), Authorization=f"Bearer {token}")


def test_a_token_becomes_the_key_of_one_server_once(acme):
    _, token = keys.issue_enrol_token(acme, None, timezone.now())
    answer = enrol(token, agent=str(AGENT), host="nova-1", version="2.0.0")
    assert answer.status_code == 201
    assert answer["Cache-Control"] == "no-store"
    key = answer.json()["key"]
    assert answer.json()["organization"] == "acme"
    assert send(key, body(report(points=[GOOD]))).json()["accepted"] == 1
    assert problem(send(key, body(report(agent=str(OTHER_AGENT))))) == (403, "wrong-agent")
    assert problem(enrol(token, agent=str(AGENT), host="nova-1")) == (401, "unknown-key")


def test_an_expired_token_is_refused(acme):
    _, token = keys.issue_enrol_token(acme, None, timezone.now() - timedelta(hours=2))
    assert problem(enrol(token, agent=str(AGENT), host="nova-1")) == (401, "unknown-key")


def test_an_enrolment_names_its_faulty_fields_and_keeps_the_token(acme):
    _, token = keys.issue_enrol_token(acme, None, timezone.now())
    answer = enrol(token, agent="me", host="")
    assert problem(answer) == (422, "not-valid")
    assert set(answer.json()["errors"]) == {"agent", "host"}
    assert enrol(token, agent=str(AGENT), host="nova-1").status_code == 201


def test_a_token_is_no_key(acme):
    _, token = keys.issue_enrol_token(acme, None, timezone.now())
    assert problem(send(token, b"[]")) == (401, "unknown-key")
