"""Slack's incoming webhook, against a real HTTP server on this machine."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from alerts.notifiers import Message, Undelivered
from alerts.notifiers.slack import Slack
from sentinel_site.kit import outbound
from tests.alerts.builders import NOON


class Receiver(ThreadingHTTPServer):
    """Keeps requests and answers with what the test chose."""

    def __init__(self):
        self.requests, self.answer, self.headers = [], 200, {}
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/services/T/B/secret"


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.requests.append((dict(self.headers), json.loads(body)))
        self.send_response(self.server.answer)
        for name, value in self.server.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args):
        pass


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    server = Receiver()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def message(**more) -> Message:
    return Message(
        **{
            "key": "k-1",
            "transition": "opened:1",
            "severity": "critical",
            "title": "Disk <full>",
            "organization": "Acme",
            "server": "nova-1",
            "service": "system",
            "subject": "/var",
            "text": "98 % & rising",
            "advice": "Delete old images.",
            "link": "http://localhost/o/acme/incidents/1/",
            "at": NOON,
            "is_resolved": False,
            "thread": "k-1",
            **more,
        }
    )


def test_a_message_names_what_is_wrong_where_and_what_to_do(receiver):
    Slack().send({"url": receiver.url}, message())
    headers, body = receiver.requests[0]
    assert headers["X-Idempotency-Key"] == "k-1"
    assert body["text"] == "Critical: Disk <full> on nova-1"
    text = body["attachments"][0]["blocks"][0]["text"]["text"]
    assert "98 % &amp; rising" in text
    assert "<http://localhost/o/acme/incidents/1/|Critical: Disk &lt;full&gt; on nova-1>" in text
    assert "Delete old images." in text


def test_a_resolution_says_so_and_gives_no_advice(receiver):
    Slack().send({"url": receiver.url}, message(is_resolved=True))
    _, body = receiver.requests[0]
    assert body["text"].startswith("Resolved: ")
    assert "Delete old images." not in json.dumps(body)


def test_too_many_requests_are_retried_when_slack_says(receiver):
    receiver.answer, receiver.headers = 429, {"Retry-After": "30"}
    with pytest.raises(Undelivered) as failure:
        Slack().send({"url": receiver.url}, message())
    assert failure.value.retry_after == timedelta(seconds=30)
    assert not failure.value.for_good


@pytest.mark.parametrize(("answer", "for_good"), [(500, False), (404, True), (410, True)])
def test_a_hook_that_is_gone_is_given_up_and_a_broken_one_is_not(receiver, answer, for_good):
    receiver.answer = answer
    with pytest.raises(Undelivered) as failure:
        Slack().send({"url": receiver.url}, message())
    assert failure.value.for_good is for_good


def test_nobody_listening_is_retried():
    with pytest.raises(Undelivered) as failure:
        Slack().send({"url": "http://127.0.0.1:9/hook"}, message())
    assert not failure.value.for_good


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "10.0.0.1", "169.254.169.254"])
def test_production_asks_nothing_in_its_own_network(receiver, settings, monkeypatch, host):
    settings.WEBHOOKS_TO_PRIVATE = False
    if host[0] in "01":
        found = [(2, 1, 6, "", (host, receiver.server_port))]
        monkeypatch.setattr(outbound.socket, "getaddrinfo", lambda *args, **kwargs: found)
    with pytest.raises(Undelivered, match="private network"):
        Slack().send({"url": f"https://{host}:{receiver.server_port}/hook"}, message())
    assert receiver.requests == []


def test_an_answer_that_comes_byte_by_byte_is_cut_off(monkeypatch):
    monkeypatch.setattr(outbound, "_LONGEST", 0.3)
    stopped = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def drip():
            connection, _ = server.accept()
            with connection, contextlib.suppress(OSError):
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2000\r\n\r\n")
                while not stopped.wait(0.05):
                    connection.sendall(b"x")

        thread = threading.Thread(target=drip, daemon=True)
        thread.start()
        began = time.monotonic()
        with pytest.raises(Undelivered):
            Slack().send({"url": f"http://127.0.0.1:{server.getsockname()[1]}/"}, message())
        assert time.monotonic() - began < 2
        stopped.set()
        thread.join()


def test_a_redirect_is_not_followed(receiver):
    receiver.answer, receiver.headers = 302, {"Location": receiver.url}
    with pytest.raises(Undelivered, match="302"):
        Slack().send({"url": receiver.url}, message())
    assert len(receiver.requests) == 1


@pytest.mark.parametrize(
    "url",
    [
        "",
        "slack",
        "ftp://x/y",
        "https://",
        "http://[",
        "http://x:99999/",
        "https://x/é",
        "https://x y/",
        "https://x:y/",
    ],
)
def test_a_webhook_must_be_an_address(url):
    assert Slack().errors({"url": url})


def test_the_secret_path_is_not_shown():
    assert Slack().public({"url": "https://hooks.slack.com/services/T/B/secret"}) == {
        "url": "hooks.slack.com/…"
    }
