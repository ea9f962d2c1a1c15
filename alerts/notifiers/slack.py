"""Slack, by an incoming webhook (https://api.slack.com/messaging/webhooks)."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import urllib3

from alerts.notifiers.base import Field, Message, Undelivered
from sentinel_site.kit import outbound

_COLORS = {"critical": "#d63939", "error": "#e8590c", "warning": "#f59f00", "info": "#4299e1"}
_RESOLVED = "#2fb344"


class Slack:
    """One message a transition. The key goes along in X-Idempotency-Key."""

    name = "slack"
    label = "Slack"
    fields: tuple[Field, ...] = (
        Field("url", "Webhook URL", "From Slack: Apps, Incoming Webhooks.", secret=True),
    )

    def errors(self, config: dict[str, Any]) -> list[str]:
        text = str(config.get("url", ""))
        try:
            url = urlsplit(text)
            valid = url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
        except ValueError:  # a port or an IPv6 address that is none
            valid = False
        if not valid or not text.isascii() or not text.isprintable() or " " in text:
            return ["Give the whole webhook URL, beginning with https://."]
        return []

    def public(self, config: dict[str, Any]) -> dict[str, Any]:
        return {"url": f"{urlsplit(str(config.get('url', ''))).hostname}/…"}

    def send(self, config: dict[str, Any], message: Message) -> None:
        try:
            answer = outbound.post(
                config["url"],
                json.dumps(_payload(message)).encode(),
                {"Content-Type": "application/json", "X-Idempotency-Key": message.key},
            )
        except outbound.Refused as error:
            raise Undelivered(str(error)) from error
        except urllib3.exceptions.HTTPError as error:
            raise Undelivered(f"{type(error).__name__}: {error}") from error
        if answer.status >= 300:
            raise Undelivered(
                f"It answered {answer.status}: {answer.text[:200]}",
                retry_after=_seconds(answer.headers.get("Retry-After")),
                for_good=answer.status in (400, 403, 404, 410),
            )


def _payload(message: Message) -> dict[str, Any]:
    state = "Resolved" if message.is_resolved else message.severity.capitalize()
    title = f"{state}: {message.title} on {message.server}"
    lines = [f"*<{message.link}|{_escape(title)}>*", _escape(message.text)]
    if message.advice and not message.is_resolved:
        lines.append(f"_{_escape(message.advice)}_")
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


def _seconds(value: str | None) -> timedelta | None:
    return timedelta(seconds=min(int(value), 3600)) if value and value.isdigit() else None
