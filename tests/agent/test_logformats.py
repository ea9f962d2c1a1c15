"""What a log line says, in the formats that OpenStack hosts hold."""

from __future__ import annotations

import calendar
import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_client.logformats import Clock, Head, head, unwrapped, without_colour
from agent_client.wire import LEVELS

NOW = calendar.timegm((2026, 11, 22, 12, 0, 0))
REQUEST = "req-896b884d-533d-4875-bfcc-d8d9a4d57a33"
CALLER = "req-ae6c11c4-6a52-4eba-9081-e1d6a74e962b"


def read(line: str) -> Head:
    found = head(without_colour(line), Clock(), NOW)
    assert found is not None
    return found


def local(*moment: int) -> float:
    return time.mktime((*moment, 0, 0, -1))  # type: ignore[arg-type]


def test_an_oslo_line_gives_its_request_and_leaves_the_context_out() -> None:
    found = read(
        f"2026-11-22 10:30:25.027 20144 INFO nova.compute.manager [None {REQUEST} d3f2 6e54 - - "
        "default default] [instance: b1e3380f-474c-42d1-8fd5-0069a90ebe5d] Took 24.81 seconds"
    )
    assert found.level == "info"
    assert found.component == "nova.compute.manager"
    assert found.pid == 20144
    assert found.request_id == REQUEST
    assert found.message == "[instance: b1e3380f-474c-42d1-8fd5-0069a90ebe5d] Took 24.81 seconds"
    assert found.at == pytest.approx(local(2026, 11, 22, 10, 30, 25) + 0.027)


def test_a_request_made_for_another_is_known_by_the_callers_id() -> None:
    found = read(
        f"2026-11-22 10:31:29.447 17215 INFO placement.requestlog [{CALLER} {REQUEST} 3e33 7fd5 - "
        '- default default] 127.0.0.1 "GET /" status: 200\x1b[00m'
    )
    assert found.request_id == CALLER
    assert found.message == '127.0.0.1 "GET /" status: 200'


def test_a_traceback_line_of_oslo_belongs_to_the_line_before() -> None:
    first = read(f"2026-11-22 10:29:44.184 1 ERROR nova [None {REQUEST} a b - - d d] Failed")
    second = read("2026-11-22 10:29:44.184 1 ERROR nova Traceback (most recent call last):")
    assert not first.more
    assert second.more
    assert second.group == first.group


@pytest.mark.parametrize(
    ("line", "level", "component", "message"),
    [
        (
            "2026-11-22T15:00:00.000000Z [warning  ] it is slow     [metrics.ingest] seconds=3",
            "warning", "metrics.ingest", "it is slow seconds=3",
        ),
        (
            "2026-11-22 10:59:36.690849+00:00 [error] <0.2786.0> closing AMQP connection",
            "error", "", "<0.2786.0> closing AMQP connection",
        ),
        (
            "2026-11-22 10:34:45 3 [Warning] Aborted connection 3 to db",
            "warning", "", "Aborted connection 3 to db",
        ),
        (
            "2026-11-22 10:34:45.123 UTC [77] FATAL:  the database system is starting up",
            "critical", "", "the database system is starting up",
        ),
        (
            "2026-11-22 10:42:58.437+0000: 4105: error : virCgroupDetectControllers:451 : no",
            "error", "", "virCgroupDetectControllers:451 : no",
        ),
        (
            "2022-09-26T09:51:47.795Z|08398|stream_ssl|WARN|SSL_accept: failed",
            "warning", "stream_ssl", "SSL_accept: failed",
        ),
        (
            "Nov 22 09:00:01 compute-1 kernel: usb 1-1: new device",
            "info", "kernel", "usb 1-1: new device",
        ),
        (
            "<11>Nov 22 09:00:01 compute-1 sshd[12]: bye",
            "error", "sshd", "bye",
        ),
        (
            "2026-11-22T09:00:01.123456+00:00 compute-1 systemd[1]: nova.service: error: failed",
            "error", "systemd", "nova.service: error: failed",
        ),
        (
            "2026-11-22 09:00:01,123 - swift.proxy - WARNING - disk full",
            "warning", "swift.proxy", "disk full",
        ),
        (
            "1234:M 22 Nov 2026 09:00:01.123 # Server out of memory",
            "warning", "", "Server out of memory",
        ),
        (
            "[Sun Nov 22 10:30:55.123456 2026] [wsgi:error] [pid 123:tid 9] mod_wsgi failed",
            "error", "wsgi", "mod_wsgi failed",
        ),
        (
            "2026-11-22 09:00:01,123 INFO sentinella.agent stopped",
            "info", "sentinella.agent", "stopped",
        ),
        ("2026-11-22 09:00:01 status installed libc6", "info", "", "status installed libc6"),
    ],
)  # fmt: skip
def test_each_programs_own_form_is_read(
    line: str, level: str, component: str, message: str
) -> None:
    found = read(line)
    assert (found.level, found.component, found.message) == (level, component, message)


