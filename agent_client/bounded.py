"""HTTP answers that come to an end, whoever gives them.

A socket's timeout counts each wait by itself: one byte at a time, an answer may take days.
"""

from __future__ import annotations

import functools
import http.client
import io
import socket
import time
from typing import Any


class _Reading(io.RawIOBase):
    """What a socket brings until a moment (monotonic seconds); then it is a timeout."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket, ends_at: float) -> None:
        self._raw = raw
        self._sock = sock
        self._ends_at = ends_at

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self._ends_at - time.monotonic()
        if left <= 0:
            raise socket.timeout("timed out")
        usual = self._sock.gettimeout()
        self._sock.settimeout(left if usual is None else min(usual, left))
        try:
            return self._raw.readinto(buffer)
        finally:
            self._sock.settimeout(usual)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Answer(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, longest: float, **more: Any) -> None:
        super().__init__(sock, *args, **more)
        ends_at = time.monotonic() + longest
        self.fp = io.BufferedReader(_Reading(self.fp.detach(), sock, ends_at))


def ends_within(connection: http.client.HTTPConnection, seconds: float) -> None:
    """Have each answer on this connection read in so long, or end as a timeout (OSError)."""
    connection.response_class = functools.partial(  # type: ignore[assignment]
        _Answer, longest=seconds
    )
