"""RabbitMQ, the organ of OpenStack that fails silently."""

from __future__ import annotations

import base64
import http.client
import json
import re
import socket
import ssl
import time
from typing import Any
from urllib.parse import urlsplit

from agent_client.bounded import ends_within
from agent_client.collector import News, Points
from agent_client.collectors.listening import listening
from agent_client.collectors.pack import Pack

_AMQP, _AMQPS, _PROMETHEUS = 5672, 5671, 15692
_TIMEOUT, _LONGEST_ANSWER = 3.0, 10.0
_MOST = 16 * 1024 * 1024
#: Queues that are named with their numbers: those where most waits and nobody takes.
_QUEUES_NAMED = 10
_SAMPLE = re.compile(r"^([a-zA-Z_:][\w:]*)(?:\{[^}]*\})? ([-+\d.eE]+)$", re.MULTILINE)
_COLUMNS = "name,vhost,messages,messages_ready,consumers"


class RabbitMq(Pack):
    """Does AMQP answer; alarms, connections, queues and what waits in them; partitions.

    Three ways, as far as they are open: the AMQP port, which needs no right; the Prometheus plugin
    (15692), which needs none either; and the management plugin with the user of `[rabbitmq]` (tag
    `monitoring`), which alone knows partitions and single queues. Alarms and partitions are events.
    """

    name = "rabbitmq"

    def __init__(self, config: object) -> None:
        super().__init__(config)
        self._told: dict[str, bool] = {}

    def look(self, points: Points) -> None:
        packs = self.config.packs
        port = next((one for one in (_AMQP, _AMQPS) if listening(one)), 0)
        if not port and not packs.rabbitmq_url:
            points.nothing("no RabbitMQ listens here, and [rabbitmq] names none")
            return
        fields: dict[str, float | None] = {}
        if port:
            fields.update(self._knock(listening(port), port, points))
        if listening(_PROMETHEUS):
            try:
                fields.update(exported(_get(f"http://127.0.0.1:{_PROMETHEUS}/metrics")))
            except (OSError, ValueError, http.client.HTTPException) as error:
                points.warn(f"port {_PROMETHEUS}: {error}")
        if packs.rabbitmq_url:
            try:
                fields.update(self._managed(points))
            except (OSError, ValueError, http.client.HTTPException) as error:
                points.warn(f"{packs.rabbitmq_url}: {error}")
        points.add("rabbitmq", fields)
        self._tell(fields, points)

    def _knock(self, host: str, port: int, points: Points) -> dict[str, float | None]:
        began = time.monotonic()
        try:
            knock(host, port)
        except OSError as error:
            points.warn(f"AMQP at {host}:{port}: {error}")
            return {"up": 0}
        return {"up": 1, "answer_seconds": round(time.monotonic() - began, 4)}

    def _managed(self, points: Points) -> dict[str, float | None]:
        nodes = self._ask("nodes?columns=name,running,partitions,mem_alarm,disk_free_alarm")
        queues = self._ask(f"queues?columns={_COLUMNS}&disable_stats=true&enable_queue_totals=true")
        without = [one for one in queues if not one.get("consumers") and one.get("messages")]
        fullest = sorted(queues, key=lambda one: -int(one.get("messages") or 0))[:_QUEUES_NAMED]
        worst = sorted(without, key=lambda one: -int(one["messages"]))[:_QUEUES_NAMED]
        named = {(one["vhost"], one["name"]): one for one in worst + fullest if one.get("messages")}
        for (vhost, name), one in named.items():
            points.add(
                "rabbitmq_queue",
                {"messages": one["messages"], "consumers": one.get("consumers")},
                {"vhost": vhost, "queue": name[:200]},
            )
        return {
            "nodes": len(nodes),
            "nodes_running": sum(bool(one.get("running")) for one in nodes),
            "partitions": sum(len(one.get("partitions") or []) for one in nodes),
            "alarm_memory": any(one.get("mem_alarm") for one in nodes),
            "alarm_disk": any(one.get("disk_free_alarm") for one in nodes),
            "queues": len(queues),
            "queues_without_consumer": len(without),
            "messages_without_consumer": sum(int(one["messages"]) for one in without),
        }

    def _ask(self, path: str) -> list[dict[str, Any]]:
        packs = self.config.packs
        text = _get(
            f"{packs.rabbitmq_url}/api/{path}",
            packs.rabbitmq_user,
            packs.rabbitmq_password,
            packs.rabbitmq_ca_file,
        )
        found = json.loads(text)
        if not isinstance(found, list):
            raise ValueError("the answer is not RabbitMQ's")
        return found

    def _tell(self, fields: dict[str, float | None], points: Points) -> None:
        for name, text in _NEWS.items():
            if fields.get(name) is None:
                continue
            bad = bool(fields[name])
            if bad != self._told.get(name, False):
                self._told[name] = bad
                points.tell(
                    News(
                        "critical" if bad else "info",
                        f"RabbitMQ: {text}" if bad else f"RabbitMQ: over: {text}",
                        "rabbitmq",
                        "sentinella.rabbitmq",
                    )
                )


