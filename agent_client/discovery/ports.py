"""Which TCP ports listen on this host, whose they are, and whether they answer."""

from __future__ import annotations

import binascii
import dataclasses
import errno
import os
import re
import selectors
import socket
import struct
import sys
import time
from typing import Iterable, Iterator, Mapping

_LISTEN = "0A"  # include/net/tcp_states.h: TCP_LISTEN
_FAMILIES = {"tcp": socket.AF_INET, "tcp6": socket.AF_INET6}
# linux/netlink.h and linux/sock_diag.h
_SOCK_DIAG, _BY_FAMILY, _DUMP, _ERROR, _DONE = 4, 20, 0x301, 2, 3
_SOCKET = re.compile(r"socket:\[(\d+)\]$")
#: Asked in words that the service knows, so that its log shows a request and no broken client.
_QUESTIONS = {
    "http": b"GET / HTTP/1.0\r\nHost: localhost\r\nUser-Agent: sentinella-agent\r\n\r\n",
    "redis": b"PING\r\n",
    "memcached": b"version\r\n",
}


@dataclasses.dataclass(frozen=True)
class Listener:
    """A listening TCP socket; `reachable` where it is in the host's own network."""

    address: str
    port: int
    inode: int
    reachable: bool = True


def listeners(proc: str) -> list[Listener]:
    """All listening TCP sockets of a process's network (`/proc/PID`), or of ours (`/proc`).

    The kernel's files list every connection, and it takes long to write them on a busy host; of our
    own network it is asked for what listens alone. Raises OSError where neither is permitted.
    """
    if proc == "/proc":
        try:
            return [one for family in _FAMILIES.values() for one in _diagnosed(family)]
        except OSError:
            pass  # no such socket family in a sandbox: the files say the same
    found: list[Listener] = []
    for name, family in _FAMILIES.items():
        try:
            with open(f"{proc}/net/{name}", encoding="ascii", errors="replace") as file:
                # Of a hundred thousand connections, never all at once.
                found += filter(None, (_listener(line, family) for line in file))
        except FileNotFoundError:
            if name == "tcp":
                raise
    return found


def _listener(line: str, family: int) -> Listener | None:
    """The listening socket that a row of the kernel's table tells of, if it does."""
    columns = line.split() if f" {_LISTEN} " in line else []
    if len(columns) <= 9 or columns[3] != _LISTEN:
        return None
    address, _, port = columns[1].partition(":")
    return Listener(_address(address, family), int(port, 16), int(columns[9]))


def network_of(proc: str, pid: int) -> str:
    """Which network a process is in, as the kernel names it; empty where it may not be seen."""
    try:
        return os.readlink(f"{proc}/{pid}/ns/net")
    except OSError:
        return ""


def _diagnosed(family: int) -> Iterator[Listener]:
    """What listens, asked of the kernel. Format: sock_diag(7), linux/inet_diag.h."""
    request = struct.pack("=BBBxI48x", family, socket.IPPROTO_TCP, 0, 1 << int(_LISTEN, 16))
    header = struct.pack("=IHHII", 16 + len(request), _BY_FAMILY, _DUMP, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _SOCK_DIAG) as kernel:
        kernel.settimeout(2.0)
        kernel.send(header + request)
        while True:
            answer = kernel.recv(65_536)
            at = 0
            while at + 16 <= len(answer):
                length, kind = struct.unpack_from("=IH", answer, at)
                if kind == _DONE or length < 16:
                    return
                if kind == _ERROR:
                    raise OSError(-struct.unpack_from("=i", answer, at + 16)[0], "sock_diag")
                raw, inode = answer[at + 24 : at + 40], struct.unpack_from("=I", answer, at + 84)[0]
                (port,) = struct.unpack_from(">H", answer, at + 20)
                packed = raw[:4] if family == socket.AF_INET else raw
                yield Listener(_plain(socket.inet_ntop(family, packed)), port, inode)
                at += (length + 3) & ~3


def owned(proc: str, pid: int, inodes: Mapping[int, Listener]) -> set[int] | None:
    """The inodes of the listening sockets that a process holds; None where it may not be seen."""
    folder = f"{proc}/{pid}/fd"
    found = set()
    try:
        names = os.listdir(folder)
    except OSError:
        return None
    for name in names:
        try:
            match = _SOCKET.match(os.readlink(f"{folder}/{name}"))
        except OSError:
            continue  # closed since it was listed
        if match and int(match.group(1)) in inodes:
            found.add(int(match.group(1)))
    return found


def silent(asked: Iterable[tuple[Listener, str]], seconds: float = 2.0) -> set[Listener]:
    """Those of the listeners that do not answer within so many seconds.

    Asked all at once, each by its probe. Any byte, and a connection closed in answer, is an
    answer: a TLS port refuses plain HTTP, and lives.
    """
    waiting: dict[socket.socket, tuple[Listener, bytes]] = {}
    quiet: set[Listener] = set()
    with selectors.DefaultSelector() as selector:
        try:
            for listener, probe in asked:
                quiet.add(listener)
                connection = _connecting(listener)
                if connection is not None:
                    waiting[connection] = (listener, _QUESTIONS[probe])
                    selector.register(connection, selectors.EVENT_WRITE, connection)
            until = time.monotonic() + seconds
            while waiting and time.monotonic() < until:
                for key, _ in selector.select(max(0.0, until - time.monotonic())):
                    connected: socket.socket = key.data
                    listener, question = waiting[connected]
                    if question:
                        goes_on = _send(connected, question)
                        waiting[connected] = (listener, b"")
                        if goes_on:
                            selector.modify(connected, selectors.EVENT_READ, connected)
                            continue
                    elif _is_answer(connected):
                        quiet.discard(listener)
                    selector.unregister(connected)
                    waiting.pop(connected)
                    connected.close()
        finally:
            for connection in waiting:
                connection.close()
    return quiet


def _connecting(listener: Listener) -> socket.socket | None:
    # What listens on every address is asked on the loopback; IPv6 may be switched off there.
    every = {"0.0.0.0": ("127.0.0.1",), "::": ("::1", "127.0.0.1")}  # noqa: S104
    for address in every.get(listener.address, (listener.address,)):
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        try:
            connection = socket.socket(family, socket.SOCK_STREAM)
        except OSError:
            continue  # no such family here
        connection.setblocking(False)
        if connection.connect_ex((address, listener.port)) in (0, errno.EINPROGRESS):
            return connection
        connection.close()
    return None


def _send(connection: socket.socket, question: bytes) -> bool:
    try:
        connection.send(question)
    except OSError:
        return False  # refused
    return True


def _is_answer(connection: socket.socket) -> bool:
    try:
        connection.recv(64)
    except ConnectionResetError:
        return True  # it did not like the question
    except OSError:
        return False
    return True


def _address(text: str, family: int) -> str:
    """An address as the kernel prints it: 32-bit words in the machine's own order."""
    raw = binascii.unhexlify(text)
    words = struct.unpack(f">{len(raw) // 4}I", raw)
    packed = struct.pack(f"{'<' if sys.byteorder == 'little' else '>'}{len(words)}I", *words)
    return _plain(socket.inet_ntop(family, packed))


def _plain(address: str) -> str:
    return address[len("::ffff:") :] if address.startswith("::ffff:") else address
