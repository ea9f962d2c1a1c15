"""Servers, engines and proxies that never come to an end, or answer what nobody asked."""

from __future__ import annotations

import contextlib
import itertools
import json
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from agent_client import transport
from agent_client.collectors import rabbitmq
from agent_client.config import Config
from agent_client.discovery import host as hosts
from agent_client.discovery.host import Host
from agent_client.spool import Spool
from agent_client.transport import Sender

from .conftest import KEY, ReportServer

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
PAUSE = 0.02


def dribble(head: bytes) -> Callable[[], Iterator[bytes]]:
    """The beginning at once, then a byte now and then, for ever."""

    def said() -> Iterator[bytes]:
        yield head
        while True:
            threading.Event().wait(PAUSE)
            yield b"1"

    return said


def flood(head: bytes, further: bytes) -> Callable[[], Iterable[bytes]]:
    """The beginning, then the same again and again, as fast as it is taken."""
    return lambda: itertools.chain([head], itertools.repeat(further))


def moments() -> Iterator[bytes]:
    """It will answer in a moment, it says, for ever."""
    while True:
        threading.Event().wait(PAUSE)
        yield b"HTTP/1.1 100 Continue\r\n\r\n"


ENDLESS: dict[str, Callable[[], Iterable[bytes]]] = {
    "a line that goes on": dribble(b"HTTP/1.1 2"),
    "headers that go on": dribble(HEAD + b"X: "),
    "a body that ends with the connection": dribble(HEAD + b"\r\n"),
    "a body in chunks": dribble(HEAD + b"Transfer-Encoding: chunked\r\n\r\n"),
    "a body of a gigabyte": dribble(HEAD + b"Content-Length: 1000000000\r\n\r\n"),
    "one more moment": flood(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "one moment now and then": moments,
    "a gigabyte at once": flood(HEAD + b"Content-Length: 1000000000\r\n\r\n", b"[" * 65_536),
    "chunks without end": flood(
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"10000\r\n" + b"[" * 65_536 + b"\r\n"
    ),
    "a line without end": flood(b"HTTP/1.1 200 ", b"O" * 65_536),
    "headers without end": flood(HEAD, b"X: y\r\n" * 1000),
}


class Endless:
    """Takes connections and says its piece, whatever is asked, until the other side leaves."""

    def __init__(self, listener: socket.socket) -> None:
        self.said: Callable[[], Iterable[bytes]] = dribble(b"")
        self.asked = b""
        self._listener = listener
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return  # closed
            threading.Thread(target=self._speak, args=(connection,), daemon=True).start()

    def _speak(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):  # it has left
            self.asked += connection.recv(65_536)
            for data in self.said():
                connection.sendall(data)

    def close(self) -> None:
        with contextlib.suppress(OSError):  # accept() ends by it
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


def ends(work: Callable[[], object], seconds: float = 30.0) -> object:
    """What the work returns; fails where it is still at it after so long."""
    found: list[object] = []
    worker = threading.Thread(target=lambda: found.append(work()), daemon=True)
    worker.start()
    worker.join(seconds)
    assert not worker.is_alive(), "it is still at it"
    return found[0]


@pytest.fixture
def endless() -> Iterator[tuple[Endless, str]]:
    listener = socket.create_server(("127.0.0.1", 0))
    server = Endless(listener)
    yield server, f"http://127.0.0.1:{listener.getsockname()[1]}"
    server.close()


@pytest.mark.parametrize("how", ENDLESS)
def test_an_answer_without_end_costs_one_request_and_no_report(
    how: str,
    endless: tuple[Endless, str],
    make_config: Callable[..., Config],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(transport, "_LONGEST_ANSWER", 0.4)
    server, url = endless
    server.said = ENDLESS[how]
    spool = Spool(str(tmp_path / "spool"))
    sequence = spool.append(time.time(), lambda number: ({"sequence": number}, 0, 0), {})
    sender = Sender(make_config(url), spool)
    ends(lambda: sender.work(sequence, 10))
    assert spool.waiting().reports == 1
    assert sender.state.failures == 1
    assert sender.state.last_error
    sender.close()
    spool.close()


@pytest.mark.parametrize("how", ["headers that go on", "a body that ends with the connection"])
def test_the_goodbye_waits_for_no_answer_without_end(
    how: str, endless: tuple[Endless, str], make_config: Callable[..., Config], tmp_path: Path
) -> None:
    server, url = endless
    server.said = ENDLESS[how]
    spool = Spool(str(tmp_path / "spool"))
    sequence = spool.append(time.time(), lambda number: ({"sequence": number}, 0, 0), {})
    sender = Sender(make_config(url), spool)
    assert ends(lambda: sender.farewell(sequence, 0.3)) is False
    assert spool.waiting().reports == 1
    spool.close()


def test_a_quick_answer_after_a_slow_one_has_its_own_time(
    make_config: Callable[..., Config], tmp_path: Path, server: ReportServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(transport, "_LONGEST_ANSWER", 5.0)
    spool = Spool(str(tmp_path / "spool"))
    sender = Sender(make_config(server.url), spool)
    for number in range(1, 4):
        spool.append(time.time(), lambda n: ({"agent": "a", "epoch": "e", "sequence": n}, 0, 0), {})
        sender.work(None, 10)
        assert len(server.reports) == number
        assert sender._client._connection is not None
        assert sender._client._connection.sock.gettimeout() == 2
    assert server.connections == 1
    sender.close()
    spool.close()


# Engines of containers


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[tuple[Endless, Host]]:
    (tmp_path / "run").mkdir()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "run/docker.sock"))
    listener.listen()
    server = Endless(listener)
    yield server, Host(str(tmp_path))
    server.close()


@pytest.mark.parametrize("how", ENDLESS)
def test_an_engine_without_end_is_given_up(
    how: str, engine: tuple[Endless, Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hosts, "_WITHIN", 0.4)
    server, host = engine
    server.said = ENDLESS[how]
    assert ends(host.containers) == {}
    assert any("does not answer" in text for text in host.blind.values())


def answer(body: bytes) -> Callable[[], Iterator[bytes]]:
    return lambda: iter([HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body])


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"7",
        b'"x"',
        b'{"message": "no"}',
        b"[1]",
        b"[null]",
        b"[[]]",
        b'[{"Names": ["/a"]}]',
        b'[{"Id": "a", "Names": {"x": 1}}]',
        b'[{"Id": "a", "Names": 7}]',
        b'[{"Id": "a", "Labels": ["x"]}]',
        b"[" * 200_000,
        b"<html>",
        b"\xff\xfe",
    ],
    ids=lambda body: body[:20].decode("latin-1"),
)
def test_an_engine_that_talks_nonsense_is_said_and_hurts_nothing(
    body: bytes, engine: tuple[Endless, Host]
) -> None:
    server, host = engine
    server.said = answer(body)
    assert host.containers() == {}
    assert any("does not answer" in text for text in host.blind.values())
    server.said = answer(json.dumps([{"Id": "a" * 64, "Names": ["/nova"]}]).encode())
    assert [one.name for one in host.containers().values()] == ["nova"]
    assert host.blind == {}


