"""The websockets' paths."""

from typing import Any

from django.urls import path, re_path

from alerts.push.consumers import LiveConsumer, Nowhere

nowhere: Any = Nowhere.as_asgi()
live: Any = LiveConsumer.as_asgi()  # Channels routes ASGI applications by Django's `path`

websocket_urlpatterns: list[Any] = [
    path("o/<slug:slug>/ws/live", live),
    re_path(r"", nowhere),
]
