"""One Redis client a process, for what is a courtesy: hints, listeners, the heartbeat."""

from __future__ import annotations

import functools

import redis
from django.conf import settings


@functools.cache
def client() -> redis.Redis:
    """With short time limits: whoever asks has something better to do than to wait."""
    return redis.Redis.from_url(settings.REDIS_URL, socket_timeout=2, socket_connect_timeout=2)
