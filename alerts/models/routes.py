"""Who is told of what, now and when nobody acts."""

from __future__ import annotations

from datetime import time, timedelta

from django.core.exceptions import ValidationError
from django.db import models
from django.db.models import Q

from alerts.models.channels import NotificationChannel
from alerts.models.incidents import Incident
from alerts.models.rules import LONGEST_WINDOW
from alerts.models.severities import Severity
from clouds import recurrences
from clouds.models import CloudGroup


class Route(models.Model):
    """Which incidents go to which channels, when, and how long until somebody has them.

    The first one that fits an incident decides, unless it `goes_on` to the next. An incident that
    none fits goes to every channel.
    """

    class Hours(models.TextChoices):
        ALWAYS = "always", "At any time"
        DURING = "during", "During working hours"
        OUTSIDE = "outside", "Outside working hours"

    name = models.CharField(max_length=120, unique=True)
    position = models.PositiveIntegerField(default=10, help_text="The lowest is asked first.")
    enabled = models.BooleanField(default=True)
    groups = models.ManyToManyField(CloudGroup, blank=True, help_text="None: all.")
    services = models.JSONField(
        default=list, blank=True, help_text="Names such as nova-* or rabbitmq; none: all."
    )
    least_severity = models.CharField(max_length=8, choices=Severity.choices, default=Severity.INFO)
    hours = models.CharField(max_length=7, choices=Hours.choices, default=Hours.ALWAYS)
    days = models.CharField(
        max_length=7, default="12345", help_text="Working days: 1 is Monday, 7 is Sunday."
    )
    begins = models.TimeField(default=time(9))
    ends = models.TimeField(default=time(17))
    zone = models.CharField(max_length=64, default="UTC", help_text="Its name: Europe/Berlin.")
    repeat = models.DurationField(
        null=True, blank=True, help_text="Told again so often until somebody has it; empty: once."
    )
    goes_on = models.BooleanField(default=False, help_text="The routes after it are asked, too.")

    class Meta:
        ordering = ["position", "pk"]
        constraints = [
            models.CheckConstraint(
                condition=Q(repeat=None) | Q(repeat__gte=timedelta(minutes=1)), name="route_repeats"
            ),
            models.CheckConstraint(condition=Q(days__regex="^[1-7]+$"), name="route_days"),
        ]

    def __str__(self) -> str:
        return self.name

    def clean(self) -> None:
        found: dict[str, str] = {}
        if not isinstance(self.services, list) or not all(
            isinstance(one, str) and 0 < len(one) <= 200 for one in self.services
        ):
            found["services"] = "Give names of services."
        if not set(self.days) <= set("1234567") or not self.days:
            found["days"] = "Give days as 12345: 1 is Monday, 7 is Sunday."
        if not recurrences.is_zone(self.zone):
            found["zone"] = f"There is no time zone {self.zone}; it is named as Europe/Berlin."
        if self.begins == self.ends:
            found["ends"] = "Working hours end at another time than they begin."
        if self.repeat is not None and not timedelta(minutes=1) <= self.repeat <= LONGEST_WINDOW:
            found["repeat"] = "Between one minute and one day."
        if found:
            raise ValidationError(found)


class RouteStep(models.Model):
    """Whom a route tells: at once, or after a time in which nobody took the incident."""

    route = models.ForeignKey(Route, on_delete=models.CASCADE, related_name="steps")
    after = models.DurationField(default=timedelta)
    channels = models.ManyToManyField(NotificationChannel, blank=True)

    class Meta:
        ordering = ["after"]
        constraints = [
            models.UniqueConstraint(fields=["route", "after"], name="one_step_at_a_time"),
            models.CheckConstraint(condition=Q(after__gte=timedelta()), name="step_after"),
        ]

    def __str__(self) -> str:
        return f"{self.route} after {self.after}"


class Escalation(models.Model):
    """An incident that a route will tell more people of, or again, unless somebody takes it."""

    incident = models.ForeignKey(Incident, on_delete=models.CASCADE)
    route = models.ForeignKey(Route, on_delete=models.CASCADE)
    began_at = models.DateTimeField()
    step = models.PositiveSmallIntegerField(default=0, help_text="Steps that were taken.")
    repeats = models.PositiveIntegerField(default=0)
    next_at = models.DateTimeField(db_index=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["incident", "route"], name="escalates_once")]

    def __str__(self) -> str:
        return f"{self.incident} by {self.route}"
