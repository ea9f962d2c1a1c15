"""What is wrong: alerts, the incidents they belong to, and their history."""

from __future__ import annotations

from django.db import models
from django.db.models import F, Q

from alerts.models.rules import Rule
from alerts.models.severities import Severity
from alerts.values import sentences
from clouds.models import Server, Suppression


class Incident(models.Model):
    """Alerts that belong together; what people act on and are told of."""

    title = models.CharField(max_length=300)
    severity = models.CharField(max_length=8, choices=Severity.choices)
    opened_at = models.DateTimeField()
    resolved_at = models.DateTimeField(null=True, blank=True)
    acknowledged_at = models.DateTimeField(null=True, blank=True)
    taken_by = models.BigIntegerField(
        null=True, blank=True, help_text="The person who acknowledged it; empty: a key."
    )
    assigned_to = models.BigIntegerField(
        null=True, blank=True, help_text="The member who is to see to it."
    )
    cause = models.CharField(
        max_length=200, blank=True, help_text="What is probably wrong; empty: not known."
    )
    cause_key = models.CharField(
        max_length=200, blank=True, help_text="What alerts of the same cause are joined by."
    )
    evidence = models.JSONField(
        default=dict, blank=True, help_text="What spoke for the cause: lines, states, series."
    )
    merged_into = models.ForeignKey(
        "self",
        null=True,
        blank=True,
        db_index=False,
        on_delete=models.SET_NULL,
        help_text="The incident that its alerts turned out to belong to.",
    )
    shelved_until = models.DateTimeField(
        null=True, blank=True, help_text="Nobody is told of it before; then it returns."
    )
    flapping_until = models.DateTimeField(
        null=True, blank=True, help_text="It comes and goes; calm till then, it is told again."
    )
    calm_after = models.DurationField(
        null=True, blank=True, help_text="How long it must be calm: longer than it ever was."
    )
    untold = models.BooleanField(
        default=False,
        db_default=False,
        help_text="It opened, came back or got worse while nobody was to be told.",
    )

    class Meta:
        ordering = ["-pk"]
        indexes = [
            models.Index(fields=["-opened_at"], name="incident_newest"),
            models.Index(fields=["-resolved_at"], name="incident_closed"),
            models.Index(fields=["opened_at"], condition=Q(resolved_at=None), name="incident_open"),
            *(  # every evaluation asks for these few among all that are kept
                models.Index(fields=[name], condition=few, name=f"incident_{called}")
                for name, few, called in (
                    ("merged_into", Q(merged_into__isnull=False), "merged"),
                    ("flapping_until", Q(flapping_until__isnull=False), "flapping"),
                    ("shelved_until", Q(shelved_until__isnull=False), "shelved"),
                    ("id", Q(untold=True), "untold"),
                )
            ),
        ]
        constraints = [
            models.CheckConstraint(
                condition=Q(taken_by=None) | Q(acknowledged_at__isnull=False),
                name="acknowledged_at_a_time",
            ),
            models.CheckConstraint(
                condition=Q(resolved_at=None) | Q(resolved_at__gte=F("opened_at")),
                name="incident_ends_after_it_begins",
            ),
            models.CheckConstraint(
                condition=Q(merged_into=None) | Q(resolved_at__isnull=False),
                name="what_is_merged_is_closed",
            ),
        ]

    def __str__(self) -> str:
        return self.title


