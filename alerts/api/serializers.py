"""What rules, alerts, incidents and channels look like to programs. Spans are in seconds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

from django.core.exceptions import ValidationError as DjangoValidationError
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from agent_client.wire import LEVELS
from alerts import notifiers
from alerts.models import (
    Alert,
    Attempt,
    Event,
    Incident,
    Judgement,
    Notification,
    NotificationChannel,
    Rule,
    RuleVersion,
    Severity,
    config_of,
)
from alerts.values import selectors


@extend_schema_field(float)
class SecondsField(serializers.Field[timedelta, Any, float, Any]):
    """A span as a number of seconds; its bounds are the model's."""

    default_error_messages = {"invalid": "Give a number of seconds."}

    def to_internal_value(self, data: Any) -> timedelta:
        try:
            return timedelta(seconds=float(data))
        except (TypeError, ValueError, OverflowError):
            self.fail("invalid")

    def to_representation(self, value: timedelta) -> float:
        return value.total_seconds()


class Validated(serializers.ModelSerializer[Any]):
    """A serializer that lets the model itself judge, field by field; `judged` is the row."""

    judged: Any

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        row: Any = self.instance or self.Meta.model()  # type: ignore[misc]
        before = {name: getattr(row, name) for name in attrs}
        for name, value in attrs.items():
            setattr(row, name, value)
        try:
            row.full_clean()
        except DjangoValidationError as error:
            for name, value in before.items():
                setattr(row, name, value)
            raise serializers.ValidationError(error.message_dict) from error
        self.judged = row
        return attrs


class TextsField(serializers.DictField):
    """Text by name; a name is held to what its text is held to."""

    def to_internal_value(self, data: Any) -> Any:
        return {
            self.child.run_validation(name): value
            for name, value in super().to_internal_value(data).items()
        }


@extend_schema_field(
    {
        "type": "object",
        "additionalProperties": {
            "oneOf": [
                {"type": "string"},
                {"type": "array", "items": {"type": "string"}},
                {
                    "type": "object",
                    "properties": {"not": {"type": "array", "items": {"type": "string"}}},
                },
            ]
        },
    }
)
class SelectorField(serializers.JSONField):
    """Tags: a text, a list of texts, or `{"not": [...]}` by name."""

    def to_internal_value(self, data: Any) -> Any:
        found = super().to_internal_value(data)
        if problem := selectors.error(found):
            raise serializers.ValidationError(problem)
        for text in _texts(found):
            serializers.CharField(allow_blank=True).run_validation(text)
        return found


def _texts(value: Any) -> Iterator[str]:
    """Every text in it, names too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for name, one in value.items():
            yield name
            yield from _texts(one)
    elif isinstance(value, list):
        for one in value:
            yield from _texts(one)


class RuleSerializer(Validated):
    """What is watched for; see `docs/rules.md`."""

    window = SecondsField(default=timedelta(minutes=1))
    hold = SecondsField(default=timedelta())
    recovery_hold = SecondsField(default=timedelta())
    history = SecondsField(default=timedelta())
    thresholds = serializers.DictField(child=serializers.FloatField())
    tags = SelectorField(required=False)
    level = serializers.ChoiceField(choices=["", *LEVELS], required=False)

    class Meta:
        model = Rule
        fields = ["id", *Rule.SAID, "version", "created_at", "changed_at"]
        read_only_fields = ["version", "created_at", "changed_at"]


class PreviewedAlertSerializer(serializers.Serializer[Any]):
    host = serializers.CharField()
    subject = serializers.CharField()
    severity = serializers.ChoiceField(choices=Severity.choices)
    value = serializers.CharField()
    opened_at = serializers.FloatField(help_text="Unix seconds.")
    ended_at = serializers.FloatField(allow_null=True)


class PreviewSerializer(serializers.Serializer[Any]):
    """What a rule would have raised; times in Unix seconds."""

    span = serializers.CharField()
    start = serializers.FloatField()
    end = serializers.FloatField()
    step = serializers.FloatField()
    unit = serializers.CharField()
    series = serializers.ListField(child=serializers.DictField())
    limits = serializers.ListField(child=serializers.DictField())
    alerts = PreviewedAlertSerializer(many=True)
    count = serializers.IntegerField(help_text="All alerts; the last 50 are listed.")
    servers = serializers.IntegerField(help_text="That the rule is for.")
    looked_at = serializers.IntegerField(help_text="Of these, those with the worst values.")
    series_count = serializers.IntegerField()


class RuleFileSerializer(serializers.Serializer[Any]):
    """A file of rules, and what to do with it."""

    text = serializers.CharField(trim_whitespace=False)
    prune = serializers.BooleanField(default=False, help_text="Remove rules it does not name.")
    dry_run = serializers.BooleanField(default=False, help_text="Only say what would change.")


class ChangeSerializer(serializers.Serializer[Any]):
    """What becomes of one rule."""

    verb = serializers.ChoiceField(choices=["add", "change", "remove"])
    name = serializers.CharField()
    group = serializers.CharField(allow_blank=True)
    server = serializers.CharField(allow_blank=True)
    fields = serializers.DictField()  # type: ignore[assignment]


class RuleVersionSerializer(serializers.ModelSerializer[RuleVersion]):
    class Meta:
        model = RuleVersion
        fields = ["number", "name", "at", "by", "body"]
        read_only_fields = fields


class JudgementSerializer(serializers.ModelSerializer[Judgement]):
    class Meta:
        model = Judgement
        fields = ["at", "value", "limit", "decision", "version"]
        read_only_fields = fields


class AlertSerializer(serializers.ModelSerializer[Alert]):
    host = serializers.CharField(read_only=True)

    class Meta:
        model = Alert
        fields = [
            "id",
            "incident",
            "rule",
            "server",
            "host",
            "origin",
            "severity",
            "service",
            "subject",
            "title",
            "value",
            "limit",
            "unit",
            "count",
            "opened_at",
            "breached_at",
            "resolved_at",
            "resolved_by_hand",
            "part",
            "suppressed",
        ]
        read_only_fields = fields


class EventSerializer(serializers.ModelSerializer[Event]):
    class Meta:
        model = Event
        fields = ["kind", "at", "by", "text"]
        read_only_fields = fields


class IncidentSerializer(serializers.ModelSerializer[Incident]):
    alerts = AlertSerializer(
        source="newest_alerts",
        many=True,
        read_only=True,
        help_text="The newest 200 of them; `alerts/?incident=` lists all.",
    )
    alert_count = serializers.IntegerField(read_only=True)
    events = EventSerializer(
        source="newest_events",
        many=True,
        read_only=True,
        help_text="The newest 200 of them, oldest first.",
    )
    event_count = serializers.IntegerField(read_only=True)
    acknowledged_by = serializers.IntegerField(
        source="taken_by", read_only=True, help_text="A member's user id; null for a key."
    )

    class Meta:
        model = Incident
        fields = [
            "id",
            "title",
            "severity",
            "opened_at",
            "resolved_at",
            "acknowledged_at",
            "acknowledged_by",
            "assigned_to",
            "shelved_until",
            "flapping_until",
            "cause",
            "evidence",
            "merged_into",
            "alerts",
            "alert_count",
            "events",
            "event_count",
        ]
        read_only_fields = fields

    def to_representation(self, instance: Incident) -> dict[str, Any]:
        shown: dict[str, Any] = super().to_representation(instance)
        shown["events"].reverse()  # the newest were asked for, in that order
        return shown


class AssignSerializer(serializers.Serializer[Any]):
    """Who is to see to it."""

    user = serializers.IntegerField(
        allow_null=True, help_text="A member's user id; null: nobody in particular."
    )


class CommentSerializer(serializers.Serializer[Any]):
    """A note for the incident's history."""

    text = serializers.CharField(max_length=2000)


