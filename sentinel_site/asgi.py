"""One ASGI server, several ways in: websockets to Channels, the rest to Django's WSGI handler.

WSGI in a thread pool answers pages and API about twice as fast as Django's ASGI handler.
"""

from __future__ import annotations

import asyncio
import json
from datetime import datetime
from typing import Any, cast

from a2wsgi import WSGIMiddleware
from channels.auth import AuthMiddlewareStack
from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import AllowedHostsOriginValidator

from agent_client.wire import MAX_BODY
from sentinel_site.kit import listening, problems
from sentinel_site.wsgi import application as wsgi  # sets Django up; what follows needs that

WORKERS = 32
BODY_WITHIN = 60.0


class Gathered:
    """Gives a request a thread when all of its body is here: who sends slowly holds up nobody."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body, more = bytearray(), True
        try:
            async with asyncio.timeout(BODY_WITHIN):
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return
                    body += message.get("body", b"")
                    more = message.get("more_body", False)
                    if len(body) > MAX_BODY:
                        await _refuse(send, 413, "too-large", "The request is too large")
                        return
        except TimeoutError:
            await _refuse(send, 408, "too-slow", "The request took too long to arrive")
            return
        framing = (b"content-length", b"transfer-encoding")
        headers = [pair for pair in scope["headers"] if pair[0] not in framing]
        if body or len(headers) < len(scope["headers"]):  # chunks have no length of their own
            headers.append((b"content-length", b"%d" % len(body)))
        whole = [{"type": "http.request", "body": bytes(body), "more_body": False}]

        async def replay() -> Any:
            return whole.pop() if whole else await receive()

        await self.app({**scope, "headers": headers}, replay, send)


async def _refuse(send: Any, status: int, code: str, title: str) -> None:
    headers = [(b"content-type", problems.CONTENT_TYPE.encode()), (b"connection", b"close")]
    body = json.dumps(problems.document(status, code, title)).encode()
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def lifespan(scope: Any, receive: Any, send: Any) -> None:
    """Say that agents are listened to, from the server's start to its end."""
    await receive()
    stop = listening.keep_saying(_after_outage, _mark)
    await send({"type": "lifespan.startup.complete"})
    await receive()
    stop.set()
    await send({"type": "lifespan.shutdown.complete"})


def _after_outage(since: datetime, until: datetime) -> None:
    from metrics import outages

    outages.note(since, until)


def _mark(now: datetime) -> None:
    from metrics import outages
    from sentinel_site import alarms

    outages.mark(now)
    alarms.watch(now)


def _websockets() -> Any:
    from alerts.push.routing import websocket_urlpatterns

    return AllowedHostsOriginValidator(AuthMiddlewareStack(URLRouter(websocket_urlpatterns)))


def _http() -> Any:
    from alerts.doors.hot import HotDoor

    return HotDoor(WSGIMiddleware(cast(Any, wsgi), workers=WORKERS))


application: Any = ProtocolTypeRouter(
    {
        "http": Gathered(_http()),
        "websocket": _websockets(),
        "lifespan": lifespan,
    }
)
