"""Slack, by an incoming webhook (https://api.slack.com/messaging/webhooks) or by an app."""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings

from alerts.notifiers import outgoing
from alerts.notifiers.base import STORM_PAUSE, Field, Message, Receipt, Undelivered
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
    most: int | None = None
    storm_pause = STORM_PAUSE
    shows_pictures = False

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


class SlackApp:
    """By a Slack app's bot token (https://api.slack.com/methods/chat.postMessage).

    What follows on an incident stands in the thread of its first message, which incoming webhooks
    cannot do: their answer does not say what the message is called.
    """

    name = "slack-app"
    label = "Slack app"
    fields: tuple[Field, ...] = (
        Field("token", "Bot token", "Of an app with the scope chat:write.", secret=True),
        Field("channel", "Channel", "Its id, as C0123456789. Invite the app to it."),
    )
    most: int | None = None
    storm_pause = STORM_PAUSE
    shows_pictures = False

    def errors(self, config: dict[str, Any]) -> list[str]:
        found = []
        token = str(config.get("token", ""))
        if not token.startswith("xox") or not token.isascii() or not token.isprintable():
            found.append("Give the bot token, which begins with xoxb-.")
        if not str(config.get("channel", "")).strip():
            found.append("Give the channel's id.")
        return found

    def public(self, config: dict[str, Any]) -> dict[str, Any]:
        return {"token": "…", "channel": config.get("channel", "")}

    def send(self, config: dict[str, Any], message: Message) -> Receipt:
        payload = {**_payload(message), "channel": str(config["channel"]).strip()}
        if message.reference:
            payload["thread_ts"] = message.reference
        receipt = outgoing.deliver(
            settings.SLACK_API + "chat.postMessage",
            json.dumps(payload).encode(),
            {
                "Content-Type": "application/json; charset=utf-8",
                "Authorization": f"Bearer {config['token']}",
                "X-Idempotency-Key": message.key,
            },
            tls_only=True,
        )
        return _judged(receipt)


#: Errors of Slack's that no later try mends (https://api.slack.com/methods/chat.postMessage).
_FOR_GOOD = {
    "account_inactive",
    "channel_not_found",
    "invalid_auth",
    "is_archived",
    "missing_scope",
    "not_authed",
    "not_in_channel",
    "token_revoked",
}


def _judged(receipt: Receipt) -> Receipt:
    """Slack answers 200 to what it refuses, and says so in the body. Raises Undelivered."""
    try:
        said = json.loads(receipt.answer)
        is_ok, error = said["ok"] is True, str(said.get("error", ""))
        reference = str(said.get("ts", ""))
    except (ValueError, KeyError, TypeError, AttributeError) as broken:
        match = _TS.search(receipt.answer)  # a long answer is cut
        if match and '"ok":true' in receipt.answer:
            return Receipt(receipt.status, receipt.answer, match[1])
        text = f"Its answer is none of Slack's: {receipt.answer}"
        raise Undelivered(text, status=receipt.status) from broken
    if not is_ok:
        raise Undelivered(
            f"Slack says {error}.", for_good=error in _FOR_GOOD, status=receipt.status
        )
    return Receipt(receipt.status, receipt.answer, reference)


_TS = re.compile(r'"ts":"([0-9.]+)"')


def _payload(message: Message) -> dict[str, Any]:
    title = f"{message.state}: {message.heading}"
    lines = [f"*<{message.link}|{_escape(title)}>*", _escape(message.text)]
    if message.advice and not message.is_resolved:
        lines.append(f"_{_escape(message.advice)}_")
    for item in message.items[:NAMED]:
        state = "over" if item.is_resolved else item.severity
        lines.append(f"• {state}: <{item.link}|{_escape(item.title)}>")
    blocks: list[dict[str, Any]] = [
        {"type": "section", "text": {"type": "mrkdwn", "text": "\n".join(lines)[:2900]}}
    ]
    if message.server:
        about = " · ".join(_escape(one) for one in (message.server, message.service) if one)
        blocks.append({"type": "context", "elements": [{"type": "mrkdwn", "text": about[:2900]}]})
    if message.transition.startswith(("opened", "reopened", "raised", "escalated", "repeated")):
        blocks.append(
            {
                "type": "actions",
                "elements": [
                    {
                        "type": "button",
                        "text": {"type": "plain_text", "text": "Open and take it"},
                        "url": message.link,
                    }
                ],
            }
        )
    return {
        "text": _escape(title),
        "attachments": [
            {
                "color": _RESOLVED if message.is_resolved else _COLORS[message.severity],
                "blocks": blocks,
            }
        ],
    }


def _escape(text: str) -> str:
    """Slack's three control characters (https://api.slack.com/reference/surfaces/formatting)."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
