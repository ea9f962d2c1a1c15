"""The last tick that was carried out, kept in Redis: whether beat and a worker are alive."""

from __future__ import annotations

from datetime import UTC, datetime

import redis
import structlog

from sentinel_site.kit.redis_client import client

log = structlog.get_logger(__name__)

_KEY = "sentinella:tick"


def beat(at: datetime) -> None:
    """Note a tick. Without Redis it is missing there, which is what it then says."""
    try:
        client().set(_KEY, at.timestamp())
    except redis.RedisError as error:
        log.warning("heartbeat not noted", error=str(error))


def last() -> datetime | None:
    """When a tick was last carried out. Raises redis.RedisError."""
    text = client().get(_KEY)
    return datetime.fromtimestamp(float(text), UTC) if isinstance(text, bytes) else None
