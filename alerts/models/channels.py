"""Ways to tell somebody, and what was told by them."""

from __future__ import annotations

import uuid
from typing import Any

from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import F, Q
from django.utils import timezone

from alerts import notifiers
from alerts.models.incidents import Incident
from alerts.models.severities import Severity


class NotificationChannel(models.Model):
    """A way to tell somebody: an address, a Slack webhook, a program of their own."""

    name = models.CharField(max_length=120, unique=True)
    kind = models.CharField(max_length=20, choices=notifiers.choices)
    config = models.JSONField(default=dict)
    enabled = models.BooleanField(default=True)
    least_severity = models.CharField(
        max_length=8, choices=Severity.choices, default=Severity.WARNING
    )
    most_a_minute = models.PositiveSmallIntegerField(
        default=60,
        validators=[MinValueValidator(1), MaxValueValidator(600)],
        help_text="Messages; what is more waits, and goes together in one.",
    )
    tells_acknowledged = models.BooleanField(
        default=False, help_text="Also when somebody takes an incident that was told here."
    )
    fallback = models.ForeignKey(
        "self",
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="stands_in_for",
        help_text="Told when this one has failed for an hour; empty: the next that works.",
    )
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ["name"]
        constraints = [
            models.CheckConstraint(
                condition=Q(fallback=None) | ~Q(fallback=F("id")), name="falls_back_on_another"
            ),
            models.CheckConstraint(condition=Q(most_a_minute__gte=1), name="channel_pace"),
        ]

    def __str__(self) -> str:
        return self.name

    def clean(self) -> None:
        if self.fallback_id is not None and self.fallback_id == self.pk:
            raise ValidationError({"fallback": "Choose another channel."})
        notifier = notifiers.by_name(self.kind)
        if notifier is None:
            raise ValidationError({"kind": "Choose one of the kinds offered."})
        errors = notifier.errors(self.config)
        if errors:
            raise ValidationError({"config": errors})


class Notification(models.Model):
    """One delivery of one transition of one incident to one channel: the row is the claim."""

    class State(models.TextChoices):
        WAITING = "waiting", "Waiting"
        SENT = "sent", "Sent"
        FAILED = "failed", "Given up"

    incident = models.ForeignKey(Incident, on_delete=models.CASCADE, db_index=False)
    channel = models.ForeignKey(NotificationChannel, on_delete=models.CASCADE, db_index=False)
    transition = models.CharField(max_length=40, help_text="opened:1, raised:critical, resolved:1")
    severity = models.CharField(max_length=8, choices=Severity.choices)
    key = models.UUIDField(default=uuid.uuid4, help_text="The same for every try to deliver it.")
    state = models.CharField(max_length=7, choices=State.choices, default=State.WAITING)
    created_at = models.DateTimeField(default=timezone.now)
    due_at = models.DateTimeField(default=timezone.now, help_text="Not before; also a claim's end.")
    attempts = models.PositiveIntegerField(default=0)
    sent_at = models.DateTimeField(null=True, blank=True)
    error = models.CharField(max_length=400, blank=True)
    claim = models.UUIDField(null=True, blank=True, help_text="Of the try that is under way.")
    batch = models.UUIDField(
        null=True, blank=True, help_text="The digest it goes in: the key of that message."
    )
    reference = models.CharField(
        max_length=200, blank=True, help_text="What the other side calls the message."
    )

    class Meta:
        ordering = ["-pk"]
        constraints = [
            models.UniqueConstraint(fields=["incident", "channel", "transition"], name="told_once"),
        ]
        indexes = [
            models.Index(
                fields=["channel", "due_at"],
                condition=Q(state="waiting"),
                name="notification_waits",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.transition} of {self.incident} to {self.channel}"


class ChannelState(models.Model):
    """How a channel fares: who is sending now, until when it is left alone, since when it fails.

    One sends to it at a time, under a lease: who comes back after its end changes nothing here.
    """

    channel = models.OneToOneField(
        NotificationChannel, primary_key=True, on_delete=models.CASCADE, related_name="fares"
    )
    lease = models.UUIDField(null=True, blank=True)
    busy_until = models.DateTimeField(null=True, blank=True)
    next_at = models.DateTimeField(null=True, blank=True, help_text="Nothing is sent before.")
    sent_at = models.DateTimeField(null=True, blank=True)
    digest_at = models.DateTimeField(null=True, blank=True)
    failures = models.PositiveIntegerField(default=0, help_text="One after the other.")
    failing_since = models.DateTimeField(null=True, blank=True)
    is_broken = models.BooleanField(default=False, help_text="Others were told that it fails.")
    bounced_at = models.DateTimeField(null=True, blank=True)
    bounce = models.CharField(max_length=400, blank=True)

    def __str__(self) -> str:
        return f"State of {self.channel}"


class Attempt(models.Model):
    """One try to deliver one message to a channel, and what the other side answered."""

    channel = models.ForeignKey(NotificationChannel, on_delete=models.CASCADE)
    notification = models.ForeignKey(
        Notification, null=True, on_delete=models.SET_NULL, help_text="Empty: a digest, or a test."
    )
    key = models.UUIDField(help_text="The message's; the same for every try.")
    title = models.CharField(max_length=300)
    transition = models.CharField(max_length=40)
    count = models.PositiveIntegerField(default=1, help_text="Transitions told by it.")
    at = models.DateTimeField()
    took = models.DurationField()
    is_delivered = models.BooleanField()
    status = models.PositiveSmallIntegerField(null=True, blank=True, help_text="As HTTP has it.")
    answer = models.CharField(max_length=400, blank=True)

    class Meta:
        ordering = ["-pk"]
        indexes = [
            models.Index(fields=["channel", "-at"], name="attempt_newest"),
            models.Index(fields=["at"], name="attempt_old"),
        ]

    def __str__(self) -> str:
        return f"{self.transition} to {self.channel} at {self.at}"

    @property
    def told(self) -> str:
        """What kind of news it was: opened, resolved, test."""
        return self.transition.partition(":")[0]


def config_of(channel: NotificationChannel) -> dict[str, Any]:
    """A channel's configuration as it may be shown: secrets are cut."""
    notifier = notifiers.by_name(channel.kind)
    return notifier.public(channel.config) if notifier else {}


from alerts.models.checkins import CheckIn as CheckIn  # noqa: E402  a model of its own file
