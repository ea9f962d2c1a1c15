"""The API's shapes. Those of the doors describe only: the doors parse without serializers."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Any

from django.utils import timezone
from django.utils.dateparse import parse_datetime
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from agent_client import wire
from metrics import queries
from metrics.stores.base import is_aggregation

HOUR = timedelta(hours=1)
_LATEST = 32_503_680_000.0  # the year 3000


class ProblemSerializer(serializers.Serializer[Any]):
    """RFC 9457."""

    type = serializers.CharField()
    title = serializers.CharField()
    status = serializers.IntegerField()
    detail = serializers.CharField(required=False)


class PointSerializer(serializers.Serializer[Any]):
    measurement = serializers.CharField(max_length=wire.MAX_NAME)
    tags = serializers.DictField(child=serializers.CharField(), required=False)
    fields = serializers.DictField(child=serializers.FloatField())  # type: ignore[assignment]


class LogEventSerializer(serializers.Serializer[Any]):
    id = serializers.CharField(help_text="Unique within the epoch.")
    at = serializers.FloatField(help_text="Unix seconds.")
    level = serializers.ChoiceField(wire.LEVELS)
    message = serializers.CharField(max_length=wire.MAX_MESSAGE)
    service = serializers.CharField(required=False)
    component = serializers.CharField(required=False)
    request_id = serializers.CharField(required=False)
    pid = serializers.IntegerField(required=False)
    path = serializers.CharField(required=False)


class ServiceStateSerializer(serializers.Serializer[Any]):
    name = serializers.CharField()
    project = serializers.CharField()
    state = serializers.ChoiceField(wire.SERVICE_STATES)
    workers = serializers.IntegerField(required=False)
    started_at = serializers.FloatField(required=False)
    detail = serializers.CharField(required=False)


class ReportSerializer(serializers.Serializer[Any]):
    agent = serializers.UUIDField()
    epoch = serializers.CharField(max_length=64)
    sequence = serializers.IntegerField(min_value=0)
    host = serializers.CharField(max_length=255)
    at = serializers.FloatField(help_text="Unix seconds.")
    interval = serializers.FloatField(help_text="Seconds between two reports.")
    version = serializers.CharField(required=False)
    points = PointSerializer(many=True, required=False)
    events = LogEventSerializer(many=True, required=False)
    services = ServiceStateSerializer(many=True, required=False)
    specs = serializers.DictField(required=False)
    goodbye = serializers.CharField(
        required=False, max_length=200, help_text="Why the agent stops; in its last report."
    )


class RejectSerializer(serializers.Serializer[Any]):
    report = serializers.IntegerField(help_text="Its place in the request, from 0.")
    item = serializers.CharField()
    code = serializers.CharField()
    detail = serializers.CharField()


class AnswerSerializer(serializers.Serializer[Any]):
    accepted = serializers.IntegerField()
    duplicates = serializers.IntegerField()
    rejected = RejectSerializer(many=True)
    settings = serializers.DictField(
        required=False,
        help_text="What the agent is asked for, where its own configuration consents: version,"
        " interval (seconds), levels by service, levels_until (Unix seconds), collectors.",
    )
    server_time = serializers.FloatField(help_text="The server's clock, in Unix seconds.")


class EnrolSerializer(serializers.Serializer[Any]):
    agent = serializers.UUIDField()
    host = serializers.CharField(max_length=255)


class EnrolmentSerializer(serializers.Serializer[Any]):
    key = serializers.CharField()
    agent = serializers.UUIDField()
    organization = serializers.CharField()


class LegacyMetricsSerializer(serializers.Serializer[Any]):
    account_key = serializers.CharField()
    server_name = serializers.CharField()
    measurements = serializers.CharField(required=False, help_text="JSON in a string, or a list.")
    stats = serializers.DictField(required=False)
    specs = serializers.CharField(required=False, help_text="JSON in a string, or an object.")
    plugins = serializers.DictField(required=False)


class LegacyLogSerializer(serializers.Serializer[Any]):
    account_key = serializers.CharField()
    server_name = serializers.CharField()
    service_name = serializers.CharField()
    timex = serializers.CharField()
    log_id = serializers.CharField()
    level = serializers.CharField()
    component = serializers.CharField()
    description = serializers.CharField()


# -- reading ------------------------------------------------------------------


@extend_schema_field(OpenApiTypes.DATETIME)
class InstantField(serializers.Field[datetime, Any, str, Any]):
    """A time: ISO 8601 (UTC unless it says otherwise) or Unix seconds."""

    default_error_messages = {"invalid": "Use ISO 8601 or Unix seconds."}

    def to_internal_value(self, data: Any) -> datetime:
        at = instant(str(data))
        if at is None:
            self.fail("invalid")
        return at

    def to_representation(self, value: datetime) -> str:
        return value.isoformat()


def instant(text: str) -> datetime | None:
    """The time that a text names, in ISO 8601 or Unix seconds; None if it names none."""
    try:
        seconds = float(text)
    except ValueError:
        pass
    else:
        in_range = math.isfinite(seconds) and 0 <= seconds <= _LATEST
        return datetime.fromtimestamp(seconds, UTC) if in_range else None
    try:
        at = parse_datetime(text.replace(" ", "+"))
        if at is None:
            return None
        at = at if at.tzinfo else at.replace(tzinfo=UTC)
        return at.astimezone(UTC) if 1970 < at.year < 3000 else None
    except (ValueError, OverflowError):
        return None


@extend_schema_field(OpenApiTypes.STR)
class TagsField(serializers.Field[dict[str, str], Any, str, Any]):
    """`name:value`, several with commas or by giving the parameter again."""

    default_error_messages = {"invalid": "Use name:value, and commas between several."}

    def get_value(self, dictionary: Any) -> Any:
        given = dictionary.getlist(self.field_name)
        return ",".join(given) if given else serializers.empty

    def to_internal_value(self, data: Any) -> dict[str, str]:
        tags = {}
        for pair in filter(None, str(data).split(",")):
            name, colon, value = pair.partition(":")
            if not colon or not name:
                self.fail("invalid")
            tags[name] = value
        return tags

    def to_representation(self, value: dict[str, str]) -> str:
        return ",".join(f"{name}:{one}" for name, one in value.items())


class SpanQuery(serializers.Serializer[Any]):
    """A span of time that ends after it starts."""

    start = InstantField(required=False)
    end = InstantField(required=False)
    default_span = HOUR

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        attrs.setdefault("end", timezone.now())
        attrs.setdefault("start", attrs["end"] - self.default_span)
        if attrs["start"] >= attrs["end"]:
            raise serializers.ValidationError({"end": "It must be later than start."})
        return attrs


class SeriesQuery(SpanQuery):
    measurement = serializers.CharField(max_length=wire.MAX_NAME)
    field = serializers.CharField(
        max_length=1000, help_text="One field, or several with commas between."
    )
    tags = TagsField(required=False, help_text="Of the series' tags: name:value,name:value.")
    points = serializers.IntegerField(
        required=False, default=300, min_value=1, max_value=queries.MAX_POINTS
    )
    agg = serializers.CharField(
        required=False,
        allow_blank=True,
        default="",
        help_text="avg, min, max, last, sum, count, rate, or a percentile as p95.",
    )

    def validate_agg(self, value: str) -> str:
        if value and not is_aggregation(value):
            raise serializers.ValidationError(
                "Use avg, min, max, last, sum, count, rate, or a percentile as p95."
            )
        return value


class LineSerializer(serializers.Serializer[Any]):
    name = serializers.CharField()
    label = serializers.CharField()  # type: ignore[assignment]
    unit = serializers.CharField()
    tags = serializers.DictField(child=serializers.CharField())
    times = serializers.ListField(child=serializers.FloatField())
    values = serializers.ListField(child=serializers.FloatField(allow_null=True))


class ChartSerializer(serializers.Serializer[Any]):
    start = serializers.FloatField()
    end = serializers.FloatField()
    step = serializers.FloatField(help_text="The usual distance of two values, in seconds.")
    series = LineSerializer(many=True)


class EventsQuery(SpanQuery):
    q = serializers.CharField(required=False, allow_blank=True, default="", max_length=1000)
    level = serializers.ListField(
        child=serializers.ChoiceField(wire.LEVELS),
        required=False,
        help_text="One of these; give it several times, or commas between.",
    )
    at_least = serializers.ChoiceField(
        wire.LEVELS, required=False, help_text="This level and all that are worse."
    )
    server = serializers.IntegerField(required=False, min_value=1, max_value=2**63 - 1)
    service = serializers.CharField(required=False, max_length=wire.MAX_NAME)
    request_id = serializers.CharField(required=False, max_length=wire.MAX_NAME)
    cursor = serializers.CharField(required=False, max_length=200)
    size = serializers.IntegerField(required=False, default=100, min_value=1, max_value=500)
    default_span = timedelta(days=7)

    def to_internal_value(self, data: Any) -> Any:
        data = data.copy()
        levels = [word for text in data.getlist("level") for word in text.split(",") if word]
        data.setlist("level", levels)
        return super().to_internal_value(data)


class StoredEventSerializer(serializers.Serializer[Any]):
    id = serializers.IntegerField()
    at = serializers.DateTimeField()
    received_at = serializers.DateTimeField()
    server = serializers.IntegerField(source="server_id")
    level = serializers.ChoiceField(wire.LEVELS)
    service = serializers.CharField()
    component = serializers.CharField()
    request_id = serializers.CharField()
    pid = serializers.IntegerField(allow_null=True)
    path = serializers.CharField()
    written = serializers.CharField(help_text="The time as the host wrote it, without a zone.")
    message = serializers.CharField()


class EventPageSerializer(serializers.Serializer[Any]):
    next = serializers.CharField(allow_null=True, help_text="The address of older events.")
    cursor = serializers.CharField(allow_null=True)
    results = StoredEventSerializer(many=True)


class KnockSerializer(serializers.Serializer[Any]):
    key = serializers.CharField(source="hint")
    host = serializers.CharField()
    first_at = serializers.DateTimeField()
    last_at = serializers.DateTimeField()
    count = serializers.IntegerField()
    sample = serializers.JSONField()
