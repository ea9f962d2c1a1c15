"""The websockets' paths."""

from django.urls import path

from alerts.consumers import LiveConsumer

websocket_urlpatterns = [path("o/<slug:slug>/ws/live", LiveConsumer.as_asgi())]
