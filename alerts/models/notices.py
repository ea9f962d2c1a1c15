"""Who has read what stands behind the bell."""

from __future__ import annotations

from django.db import models


class Reader(models.Model):
    """How far a member has read the notices: all to this event are known to them."""

    user = models.BigIntegerField(unique=True)
    event = models.BigIntegerField(help_text="The newest event that they saw.")

    class Meta:
        constraints = [
            models.CheckConstraint(condition=models.Q(event__gte=0), name="reads_upwards")
        ]

    def __str__(self) -> str:
        return f"{self.user} to {self.event}"
