"""One ASGI server, several ways in: websockets to Channels, the rest to Django's WSGI handler.

WSGI in a thread pool answers pages and API about twice as fast as Django's ASGI handler.
"""

from __future__ import annotations

from typing import Any

from a2wsgi import WSGIMiddleware
from channels.auth import AuthMiddlewareStack
from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import AllowedHostsOriginValidator

from sentinel_site.wsgi import application as wsgi

from alerts.routing import websocket_urlpatterns  # noqa: E402  isort: skip

WORKERS = 32

application: Any = ProtocolTypeRouter(
    {
        "http": WSGIMiddleware(wsgi, workers=WORKERS),
        "websocket": AllowedHostsOriginValidator(
            AuthMiddlewareStack(URLRouter(websocket_urlpatterns))
        ),
    }
)
