"""E-mail, through whatever provider django-anymail or SMTP is set up for."""

from __future__ import annotations

import smtplib
from typing import Any
from urllib.parse import urlsplit

from anymail.exceptions import AnymailError
from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.mail import EmailMultiAlternatives
from django.core.validators import validate_email
from django.template.loader import render_to_string

from alerts.notifiers.base import STORM_PAUSE, Field, Message, Undelivered

NAMED = 20  # incidents of a digest that are named
_COLORS = {"critical": "#d63939", "error": "#e8590c", "warning": "#b87503", "info": "#2f7fc9"}
_RESOLVED = "#2b8a3e"


class Email:
    """To one address or several. Retries carry the same Message-ID, so mailboxes keep one."""

    name = "email"
    label = "E-mail"
    fields: tuple[Field, ...] = (Field("to", "Addresses", "Separate several with commas."),)
    most = None
    storm_pause = STORM_PAUSE

    def errors(self, config: dict[str, Any]) -> list[str]:
        addresses = _addresses(config)
        if not addresses:
            return ["Give at least one e-mail address."]
        return [error for address in addresses if (error := _error(address))]

    def public(self, config: dict[str, Any]) -> dict[str, Any]:
        return {"to": config.get("to", "")}

    def send(self, config: dict[str, Any], message: Message) -> None:
        host = urlsplit(settings.PUBLIC_URL).hostname or "localhost"
        context = {
            "message": message,
            "color": _RESOLVED if message.is_resolved else _COLORS[message.severity],
            "items": message.items[:NAMED],
            "more": max(0, len(message.items) - NAMED),
        }
        mail = EmailMultiAlternatives(
            subject=_subject(message),
            body=render_to_string("alerts/mail/notification.txt", context),
            to=_addresses(config),
            headers={
                "Message-ID": f"<{message.key}@{host}>",
                "References": f"<{message.thread}@{host}>",
                "X-Idempotency-Key": message.key,
                "Auto-Submitted": "auto-generated",
            },
        )
        mail.attach_alternative(
            render_to_string("alerts/mail/notification.html", context), "text/html"
        )
        try:
            mail.send()
        except smtplib.SMTPRecipientsRefused as error:
            refused = all(code >= 500 for code, _ in error.recipients.values())
            raise Undelivered(f"Refused: {error.recipients}", for_good=refused) from error
        except (OSError, smtplib.SMTPException, AnymailError) as error:
            raise Undelivered(f"{type(error).__name__}: {error}") from error


def _subject(message: Message) -> str:
    return " ".join(f"[{message.state}] {message.heading}".split())[:200]


def _addresses(config: dict[str, Any]) -> list[str]:
    return [part.strip() for part in str(config.get("to", "")).split(",") if part.strip()]


def _error(address: str) -> str | None:
    try:
        validate_email(address)
    except ValidationError:
        return f"{address} is not an e-mail address."
    return None
