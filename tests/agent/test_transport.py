"""Sending: what the server has is let go, everything else is kept."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent_client import coding
from agent_client.config import Config
from agent_client.spool import Spool
from agent_client.transport import CYCLE_REPORTS, Refused, Sender, enrol
from agent_client.wire import MAX_BODY, MAX_REPORTS, REPORTS_PATH

from .conftest import KEY, ReportServer, problem


class Sending:
    """A sender with a spool of its own and a clock that only the test moves."""

    def __init__(self, config: Config, directory: Path) -> None:
        self.now = 1000.0
        self.spool = Spool(str(directory))
        self.sender = Sender(
            config, self.spool, clock=lambda: self.now, draw=lambda low, high: high
        )

    def store(self, number: int = 1, pad: int = 10) -> int:
        sequence = 0
        for _ in range(number):
            sequence = self.spool.append(
                time.time(),
                lambda n: (
                    {"agent": "a", "epoch": self.spool.epoch, "sequence": n, "pad": "x" * pad},
                    1,
                    1,
                ),
                {},
            )
        return sequence

    def waiting(self) -> int:
        return self.spool.waiting().reports


@pytest.fixture
def sending(server: ReportServer, make_config: Callable[..., Config], tmp_path: Path) -> Sending:
    return Sending(make_config(server.url), tmp_path / "spool")


def test_a_stored_report_arrives_compressed_and_signed_and_is_let_go(
    sending: Sending, server: ReportServer
) -> None:
    sending.sender.work(sending.store(), 10)
    assert server.arrivals == [1]
    assert sending.waiting() == 0
    request = server.requests[0]
    assert request["path"] == REPORTS_PATH
    assert request["headers"]["Authorization"] == f"Bearer {KEY}"
    assert request["headers"]["Content-Encoding"] == "gzip"


def test_zstd_is_sent_to_a_server_that_takes_it_and_gzip_to_one_that_does_no_more(
    sending: Sending, server: ReportServer
) -> None:
    server.accepts = "zstd, gzip, identity"
    for _ in range(3):
        sending.sender.work(sending.store(), 10)
    server.accepts = "gzip"
    for _ in range(2):
        sending.sender.work(sending.store(), 10)
    assert server.packings == ["gzip", "zstd", "zstd", "zstd", "gzip"]
    assert server.arrivals == [1, 2, 3, 4, 5]


def test_a_server_that_says_nothing_of_zstd_gets_gzip(
    sending: Sending, server: ReportServer
) -> None:
    for _ in range(3):
        sending.sender.work(sending.store(), 10)
    assert server.packings == ["gzip"] * 3


@pytest.mark.parametrize("answer", [problem(415, "unknown-encoding"), problem(400, "not-zstd")])
def test_what_is_not_unpacked_is_sent_as_gzip_at_once_and_from_then_on(
    sending: Sending, server: ReportServer, answer: Any
) -> None:
    server.accepts = "zstd, gzip"
    sending.sender.work(sending.store(), 10)
    server.unpacks_not = {"zstd": answer}
    sending.store(2)
    sending.sender.work(None, 10)
    sending.sender.work(sending.store(), 10)
    assert server.packings == ["gzip", "zstd", "gzip", "gzip"]
    assert server.arrivals == [1, 2, 3, 4]
    assert sending.waiting() == 0


def test_without_zstd_the_agent_sends_gzip(
    sending: Sending, server: ReportServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> Any:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(coding.importlib, "import_module", missing)
    server.accepts = "zstd, gzip"
    for _ in range(2):
        sending.sender.work(sending.store(), 10)
    assert server.packings == ["gzip", "gzip"]


def test_the_current_report_goes_before_the_backlog_and_the_oldest_next(
    sending: Sending, server: ReportServer
) -> None:
    sending.store(5)
    sending.sender.work(sending.store(), 10)
    assert server.arrivals == [6, 1, 2, 3, 4, 5]
    assert len(server.requests) == 2


def test_one_connection_serves_many_requests(sending: Sending, server: ReportServer) -> None:
    for _ in range(5):
        sending.sender.work(sending.store(), 10)
    assert len(server.requests) == 5
    assert server.connections == 1


def test_a_backlog_goes_in_bounded_requests_over_several_cycles(
    sending: Sending, server: ReportServer
) -> None:
    sending.store(CYCLE_REPORTS + 250, pad=20_000)
    sending.sender.work(sending.store(), 10)
    first = len(server.arrivals)
    assert CYCLE_REPORTS <= first < CYCLE_REPORTS + 250
    for request in server.requests:
        assert len(request["body"]["reports"]) <= MAX_REPORTS
        assert len(str(request["body"])) < MAX_BODY
    sending.sender.work(sending.store(), 10)
    assert sending.waiting() == 0


@pytest.mark.parametrize("status", [500, 502, 503, 504, 429, 408])
def test_a_server_in_trouble_loses_nothing(
    sending: Sending, server: ReportServer, status: int
) -> None:
    server.refuse = lambda body: problem(status)
    sending.sender.work(sending.store(3), 10)
    assert sending.waiting() == 3
    assert len(server.requests) == 1
    server.refuse = lambda body: None
    sending.now += 3600
    sending.sender.work(None, 10)
    assert server.arrivals == [1, 2, 3]


def test_nothing_is_sent_before_the_time_the_server_asked_for(
    sending: Sending, server: ReportServer
) -> None:
    server.refuse = lambda body: problem(503, Retry_After="90")
    sending.sender.work(sending.store(), 10)
    sending.now += 89
    sending.sender.work(sending.store(), 10)
    assert len(server.requests) == 1
    sending.now += 20
    server.refuse = lambda body: None
    sending.sender.work(None, 10)
    assert sending.waiting() == 0


def test_the_wait_grows_with_each_failure_up_to_a_bound(
    sending: Sending, server: ReportServer
) -> None:
    server.refuse = lambda body: problem(500)
    sending.store()
    waits = []
    for _ in range(8):
        sending.sender.work(None, 10)
        assert sending.sender.state.retry_at is not None
        waits.append(round(sending.sender.state.retry_at - time.time()))
        sending.now += waits[-1] + 1
    assert waits == sorted(waits)
    assert waits[0] == 4
    assert waits[-1] == waits[-2] == 60


def test_a_server_that_is_not_there_loses_nothing(
    make_config: Callable[..., Config], tmp_path: Path
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    sending = Sending(make_config(f"http://127.0.0.1:{port}"), tmp_path / "spool")
    sending.sender.work(sending.store(), 10)
    assert sending.waiting() == 1
    assert "cannot be reached" in sending.sender.state.last_error


def test_a_server_that_never_answers_is_given_up(
    make_config: Callable[..., Config], tmp_path: Path
) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        sending = Sending(make_config(url), tmp_path / "spool")
        began = time.monotonic()
        sending.sender.work(sending.store(), 10)
        assert time.monotonic() - began < 10
    assert sending.waiting() == 1
    assert "in time" in sending.sender.state.last_error


def test_a_request_under_way_can_be_broken_off(
    make_config: Callable[..., Config], tmp_path: Path
) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        sending = Sending(make_config(url), tmp_path / "spool")
        sequence = sending.store()
        worker = threading.Thread(target=sending.sender.work, args=(sequence, 10))
        worker.start()
        silent.accept()
        began = time.monotonic()
        sending.sender.abort()
        worker.join(5)
        assert not worker.is_alive()
        assert time.monotonic() - began < 1.5
    assert sending.waiting() == 1


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_wrong_key_or_address_keeps_everything_and_is_said_plainly(
    sending: Sending, server: ReportServer, status: int
) -> None:
    server.refuse = lambda body: problem(status)
    sending.sender.work(sending.store(2), 10)
    assert sending.waiting() == 2
    assert str(status) in sending.sender.state.last_error
    sending.now += 100
    sending.sender.work(None, 10)
    assert len(server.requests) == 1, "it does not knock every cycle"


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_poisonous_report_is_found_and_dropped_and_the_others_arrive(
    sending: Sending, server: ReportServer, status: int
) -> None:
    def refuse(body: dict[str, Any]) -> Any:
        poisonous = any(report["sequence"] == 7 for report in body["reports"])
        return problem(status) if poisonous else None

    server.refuse = refuse
    sending.store(20)
    sending.sender.work(None, 10)
    assert sending.waiting() == 0
    assert server.arrivals == [n for n in range(1, 21) if n != 7]
    assert sending.spool.losses().reports == 1
    assert sending.spool.losses().events == 1


def test_a_proxys_refusal_drops_nothing(sending: Sending, server: ReportServer) -> None:
    server.refuse = lambda body: (400, {"Content-Type": "text/html"}, b"<h1>Bad request</h1>")
    sending.sender.work(sending.store(3), 10)
    assert sending.waiting() == 3
    assert sending.spool.losses().reports == 0


def test_a_captive_portals_friendly_answer_drops_nothing(
    sending: Sending, server: ReportServer
) -> None:
    server.refuse = lambda body: (200, {"Content-Type": "text/html"}, b"<h1>Welcome</h1>")
    sending.sender.work(sending.store(), 10)
    assert sending.waiting() == 1


def test_a_redirect_is_not_followed_but_named(sending: Sending, server: ReportServer) -> None:
    server.refuse = lambda body: (302, {"Location": "https://else.example/"}, b"")
    sending.sender.work(sending.store(), 10)
    assert sending.waiting() == 1
    assert "https://else.example/" in sending.sender.state.last_error


def test_rejected_items_are_counted_and_not_sent_again(
    sending: Sending, server: ReportServer
) -> None:
    server.rejected = [{"report": 0, "item": "points[3]", "code": "nan", "detail": "not a number"}]
    sending.sender.work(sending.store(), 10)
    sending.sender.work(None, 10)
    assert len(server.requests) == 1
    assert sending.spool.losses().rejected == 1
    assert "nan" in sending.sender.state.last_error


def test_an_answer_that_got_lost_leads_to_a_duplicate_and_no_loss(
    sending: Sending, server: ReportServer
) -> None:
    def store_then_fail(body: dict[str, Any]) -> Any:
        server.refuse = lambda body: None
        server.answer(REPORTS_PATH, {}, json.dumps(body).encode())
        return 500, {}, b""

    server.refuse = store_then_fail
    sending.sender.work(sending.store(), 10)
    assert sending.waiting() == 1
    sending.now += 100
    sending.sender.work(None, 10)
    assert sending.waiting() == 0
    assert (server.arrivals, server.duplicates) == ([1], 1)


def test_enrolling_turns_a_token_into_a_key(
    server: ReportServer, make_config: Callable[..., Config]
) -> None:
    config = make_config(server.url)
    assert enrol(config, "snt_once", "agent-1") == KEY
    request = server.requests[0]
    assert request["headers"]["Authorization"] == "Bearer snt_once"
    assert request["body"]["agent"] == "agent-1"
    assert request["body"]["host"] == config.hostname


def test_a_token_that_is_not_accepted_is_said(
    server: ReportServer, make_config: Callable[..., Config]
) -> None:
    server.refuse = lambda body: problem(401, "token-used")
    with pytest.raises(Refused, match="401"):
        enrol(make_config(server.url), "snt_once", "agent-1")
