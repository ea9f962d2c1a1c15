"""Is the process alive, and is each component ready: for balancers, supervisors and people."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

import redis
from django.conf import settings
from django.db import Error
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET

from metrics import committer
from sentinel_site.kit import heartbeat
from sentinel_site.kit.redis_client import client
from sentinel_site.kit.tenancy import connection


@require_GET
@never_cache
def healthz(request: HttpRequest) -> HttpResponse:
    """This process answers; nothing else is asked."""
    return HttpResponse("ok\n", content_type="text/plain")


@require_GET
@never_cache
def readyz(request: HttpRequest) -> HttpResponse:
    """Each component's state and lag in milliseconds; 503 when one that requests need is away."""
    components = {
        "database": _timed(_database),
        "redis": _timed(_redis),
        "evaluation": _evaluation(timezone.now()),
        "ingest": {"state": "up", "waiting": committer.waiting()},
    }
    ready = components["database"]["state"] == "up"
    everything = all(component["state"] == "up" for component in components.values())
    return JsonResponse(
        {
            "state": "up" if everything else "degraded" if ready else "down",
            "components": components,
        },
        status=200 if ready else 503,
    )


def _timed(ask: Callable[[], object]) -> dict[str, Any]:
    began = time.monotonic()
    try:
        ask()
    except (Error, redis.RedisError) as error:
        return {"state": "down", "error": type(error).__name__}
    return {"state": "up", "milliseconds": round((time.monotonic() - began) * 1000, 1)}


def _evaluation(now: datetime) -> dict[str, Any]:
    """Beat and worker: how long ago a tick was last carried out."""
    try:
        last = heartbeat.last()
    except redis.RedisError as error:
        return {"state": "unknown", "error": type(error).__name__}
    if last is None:
        return {"state": "down", "error": "No tick was carried out yet."}
    lag = (now - last).total_seconds()
    late = lag > (3 * settings.TICK).total_seconds() + 10
    return {"state": "down" if late else "up", "lag_seconds": round(max(0.0, lag), 1)}


def _database() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")


def _redis() -> None:
    client().ping()
