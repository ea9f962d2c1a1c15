"""What the product talks to out there: a mailbox, Slack, and a network that can fail."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from aiosmtpd.controller import Controller

from sentinel_site.embedded.process import free_port


class Mailbox:
    """A mail server that keeps every message it is given."""

    def __init__(self) -> None:
        self.mails: list[EmailMessage] = []
        self.port = free_port()
        self._controller = Controller(self, hostname="127.0.0.1", port=self.port)

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        mail = message_from_bytes(envelope.original_content, policy=policy.default)
        assert isinstance(mail, EmailMessage)
        mail["X-Received-At"] = str(time.time())
        self.mails.append(mail)
        return "250 OK"

    def to(self, address: str, words: str = "") -> list[EmailMessage]:
        return [m for m in self.mails if address in str(m["To"]) and words in str(m["Subject"])]

    def told(self, address: str, words: str = "") -> list[str]:
        """What they say, as Slack has it: `Resolved: CPU burns on burner-1`."""
        found = []
        for mail in self.to(address, words):
            text = mail.get_body(("plain",))
            state = text.get_content().partition(":")[0] if text else ""
            heading = str(mail["Subject"]).removeprefix("Re: ").partition(" (incident")[0]
            found.append(f"{state}: {heading}")
        return found

    @contextmanager
    def open(self) -> Iterator[Mailbox]:
        self._controller.start()
        try:
            yield self
        finally:
            self._controller.stop()


@dataclass
class Hook:
    """One request to the Slack webhook."""

    path: str
    key: str  # X-Idempotency-Key
    text: str
    at: float
    body: dict[str, Any] = field(default_factory=dict)


class Slack:
    """An incoming webhook. While not `answering`, it takes requests in and doesn't answer them.

    `moods` are answers by path: a status, headers and a body, or None for no answer at all.
    """

    def __init__(self) -> None:
        self.hooks: list[Hook] = []
        self.moods: dict[str, tuple[int, dict[str, str], bytes] | None] = {}
        self.answering = threading.Event()
        self.answering.set()
        self.ending = threading.Event()
        slack = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                key = self.headers["X-Idempotency-Key"]
                slack.hooks.append(Hook(self.path, key, body.get("text", ""), time.time(), body))
                mood = slack.moods.get(self.path.strip("/"), (200, {}, b"ok"))
                if mood is None:
                    slack.ending.wait(30)
                    return
                status, headers, said = mood
                slack.answering.wait(30)
                with suppress(OSError):  # whoever asked may be dead by now
                    self.send_response(status)
                    for name, value in headers.items():
                        self.send_header(name, value)
                    self.send_header("Content-Length", str(len(said)))
                    self.end_headers()
                    self.wfile.write(said)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def got(self, path: str, words: str = "") -> list[Hook]:
        return [hook for hook in self.hooks if hook.path == f"/{path}" and words in hook.text]

    @contextmanager
    def open(self) -> Iterator[Slack]:
        thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self.answering.set()
            self.ending.set()
            self._server.shutdown()
            self._server.server_close()


class Cable:
    """A way through to a local port that can be pulled out and put in again."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = free_port()
        self._listener: socket.socket | None = None
        self._open: set[socket.socket] = set()

    def put_in(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def pull_out(self) -> None:
        """Refuse new connections and break those that are open."""
        listener, self._listener = self._listener, None
        if listener is not None:
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        for connection in list(self._open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(("127.0.0.1", self.target), timeout=10)
            except OSError:
                near.close()
                continue
            far.settimeout(None)
            self._open |= {near, far}
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._carry, args=(source, sink), daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65_536):
                sink.sendall(data)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        self._open.discard(source)
        source.close()

    @contextmanager
    def connected(self) -> Iterator[Cable]:
        self.put_in()
        try:
            yield self
        finally:
            self.pull_out()
