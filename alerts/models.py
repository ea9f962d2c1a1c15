"""What is wrong, and who was told. One set of these tables per tenant, in its own schema.

People are named by id (`by`): their rows are in the public schema and are never deleted.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection
from datetime import time, timedelta
from math import isfinite
from typing import Any

from django.core.exceptions import NON_FIELD_ERRORS, ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import F, Q
from django.utils import timezone

from agent_client import units
from alerts import notifiers, patterns, selectors, sentences
from alerts.sentences import Measured
from alerts.thresholds import Limits, errors
from clouds import recurrences
from clouds.models import CloudGroup, Server, Suppression

#: What the error is called where two rules for the same servers have one name.
NAME_TAKEN = "name-taken"
LONGEST_WINDOW = timedelta(days=1)
LONGEST_HISTORY = timedelta(days=14)


class Severity(models.TextChoices):
    """How bad it is; the last is the worst."""

    INFO = "info", "Info"
    WARNING = "warning", "Warning"
    ERROR = "error", "Error"
    CRITICAL = "critical", "Critical"

    @property
    def rank(self) -> int:
        return list(Severity).index(self)


class Rule(models.Model):
    """What a tenant watches for: metrics, log events, services, forecasts, a server's silence.

    Rules may share a name where they differ in whom they are for: the one for a server is in force
    there instead of the one for its cloud group, and that instead of the one for all.
    """

    class Kind(models.TextChoices):
        METRIC = "metric", "Metric"
        FORECAST = "forecast", "Forecast"
        SERVICE = "service", "Service"
        EVENT = "event", "Log events"
        SILENCE = "silence", "Server silent"

    class Aggregation(models.TextChoices):
        """The last six are of log events and services only."""

        AVG = "avg", "Average"
        MIN = "min", "Minimum"
        MAX = "max", "Maximum"
        LAST = "last", "Last value"
        SUM = "sum", "Sum"
        COUNT = "count", "Number of values"
        RATE = "rate", "Rate per second"
        DELTA = "delta", "Change from first to last"
        STDDEV = "stddev", "Standard deviation"
        CHANGES = "changes", "Number of changes"
        P50 = "p50", "Median"
        P90 = "p90", "90th percentile"
        P95 = "p95", "95th percentile"
        P99 = "p99", "99th percentile"
        NEW = "new", "New patterns"
        ABSENT = "absent", "Time since the last one"
        DOWN = "down", "Down after having been up"
        FLAPPING = "flapping", "Going down and up"
        RESTARTS = "restarts", "Restarts"

    class Comparison(models.TextChoices):
        ABOVE = ">", "above"
        AT_LEAST = ">=", "at least"
        BELOW = "<", "below"
        AT_MOST = "<=", "at most"

    class NoData(models.TextChoices):
        IGNORE = "ignore", "ends its alert after 15 min"
        KEEP = "keep", "leaves its alert as it is"
        ALERT = "alert", "is an alert of its own"

    name = models.CharField(max_length=120)
    kind = models.CharField(max_length=8, choices=Kind.choices, default=Kind.METRIC)
    enabled = models.BooleanField(default=True)

    measurement = models.CharField(max_length=200, blank=True, help_text="For metrics: cpu")
    field = models.CharField(max_length=200, blank=True, help_text="For metrics: percent")
    tags = models.JSONField(default=dict, blank=True, help_text="Tags that a series must have.")
    aggregation = models.CharField(
        max_length=8, choices=Aggregation.choices, default=Aggregation.AVG
    )

    words = models.CharField(
        max_length=200, blank=True, help_text="For log events: words that a message must hold."
    )
    pattern = models.CharField(
        max_length=patterns.LONGEST,
        blank=True,
        help_text="For log events: a regular expression (RE2) that must be in the message.",
    )
    level = models.CharField(
        max_length=8, blank=True, help_text="For log events: this level or worse."
    )
    service = models.CharField(max_length=200, blank=True)

    window = models.DurationField(default=timedelta(minutes=1))
    comparison = models.CharField(
        max_length=2, choices=Comparison.choices, default=Comparison.ABOVE
    )
    thresholds = models.JSONField(
        default=dict, help_text='A limit per severity: {"warning": 80, "critical": 95}.'
    )
    recovery = models.FloatField(
        null=True, blank=True, help_text="Resolve only past this; empty: past the lowest limit."
    )
    hold = models.DurationField(default=timedelta, help_text="How long it must hold.")
    recovery_hold = models.DurationField(
        default=timedelta, help_text="How long it must be over before the alert ends."
    )
    no_data = models.CharField(
        max_length=6, choices=NoData.choices, default=NoData.IGNORE, help_text="Missing data …"
    )

    target = models.FloatField(
        null=True, blank=True, help_text="For forecasts: the value that would be reached."
    )
    guard = models.FloatField(
        null=True, blank=True, help_text="For forecasts: judged only from this value on."
    )
    history = models.DurationField(
        default=timedelta, help_text="For forecasts: how much must be known; 0: a quarter of it."
    )

    group = models.ForeignKey(CloudGroup, null=True, blank=True, on_delete=models.CASCADE)
    server = models.ForeignKey(Server, null=True, blank=True, on_delete=models.CASCADE)
    advice = models.TextField(blank=True, help_text="What to do about it.")
    created_at = models.DateTimeField(default=timezone.now)
    changed_at = models.DateTimeField(default=timezone.now)
    version = models.PositiveIntegerField(default=1, help_text="One more with each change.")
    learned_at = models.DateTimeField(
        null=True, editable=False, help_text="Since when it remembers what was logged before."
    )

    class Meta:
        ordering = ["name", "pk"]
        constraints = [
            models.CheckConstraint(condition=Q(window__gt=timedelta()), name="rule_window"),
            models.CheckConstraint(condition=Q(hold__gte=timedelta()), name="rule_hold"),
            models.CheckConstraint(
                condition=Q(kind="event") | Q(kind="silence") | (~Q(measurement="") & ~Q(field="")),
                name="rule_metric_named",
            ),
            models.CheckConstraint(
                condition=Q(group=None) | Q(server=None), name="rule_for_a_group_or_a_server"
            ),
            models.CheckConstraint(
                condition=~Q(kind="forecast") | Q(target__isnull=False), name="rule_has_a_target"
            ),
            *(  # a name is a rule's key within each reach
                models.UniqueConstraint(
                    fields=fields,
                    condition=condition,
                    name=name,
                    violation_error_code=NAME_TAKEN,
                    violation_error_message="There is a rule of this name for the same servers.",
                )
                for name, fields, condition in (
                    ("rule_name_for_all", ["name"], Q(group=None, server=None)),
                    ("rule_name_for_group", ["name", "group"], Q(group__isnull=False)),
                    ("rule_name_for_server", ["name", "server"], Q(server__isnull=False)),
                )
            ),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def watches(self) -> str:
        """The state that a metric rule looks for, in words; empty where it compares amounts."""
        if self.kind not in (self.Kind.METRIC, self.Kind.SERVICE):
            return ""
        return sentences.title(Measured.by(self), "a service")

    @property
    def says_all(self) -> bool:
        """Whether its words need no limit beside them: it looks for a state."""
        return bool(self.watches) and self.aggregation not in ("flapping", "restarts")

    @property
    def selector(self) -> str:
        """Its tags as people write them."""
        return selectors.write(self.tags)

    @property
    def reach(self) -> str:
        """Where it is in force, in words."""
        return str(self.server or self.group or "all servers")

    @property
    def counts_time(self) -> bool:
        """Whether its limits are spans of time, in seconds."""
        if self.kind == self.Kind.EVENT:
            return self.aggregation == self.Aggregation.ABSENT
        return self.kind in (self.Kind.SILENCE, self.Kind.FORECAST)

    @property
    def in_seconds(self) -> bool:
        """Whether its limits are read best as spans: a certificate's `seconds_left`."""
        counted = self.aggregation in ("count", "rate", "changes")
        is_span = units.unit_of(self.measurement, self.field) == "seconds"
        return self.kind == self.Kind.METRIC and is_span and not counted

    @property
    def limits(self) -> list[tuple[str, float]]:
        """Severities with their limits, the mildest first."""
        return [(one.value, self.thresholds[one]) for one in Severity if one in self.thresholds]

    @property
    def compared(self) -> str:
        """How its number is compared with the limits: of a forecast that is the time left."""
        if self.kind == self.Kind.FORECAST:
            return str(self.Comparison.BELOW)
        return str(self.Comparison.ABOVE) if self.counts_time else self.comparison

    def validate_constraints(self, exclude: Collection[str] | None = None) -> None:
        """A name that is taken is said of the name."""
        try:
            super().validate_constraints(exclude)
        except ValidationError as error:
            whole = error.error_dict.get(NON_FIELD_ERRORS, [])
            taken = [one for one in whole if one.code == NAME_TAKEN]
            rest = [one for one in whole if one.code != NAME_TAKEN]
            found = {**error.error_dict, NON_FIELD_ERRORS: rest, "name": taken}
            raise ValidationError({name: them for name, them in found.items() if them}) from None

    def clean(self) -> None:
        """Errors by field; what a form, the API and a file of rules all ask."""
        self._fill()
        found: dict[str, str] = {}
        if self.kind in (self.Kind.METRIC, self.Kind.FORECAST):
            found |= {
                name: "Say which one, as in cpu percent."
                for name in ("measurement", "field")
                if not getattr(self, name)
            }
        if not (
            isinstance(self.thresholds, dict)
            and all(_is_number(value) for value in self.thresholds.values())
        ):
            raise ValidationError({**found, "thresholds": "Give numbers by severity."})
        for name in ("recovery", "target", "guard"):
            if getattr(self, name) is not None and not _is_number(getattr(self, name)):
                raise ValidationError({**found, name: "Give a finite number."})
        found |= errors(Limits(self.compared, self.thresholds, self.recovery))
        if self.aggregation not in _AGGREGATIONS[self.kind]:
            usable = ", ".join(_AGGREGATIONS[self.kind])
            found["aggregation"] = f"For this kind use one of: {usable}."
        if problem := selectors.error(self.tags):
            found["tags"] = problem
        found |= self._errors_of_spans()
        if self.kind == self.Kind.FORECAST and self.target is None:
            found["target"] = "Say what it runs towards: 100 for a disk's percent."
        if self.pattern:
            try:
                patterns.compiled(self.pattern)
            except patterns.BadPattern as error:
                found["pattern"] = str(error)
        if self.group_id is not None and self.server_id is not None:
            found["server"] = "Choose a cloud group or a server, not both."
        if found:
            raise ValidationError(found)

    def _fill(self) -> None:
        """What follows from the kind and need not be given."""
        if self.kind == self.Kind.SERVICE:
            if self.aggregation not in _AGGREGATIONS[self.kind]:
                self.aggregation = self.Aggregation.DOWN
            self.measurement, self.field = "service", _FIELD_OF_SERVICES[self.aggregation]
        elif self.kind == self.Kind.EVENT and self.aggregation == self.Aggregation.AVG:
            self.aggregation = self.Aggregation.COUNT
        elif self.kind in (self.Kind.SILENCE, self.Kind.FORECAST):
            self.aggregation = self.Aggregation.LAST

    def _errors_of_spans(self) -> dict[str, str]:
        found: dict[str, str] = {}
        is_forecast = self.kind == self.Kind.FORECAST
        longest = LONGEST_HISTORY if is_forecast else LONGEST_WINDOW
        if not timedelta() < self.window <= longest:
            found["window"] = f"Between one second and {longest.days} d."
        for name in ("hold", "recovery_hold"):
            if not timedelta() <= getattr(self, name) <= LONGEST_WINDOW:
                found[name] = "Between nothing and one day."
        if not timedelta() <= self.history <= self.window and is_forecast:
            found["history"] = "At most as much as it looks at."
        return found