@pytest.mark.parametrize("how", ["headers that go on", "a body that ends with the connection"])
def test_what_took_a_brokers_port_holds_its_collector_up_for_a_moment(
    how: str, endless: tuple[Endless, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rabbitmq, "_LONGEST_ANSWER", 0.4)
    server, url = endless
    server.said = ENDLESS[how]

    def ask() -> str:
        try:
            return rabbitmq._get(url)
        except OSError as error:
            return str(error)

    assert ends(ask) == "timed out"


# Where the key goes


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_the_key_goes_to_nobody_to_whom_the_server_points(
    status: int,
    endless: tuple[Endless, str],
    server: ReportServer,
    make_config: Callable[..., Config],
    tmp_path: Path,
) -> None:
    elsewhere, url = endless
    server.refuse = lambda body: (status, {"Location": f"{url}/api/v1/reports"}, b"")
    spool = Spool(str(tmp_path / "spool"))
    spool.append(time.time(), lambda number: ({"sequence": number}, 0, 0), {})
    sender = Sender(make_config(server.url), spool)
    sender.work(None, 10)
    assert server.requests[0]["headers"]["Authorization"] == f"Bearer {KEY}"
    assert elsewhere.asked == b""
    assert f"redirected to {url}" in sender.state.last_error
    assert spool.waiting().reports == 1
    sender.close()
    spool.close()
