"""HAProxy, by the statistics of its socket."""

from __future__ import annotations

import csv
import glob
import io
import re
import socket
from typing import Mapping

from agent_client.collector import News, Points
from agent_client.collectors.pack import Pack

_CONFIGURATION = "/etc/haproxy/haproxy.cfg"
_SOCKET = re.compile(r"^\s*stats\s+socket\s+(?:unix@)?(/\S+)", re.MULTILINE)
_TIMEOUT = 2.0
_MOST = 8 * 1024 * 1024


class HaProxy(Pack):
    """Each frontend, backend and server: is it up, sessions against their limit, queue, errors.

    Asked at the sockets of the configuration, else at the `stats socket` of haproxy.cfg. What goes
    down or up is an event. `up` of a server that is not checked is 1.
    """

    name = "haproxy"

    def __init__(self, config: object, configuration: str = _CONFIGURATION) -> None:
        super().__init__(config)
        self._configuration = configuration
        self._states: dict[tuple[str, str], bool] = {}

    def look(self, points: Points) -> None:
        paths = self._sockets()
        if not paths:
            points.nothing("no statistics socket of HAProxy is here, and [haproxy] names none")
        for path in paths:
            try:
                rows = statistics(path)
            except PermissionError:
                points.warn(f"{path}: no right to connect; add the agent's user to its group")
                continue
            except (OSError, ValueError) as error:
                points.warn(f"{path}: {getattr(error, 'strerror', None) or error}")
                continue
            for row in rows:
                self._add(row, points)

    def _sockets(self) -> tuple[str, ...]:
        if self.config.packs.haproxy:
            return self.config.packs.haproxy
        try:
            with open(self._configuration, encoding="utf-8", errors="replace") as file:
                found = _SOCKET.findall(file.read())
        except OSError:
            return ()
        return tuple(path for path in found if glob.glob(glob.escape(path)))

    def _add(self, row: Mapping[str, str], points: Points) -> None:
        proxy, server = row["pxname"], row["svname"]
        status = row["status"].split(" ")[0]
        up = status in ("UP", "OPEN", "no")  # "no check"
        points.add(
            "haproxy",
            {
                "up": up,
                **{name: _number(row.get(column, "")) for name, column in _FIELDS.items()},
                "check_seconds": _milliseconds(row.get("check_duration", "")),
                "answer_seconds": _milliseconds(row.get("ttime", "")),
            },
            {"proxy": proxy, "server": server},
        )
        key = (proxy, server)
        before = self._states.get(key)
        self._states[key] = up
        if before is not None and before != up:
            why = f": {row['last_chk']}" if not up and row.get("last_chk") else ""
            points.tell(
                News(
                    "info" if up else "error",
                    f"HAProxy: {server} of {proxy} is {row['status']}{why}",
                    "haproxy",
                    "sentinella.haproxy",
                )
            )


_FIELDS = {
    "sessions": "scur",
    "sessions_limit": "slim",
    "sessions_total": "stot",
    "queue": "qcur",
    "received_bytes": "bin",
    "sent_bytes": "bout",
    "connection_errors": "econ",
    "response_errors": "eresp",
    "refused_requests": "dreq",
    "responses_5xx": "hrsp_5xx",
    "servers_up": "act",
    "down_seconds": "downtime",
}


def statistics(path: str) -> list[dict[str, str]]:
    """What `show stat` answers. Raises OSError, or ValueError if that is no HAProxy."""
    with socket.socket(socket.AF_UNIX) as link:
        link.settimeout(_TIMEOUT)
        link.connect(path)
        link.sendall(b"show stat\n")
        text = b""
        while True:
            more = link.recv(65_536)
            if not more:
                break
            text += more
            if len(text) > _MOST:
                raise ValueError("the answer is too long")
    lines = text.decode("utf-8", "replace")
    if not lines.startswith("# pxname,svname,"):
        raise ValueError("the answer is not HAProxy's")
    return list(csv.DictReader(io.StringIO(lines[2:].strip() + "\n")))


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None  # not of this kind of row


def _milliseconds(text: str) -> float | None:
    number = _number(text)
    return None if number is None else number / 1000.0