_OF_METRICS = (
    "avg", "min", "max", "last", "sum", "count", "rate", "delta", "stddev", "changes",
    "p50", "p90", "p95", "p99",
)  # fmt: skip
_AGGREGATIONS: dict[str, tuple[str, ...]] = {
    "metric": _OF_METRICS,
    "forecast": ("last",),
    "service": ("down", "flapping", "restarts"),
    "event": ("count", "rate", "new", "absent"),
    "silence": ("last",),
}
_FIELD_OF_SERVICES = {"down": "down", "flapping": "up", "restarts": "restarts"}


class RuleVersion(models.Model):
    """A rule as somebody saved it. It stays when the rule goes, for alerts name it."""

    rule = models.ForeignKey(Rule, null=True, on_delete=models.SET_NULL, related_name="versions")
    name = models.CharField(max_length=120)
    number = models.PositiveIntegerField()
    at = models.DateTimeField()
    by = models.BigIntegerField(null=True, blank=True, help_text="The person; empty: a key.")
    body = models.JSONField(help_text="The rule as files of rules have it.")

    class Meta:
        ordering = ["-number"]
        constraints = [
            models.UniqueConstraint(fields=["rule", "number"], name="one_of_a_number"),
        ]

    def __str__(self) -> str:
        return f"{self.name}, version {self.number}"


