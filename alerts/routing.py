"""The websockets' paths."""

from typing import Any

from django.urls import path

from alerts.consumers import LiveConsumer

live: Any = LiveConsumer.as_asgi()  # Channels routes ASGI applications by Django's `path`

websocket_urlpatterns: list[Any] = [path("o/<slug:slug>/ws/live", live)]