_NEWS = {
    "alarm_memory": "the memory alarm blocks everybody who publishes; see what fills its queues",
    "alarm_disk": "the disk alarm blocks everybody who publishes; make room on its disk",
    "partitions": "the cluster is parted: its nodes do not see each other",
}
_EXPORTED = {
    "connections": "rabbitmq_connections",
    "channels": "rabbitmq_channels",
    "queues": "rabbitmq_queues",
    "consumers": "rabbitmq_consumers",
    "messages_ready": "rabbitmq_queue_messages_ready",
    "messages_unacknowledged": "rabbitmq_queue_messages_unacked",
    "memory_bytes": "rabbitmq_process_resident_memory_bytes",
    "memory_limit_bytes": "rabbitmq_resident_memory_limit_bytes",
    "disk_free_bytes": "rabbitmq_disk_space_available_bytes",
    "disk_free_limit_bytes": "rabbitmq_disk_space_available_limit_bytes",
    "descriptors": "rabbitmq_process_open_fds",
    "descriptors_limit": "rabbitmq_process_max_fds",
    "connections_opened": "rabbitmq_connections_opened_total",
    "connections_closed": "rabbitmq_connections_closed_total",
    "alarm_memory": "rabbitmq_alarms_memory_used_watermark",
    "alarm_disk": "rabbitmq_alarms_free_disk_space_watermark",
    "alarm_descriptors": "rabbitmq_alarms_file_descriptor_limit",
}


def exported(text: str) -> dict[str, float | None]:
    """The fields of the Prometheus plugin's page; a number that has several rows is their sum."""
    sums: dict[str, float] = {}
    for name, value in _SAMPLE.findall(text):
        sums[name] = sums.get(name, 0.0) + float(value)
    if "rabbitmq_connections" not in sums:
        raise ValueError("the page is not RabbitMQ's")
    return {field: sums.get(name) for field, name in _EXPORTED.items()}


def knock(host: str, port: int) -> None:
    """Connect and leave. Raises OSError. Whoever says a word and leaves fills the broker's log."""
    with socket.create_connection((host, port), timeout=_TIMEOUT):
        pass


def _get(url: str, user: str = "", password: str = "", ca_file: str = "") -> str:
    parts = urlsplit(url)
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        context = ssl.create_default_context(cafile=ca_file or None)
        connection = http.client.HTTPSConnection(
            parts.hostname or "", parts.port, timeout=_TIMEOUT, context=context
        )
    else:
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=_TIMEOUT)
    ends_within(connection, _LONGEST_ANSWER)
    headers = {"Accept": "*/*"}
    if user:
        login = base64.b64encode(f"{user}:{password}".encode()).decode()
        headers["Authorization"] = f"Basic {login}"
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    try:
        connection.request("GET", target or "/", headers=headers)
        answer = connection.getresponse()
        content = answer.read(_MOST)
    finally:
        connection.close()
    if answer.status == 401:
        raise ValueError("401: wrong user or password, or without the tag monitoring")
    if answer.status != 200:
        raise ValueError(f"HTTP {answer.status} {answer.reason}")
    return content.decode("utf-8", "replace")
