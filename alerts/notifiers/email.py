"""E-mail, through whatever provider django-anymail or SMTP is set up for."""

from __future__ import annotations

import smtplib
from typing import Any
from urllib.parse import urlsplit

from anymail.exceptions import AnymailError
from anymail.message import attach_inline_image
from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.mail import EmailMultiAlternatives
from django.core.validators import validate_email
from django.template.loader import render_to_string

from alerts.notifiers.base import STORM_PAUSE, Field, Message, Receipt, Undelivered

NAMED = 20  # incidents of a digest that are named
MOST = 50  # addresses; whose lists are longer have one for it in their own mail system
_COLORS = {"critical": "#d63939", "error": "#e8590c", "warning": "#b87503", "info": "#2f7fc9"}
_RESOLVED = "#2b8a3e"


class _Mail(EmailMultiAlternatives):
    """What is attached belongs to the text: it is shown in it, and not as a file below it."""

    mixed_subtype = "related"


class Email:
    """To one address or several. Retries carry the same Message-ID, so mailboxes keep one."""

    name = "email"
    label = "E-mail"
    fields: tuple[Field, ...] = (Field("to", "Addresses", "Separate several with commas."),)
    most: int | None = None
    storm_pause = STORM_PAUSE
    shows_pictures = True

    def errors(self, config: dict[str, Any]) -> list[str]:
        addresses = addresses_of(config)
        if not addresses:
            return ["Give at least one e-mail address."]
        if len(addresses) > MOST:
            return [f"Give at most {MOST} addresses, or that of a mailing list."]
        return [error for address in addresses if (error := _error(address))]

    def public(self, config: dict[str, Any]) -> dict[str, Any]:
        return {"to": config.get("to", "")}

    def send(self, config: dict[str, Any], message: Message) -> Receipt:
        host = urlsplit(settings.PUBLIC_URL).hostname or "localhost"
        addresses = addresses_of(config)
        subject = message.reference or _subject(message)
        mail = _Mail(
            subject=f"Re: {subject}" if message.key != message.thread else subject,
            to=addresses,
            headers=_headers(message, host, is_for_one=len(addresses) == 1),
        )
        shown = ""
        if message.picture is not None:
            shown = attach_inline_image(mail, message.picture.png, "chart.png", "png", host)
        context = {
            "message": message,
            "color": _RESOLVED if message.is_resolved else _COLORS[message.severity],
            "items": message.items[:NAMED],
            "more": max(0, len(message.items) - NAMED),
            "shown": shown,
        }
        mail.body = render_to_string("alerts/mail/notification.txt", context)
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
        return Receipt(reference=subject if message.incident is not None else "")


def _headers(message: Message, host: str, is_for_one: bool) -> dict[str, str]:
    """What mailboxes know the mail by: its thread, its haste, and how to stop it.

    Stopping with one click (RFC 8058) is for mail to one address: of several nobody knows whose.
    """
    found = {
        "Message-ID": f"<{message.key}@{host}>",
        "References": f"<{message.thread}@{host}>",
        "X-Idempotency-Key": message.key,
        "Auto-Submitted": "auto-generated",
    }
    if message.severity == "critical" and not message.is_resolved:
        found["Importance"] = "high"
    if message.leave:
        found["List-Unsubscribe"] = f"<{message.leave}>"
        if is_for_one:
            found["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click"
    return found


def _subject(message: Message) -> str:
    """The same for all that is told of an incident, so that mailboxes keep it together.

    What state it is in begins the text, which they show beside it.
    """
    if message.incident is None:
        return " ".join(f"[{message.state}] {message.heading}".split())[:200]
    number = f" (incident {message.incident})"
    return " ".join(message.heading.split())[: 200 - len(number)] + number


def addresses_of(config: dict[str, Any]) -> list[str]:
    """To whom a channel of this configuration writes."""
    return [part.strip() for part in str(config.get("to", "")).split(",") if part.strip()]


def _error(address: str) -> str | None:
    try:
        validate_email(address)
    except ValidationError:
        return f"{address} is not an e-mail address."
    return None
