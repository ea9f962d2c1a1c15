"""Slack, by an incoming webhook (https://api.slack.com/messaging/webhooks)."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlsplit

from alerts.notifiers import outgoing
from alerts.notifiers.base import Field, Message, Receipt
from sentinel_site.kit import outbound

_COLORS = {"critical": "#d63939", "error": "#e8590c", "warning": "#f59f00", "info": "#4299e1"}
_RESOLVED = "#2fb344"
NAMED = 10  # incidents of a digest that are named


class Slack:
    """One message a transition. The key goes along in X-Idempotency-Key."""

    name = "slack"
    label = "Slack"
    fields: tuple[Field, ...] = (
        Field("url", "Webhook URL", "From Slack: Apps, Incoming Webhooks.", secret=True),
    )

    def errors(self, config: dict[str, Any]) -> list[str]:
        wrong = outbound.wrong_with(str(config.get("url", "")))
        return [wrong] if wrong else []

    def public(self, config: dict[str, Any]) -> dict[str, Any]:
        return {"url": f"{urlsplit(str(config.get('url', ''))).hostname}/…"}

    def send(self, config: dict[str, Any], message: Message) -> Receipt:
        return outgoing.deliver(
            config["url"],
            json.dumps(_payload(message)).encode(),
            {"Content-Type": "application/json", "X-Idempotency-Key": message.key},
            tls_only=True,  # the URL is the secret
        )


def _payload(message: Message) -> dict[str, Any]:
    title = f"{message.state}: {message.heading}"
    lines = [f"*<{message.link}|{_escape(title)}>*", _escape(message.text)]
    if message.advice and not message.is_resolved:
        lines.append(f"_{_escape(message.advice)}_")
    for item in message.items[:NAMED]:
        state = "over" if item.is_resolved else item.severity
        lines.append(f"• {state}: <{item.link}|{_escape(item.title)}>")
    return {
        "text": title,
        "attachments": [
            {
                "color": _RESOLVED if message.is_resolved else _COLORS[message.severity],
                "blocks": [
                    {"type": "section", "text": {"type": "mrkdwn", "text": "\n".join(lines)[:2900]}}
                ],
            }
        ],
    }


def _escape(text: str) -> str:
    """Slack's three control characters (https://api.slack.com/reference/surfaces/formatting)."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
