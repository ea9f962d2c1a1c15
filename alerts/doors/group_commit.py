"""Alerts that arrive at the same time are stored in one transaction: a commit costs more than they.

While one batch of an organization is being committed, the next gathers; nobody waits for a timer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

from asgiref.sync import sync_to_async
from django.conf import settings
from django.db import close_old_connections
from django.utils import timezone

from alerts.doors import entry
from alerts.doors.entry import Answer, Busy
from alerts.lifecycle.external import Signal

#: So many are taken in one transaction.
BATCH = 256
#: So many of one organization may wait; more are asked to come again.
MOST_WAITING = 4096
#: Batches of different organizations that are stored at the same time.
AT_ONCE = 2


class GroupCommit:
    """The alerts that wait in this process, by organization."""

    def __init__(self) -> None:
        self._waiting: dict[str, list[tuple[Signal, asyncio.Future[Answer]]]] = {}
        self._storing: set[asyncio.Task[None]] = set()
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="alerts")

    async def take(self, schema: str, signal: Signal) -> Answer:
        """Store one alert together with others; returns when it is committed. Raises Busy."""
        waiting = self._waiting.get(schema)
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        if waiting is not None:
            if len(waiting) >= MOST_WAITING:
                raise Busy("Nothing of it was kept; send it again.")
            waiting.append((signal, future))
        else:
            self._waiting[schema] = [(signal, future)]
            task = asyncio.create_task(self._store(schema))
            self._storing.add(task)
            task.add_done_callback(self._storing.discard)
        return await future

    async def _store(self, schema: str) -> None:
        """Batch after batch, until none of the organization waits."""
        waiting = self._waiting[schema]
        try:
            while waiting:
                batch, waiting[:BATCH] = waiting[:BATCH], []
                await self._store_batch(schema, batch)
        finally:
            del self._waiting[schema]

    async def _store_batch(
        self, schema: str, batch: list[tuple[Signal, asyncio.Future[Answer]]]
    ) -> None:
        try:
            answers = await self._in_thread(schema, [signal for signal, _ in batch])
        except Exception as error:
            for _, future in batch:
                if not future.done():  # who asked may have gone
                    future.set_exception(error)
        else:
            for (_, future), answer in zip(batch, answers, strict=True):
                if not future.done():
                    future.set_result(answer)

    async def _in_thread(self, schema: str, signals: Sequence[Signal]) -> list[Answer]:
        if settings.COMMIT_INLINE:
            return await sync_to_async(_take)(schema, signals, timezone.now())
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, _take, schema, signals, timezone.now())


def _take(schema: str, signals: Sequence[Signal], now: datetime) -> list[Answer]:
    if not settings.COMMIT_INLINE:
        close_old_connections()
    return entry.take_alertas(schema, signals, now)
