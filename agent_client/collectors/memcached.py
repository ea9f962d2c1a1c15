"""memcached, by its own `stats`."""

from __future__ import annotations

import socket
import time

from agent_client.collector import Points
from agent_client.collectors.listening import listening
from agent_client.collectors.pack import Pack

_PORT = 11211
_TIMEOUT = 2.0
_MOST = 64 * 1024


class Memcached(Pack):
    """Memory and connections against their limits; hits, misses and evictions as running totals.

    Asked where the configuration says, else at 11211 if somebody listens there.
    """

    name = "memcached"

    def look(self, points: Points) -> None:
        addresses = self._addresses()
        if not addresses:
            points.nothing(f"no memcached listens here at {_PORT}, and [memcached] names none")
        for address in addresses:
            host, _, port = address.rpartition(":")
            tags = {"address": address}
            began = time.monotonic()
            try:
                said = stats(host.strip("[]"), int(port))
            except (OSError, ValueError) as error:
                points.add("memcached", {"up": 0}, tags)
                points.warn(f"{address}: {error}")
                continue
            fields = {name: said.get(key) for name, key in _FIELDS.items()}
            used, limit = fields["used_bytes"], fields["limit_bytes"]
            hits, misses = said.get("get_hits", 0.0), said.get("get_misses", 0.0)
            points.add(
                "memcached",
                {
                    "up": 1,
                    "answer_seconds": round(time.monotonic() - began, 4),
                    **fields,
                    "used_percent": _percent(used, limit),
                    "hit_percent": _percent(hits, hits + misses),
                },
                tags,
            )

    def _addresses(self) -> tuple[str, ...]:
        if self.config.packs.memcached:
            return self.config.packs.memcached
        host = listening(_PORT)
        return (f"[{host}]:{_PORT}" if ":" in host else f"{host}:{_PORT}",) if host else ()


_FIELDS = {
    "uptime_seconds": "uptime",
    "connections": "curr_connections",
    "connections_limit": "max_connections",
    "connections_refused": "rejected_connections",
    "items": "curr_items",
    "used_bytes": "bytes",
    "limit_bytes": "limit_maxbytes",
    "hits": "get_hits",
    "misses": "get_misses",
    "evictions": "evictions",
}


def stats(host: str, port: int) -> dict[str, float]:
    """What `stats` answers, numbers only. Raises OSError, or ValueError if that is no memcached."""
    with socket.create_connection((host, port), timeout=_TIMEOUT) as link:
        link.sendall(b"stats\r\n")
        text = b""
        while not text.endswith(b"END\r\n"):
            more = link.recv(8192)
            text += more
            if not more or len(text) > _MOST:
                raise ValueError("the answer is not memcached's")
    found = {}
    for line in text.decode("ascii", "replace").splitlines():
        words = line.split(" ", 2)
        if len(words) == 3 and words[0] == "STAT":
            try:
                found[words[1]] = float(words[2])
            except ValueError:
                continue  # a version, a name
    return found


def _percent(part: float | None, whole: float | None) -> float | None:
    return round(100.0 * part / whole, 3) if part is not None and whole else None
