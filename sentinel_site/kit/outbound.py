"""Requests to addresses that people typed in: never into our own network, unless that is wanted.

The name is looked up once, its address checked, and the connection made to that very address, so
that a name which changes its mind in between gains nothing.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import threading
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import urllib3
from django.conf import settings
from urllib3.connection import HTTPConnection, HTTPSConnection

_TIMES = urllib3.Timeout(connect=5, read=10)
_LONGEST = 20.0  # of all: an answer that comes byte by byte never exceeds a time limit for reading
_KEPT = 2_000


class Refused(Exception):
    """The address is not one that may be asked, or cannot be found. The text says why."""


@dataclass(frozen=True)
class Answer:
    """Status, headers and the first bytes of the body as text."""

    status: int
    headers: urllib3.HTTPHeaderDict
    text: str


class _Bounded:
    """A connection that is cut off after `_LONGEST`, whatever it is at."""

    _end: tuple[threading.Timer, socket.socket] | None = None

    def _new_conn(self) -> Any:
        found = super()._new_conn()  # type: ignore[misc]
        twin = found.dup()  # TLS takes `found` away
        timer = threading.Timer(_LONGEST, _cut, [twin])
        timer.daemon = True
        timer.start()
        self._end = timer, twin
        return found

    def close(self) -> None:
        if self._end is not None:
            timer, twin = self._end
            timer.cancel()
            twin.close()
        super().close()  # type: ignore[misc]


def _cut(twin: socket.socket) -> None:
    with contextlib.suppress(OSError):
        twin.shutdown(socket.SHUT_RDWR)


class _HTTP(_Bounded, HTTPConnection):
    """Bounded."""


class _HTTPS(_Bounded, HTTPSConnection):
    """Bounded."""


def post(url: str, body: bytes, headers: dict[str, str]) -> Answer:
    """POST without following redirects. Raises Refused or urllib3.exceptions.HTTPError."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    address = _allowed_address(host, port)
    pool: urllib3.HTTPConnectionPool
    if parts.scheme == "https":
        pool = urllib3.HTTPSConnectionPool(
            address, port, timeout=_TIMES, server_hostname=host, assert_hostname=host
        )
        pool.ConnectionCls = _HTTPS
    elif settings.WEBHOOKS_TO_PRIVATE:
        pool = urllib3.HTTPConnectionPool(address, port, timeout=_TIMES)
        pool.ConnectionCls = _HTTP
    else:
        raise Refused("Only https addresses are asked.")
    with pool:
        response = pool.request(
            "POST",
            parts._replace(scheme="", netloc="").geturl() or "/",
            body=body,
            headers={**headers, "Host": parts.netloc.rpartition("@")[2]},
            redirect=False,
            retries=False,
            preload_content=False,
        )
        text = response.read(_KEPT).decode(errors="replace")
        response.release_conn()
    return Answer(response.status, response.headers, text)


def _allowed_address(host: str, port: int) -> str:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise Refused(f"{host} cannot be found.") from error
    addresses = [str(entry[4][0]) for entry in found]
    if not settings.WEBHOOKS_TO_PRIVATE:
        for address in addresses:
            if not ipaddress.ip_address(address.partition("%")[0]).is_global:
                raise Refused(
                    f"{host} is inside a private network. If that is wanted, the installation "
                    "needs WEBHOOKS_TO_PRIVATE=true."
                )
    return addresses[0]
