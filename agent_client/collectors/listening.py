"""Which TCP ports are listened on here, by the kernel's own table."""

from __future__ import annotations

import os
import threading
import time

_LISTEN = "0A"
#: The table holds every connection too, and takes long on a busy host.
_KEPT_FOR = 30.0


class Listeners:
    """The addresses by their port, read anew when the last look is older than half a minute."""

    def __init__(self, folder: str = "/proc/net") -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._addresses: dict[int, str] = {}
        self._read_at = -_KEPT_FOR

    def address(self, port: int) -> str:
        """An address at which `port` is listened on in our network namespace; empty if on none.

        What listens on all addresses is reached on loopback.
        """
        with self._lock:
            now = time.monotonic()
            if now - self._read_at >= _KEPT_FOR:
                self._addresses, self._read_at = self._read(), now
            return self._addresses.get(port, "")

    def _read(self) -> dict[int, str]:
        found: dict[int, str] = {}
        for table in ("tcp", "tcp6"):
            try:
                with open(os.path.join(self._folder, table), encoding="ascii") as file:
                    next(file, None)
                    for line in file:
                        columns = line.split(None, 4)
                        if columns[3] == _LISTEN:
                            address, _, port = columns[1].partition(":")
                            found.setdefault(int(port, 16), _address(address))
            except OSError:
                continue  # no IPv6 here
        return found


_here = Listeners()
#: Of this host.
listening = _here.address


def _address(text: str) -> str:
    """The kernel writes each word of an address in this machine's byte order."""
    words = [bytes.fromhex(text[at : at + 8])[::-1] for at in range(0, len(text), 8)]
    raw = b"".join(words)
    if not any(raw):
        return "127.0.0.1"
    if len(raw) == 4:
        return ".".join(str(byte) for byte in raw)
    if raw[:12] == b"\0" * 10 + b"\xff\xff":
        return ".".join(str(byte) for byte in raw[12:])
    return ":".join(raw[at : at + 2].hex() for at in range(0, 16, 2))
