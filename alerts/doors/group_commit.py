"""Alerts that arrive at the same time are stored in one transaction: a commit costs more than they.

While one batch of an organization is being committed, the next gathers; nobody waits for a timer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from asgiref.sync import sync_to_async
from django.conf import settings
from django.db import close_old_connections
from django.utils import timezone

from alerts.doors import entry
from alerts.doors.entry import Answer, Busy, Held
from alerts.lifecycle.external import Statement

#: So many are taken in one transaction.
BATCH = 256
#: So many of one organization may wait, ...
MOST_WAITING = 4096
#: ... and so many bytes of all in this process; more are asked to come again.
MOST_BYTES = 32 * 2**20
#: Batches of different organizations that are stored at the same time.
AT_ONCE = 4
#: Seconds for which a batch is tried again while another transaction holds the alerts of its
#: organization. Between two tries it holds no thread, so others are stored meanwhile.
PATIENCE = 15.0


@dataclass(frozen=True, slots=True)
class _Item:
    """An alert, the bytes that it was sent in, and who waits for it."""

    statement: Statement
    size: int
    future: asyncio.Future[Answer]


class GroupCommit:
    """The alerts that wait in this process, by organization."""

    def __init__(self) -> None:
        self._waiting: dict[str, list[_Item]] = {}
        self._bytes = 0
        self._storing: set[asyncio.Task[None]] = set()
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="alerts")

    async def take(self, schema: str, statement: Statement, size: int) -> Answer:
        """Store one alert together with others; returns when it is committed. Raises Busy."""
        waiting = self._waiting.get(schema)
        if len(waiting or ()) >= MOST_WAITING or self._bytes + size > MOST_BYTES:
            raise Busy("Nothing of it was kept; send it again.")
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        item = _Item(statement, size, future)
        self._bytes += size
        if waiting is not None:
            waiting.append(item)
        else:
            self._waiting[schema] = [item]
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

    async def _store_batch(self, schema: str, batch: Sequence[_Item]) -> None:
        try:
            answers = await self._stored(schema, [item.statement for item in batch])
        except Exception as error:
            for item in batch:
                if not item.future.done():  # who asked may have gone
                    item.future.set_exception(error)
        else:
            for item, answer in zip(batch, answers, strict=True):
                if not item.future.done():
                    item.future.set_result(answer)
        finally:
            self._bytes -= sum(item.size for item in batch)

    async def _stored(self, schema: str, statements: Sequence[Statement]) -> list[Answer]:
        loop = asyncio.get_running_loop()
        until = loop.time() + PATIENCE
        while True:
            try:
                return await self._in_thread(schema, statements)
            except Held:
                if loop.time() > until:
                    raise

    async def _in_thread(self, schema: str, statements: Sequence[Statement]) -> list[Answer]:
        if settings.COMMIT_INLINE:
            return await sync_to_async(_take)(schema, statements)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, _take, schema, statements)


def _take(schema: str, statements: Sequence[Statement]) -> list[Answer]:
    if not settings.COMMIT_INLINE:
        close_old_connections()
    return entry.take_alertas(schema, statements, timezone.now())
