"""Says at start what is wrong with the settings, and what to do."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register


@register(Tags.security)
def secrets_are_set(**_: Any) -> list[CheckMessage]:
    """Production runs on secrets of its own."""
    if not settings.ENV.is_production:
        return []
    return [
        Error(
            f"{name} is not set.",
            hint=f'Set {name} to the output of: python3 -c "import secrets; '
            'print(secrets.token_urlsafe(50))"',
            id=f"sentinella.E00{number}",
        )
        for number, name in enumerate(("SECRET_KEY", "KEY_PEPPER"), start=1)
        if getattr(settings, name).startswith("insecure-")
    ]


@register(Tags.security, deploy=True)
def mail_leaves_the_machine(**_: Any) -> list[CheckMessage]:
    """An installation whose mail goes to the terminal tells nobody."""
    if "console" not in settings.EMAIL_BACKEND:
        return []
    return [
        Warning(
            "E-mail is printed to the terminal only.",
            hint="Set EMAIL_URL=smtp+tls://user:password@host:587, or EMAIL_BACKEND and ANYMAIL "
            "for a provider's API.",
            id="sentinella.W001",
        )
    ]


@register(Tags.security, deploy=True)
def links_are_https(**_: Any) -> list[CheckMessage]:
    """Keys and sessions travel in requests, so they need TLS."""
    if settings.HTTPS:
        return []
    return [
        Warning(
            "PUBLIC_URL does not begin with https://.",
            hint="Put a TLS proxy in front and set PUBLIC_URL to its address.",
            id="sentinella.W002",
        )
    ]
