"""Every setting that an installation may choose, in one typed place.

Values come from the process environment; what is missing there comes from the instance that
`manage.py up` runs in the same state directory, so that a second shell finds it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

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

    database_url: str = "postgres://sentinella@127.0.0.1:5432/sentinella"
    redis_url: str = "redis://127.0.0.1:6379/0"
    celery_broker_url: str = ""
    metrics_url: str = "postgres:"

    email_url: str = "console:"
    email_backend: str = ""
    anymail: dict[str, Any] = Field(default_factory=dict)
    default_from_email: str = "Sentinella <sentinella@localhost>"

    webhooks_to_private: bool | None = None

    log_format: Literal["json", "console"] = "console"
    log_level: str = "INFO"
    trusted_proxies: int = 0

    tick_seconds: float = 5.0
    commit_queue: int = 2048
    retention_raw_days: int = 30
    retention_events_days: int = 30

    @field_validator("public_url")
    @classmethod
    def without_trailing_slash(cls, value: str) -> str:
        return value.rstrip("/")

    @property
    def hosts(self) -> list[str]:
        return [host.strip() for host in self.allowed_hosts.split(",") if host.strip()]

    @property
    def broker_url(self) -> str:
        return self.celery_broker_url or self.redis_url

    @property
    def may_ask_private(self) -> bool:
        """Whether webhooks may lead into private networks: not in production, unless said so."""
        if self.webhooks_to_private is None:
            return not self.is_production
        return self.webhooks_to_private

    @property
    def is_production(self) -> bool:
        return self.environment == "production"


def read() -> Environment:
    """The environment of this process; a running instance fills in what is not given."""
    state_dir = Path(os.environ.get("STATE_DIR", REPOSITORY / "var"))
    for name, value in instance_environment(state_dir).items():
        os.environ.setdefault(name, value)
    return Environment()
