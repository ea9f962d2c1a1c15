"""How bad something is."""

from __future__ import annotations

from django.db import models


class Severity(models.TextChoices):
    """How bad it is; the last is the worst."""

    INFO = "info", "Info"
    WARNING = "warning", "Warning"
    ERROR = "error", "Error"
    CRITICAL = "critical", "Critical"

    @property
    def rank(self) -> int:
        return _RANKS[self._value_]


_RANKS = {severity.value: rank for rank, severity in enumerate(Severity)}
