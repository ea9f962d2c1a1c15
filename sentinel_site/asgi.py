"""One ASGI server, several ways in: websockets to Channels, the rest to Django's WSGI handler.

WSGI in a thread pool answers pages and API about twice as fast as Django's ASGI handler.
"""

from __future__ import annotations

from typing import Any, cast

from a2wsgi import WSGIMiddleware
from channels.auth import AuthMiddlewareStack
from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import AllowedHostsOriginValidator

from sentinel_site.wsgi import application as wsgi  # sets Django up; what follows needs that

WORKERS = 32


def _websockets() -> Any:
    from alerts.routing import websocket_urlpatterns

    return AllowedHostsOriginValidator(AuthMiddlewareStack(URLRouter(websocket_urlpatterns)))


application: Any = ProtocolTypeRouter(
    {"http": WSGIMiddleware(cast(Any, wsgi), workers=WORKERS), "websocket": _websockets()}
)
