"""The websocket of a tenant's open pages. It carries hints and reads only public tables."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import redis
import structlog
from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncJsonWebsocketConsumer
from django.contrib.sessions.models import Session
from django.db import DatabaseError
from django.utils import timezone
from django_tenants.utils import get_public_schema_name, schema_context

from accounts.models import Membership, User
from alerts.push import live

log = structlog.get_logger(__name__)

RECHECK_SECONDS = 60
NO_ACCESS = 4404
GOING_AWAY = 1012


class LiveConsumer(AsyncJsonWebsocketConsumer):
    """Sends `{"type": "alert.changed", "id": 7}`; the page refetches over HTTP.

    Whoever is no member is refused, whether the organization exists or not; membership is checked
    again every minute, so that removal ends the socket.
    """

    schema: str | None = None
    watch: asyncio.Task[None] | None = None

    async def connect(self) -> None:
        self.slug = self.scope["url_route"]["kwargs"]["slug"]
        self.schema = await self._membership()
        if self.schema is None:
            await self.close(code=NO_ACCESS)
            return
        await self.channel_layer.group_add(live.group(self.schema), self.channel_name)
        await self.accept()
        self.watch = asyncio.create_task(self._recheck())

    async def disconnect(self, code: int) -> None:
        if self.watch is not None:
            self.watch.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self.watch
        if self.schema is not None:
            await self.channel_layer.group_discard(live.group(self.schema), self.channel_name)

    async def receive(
        self, text_data: str | None = None, bytes_data: bytes | None = None, **kwargs: Any
    ) -> None:
        """Whatever a page says, the answer proves that the socket is alive."""
        await self.send_json({"type": "alive"})

    async def hint(self, event: dict[str, Any]) -> None:
        await self.send_json(event["hint"])

    async def _membership(self) -> str | None:
        session = self.scope.get("session")
        key = session.session_key if session is not None else None
        return await membership_schema(self.scope.get("user"), key, self.slug)

    async def _recheck(self) -> None:
        while True:
            await asyncio.sleep(RECHECK_SECONDS)
            try:
                member = await self._membership() is not None
            except DatabaseError as error:  # unchecked it must not go on; the page comes again
                log.warning("socket could not be checked", error=str(error).partition("\n")[0])
                await self.close(code=GOING_AWAY)
                return
            if not member:
                await self.close(code=NO_ACCESS)
                return


class Nowhere(AsyncJsonWebsocketConsumer):
    """Every other path: refused as what does not exist."""

    async def connect(self) -> None:
        await self.close(code=NO_ACCESS)


@database_sync_to_async
def membership_schema(user: Any, session_key: str | None, slug: str) -> str | None:
    """The tenant's schema if the session lives and its user is a member; notes the listener."""
    if user is None or not user.is_authenticated:
        return None
    with schema_context(get_public_schema_name()):
        alive = Session.objects.filter(session_key=session_key, expire_date__gt=timezone.now())
        if not alive.exists():
            return None
        membership = (
            Membership.objects.filter(
                user=user.pk,
                user__in=User.objects.filter(is_active=True),
                tenant__slug=slug,
                tenant__provisioned_at__isnull=False,
            )
            .select_related("tenant")
            .first()
        )
    if membership is None:
        return None
    try:
        live.note_listener(membership.tenant.schema_name)
    except redis.RedisError as error:
        log.warning("listener not noted; the page will poll", error=str(error))
    schema: str = membership.tenant.schema_name
    return schema
