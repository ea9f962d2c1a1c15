"""What was when: what uptime is counted from. Kept in each tenant's schema.

Written when something changes, never with every report. What is not here did not happen: a server
without a silence was up, for as long as it is registered.
"""

from __future__ import annotations

from django.db import models
from django.db.models import F, Q


class Span(models.Model):
    """From `since` on, and before `until`; without an end it goes on."""

    since = models.DateTimeField()
    until = models.DateTimeField(null=True, blank=True)

    class Meta:
        abstract = True


class Silence(Span):
    """A server was not heard: from the end of the patience with it to the next report.

    Noted in maintenance and blackout too, which its status then hides.
    """

    server = models.ForeignKey("clouds.Server", on_delete=models.CASCADE)

    class Meta:
        ordering = ["since", "pk"]
        constraints = [
            models.UniqueConstraint(
                fields=["server"], condition=Q(until=None), name="one_silence_at_a_time"
            ),
            models.CheckConstraint(
                condition=Q(until=None) | Q(until__gt=F("since")), name="silence_ends_after"
            ),
        ]
        indexes = [models.Index(fields=["server", "since"], name="silence_of_server")]

    def __str__(self) -> str:
        return f"{self.server} silent from {self.since}"


class LateReports(Span):
    """A server was up after all: reports of this time came in late."""

    server = models.ForeignKey("clouds.Server", on_delete=models.CASCADE)

    class Meta:
        ordering = ["since", "pk"]
        indexes = [models.Index(fields=["server", "since"], name="late_of_server")]
        constraints = [
            models.CheckConstraint(
                condition=Q(until__isnull=False, until__gt=F("since")), name="late_has_an_end"
            )
        ]

    def __str__(self) -> str:
        return f"{self.server} up from {self.since}"


class ServiceSpan(Span):
    """A service was in one state. Those of one service never overlap."""

    server = models.ForeignKey("clouds.Server", on_delete=models.CASCADE)
    name = models.CharField(max_length=200)
    state = models.CharField(max_length=7)

    class Meta:
        ordering = ["since", "pk"]
        constraints = [
            models.UniqueConstraint(
                fields=["server", "name"], condition=Q(until=None), name="one_state_at_a_time"
            ),
            models.CheckConstraint(
                condition=Q(until=None) | Q(until__gt=F("since")), name="state_ends_after"
            ),
        ]
        indexes = [models.Index(fields=["server", "name", "since"], name="state_of_service")]

    def __str__(self) -> str:
        return f"{self.name} {self.state} from {self.since}"


class Stay(Span):
    """A server belonged to a cloud group."""

    server = models.ForeignKey("clouds.Server", on_delete=models.CASCADE)
    group = models.ForeignKey("clouds.CloudGroup", on_delete=models.CASCADE)

    class Meta:
        ordering = ["since", "pk"]
        constraints = [
            models.UniqueConstraint(
                fields=["server"], condition=Q(until=None), name="one_group_at_a_time"
            ),
            models.CheckConstraint(
                condition=Q(until=None) | Q(until__gt=F("since")), name="stay_ends_after"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.server} in {self.group} from {self.since}"
