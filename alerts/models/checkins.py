"""Jobs that say when they have run."""

from __future__ import annotations

import secrets
from datetime import datetime, timedelta

from django.core.exceptions import ValidationError
from django.db import models
from django.db.models import Q
from django.utils import timezone

from alerts.values.schedules import NotASchedule, Schedule
from clouds.models import Server

#: Of what a job sends, so many bytes are kept, the last ones.
MOST_BODY = 10_000


def new_secret() -> str:
    return secrets.token_urlsafe(24)


class CheckIn(models.Model):
    """A job that is expected to check in on a schedule; who does not in time raises an alert.

    `due_at` is when it is expected next, `deadline_at` when it is down without having come.
    """

    class State(models.TextChoices):
        NEW = "new", "New"
        UP = "up", "Up"
        DOWN = "down", "Down"
        PAUSED = "paused", "Paused"

    class Severity(models.TextChoices):
        INFO = "info", "Info"
        WARNING = "warning", "Warning"
        ERROR = "error", "Error"
        CRITICAL = "critical", "Critical"

    name = models.CharField(max_length=120, unique=True)
    secret = models.CharField(max_length=40, unique=True, default=new_secret)
    server = models.ForeignKey(
        Server, null=True, blank=True, on_delete=models.SET_NULL, help_text="Where it runs."
    )
    period = models.DurationField(null=True, blank=True, help_text="Expected this often.")
    cron = models.CharField(max_length=100, blank=True, help_text="30 2 * * 1-5")
    zone = models.CharField(max_length=64, default="UTC", help_text="Of the cron expression.")
    grace = models.DurationField(default=timedelta(minutes=5), help_text="What it may be late.")
    severity = models.CharField(max_length=8, choices=Severity.choices, default=Severity.ERROR)
    advice = models.TextField(blank=True, help_text="What to do when it does not come.")
    state = models.CharField(max_length=6, choices=State.choices, default=State.NEW)
    created_at = models.DateTimeField(default=timezone.now)
    came_at = models.DateTimeField(null=True, blank=True, help_text="When it last succeeded.")
    began_at = models.DateTimeField(null=True, blank=True, help_text="When it said it starts.")
    took = models.DurationField(null=True, blank=True, help_text="Its last run, if it told.")
    due_at = models.DateTimeField(null=True, blank=True)
    deadline_at = models.DateTimeField(null=True, blank=True)
    exit_code = models.PositiveSmallIntegerField(null=True, blank=True)
    body = models.TextField(blank=True, help_text="What it sent last.")
    by_heartbeats = models.BooleanField(
        default=False,
        editable=False,
        help_text="Heartbeats of another tool made it; only of such they decide.",
    )

    class Meta:
        ordering = ["name"]
        constraints = [
            models.CheckConstraint(
                condition=Q(period__isnull=True) ^ Q(cron=""), name="checkin_has_one_schedule"
            ),
        ]
        indexes = [
            models.Index(
                fields=["deadline_at"],
                condition=Q(state="new") | Q(state="up"),  # as it is dumped and replayed
                name="checkin_deadline",
            )
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def schedule(self) -> Schedule:
        return Schedule(self.period, self.cron, self.zone, self.grace)

    def state_at(self, at: datetime) -> str:
        """`late` between when it is due and when it is down."""
        late = self.due_at is not None and at > self.due_at
        return "late" if late and self.state == self.State.UP else str(self.state)

    def clean(self) -> None:
        """Errors by field; what a form and the API both ask."""
        try:
            self.schedule.check()
        except NotASchedule as error:
            raise ValidationError({error.field: str(error)}) from None
