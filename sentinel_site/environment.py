"""Every setting that an installation may choose, in one typed place.

Values come from the process environment; what is missing there comes from the instance that
`manage.py up` runs in the same state directory, so that a second shell finds it.
"""

from __future__ import annotations

import os
import re
import sys
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    field_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from sentinel_site.instance import environment as instance_environment

REPOSITORY = Path(__file__).resolve().parent.parent


class Environment(BaseSettings):
    """The process environment, checked; spans are in seconds, sizes in bytes."""

    model_config = SettingsConfigDict(case_sensitive=False, extra="ignore")

    environment: Literal["local", "test", "production"] = "local"
    debug: bool = False
    secret_key: str = "insecure-only-for-one-machine-and-never-for-production"  # noqa: S105
    key_pepper: str = "insecure-pepper-for-one-machine-and-never-for-production"
    allowed_hosts: str = "127.0.0.1,localhost,[::1]"
    public_url: str = "http://127.0.0.1:8000"
    state_dir: Path = REPOSITORY / "var"
    agent_packages: Path = REPOSITORY / "dist" / "agent"

    database_url: str = "postgres://sentinella@127.0.0.1:5432/sentinella"
    redis_url: str = "redis://127.0.0.1:6379/0"
    celery_broker_url: str = ""
    metrics_url: str = "postgres:"

    email_url: str = "console:"
    email_backend: str = ""
    anymail: dict[str, Any] = Field(default_factory=dict)
    default_from_email: str = "Sentinella <sentinella@localhost>"
    operator_email: str = ""

    outgoing_private_networks: str = ""

    log_format: Literal["json", "console"] = "console"
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] = "INFO"
    trusted_proxies: NonNegativeInt = 0

    tick_seconds: PositiveFloat = 5.0
    commit_queue: PositiveInt = 2048
    retention_raw_days: PositiveInt = 30
    retention_events_days: PositiveInt = 30
    retention_incidents_days: PositiveInt = 400
    alerts_per_minute: PositiveInt = 60_000

    @field_validator("public_url")
    @classmethod
    def public_address(cls, value: str) -> str:
        _url(value, ("http", "https"), "https://sentinella.example.org")
        return value.rstrip("/")

    @field_validator("database_url")
    @classmethod
    def database_address(cls, value: str) -> str:
        example = "postgres://user:password@host:5432/database"
        if not _url(value, ("postgres", "postgresql"), example).path.strip("/"):
            raise ValueError(f"it names no database; write {example}")
        return value

    @field_validator("email_url")
    @classmethod
    def mail_address(cls, value: str) -> str:
        schemes = ("console", "smtp", "smtp+tls", "smtps")
        _url(value, schemes, "smtp+tls://user:password@host:587 or console:")
        return value

    @field_validator("outgoing_private_networks")
    @classmethod
    def networks(cls, value: str) -> str:
        for name in filter(None, (one.strip() for one in value.split(","))):
            try:
                ip_network(name)
            except ValueError as error:
                raise ValueError(f"{error}; write 10.0.0.0/8,192.168.7.0/24") from None
        return value

    @field_validator("log_level", mode="before")
    @classmethod
    def in_capitals(cls, value: object) -> object:
        return value.upper() if isinstance(value, str) else value

    @property
    def hosts(self) -> list[str]:
        return [host.strip() for host in self.allowed_hosts.split(",") if host.strip()]

    @property
    def broker_url(self) -> str:
        return self.celery_broker_url or self.redis_url

    @property
    def private_networks(self) -> list[IPv4Network | IPv6Network]:
        """Networks that webhooks may lead into although they are not the internet's."""
        named = (name.strip() for name in self.outgoing_private_networks.split(","))
        return [ip_network(name) for name in named if name]

    @property
    def is_production(self) -> bool:
        return self.environment == "production"


def read() -> Environment:
    """The environment of this process; a running instance fills in what is not given.

    Ends the process when a value can't be used, with a line about each that names its variable.
    """
    state_dir = Path(os.environ.get("STATE_DIR", REPOSITORY / "var"))
    for name, value in instance_environment(state_dir).items():
        os.environ.setdefault(name, value)
    try:
        return Environment()
    except ValidationError as error:
        wrong = [f"{str(one['loc'][0]).upper()}: {_explained(one)}" for one in error.errors()]
    except SettingsError as error:
        wrong = [_not_json(error)]
    for line in wrong:
        print(f"error: {line}", file=sys.stderr)
    print("Each variable and what it means: docs/configuration.md", file=sys.stderr)
    sys.exit(2)


def _url(value: str, schemes: tuple[str, ...], example: str) -> Any:
    """The parts of a URL. Raises ValueError, without the value: it may hold a password."""
    try:
        parts = urlsplit(value)
        parts.port  # noqa: B018  raises when it is no number
    except ValueError:
        raise ValueError(
            f"it is no URL; write {example}, special characters of a password as %XX"
        ) from None
    if parts.scheme not in schemes:
        known = ", ".join(f"{scheme}:" for scheme in schemes)
        raise ValueError(f"it must begin with one of {known} as in {example}")
    if parts.scheme in ("http", "https") and not parts.hostname:
        raise ValueError(f"it names no host; write {example}")
    return parts


def _explained(error: Any) -> str:
    text = re.sub("^(Value error, |Input )", "", error["msg"])
    given = error["input"] if error["type"] != "value_error" else None
    return f"{text}, not “{given}”" if isinstance(given, str) else text


def _not_json(error: SettingsError) -> str:
    """Only ANYMAIL is read as JSON; pydantic names the field in its message."""
    found = re.search(r'field "(\w+)"', str(error))
    return f"{found[1].upper() if found else 'a variable'}: it is no JSON object; write {{…}}"
