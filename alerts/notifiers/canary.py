"""The end of the canary's way: no person is told, the time is kept."""

from __future__ import annotations

from typing import Any

from django.utils import timezone

from alerts.notifiers.base import STORM_PAUSE, Field, Message, Receipt
from metrics import roundtrips


class Canary:
    """Notes that a message came through; see `alerts.telling.canary`."""

    name = "canary"
    label = "Canary"
    fields: tuple[Field, ...] = ()
    most: int | None = None
    storm_pause = STORM_PAUSE
    shows_pictures = False

    def errors(self, config: dict[str, Any]) -> list[str]:
        return []

    def public(self, config: dict[str, Any]) -> dict[str, Any]:
        return {}

    def send(self, config: dict[str, Any], message: Message) -> Receipt:
        roundtrips.arrived(timezone.now())
        return Receipt()
