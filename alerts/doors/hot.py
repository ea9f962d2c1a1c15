"""`POST /alerta/alert` beside Django: key, parse, store together with others, answer; nothing else.

It answers what the DRF view answers, byte for byte, in a tenth of its time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import structlog
from asgiref.sync import sync_to_async
from django.conf import settings
from django.db import InterfaceError, OperationalError, close_old_connections
from django.utils import timezone

from accounts import keys
from accounts.keys import KeyHolder, NotCached
from alerts.doors import alerta, entry, pace
from alerts.doors.entry import Answer, Busy
from alerts.doors.group_commit import GroupCommit
from sentinel_site.kit.problems import DatabaseAway, Failure, Problem

PATH = "/alerta/alert"
#: Bytes; the biggest alert that is taken has less.
MOST_PARSED = 256 * 2**10
#: Requests that may wait for their keys to be looked up.
MOST_UNKNOWN = 256

log = structlog.get_logger(__name__)
_together = GroupCommit()


class HotDoor:
    """Takes what it knows, and leaves everything else to the application behind it."""

    def __init__(self, behind: Any) -> None:
        self.behind = behind

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] != PATH or scope["method"] != "POST":
            await self.behind(scope, receive, send)
            return
        message = await receive()
        if len(message["body"]) > MOST_PARSED:  # to take it apart would hold up everybody
            await self.behind(scope, _after(message, receive), send)
            return
        headers = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]
        }
        answer = await _answer(headers, scope["query_string"].decode("latin-1"), message["body"])
        await send(
            {
                "type": "http.response.start",
                "status": answer.status,
                "headers": [
                    (b"content-type", b"application/json"),
                    *((k.lower().encode(), v.encode()) for k, v in answer.headers.items()),
                ],
            }
        )
        await send({"type": "http.response.body", "body": answer.to_json()})


async def _answer(headers: Mapping[str, str], query: str, body: bytes) -> Answer:
    try:
        holder = await _sender(headers, query)
        statement = alerta.parse(entry.parsed(body), timezone.now())
        pace.admit(holder.schema_name, [statement], time.monotonic())
        return await _together.take(holder.schema_name, statement, len(body))
    except Problem as problem:
        return entry.refusal(problem)
    except (InterfaceError, OperationalError):
        return entry.refusal(DatabaseAway("Nothing of it was kept; send it again."))
    except Exception:
        log.exception("an alert could not be stored")
        return entry.refusal(Failure("Nothing of it was kept; send it again."))


def _after(message: Any, receive: Any) -> Any:
    """Hands out a message that was received already, and then what comes."""
    first = [message]

    async def replay() -> Any:
        return first.pop() if first else await receive()

    return replay


async def _sender(headers: Mapping[str, str], query: str) -> KeyHolder:
    """From the cache; only a key that it does not hold is looked up, in a thread. Raises Busy."""
    global _looking_up
    try:
        return entry.sender(headers, query, find=keys.find_cached)
    except NotCached:
        if settings.COMMIT_INLINE:
            return await sync_to_async(entry.sender)(headers, query)
    if _looking_up >= MOST_UNKNOWN:
        raise Busy("Too many keys are being looked up; send it again.")
    _looking_up += 1
    try:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(_lookups, _look_up, headers, query)
    finally:
        _looking_up -= 1


def _look_up(headers: Mapping[str, str], query: str) -> KeyHolder:
    close_old_connections()  # no request of Django's does it in this thread
    return entry.sender(headers, query)


#: Threads of their own: who makes keys up holds up nothing but other keys that are not known yet.
_lookups = ThreadPoolExecutor(2, thread_name_prefix="keys")
_looking_up = 0
