"""Says at start what is wrong with the settings, and what to do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.db import Error as DatabaseError
from django.db import connections
from django.http.request import validate_host

REDIS_SCHEMES = ("redis", "rediss", "unix")
BROKER_SCHEMES = ("redis", "rediss", "amqp", "amqps", "pyamqp", "sentinel")


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
        if getattr(settings, name).startswith(("insecure-", "change-me"))
    ]


@register(Tags.security)
def public_host_is_allowed(**_: Any) -> list[CheckMessage]:
    """Every link that we make must lead to a host that we answer for."""
    host = urlsplit(settings.PUBLIC_URL).hostname or ""
    host = f"[{host}]" if ":" in host else host
    if validate_host(host, settings.ALLOWED_HOSTS):
        return []
    return [
        Error(
            f"PUBLIC_URL names {host}, which is not in ALLOWED_HOSTS; it would answer 400.",
            hint=f"Set ALLOWED_HOSTS={','.join([host, *settings.ALLOWED_HOSTS])}",
            id="sentinella.E003",
        )
    ]


@register()
def addresses_are_understood(**_: Any) -> list[CheckMessage]:
    """Redis and the broker are connected to late; a slip in their addresses shows here."""
    found: list[CheckMessage] = []
    for number, name, schemes, example in (
        (4, "REDIS_URL", REDIS_SCHEMES, "redis://:password@host:6379/0"),
        (5, "CELERY_BROKER_URL", BROKER_SCHEMES, "amqp://user:password@host:5672/vhost"),
    ):
        wrong = _what_is_wrong(getattr(settings, name), schemes)
        if wrong:
            found.append(
                Error(
                    f"{name} {wrong}.",
                    hint=f"Set {name}={example} (special characters of a password as %XX).",
                    id=f"sentinella.E00{number}",
                )
            )
    return found


@register(Tags.database)
def database_answers(databases: Sequence[str] | None = None, **_: Any) -> list[CheckMessage]:
    """The database is there, and lets us make the schema of a new organization."""
    found: list[CheckMessage] = []
    for alias in databases or ():
        try:
            with connections[alias].cursor() as cursor:
                cursor.execute(
                    "SELECT current_user, has_database_privilege(current_database(), 'CREATE')"
                )
                role, may_create = cursor.fetchone()
        except DatabaseError as error:
            found.append(
                Error(
                    f"The database does not answer: {str(error).strip().splitlines()[0]}",
                    hint="Check host, port, user, password and name in DATABASE_URL, and that "
                    "PostgreSQL runs and lets this machine in (pg_hba.conf).",
                    id="sentinella.E006",
                )
            )
            continue
        if not may_create:
            found.append(
                Error(
                    f"The database role “{role}” may not create schemas, so there can be no new "
                    "organization.",
                    hint=f"Let it own the database: ALTER DATABASE … OWNER TO {role};",
                    id="sentinella.E007",
                )
            )
    return found


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


@register(Tags.security, deploy=True)
def proxy_is_trusted(**_: Any) -> list[CheckMessage]:
    """We speak no TLS ourselves, so only a proxy can say that a request came by https."""
    if not settings.HTTPS or getattr(settings, "SECURE_PROXY_SSL_HEADER", None):
        return []
    return [
        Warning(
            "PUBLIC_URL is https, but no proxy is trusted to say so; pages may redirect forever.",
            hint="Set TRUSTED_PROXIES to the number of proxies in front (usually 1), and let them "
            "set X-Forwarded-Proto.",
            id="sentinella.W003",
        )
    ]


@register(Tags.security, deploy=True)
def environment_is_production(**_: Any) -> list[CheckMessage]:
    """Only then are the secrets looked at."""
    if settings.ENV.is_production:
        return []
    return [
        Warning(
            f"ENVIRONMENT is {settings.ENV.environment}.",
            hint="Set ENVIRONMENT=production where others use it.",
            id="sentinella.W004",
        )
    ]


def _what_is_wrong(urls: str, schemes: Sequence[str]) -> str:
    """What keeps this from being such a URL, without telling its password.

    A broker may be several with semicolons between, the next one for when the first is away.
    """
    for url in urls.split(";"):
        try:
            parts = urlsplit(url)
            port = parts.port  # raises when it is no number
        except ValueError:
            return "is no URL"
        if parts.scheme not in schemes:
            return f"does not begin with one of {', '.join(f'{name}://' for name in schemes)}"
        if parts.scheme == "unix":
            if not parts.path:
                return "names no socket"
            continue
        if not parts.hostname or port == 0:
            return "names no host and port"
        database = parts.path.strip("/")
        if parts.scheme in ("redis", "rediss") and database and not database.isdigit():
            return f"has “{database}” where the number of a database belongs"
    return ""
