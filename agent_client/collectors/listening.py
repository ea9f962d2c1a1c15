"""Which TCP ports are listened on here."""

from __future__ import annotations

import threading
import time

from agent_client.discovery import ports

_KEPT_FOR = 30.0


class Listeners:
    """The addresses by their port, read anew when the last look is older than half a minute."""

    def __init__(self, proc: str = "/proc") -> None:
        self._proc = proc
        self._lock = threading.Lock()
        self._addresses: dict[int, str] = {}
        self._read_at = -_KEPT_FOR

    def address(self, port: int) -> str:
        """An address at which `port` is listened on in our network namespace; empty if on none.

        What listens on all addresses is reached on loopback. Raises OSError where the kernel tells
        nothing.
        """
        with self._lock:
            now = time.monotonic()
            if now - self._read_at >= _KEPT_FOR:
                self._addresses, self._read_at = self._read(), now
            return self._addresses.get(port, "")

    def _read(self) -> dict[int, str]:
        found: dict[int, str] = {}
        for one in ports.listeners(self._proc):
            every = one.address in ("0.0.0.0", "::")  # noqa: S104
            found.setdefault(one.port, "127.0.0.1" if every else one.address)
        return found


_here = Listeners()
#: Of this host.
listening = _here.address