class Alert(models.Model):
    """A rule's breach on one series, from when it held long enough to recovery.

    One is open per fingerprint; further breaches raise its `count`.
    """

    class Part(models.TextChoices):
        CAUSE = "cause", "Cause"
        SYMPTOM = "symptom", "Symptom"

    #: Names of services that stand for the host itself.
    OF_HOSTS = ("system", "logs", "agent")
    #: The origin of what Sentinella says of itself.
    OWN = "sentinella"

    incident = models.ForeignKey(Incident, on_delete=models.CASCADE)
    rule = models.ForeignKey(Rule, null=True, on_delete=models.SET_NULL)
    server = models.ForeignKey(
        Server, null=True, blank=True, on_delete=models.CASCADE, db_index=False
    )
    resource = models.CharField(
        max_length=255, blank=True, help_text="What it is on, where that is no server known here."
    )
    origin = models.CharField(
        max_length=20, blank=True, help_text="The tool that sent it; empty: a rule raised it."
    )
    fingerprint = models.CharField(max_length=64)
    severity = models.CharField(max_length=8, choices=Severity.choices)
    service = models.CharField(max_length=200, help_text="The process, or `system`.")
    subject = models.CharField(max_length=300, help_text="What of it: a mount, a device, a level.")
    title = models.CharField(max_length=300)
    value = models.FloatField(null=True, help_text="The number last judged, in its own unit.")
    limit = models.FloatField(null=True)
    unit = models.CharField(max_length=20, blank=True)
    count = models.PositiveIntegerField(default=1)
    held_since = models.DateTimeField(
        null=True, help_text="When its rule began to hold; empty: its Pending tells, or a tool."
    )
    opened_at = models.DateTimeField()
    breached_at = models.DateTimeField(help_text="When it was last seen to hold.")
    resolved_at = models.DateTimeField(null=True, blank=True)
    resolved_by_hand = models.BooleanField(default=False)
    part = models.CharField(
        max_length=7,
        choices=Part.choices,
        blank=True,
        help_text="What it is in its incident; empty: the incident has no cause yet.",
    )
    suppressed = models.CharField(
        max_length=11,
        choices=Suppression.Kind.choices,
        blank=True,
        help_text="Nobody is told of it, because of this.",
    )

    class Meta:
        ordering = ["-pk"]
        constraints = [  # what makes dedupe safe when two evaluations overlap
            models.UniqueConstraint(
                fields=["fingerprint"], condition=Q(resolved_at=None), name="one_open"
            ),
            models.CheckConstraint(
                condition=~Q(service="") & ~Q(subject=""), name="names_service_and_subject"
            ),
            models.CheckConstraint(
                condition=Q(server__isnull=False) | ~Q(resource=""), name="is_on_something"
            ),
        ]
        indexes = [
            models.Index(fields=["server", "-opened_at"], name="alert_of_server"),
            models.Index(fields=["fingerprint", "-opened_at"], name="alert_of_series"),
        ]

    def __str__(self) -> str:
        return f"{self.title} on {self.host}"

    @property
    def host(self) -> str:
        """What it is on: a server's host name, or what another tool calls it."""
        return self.server.host if self.server else self.resource

    @property
    def about(self) -> str:
        """The service; where it is none's, a mount, a device, a level; nothing for a whole host."""
        if self.service not in self.OF_HOSTS:
            return self.service
        measurement, _, field = self.subject.partition(" ")
        return "" if (measurement, field) in sentences.OF_METRICS else self.subject

    @property
    def advice(self) -> str:
        """What to do: its tool's runbook, or what its rule says of this {service} and {server}."""
        if self.origin:
            received: Received | None = getattr(self, "received", None)
            return received.advice if received else ""
        said = self.rule.advice if self.rule else ""
        return said.replace("{service}", self.about or self.host).replace("{server}", self.host)

    @property
    def in_short(self) -> str:
        """Its title, and what it is about."""
        return f"{self.title}: {self.about}" if self.about else self.title


class Received(models.Model):
    """What another tool said of an alert, in its own words; they are given back to it."""

    TEXT = 4000

    alert = models.OneToOneField(
        Alert, on_delete=models.CASCADE, primary_key=True, related_name="received"
    )
    text = models.CharField(max_length=TEXT, blank=True)
    advice = models.CharField(max_length=2000, blank=True, help_text="Its runbook.")
    said = models.JSONField(default=dict)
    repeated_at = models.DateTimeField(help_text="When it was last sent.")
    expires_at = models.DateTimeField(
        null=True, blank=True, help_text="It is over then, unless it is sent again."
    )

    class Meta:
        indexes = [
            models.Index(
                fields=["expires_at"],
                condition=Q(expires_at__isnull=False),
                name="received_expires",
            )
        ]

    def __str__(self) -> str:
        return f"{self.alert_id} as {self.said}"


class Event(models.Model):
    """One immutable line of an incident's history."""

    class Kind(models.TextChoices):
        OPENED = "opened", "opened"
        RAISED = "raised", "became worse"
        LOWERED = "lowered", "became less bad"
        ACKNOWLEDGED = "acknowledged", "acknowledged"
        RESOLVED = "resolved", "resolved"
        REOPENED = "reopened", "opened again"
        JOINED = "joined", "grew"
        CAUSE = "cause", "has a probable cause"
        MERGED = "merged", "belongs to another"
        RELEASED = "released", "was given back"
        ASSIGNED = "assigned", "was assigned"
        COMMENTED = "commented", "commented"
        SHELVED = "shelved", "was shelved"
        RETURNED = "returned", "returned from the shelf"
        FLAPPING = "flapping", "comes and goes"
        CALM = "calm", "is calm again"
        UNMUTED = "unmuted", "is no longer muted"

    incident = models.ForeignKey(Incident, on_delete=models.CASCADE)
    kind = models.CharField(max_length=12, choices=Kind.choices)
    at = models.DateTimeField()
    by = models.BigIntegerField(null=True, blank=True, help_text="Empty: the rule, or a key.")
    text = models.CharField(max_length=2000, blank=True)
    severity = models.CharField(
        max_length=8, choices=Severity.choices, blank=True, help_text="The incident's since then."
    )

    class Meta:
        ordering = ["at", "pk"]

    def __str__(self) -> str:
        return f"{self.kind} {self.incident}"
