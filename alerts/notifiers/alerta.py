"""An Alerta server that is there already: each transition as an alert of its API.

Sources: Alerta's API reference (POST /alert; the status follows from the severity).
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlsplit

from alerts.notifiers import outgoing
from alerts.notifiers.base import Field, Message, Receipt
from sentinel_site.kit import outbound

#: Alerta's names; `normal` closes an alert there.
_SEVERITIES = {
    "critical": "critical",
    "error": "major",
    "warning": "warning",
    "info": "informational",
}
_MOST = 200  # of a digest, one alert each


class Alerta:
    """One alert for each incident; Alerta itself knows one that it has by its names."""

    name = "alerta"
    label = "Alerta"
    fields: tuple[Field, ...] = (
        Field("url", "API URL", "As https://alerta.example.org/api, without /alert."),
        Field("key", "API key", "With the scope write:alerts.", secret=True),
        Field("environment", "Environment", "As Production; one that the server allows."),
    )

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
        receipt = Receipt()
        for body in _alerts(message, str(config["environment"]).strip()):
            receipt = outgoing.deliver(url, json.dumps(body).encode(), headers, tls_only=True)
        return receipt


def _alerts(message: Message, environment: str) -> list[dict[str, Any]]:
    common = {
        "environment": environment,
        "origin": "sentinella",
        "group": "Sentinella",
        "createTime": message.at.strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z",
        "tags": [message.organization],
    }
    if message.items:
        return [
            {
                **common,
                "resource": f"incident {item.incident}",
                "event": item.title,
                "severity": "normal" if item.is_resolved else _SEVERITIES[item.severity],
                "service": ["sentinella"],
                "text": item.title,
                "attributes": {"link": item.link, "key": message.key},
            }
            for item in message.items[:_MOST]
        ]
    return [
        {
            **common,
            "resource": message.server or message.organization,
            "event": message.title,
            "severity": "normal" if message.is_resolved else _SEVERITIES[message.severity],
            "service": [message.service],
            "value": message.subject,
            "text": message.text,
            "attributes": {
                "link": message.link,
                "advice": message.advice,
                "key": message.key,
                "thread": message.thread,
            },
        }
    ]
