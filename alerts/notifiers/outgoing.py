"""What notifiers that call an address have in common: ask it, and judge its answer."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

from django.utils import timezone

from alerts.notifiers.base import Receipt, Undelivered
from sentinel_site.kit import outbound

#: No longer than this, however long the other side wants to be left alone.
LONGEST_WAIT = timedelta(hours=1)
#: Of the 4xx, those that say "later" (RFC 9110, 8470, 6585); the others stay as they are.
_LATER = (408, 425, 429)


def deliver(
    url: str,
    body: bytes,
    headers: dict[str, str],
    *,
    tls_only: bool = False,
    within: float | None = None,
) -> Receipt:
    """POST it. Raises Undelivered unless the answer is 2xx and none of a page, `within` seconds.

    What was answered is given whole, as secrets are found in it only before it is cut.
    """
    try:
        answer = outbound.post(url, body, headers, tls_only=tls_only, within=within)
    except (outbound.Refused, outbound.Unanswered) as error:
        raise Undelivered(str(error)) from error
    _judge(answer)
    return Receipt(answer.status, answer.text)


def _judge(answer: outbound.Answer) -> None:
    status = answer.status
    if 200 <= status < 300 and not _is_page(answer.text):
        return
    if status < 300:
        raise Undelivered(
            f"A web page answered {status}, as of a proxy or a sign-in: {answer.text}",
            status=status,
        )
    if status < 400:
        to = _host(answer.headers.get("Location", ""))
        raise Undelivered(
            f"It answered {status}, a redirect to {to}. Redirects are not followed: give the URL "
            "that it leads to.",
            status=status,
        )
    raise Undelivered(
        f"It answered {status}: {answer.text}",
        retry_after=wait(answer.headers.get("Retry-After"), timezone.now()),
        for_good=status < 500 and status not in _LATER,
        status=status,
    )


def wait(value: str | None, now: datetime) -> timedelta | None:
    """What a Retry-After asks for, seconds or a date (RFC 9110, 10.2.3); None: nothing usable."""
    text = (value or "").strip()
    if text.isascii() and text.isdecimal():
        seconds = int(text) if len(text) < 9 else 10**8
        return min(timedelta(seconds=seconds), LONGEST_WAIT) or None
    try:
        at = parsedate_to_datetime(text)
    except (ValueError, IndexError, OverflowError):
        return None
    left = (at if at.tzinfo else at.replace(tzinfo=UTC)) - now
    return min(left, LONGEST_WAIT) if left > timedelta() else None


def _is_page(text: str) -> bool:
    """Whether a browser is meant; by the text, as many servers call any answer text/html."""
    return text.lstrip("\ufeff \t\r\n").lower().startswith(("<!doctype html", "<html"))


def _host(location: str) -> str:
    """Of the target only the host is told: its path may hold a secret."""
    try:
        return urlsplit(location).hostname or "another path"
    except ValueError:
        return "nowhere"