class Judgement(models.Model):
    """A number that a rule saw on a series, and what was decided: what an alert can be traced by.

    Each decision that changed something is kept, and of a long time in which nothing does fewer and
    fewer, so that one alert has some dozens.
    """

    rule = models.ForeignKey(Rule, null=True, on_delete=models.SET_NULL)
    version = models.PositiveIntegerField()
    fingerprint = models.CharField(max_length=64)
    at = models.DateTimeField()
    value = models.FloatField(null=True)
    limit = models.FloatField(null=True)
    decision = models.CharField(max_length=40)

    class Meta:
        ordering = ["at", "pk"]
        indexes = [models.Index(fields=["fingerprint", "at"], name="judgement_of_series")]

    def __str__(self) -> str:
        return f"{self.decision} at {self.at}"


class Remembered(models.Model):
    """What an event rule has seen before: a pattern of messages, or a server that wrote any."""

    rule = models.ForeignKey(Rule, on_delete=models.CASCADE)
    key = models.BigIntegerField(help_text="The pattern's fingerprint, or the server.")
    first_at = models.DateTimeField()
    last_at = models.DateTimeField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["rule", "key"], name="remembered_once")]

    def __str__(self) -> str:
        return f"{self.key} of {self.rule}"


class Pending(models.Model):
    """A series on which a rule holds, since when. It outlives an alert resolved by hand."""

    rule = models.ForeignKey(Rule, on_delete=models.CASCADE)
    server = models.ForeignKey(Server, on_delete=models.CASCADE)
    fingerprint = models.CharField(max_length=64, unique=True)
    since = models.DateTimeField()
    recovering = models.DateTimeField(
        null=True, help_text="Its alert is open and it holds no longer, since then."
    )

    def __str__(self) -> str:
        return f"{self.rule} since {self.since}"


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
        on_delete=models.SET_NULL,
        help_text="The incident that its alerts turned out to belong to.",
    )
    shelved_until = models.DateTimeField(
        null=True, blank=True, help_text="Nobody is told of it before; then it returns."
    )
    flapping_until = models.DateTimeField(
        null=True, blank=True, help_text="It comes and goes; calm till then, it is told again."
    )

    class Meta:
        ordering = ["-pk"]
        indexes = [
            models.Index(fields=["-opened_at"], name="incident_newest"),
            models.Index(fields=["-resolved_at"], name="incident_closed"),
            models.Index(fields=["opened_at"], condition=Q(resolved_at=None), name="incident_open"),
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

    incident = models.ForeignKey(Incident, on_delete=models.CASCADE)
    rule = models.ForeignKey(Rule, null=True, on_delete=models.SET_NULL)
    server = models.ForeignKey(Server, null=True, blank=True, on_delete=models.CASCADE)
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
        if self.service not in {"system", "logs", "agent"}:
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

    incident = models.ForeignKey(Incident, on_delete=models.CASCADE)
    channel = models.ForeignKey(NotificationChannel, on_delete=models.CASCADE)
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
            models.Index(fields=["channel", "-sent_at"], name="notification_sent"),
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


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)


def config_of(channel: NotificationChannel) -> dict[str, Any]:
    """A channel's configuration as it may be shown: secrets are cut."""
    notifier = notifiers.by_name(channel.kind)
    return notifier.public(channel.config) if notifier else {}


from alerts.checkin_models import CheckIn as CheckIn  # noqa: E402  a model of its own file
