"""Who takes a POST on the other side of a channel, and names that lead there."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any


class Receiver(ThreadingHTTPServer):
    """Keeps requests and answers with what the test chose."""

    def __init__(self, address: str = "127.0.0.1", port: int = 0) -> None:
        self.requests: list[tuple[dict[str, str], bytes]] = []
        self.paths: list[str] = []
        self.answer, self.headers, self.body = 200, {}, b""
        super().__init__((address, port), _Handler)

    def server_bind(self) -> None:
        """Without looking up what the address is called."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = "receiver", self.server_address[1]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/services/T/B/secret"

    @contextmanager
    def open(self, tls: ssl.SSLContext | None = None) -> Iterator[Receiver]:
        if tls is not None:
            self.socket = tls.wrap_socket(
                self.socket, server_side=True, do_handshake_on_connect=False
            )
        thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield self
        finally:
            self.shutdown()
            thread.join()
            self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Whoever hangs up in between is part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.requests.append((dict(self.headers), body))
        self.server.paths.append(self.path)
        self.send_response(self.server.answer)
        for name, value in self.server.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(self.server.body)))
        self.end_headers()
        self.wfile.write(self.server.body)

    def log_message(self, *args: Any) -> None:
        pass


class Resolver:
    """Names lead where the test says, each time to the next of them; literals as ever."""

    def __init__(self, real: Any) -> None:
        self._real, self._names = real, {}
        self.asked: list[str] = []

    def leads(self, name: str, *answers: str | list[str]) -> None:
        self._names[name] = [[one] if isinstance(one, str) else one for one in answers]

    def __call__(self, host: Any, port: Any, *args: Any, **more: Any) -> Any:
        if host not in self._names:
            return self._real(host, port, *args, **more)
        self.asked.append(host)
        answers = self._names[host]
        found = answers.pop(0) if len(answers) > 1 else answers[0]
        kind = socket.SOCK_STREAM
        return [
            (socket.AF_INET6, kind, 6, "", (address, port, 0, 0))
            if ":" in address
            else (socket.AF_INET, kind, 6, "", (address, port))
            for address in found
        ]