def test_a_json_line_carries_its_traceback_and_request() -> None:
    found = read(
        json.dumps(
            {
                "message": "Failed", "asctime": "2026-11-22 10:00:00", "levelname": "CRITICAL",
                "name": "cinder", "process": 5, "traceback": ["Traceback", "ValueError"],
                "context": {"request_id": REQUEST, "global_request_id": None},
            }
        )
    )  # fmt: skip
    assert found.message == "Failed\nTraceback\nValueError"
    assert (found.level, found.component, found.pid) == ("critical", "cinder", 5)
    assert found.request_id == REQUEST


def test_a_structlog_json_line_shows_its_details() -> None:
    found = read(
        '{"event": "request", "level": "info", "logger": "request", "status": 200, '
        '"timestamp": "2026-11-22T10:00:00.500000Z"}'
    )
    assert found.message == "request status=200"
    assert found.at == calendar.timegm((2026, 11, 22, 10, 0, 0)) + 0.5


def test_a_syslog_line_of_december_read_in_january_is_of_last_year() -> None:
    january = calendar.timegm((2027, 1, 2, 0, 0, 0))
    found = head("Dec 31 23:00:00 host cron[1]: x", Clock(), january)
    assert found is not None
    assert time.localtime(found.at).tm_year == 2026


def test_a_zone_is_believed() -> None:
    assert read("2026-11-22T10:00:00+02:00 [info] x").at == calendar.timegm((2026, 11, 22, 8, 0, 0))


@given(st.text(max_size=300) | st.from_regex(r"\A\d{4}-\d\d-\d\d \d\d:\d\d:\d\d.{0,80}\Z"))
def test_no_line_breaks_the_reader(line: str) -> None:
    found = head(without_colour(line), Clock(), NOW)
    assert found is None or found.level in LEVELS


def test_json_nested_beyond_reason_is_an_ordinary_line() -> None:
    assert head("{" * 5000 + '"a":' * 10 + "[" * 100_000, Clock(), NOW) is None


def test_rabbitmqs_reason_stands_in_the_next_line_of_the_same_process() -> None:
    at = "2026-11-22 10:59:36.690849+00:00 [warning] <0.2786.0> "
    first = read(f"{at}closing AMQP connection <0.2786.0> (127.0.0.1:50098 -> 127.0.0.1:5672):")
    second = read(f"{at}client unexpectedly closed TCP connection")
    assert first.level == "warning"
    assert first.group == second.group == "<0.2786.0> "
    assert second.explains


def test_rabbitmq_before_37_writes_its_text_below() -> None:
    found = read("=ERROR REPORT==== 24-Jun-2026::14:02:11 ===")
    assert (found.level, found.message) == ("error", "")
    assert found.at == local(2026, 6, 24, 14, 2, 11)


def test_oslo_through_syslog_is_read_as_oslo() -> None:
    found = read(
        f"2026-11-22T10:30:25.027000+00:00 ctl-1 nova-compute: 2026-11-22 10:30:25.027 77 WARNING "
        f"nova.compute.manager [None {REQUEST} - - - -] slow"
    )
    assert (found.level, found.component, found.pid) == ("warning", "nova.compute.manager", 77)
    assert (found.request_id, found.message) == (REQUEST, "slow")


def test_mysql_8_names_its_own_level_system() -> None:
    found = read("2026-11-22T10:34:45.123456Z 0 [System] [MY-010116] [Server] mysqld starting")
    assert (found.level, found.message) == ("info", "[MY-010116] mysqld starting")
    assert found.component == "Server"
    assert found.at == pytest.approx(calendar.timegm((2026, 11, 22, 10, 34, 45)) + 0.123456)


@pytest.mark.parametrize(("status", "level"), [(200, "info"), (404, "info"), (503, "warning")])
def test_an_access_log_says_when_and_how_it_ended(status: int, level: str) -> None:
    found = read(f'10.0.0.1 - - [22/Nov/2026:11:30:16 +0100] "GET /v3 HTTP/1.1" {status} 99 "-"')
    assert found.level == level
    assert found.at == calendar.timegm((2026, 11, 22, 10, 30, 16))


def test_a_form_may_be_told_where_the_line_leaves_it_open() -> None:
    line = "Nov 22 was a day without errors"
    told = head(line, Clock(), NOW, "plain")
    assert told is not None
    assert (told.at, told.message) == (NOW, line)
    assert head("no JSON", Clock(), NOW, "json") is None
    assert head("[1]", Clock(), NOW, "json") is None


@given(st.text())
def test_a_containers_line_is_unwrapped_or_left_as_it_is(line: str) -> None:
    assert isinstance(unwrapped(line, NOW).text, str)
    wrapped = json.dumps({"log": line + "\n", "stream": "stderr", "time": "2026-11-22T10:00:00Z"})
    piece = unwrapped(wrapped, 0.0)
    assert piece.text == without_colour(line.rstrip("\r\n"))
    assert (piece.stream, piece.partial) == ("stderr", False)
    assert piece.at == calendar.timegm((2026, 11, 22, 10, 0, 0))
