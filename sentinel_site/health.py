"""Is the process alive, and is each component ready: for balancers, supervisors and people."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import redis
from django.conf import settings
from django.db import Error
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.template.loader import get_template
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET

from accounts import timers
from metrics import committer, outages, roundtrips
from sentinel_site.kit import heartbeat, listening
from sentinel_site.kit.redis_client import client
from sentinel_site.kit.tenancy import connection

#: A canary flies each minute; without one for so long, something on its way does not work.
CANARY_LATE = timedelta(minutes=3)
#: Rules that are judged so long after their time are too late.
BEHIND = timedelta(minutes=1)


@require_GET
@never_cache
def healthz(request: HttpRequest) -> HttpResponse:
    """This process answers; nothing else is asked."""
    return HttpResponse("ok\n", content_type="text/plain")


@require_GET
@never_cache
def readyz(request: HttpRequest) -> HttpResponse:
    """Each component's state and lag in milliseconds; 503 when one that requests need is away."""
    found = _look()
    return JsonResponse(found, status=503 if found["state"] == "down" else 200)


@require_GET
@never_cache
def status(request: HttpRequest) -> HttpResponse:
    """The same for people; nothing in it is about any organization.

    Drawn without the request: who asks stands in the database, which may be what is away.
    """
    found = _look()
    parts = [
        {"name": name, "state": part["state"], "text": part.get("error") or say(part)}
        for (name, say), part in zip(_IN_WORDS, found["components"].values(), strict=True)
    ]
    outage = found["components"]["canary"].get("last_outage")
    shown = {"state": found["state"], "parts": parts, "outage": outage, "now": timezone.now()}
    return HttpResponse(get_template("status.html").render(shown))


#: What each component is called on the page, in the order of /readyz, and what is said of it.
_IN_WORDS: tuple[tuple[str, Callable[[dict[str, Any]], str]], ...] = (
    ("Database", lambda part: f"Answers in {part['milliseconds']} ms."),
    ("Live pages and queues", lambda part: f"Answers in {part['milliseconds']} ms."),
    (
        "Rules are judged",
        lambda part: (
            f"Last {part['lag_seconds']} s ago, {part['behind_seconds']} s behind at most."
        ),
    ),
    (
        "Messages go out",
        lambda part: (
            "No trial has set out yet."
            if part["age_seconds"] is None
            else f"A trial from report to message came through {part['age_seconds']} s ago."
        ),
    ),
    ("Reports come in", lambda part: f"{part['waiting']} wait to be written."),
)


def _look() -> dict[str, Any]:
    now = timezone.now()
    components = {
        "database": _timed(_database),
        "redis": _timed(_redis),
        "evaluation": evaluation(now),
        "canary": canary(now),
        "ingest": {"state": "up", "waiting": committer.waiting()},
    }
    ready = components["database"]["state"] == "up"
    everything = all(component["state"] == "up" for component in components.values())
    return {
        "state": "up" if everything else "degraded" if ready else "down",
        "components": components,
    }


def _timed(ask: Callable[[], object]) -> dict[str, Any]:
    began = time.monotonic()
    try:
        ask()
    except (Error, redis.RedisError) as error:
        return {"state": "down", "error": type(error).__name__}
    return {"state": "up", "milliseconds": round((time.monotonic() - began) * 1000, 1)}


def evaluation(now: datetime) -> dict[str, Any]:
    """Beat and workers: how long ago a tick was last carried out, and by how much the tenant that
    waits longest is behind."""
    try:
        last, behind = heartbeat.last(), timers.lag(now)
    except (Error, redis.RedisError) as error:
        return {"state": "unknown", "error": type(error).__name__}
    if last is None:
        return {"state": "down", "error": "No tick was carried out yet."}
    lag = (now - last).total_seconds()
    late = lag > (3 * settings.TICK).total_seconds() + 10
    return {
        "state": "down" if late or behind > BEHIND else "up",
        "lag_seconds": round(max(0.0, lag), 1),
        "behind_seconds": round(behind.total_seconds(), 1),
    }


def canary(now: datetime) -> dict[str, Any]:
    """How long ago a report last went all the way to a notification; and our own last outage.

    Counted from when we listen again: after a start there is time for the first.
    """
    try:
        last, outage, run = roundtrips.last(), outages.last(), listening.last()
    except (Error, redis.RedisError) as error:
        return {"state": "unknown", "error": type(error).__name__}
    told: dict[str, Any] = {
        "last_outage": {"since": outage.since.isoformat(), "until": outage.until.isoformat()}
        if outage
        else None
    }
    if last is None:
        return {"state": "up", "age_seconds": None, **told}
    since = [last.arrived_at or last.began_at, *([run.since] if run else [])]
    counted = max(since)
    age = (now - last.arrived_at).total_seconds() if last.arrived_at else None
    return {
        "state": "down" if now - counted > CANARY_LATE else "up",
        "age_seconds": None if age is None else round(max(0.0, age), 1),
        **told,
    }


def _database() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")


def _redis() -> None:
    client().ping()
