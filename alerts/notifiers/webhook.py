"""Any other program, by a signed POST of a CloudEvent.

The body is CloudEvents 1.0 in structured mode
(https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md), the signature that of
Standard Webhooks 1.0.0
(https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import secrets
import time
from dataclasses import asdict
from typing import Any
from urllib.parse import urlsplit

from alerts.notifiers import outgoing
from alerts.notifiers.base import STORM_PAUSE, Field, Message, Receipt
from sentinel_site.kit import outbound

_PREFIX = "whsec_"
_SIZES = range(24, 65)  # bytes of a secret, as Standard Webhooks has them


def new_secret() -> str:
    return _PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()


class Webhook:
    """One signed CloudEvent a transition. Its id stays the same when it is sent again."""

    name = "webhook"
    label = "Webhook"
    fields: tuple[Field, ...] = (
        Field("url", "URL", "Where the event is sent by POST.", secret=True),
        Field(
            "secret",
            "Signing secret",
            "Leave empty, and one is made and shown once.",
            secret=True,
            make=new_secret,
        ),
    )
    most: int | None = 1000
    storm_pause = STORM_PAUSE
    shows_pictures = False

    def errors(self, config: dict[str, Any]) -> list[str]:
        found = [outbound.wrong_with(str(config.get("url", "")))]
        signing = str(config.get("secret", "")).split()
        if len(signing) > 2 or any(_key(one) is None for one in signing):
            found.append(
                "The signing secret is whsec_ and 24 to 64 bytes in base64; two, the new one first "
                "and a space between, while receivers change over."
            )
        return [error for error in found if error]

    def public(self, config: dict[str, Any]) -> dict[str, Any]:
        return {"url": f"{urlsplit(str(config.get('url', ''))).hostname}/…", "secret": "…"}

    def send(self, config: dict[str, Any], message: Message) -> Receipt:
        body = json.dumps(event(message), separators=(",", ":")).encode()
        sent_at = str(int(time.time()))
        return outgoing.deliver(
            config["url"],
            body,
            {
                "Content-Type": "application/cloudevents+json; charset=utf-8",
                "X-Idempotency-Key": message.key,
                "webhook-id": message.key,
                "webhook-timestamp": sent_at,
                "webhook-signature": " ".join(
                    signature(one, message.key, sent_at, body)
                    for one in str(config["secret"]).split()
                ),
            },
        )


def event(message: Message) -> dict[str, Any]:
    """The message as a CloudEvent."""
    kind = message.transition.partition(":")[0]
    about = kind if kind in ("test", "digest") else f"incident.{kind}"
    return {
        "specversion": "1.0",
        "id": message.key,
        "source": message.source,
        "type": f"org.sentinella.{about}",
        "time": message.at.isoformat().replace("+00:00", "Z"),
        "subject": message.server or message.organization,
        "datacontenttype": "application/json",
        "data": {
            "organization": message.organization,
            "title": message.title,
            "severity": message.severity,
            "server": message.server,
            "service": message.service,
            "subject": message.subject,
            "text": message.text,
            "advice": message.advice,
            "link": message.link,
            "resolved": message.is_resolved,
            "thread": message.thread,
            "transition": message.transition,
            "incident": message.incident,
            "merged": list(message.merged),
            "incidents": [asdict(item) for item in message.items],
        },
    }


def signature(secret: str, key: str, sent_at: str, body: bytes) -> str:
    """HMAC-SHA256 over id, time and body. Raises ValueError where the secret is none."""
    signing = _key(secret)
    if signing is None:
        raise ValueError("The channel's signing secret cannot be used; give it another one.")
    digest = hmac.digest(signing, f"{key}.{sent_at}.".encode() + body, hashlib.sha256)
    return f"v1,{base64.b64encode(digest).decode()}"


def _key(secret: str) -> bytes | None:
    """The bytes that a secret stands for, if it is written as one."""
    if not secret.startswith(_PREFIX):
        return None
    try:
        found = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        return None
    return found if len(found) in _SIZES else None
