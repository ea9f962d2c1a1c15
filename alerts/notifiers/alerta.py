"""An Alerta server that is there already: each incident as an alert of its API.

Sources: Alerta's API reference (POST /alert; alerts are the same by environment, resource and
event; the status follows from the severity).
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

from alerts.notifiers import outgoing
from alerts.notifiers.base import Field, Message, Receipt, Undelivered
from sentinel_site.kit import outbound

#: Alerta's names; `normal` closes an alert there.
_SEVERITIES = {
    "critical": "critical",
    "error": "major",
    "warning": "warning",
    "info": "informational",
}
_EVENT = "SentinellaIncident"
#: Seconds for all the alerts of one message.
_LONGEST = 10.0


class Alerta:
    """One alert for each incident, called by its number: titles and servers change meanwhile."""

    name = "alerta"
    label = "Alerta"
    fields: tuple[Field, ...] = (
        Field("url", "API URL", "As https://alerta.example.org/api, without /alert."),
        Field("key", "API key", "With the scope write:alerts.", secret=True, sent_to="url"),
        Field("environment", "Environment", "As Production; one that the server allows."),
    )
    most: int | None = 20  # each is a request of its own
    storm_pause = timedelta(seconds=1)  # nobody reads them one by one
    shows_pictures = False

    def errors(self, config: dict[str, Any]) -> list[str]:
        found = [outbound.wrong_with(str(config.get("url", "")))]
        key = str(config.get("key", ""))
        if not key or not key.isascii() or not key.isprintable():
            found.append("Give an API key of that server.")
        if not str(config.get("environment", "")).strip():
            found.append("Give an environment, as Production.")
        return [error for error in found if error]

    def public(self, config: dict[str, Any]) -> dict[str, Any]:
        host = urlsplit(str(config.get("url", ""))).hostname
        return {"url": f"{host}/…", "key": "…", "environment": config.get("environment", "")}

    def send(self, config: dict[str, Any], message: Message) -> Receipt:
        url = str(config["url"]).rstrip("/") + "/alert"
        headers = {
            "Content-Type": "application/json",
            "Authorization": f"Key {config['key']}",
            "X-Idempotency-Key": message.key,
        }
        receipt, end = Receipt(), time.monotonic() + _LONGEST
        for body in _alerts(message, str(config["environment"]).strip()):
            left = end - time.monotonic()
            if left <= 0:
                raise Undelivered(f"It did not take all alerts of a message within {_LONGEST:g} s.")
            receipt = outgoing.deliver(
                url, json.dumps(body).encode(), headers, tls_only=True, within=left
            )
        return receipt


def _alerts(message: Message, environment: str) -> Iterator[dict[str, Any]]:
    common = {
        "environment": environment,
        "event": _EVENT,
        "origin": "sentinella",
        "group": "Sentinella",
        "createTime": message.at.strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z",
        "tags": [message.organization],
    }
    for item in message.items:
        said = {
            **common,
            "service": ["sentinella"],
            "value": item.title,
            "text": item.title,
            "attributes": {"link": item.link, "key": message.key},
        }
        yield {
            **said,
            "resource": _resource(item.incident),
            "severity": "normal" if item.is_resolved else _SEVERITIES[item.severity],
        }
        yield from _closed(said, item.merged)
    if message.items:
        return
    said = {
        **common,
        "service": [message.service],
        "value": message.heading,
        "text": message.text,
        "attributes": {
            "link": message.link,
            "server": message.server,
            "subject": message.subject,
            "advice": message.advice,
            "key": message.key,
            "thread": message.thread,
        },
    }
    yield {
        **said,
        "resource": _resource(message.incident),
        "severity": "normal" if message.is_resolved else _SEVERITIES[message.severity],
    }
    yield from _closed(said, message.merged)


def _closed(said: dict[str, Any], merged: tuple[int, ...]) -> Iterator[dict[str, Any]]:
    """The ends of incidents that ended within another one."""
    for one in merged:
        yield {**said, "resource": _resource(one), "severity": "normal"}


def _resource(incident: int | None) -> str:
    return f"incident {incident}" if incident is not None else "test"
