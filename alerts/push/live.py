"""Hints to open pages: what changed, never the data. Coalesced, and only where somebody listens.

A hint goes out at once, later ones of the same tenant and kind at most one a second; the last one
always goes out. Hints are a courtesy: if Redis is away, pages poll.
"""

from __future__ import annotations

import asyncio
import threading
import time
from functools import partial
from typing import Any

import redis
import structlog
from channels.layers import get_channel_layer
from django.db import transaction

from sentinel_site.kit.redis_client import client
from sentinel_site.kit.tenancy import current_schema

log = structlog.get_logger(__name__)

PAUSE = 1.0
LISTENERS_TTL = 150


def group(schema: str) -> str:
    """The channel layer's group of a tenant's open pages."""
    return f"live.{schema}"


def announce(schema: str, kind: str, pk: int | None = None) -> None:
    """Hint to the tenant's open pages that something of this kind changed."""
    _hints.put(schema, kind, pk)


def announce_on_commit(kind: str, pk: int | None = None) -> None:
    """The same for the current schema, once the transaction is committed."""
    transaction.on_commit(partial(announce, current_schema(), kind, pk))


def note_listener(schema: str) -> None:
    """Somebody's page is open; said again by each open page before LISTENERS_TTL is over."""
    client().set(f"sentinella:listeners:{schema}", 1, ex=LISTENERS_TTL)


class _Hints:
    """Changes by (tenant, kind) that wait for their turn, and the thread that sends them."""

    def __init__(self) -> None:
        self._waiting: dict[tuple[str, str], int | None] = {}
        self._sent: dict[tuple[str, str], float] = {}
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def put(self, schema: str, kind: str, pk: int | None) -> None:
        with self._changed:
            self._waiting[schema, kind] = pk
            if self._thread is None or not self._thread.is_alive():  # also after a fork
                self._thread = threading.Thread(target=self._run, name="hints", daemon=True)
                self._thread.start()
            self._changed.notify()

    def _run(self) -> None:
        loop = asyncio.new_event_loop()
        while True:
            due = self._take()
            try:
                self._send(loop, due)
            except (redis.RedisError, OSError) as error:
                log.warning("hints not sent; trying again", error=str(error))
                with self._changed:
                    self._waiting = {(schema, kind): pk for schema, kind, pk in due} | self._waiting

    def _take(self) -> list[tuple[str, str, int | None]]:
        """Wait until something may be sent, and take it."""
        with self._changed:
            while True:
                now = time.monotonic()
                due = [key for key in self._waiting if self._sent.get(key, 0) + PAUSE <= now]
                if due:
                    self._sent = {k: t for k, t in self._sent.items() if t + PAUSE > now}
                    self._sent.update(dict.fromkeys(due, now))
                    return [(*key, self._waiting.pop(key)) for key in due]
                soonest = min(
                    (self._sent[key] + PAUSE - now for key in self._waiting), default=None
                )
                self._changed.wait(soonest)

    @staticmethod
    def _send(loop: asyncio.AbstractEventLoop, due: list[tuple[str, str, int | None]]) -> None:
        layer: Any = get_channel_layer()
        schemas = sorted({schema for schema, _, _ in due})
        heard = client().mget([f"sentinella:listeners:{schema}" for schema in schemas])
        listened = {schema for schema, mark in zip(schemas, heard, strict=True) if mark}
        if client().info("server")["uptime_in_seconds"] < LISTENERS_TTL:
            listened = set(schemas)  # it has forgotten who listens, and is told within a minute
        for schema, kind, pk in due:
            if schema in listened:
                hint = {"type": "hint", "hint": {"type": f"{kind}.changed", "id": pk}}
                loop.run_until_complete(layer.group_send(group(schema), hint))


_hints = _Hints()