class ShelveSerializer(serializers.Serializer[Any]):
    """Until when nobody is told of it."""

    until = serializers.DateTimeField(help_text="At most 90 days from now.")
    reason = serializers.CharField(max_length=300, required=False, allow_blank=True, default="")


class ChannelSerializer(Validated):
    """Where people are told. Secrets of `config` are written, and shown cut.

    What is left out of them stays as it is. A secret that is made here is in the answer to that
    request alone.
    """

    made: Mapping[str, str] = {}

    config = TextsField(child=serializers.CharField(allow_blank=True))
    failing_since = serializers.DateTimeField(
        source="fares.failing_since", default=None, read_only=True, allow_null=True
    )
    bounced_at = serializers.DateTimeField(
        source="fares.bounced_at", default=None, read_only=True, allow_null=True
    )
    bounce = serializers.CharField(source="fares.bounce", default="", read_only=True)

    class Meta:
        model = NotificationChannel
        fields = [
            "id",
            "name",
            "kind",
            "config",
            "enabled",
            "least_severity",
            "most_a_minute",
            "tells_acknowledged",
            "fallback",
            "failing_since",
            "bounced_at",
            "bounce",
            "created_at",
        ]
        read_only_fields = ["created_at"]

    def to_representation(self, instance: NotificationChannel) -> dict[str, Any]:
        shown = {**config_of(instance), **self.made}
        return {**super().to_representation(instance), "config": shown}

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        given = {name: value for name, value in attrs.get("config", {}).items() if value}
        before = self.instance
        if before is not None and before.kind == attrs.get("kind", before.kind):
            given = {**notifiers.kept(before.kind, before.config, given), **given}
        if "config" in attrs:
            attrs["config"] = given
        return super().validate(attrs)


class TestedSerializer(serializers.Serializer[Any]):
    """What came of a test message; `answer` says what went wrong."""

    delivered = serializers.BooleanField()
    answer = serializers.CharField(allow_blank=True)


class AttemptSerializer(serializers.ModelSerializer[Attempt]):
    """One try to deliver one message, and what was answered. `took` is in seconds."""

    took = SecondsField(read_only=True)
    incident = serializers.IntegerField(
        source="notification.incident_id", default=None, read_only=True, allow_null=True
    )

    class Meta:
        model = Attempt
        fields = [
            "id",
            "channel",
            "notification",
            "incident",
            "key",
            "title",
            "transition",
            "count",
            "at",
            "took",
            "is_delivered",
            "status",
            "answer",
        ]
        read_only_fields = fields


class NotificationSerializer(serializers.ModelSerializer[Notification]):
    """What one channel is told of one transition of an incident, and how far that is."""

    class Meta:
        model = Notification
        fields = [
            "id",
            "incident",
            "channel",
            "transition",
            "severity",
            "key",
            "batch",
            "state",
            "created_at",
            "due_at",
            "attempts",
            "sent_at",
            "error",
        ]
        read_only_fields = fields
