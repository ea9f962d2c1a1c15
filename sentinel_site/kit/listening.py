"""Since when anybody has listened to the agents: whoever was not heard meanwhile was not silent.

Each web process says every few seconds, while it can write to the database, that it listens. When
nobody said so for `GAP`, the next one begins a new run.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import redis
import structlog
from django.db import Error, connection
from django.utils import timezone

from sentinel_site.kit.redis_client import client

log = structlog.get_logger(__name__)

EVERY = timedelta(seconds=5)
GAP = timedelta(seconds=20)
_KEY = "sentinella:listening"


@dataclass(frozen=True)
class Run:
    """An unbroken span of listening, and when it was last said to go on."""

    since: datetime
    said_at: datetime

    def is_over(self, now: datetime) -> bool:
        return now - self.said_at > GAP


def note(now: datetime) -> Run | None:
    """Say that this process listens; the run that was over before. Raises redis.RedisError."""
    run = last()
    is_over = run is not None and run.is_over(now)
    since = now if run is None or is_over else run.since
    client().set(_KEY, f"{since.timestamp()} {now.timestamp()}")
    return run if is_over else None


def last() -> Run | None:
    """The newest run; None where none was ever noted. Raises redis.RedisError."""
    text = client().get(_KEY)
    if not isinstance(text, bytes):
        return None
    since, said_at = (datetime.fromtimestamp(float(part), UTC) for part in text.split())
    return Run(since, said_at)


def keep_saying(
    after_outage: Callable[[datetime, datetime], object], mark: Callable[[datetime], object]
) -> threading.Event:
    """Note it in a thread until the event that is returned is set.

    `after_outage` is told from when to when nobody has listened; it is called again where it fails.
    `mark` is told each time that somebody listens, to keep it where Redis does not forget it.
    """
    stop = threading.Event()
    threading.Thread(
        target=_keep_saying, args=(stop, after_outage, mark), name="listening", daemon=True
    ).start()
    return stop


def _missed(now: datetime, last_own: datetime | None) -> tuple[datetime, datetime] | None:
    """Say that we listen; from when to when nobody did. Without Redis reports come in as well."""
    try:
        before = note(now)
    except redis.RedisError as error:
        log.warning("Redis is away: it does not know that we listen", error=str(error))
        return None
    if before is None or (last_own is not None and now - last_own <= GAP):
        return None
    return before.said_at, now


def _keep_saying(
    stop: threading.Event,
    after_outage: Callable[[datetime, datetime], object],
    mark: Callable[[datetime], object],
) -> None:
    untold: tuple[datetime, datetime] | None = None
    last_own: datetime | None = None
    while True:
        now = timezone.now()
        try:
            with connection.cursor() as cursor:
                cursor.execute("SELECT 1")
            untold = _missed(now, last_own) or untold
            last_own = now
            if untold is not None:
                after_outage(*untold)
                untold = None
            mark(now)
        except (Error, redis.RedisError) as error:
            log.warning("not listening", error=str(error).partition("\n")[0])
            connection.close()
        if stop.wait(EVERY.total_seconds()):
            connection.close()
            return
