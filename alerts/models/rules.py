"""What is watched for, and what its judgement remembers."""

from __future__ import annotations

from collections.abc import Collection
from datetime import timedelta
from math import isfinite

from django.core.exceptions import NON_FIELD_ERRORS, ValidationError
from django.db import models
from django.db.models import Q
from django.utils import timezone

from agent_client import units
from alerts.models.severities import Severity
from alerts.values import patterns, selectors, sentences
from alerts.values.sentences import Measured
from alerts.values.thresholds import Limits, errors
from clouds.models import CloudGroup, Server

#: What the error is called where two rules for the same servers have one name.
NAME_TAKEN = "name-taken"
LONGEST_WINDOW = timedelta(days=1)
LONGEST_HISTORY = timedelta(days=14)


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

    #: What people say of a rule, in the order in which it is read.
    SAID = (
        "name", "kind", "group", "server", "enabled", "measurement", "field", "tags", "words",
        "pattern", "level", "service", "aggregation", "window", "comparison", "thresholds",
        "recovery", "hold", "recovery_hold", "no_data", "target", "guard", "history", "advice",
    )  # fmt: skip

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
    """A number that a rule's version saw, and what was decided: what an alert can be traced by.

    Each decision that changed something is kept, and of a long time in which nothing does fewer and
    fewer, so that one alert has some dozens.
    """

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
    """A series on which a rule holds and no alert is open yet, or whose alert is about to end.

    Alerts that open at once have none: they tell themselves since when they hold. When one of those
    is resolved by hand while it holds, that is kept here.
    """

    rule = models.ForeignKey(Rule, on_delete=models.CASCADE, db_index=False)
    server = models.ForeignKey(Server, on_delete=models.CASCADE, db_index=False)
    fingerprint = models.CharField(max_length=64)
    since = models.DateTimeField()
    recovering = models.DateTimeField(
        null=True, help_text="Its alert is open and it holds no longer, since then."
    )
    missing_since = models.DateTimeField(
        null=True, help_text="The series has had no number since then; empty: it has."
    )

    class Meta:
        constraints = [models.UniqueConstraint(fields=["fingerprint"], name="one_pending")]

    def __str__(self) -> str:
        return f"{self.rule} since {self.since}"


def _is_number(value: object) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    try:
        return isfinite(value)
    except OverflowError:  # a whole number of hundreds of digits
        return False
