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
from typing import Iterable, Mapping

_LISTEN = "0A"  # include/net/tcp_states.h: TCP_LISTEN
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
    """All listening TCP sockets. Raises OSError where the kernel's table cannot be read."""
    found = []
    for name, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        try:
            with open(f"{proc}/net/{name}", encoding="ascii", errors="replace") as file:
                lines = file.read().splitlines()[1:]
        except FileNotFoundError:
            if name == "tcp":
                raise
            continue  # no IPv6
        for line in lines:
            if f" {_LISTEN} " not in line:
                continue
            columns = line.split()
            if len(columns) > 9 and columns[3] == _LISTEN:
                address, _, port = columns[1].partition(":")
                found.append(Listener(_address(address, family), int(port, 16), int(columns[9])))
    return found


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
    address = socket.inet_ntop(family, packed)
    return address[len("::ffff:") :] if address.startswith("::ffff:") else address
