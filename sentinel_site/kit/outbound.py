"""Requests to addresses that people typed in: never into our own network, unless that is wanted.

The name is looked up once, every address found is checked, and the connection made to one of those
very addresses, so that a name which changes its mind in between gains nothing. TLS and `Host` keep
the name. Redirects are not followed, and proxies of the environment not used: both would lead past
the check.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any
from urllib.parse import SplitResult, urlsplit

import urllib3
from django.conf import settings
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import NewConnectionError

LONGEST = 10.0  # seconds for all of it: an answer that comes byte by byte keeps a read waiting
_LOOK_UP = 5.0
_CONNECT = 4.0  # for each address
_KEPT = 2_000
_AGENT = "Sentinella"

_UNICAST = IPv6Network("2000::/3")  # all of IPv6 that IANA has given out for use
_TRANSLATED = IPv6Network("64:ff9b::/96")  # RFC 6052: IPv4 through NAT64
_NOT_FOR_USE = (
    ip_network("192.0.0.0/24"),  # RFC 6890: for protocols
    ip_network("192.88.99.0/24"),  # RFC 7526: relays of 6to4, retired
    ip_network("2001::/32"),  # RFC 4380: Teredo, holds an IPv4 address
    ip_network("3fff::/20"),  # RFC 9637: documentation
)

Entry = tuple[int, Any]  # family and address, as `socket` has them


class Refused(Exception):
    """The address is not one that may be asked, or cannot be found. The text says why."""


class Unanswered(Exception):
    """It was asked, and no whole answer came. The text says why."""


@dataclass(frozen=True)
class Answer:
    """Status, headers and the first bytes of the body as text."""

    status: int
    headers: urllib3.HTTPHeaderDict
    text: str


class _Pinned:
    """A connection to an address that was checked; it is cut off at `end`, whatever it is at."""

    def __init__(self, *args: Any, entries: list[Entry], end: float, **more: Any) -> None:
        super().__init__(*args, **more)
        self._entries, self._until = entries, end
        self._end: tuple[threading.Timer, socket.socket] | None = None

    def _new_conn(self) -> socket.socket:
        try:
            found = _connect(self._entries, self._until)
        except OSError as error:
            raise NewConnectionError(self, f"No connection: {error}") from error  # type: ignore[arg-type]
        twin = found.dup()  # TLS takes `found` away
        timer = threading.Timer(max(self._until - time.monotonic(), 0), _cut, [twin])
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


class _HTTP(_Pinned, HTTPConnection):
    """Pinned."""


class _HTTPS(_Pinned, HTTPSConnection):
    """Pinned; the certificate is held to the name."""


def wrong_with(url: str) -> str:
    """Why this is no address that can be asked, in words; empty when it is one."""
    try:
        parts = urlsplit(url)
        named = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port or an IPv6 address that is none
        named = False
    if not named or not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
        return "Give the whole URL, beginning with https://."
    if "@" in parts.netloc:
        return "Give the URL without a user name and password."
    return ""


def post(
    url: str,
    body: bytes,
    headers: dict[str, str],
    *,
    tls_only: bool = False,
    within: float | None = None,
) -> Answer:
    """POST `within` so many seconds, else LONGEST, without following redirects.

    Raises Refused or Unanswered.

    With `tls_only`, plain http is for networks in OUTGOING_PRIVATE_NETWORKS alone.
    """
    within = LONGEST if within is None else within
    end = time.monotonic() + within
    wrong = wrong_with(url)
    if wrong:
        raise Refused(wrong)
    parts = urlsplit(url)
    host = parts.hostname or ""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    entries = _look_up(host, port)
    for _, address in entries:
        _check(host, str(address[0]), plain=tls_only and parts.scheme == "http")
    times = urllib3.Timeout(connect=_CONNECT, read=LONGEST)
    pool: urllib3.HTTPConnectionPool
    if parts.scheme == "https":
        pool = urllib3.HTTPSConnectionPool(host, port, timeout=times, entries=entries, end=end)
        pool.ConnectionCls = _HTTPS
    else:
        pool = urllib3.HTTPConnectionPool(host, port, timeout=times, entries=entries, end=end)
        pool.ConnectionCls = _HTTP
    try:
        with pool:
            answer = _ask(pool, parts, body, {"User-Agent": _AGENT, **headers})
    except urllib3.exceptions.HTTPError as error:
        if time.monotonic() >= end:
            raise Unanswered(f"No whole answer within {within:g} s.") from error
        raise Unanswered(f"{type(error).__name__}: {error}") from error
    if time.monotonic() >= end:  # cut off in the middle, which reads like an end
        raise Unanswered(f"No whole answer within {within:g} s.")
    return answer


def _ask(
    pool: urllib3.HTTPConnectionPool, parts: SplitResult, body: bytes, headers: dict[str, str]
) -> Answer:
    response = pool.request(
        "POST",
        (parts.path or "/") + (f"?{parts.query}" if parts.query else ""),
        body=body,
        headers={**headers, "Host": parts.netloc},
        redirect=False,
        retries=False,
        preload_content=False,
        decode_content=False,  # a few compressed bytes may be very many
    )
    try:
        text = response.read(_KEPT).decode(errors="replace")
    finally:
        response.close()
    return Answer(response.status, response.headers, text)


def _connect(entries: list[Entry], end: float) -> socket.socket:
    """To the first that takes the connection. Raises OSError."""
    failure: OSError = TimeoutError("timed out")
    for family, address in entries:
        left = end - time.monotonic()
        if left <= 0:
            break
        made = socket.socket(family, socket.SOCK_STREAM)
        try:
            made.settimeout(min(left, _CONNECT))
            made.connect(address)
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as error:
            made.close()
            failure = error
        except BaseException:
            made.close()
            raise
        else:
            return made
    raise failure


def _look_up(host: str, port: int) -> list[Entry]:
    """Where the name leads; in a thread, as looking up knows no limit of time."""
    found: Future[list[Entry]] = Future()

    def ask() -> None:
        try:
            entries = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            found.set_result([(entry[0], entry[4]) for entry in entries])
        except Exception as error:
            found.set_exception(error)

    threading.Thread(target=ask, daemon=True).start()
    try:
        entries = found.result(min(_LOOK_UP, LONGEST))
    except (OSError, UnicodeError) as error:
        raise Refused(f"{host} cannot be found.") from error
    if not entries:
        raise Refused(f"{host} cannot be found.")
    return entries


def _check(host: str, text: str, *, plain: bool) -> None:
    """Raises Refused unless this address may be asked."""
    address = _meant(ip_address(text.partition("%")[0]))
    if any(address in network for network in settings.OUTGOING_PRIVATE_NETWORKS):
        return
    if not is_public(address):
        raise Refused(
            f"{host} is inside a private network. If that is wanted, the installation needs it in "
            "OUTGOING_PRIVATE_NETWORKS."
        )
    if plain:
        raise Refused("Only https addresses are asked.")


def _meant(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """The IPv4 address that an IPv6 address stands for, if it is such a one."""
    if isinstance(address, IPv4Address):
        return address
    if address in _TRANSLATED:
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address.sixtofour or address


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Whether it is one machine of the internet's: global, unicast, and not set aside."""
    if isinstance(address, IPv6Address) and address not in _UNICAST:
        return False
    if address.is_multicast or any(address in network for network in _NOT_FOR_USE):
        return False
    return address.is_global
