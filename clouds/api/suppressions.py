"""Maintenance and blackout for programs."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django.db.models import Q, QuerySet
from django.utils import timezone
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework import mixins, serializers
from rest_framework.decorators import action
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import GenericViewSet

from accounts.api.auth import access_of
from clouds import muting, suppression
from clouds.models import CloudGroup, Recurrence, Server, Suppression, SuppressionKind
from clouds.muting import Wanted
from clouds.suppression import Repeat, Target
from sentinel_site.kit.api import NewestFirst

ON, COMING, OVER = "on", "coming", "over"


class _Scope(serializers.Serializer[Any]):
    """Of one server or one cloud group; of neither: of all servers."""

    server = serializers.PrimaryKeyRelatedField(
        queryset=Server.objects.all(), allow_null=True, required=False
    )
    group = serializers.PrimaryKeyRelatedField(
        queryset=CloudGroup.objects.all(), allow_null=True, required=False
    )
    kind = serializers.ChoiceField(choices=SuppressionKind.choices)
    reason = serializers.CharField(max_length=300)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if attrs.get("server") and attrs.get("group"):
            raise ValidationError({"group": "Give a server or a group, not both."})
        return attrs


def _target(given: dict[str, Any]) -> Target:
    found: Target = given.get("server") or given.get("group")
    return found


class SuppressionRowSerializer(_Scope):
    id = serializers.IntegerField(read_only=True)
    since = serializers.DateTimeField(required=False, help_text="Left out: now.")
    until = serializers.DateTimeField(
        allow_null=True, required=False, help_text="Null: until it is ended."
    )
    ended_at = serializers.DateTimeField(read_only=True)
    state = serializers.SerializerMethodField(help_text=f"{ON}, {COMING} or {OVER}.")
    recurrence = serializers.IntegerField(
        source="recurrence_id", read_only=True, allow_null=True, help_text="What it is of."
    )
    by = serializers.IntegerField(read_only=True, help_text="The person; null: a key.")
    by_key = serializers.IntegerField(read_only=True, help_text="The key; null: a person.")

    def get_state(self, row: Suppression) -> str:
        now = timezone.now()
        if row.ended_at is not None or (row.until is not None and row.until <= now):
            return OVER
        return COMING if row.since > now else ON


class RecurrenceSerializer(_Scope):
    id = serializers.IntegerField(read_only=True)
    rule = serializers.CharField(max_length=200, help_text="An RRULE: FREQ=WEEKLY;BYDAY=SU")
    zone = serializers.CharField(max_length=64, help_text="Europe/Berlin")
    begins = serializers.DateTimeField(help_text="When the first one begins.")
    lasts = serializers.FloatField(min_value=1, help_text="Seconds of each.")
    next = serializers.SerializerMethodField(help_text="When the next three begin.")
    ended_at = serializers.DateTimeField(read_only=True)
    by = serializers.IntegerField(read_only=True)
    by_key = serializers.IntegerField(read_only=True)

    def get_next(self, row: Recurrence) -> list[datetime]:
        return [] if row.ended_at else suppression.next_of(row, timezone.now())

    def to_representation(self, row: Recurrence) -> dict[str, Any]:
        lasts, row.lasts = row.lasts, row.lasts.total_seconds()
        try:
            return super().to_representation(row)
        finally:
            row.lasts = lasts


class SuppressionViewSet(
    mixins.ListModelMixin, mixins.RetrieveModelMixin, GenericViewSet[Suppression]
):
    """When nobody is told of alerts: what is on, what comes, what was. Newest first."""

    queryset = Suppression.objects.select_related("server", "group")
    serializer_class = SuppressionRowSerializer
    pagination_class = NewestFirst

    @extend_schema(
        parameters=[
            OpenApiParameter("state", enum=[ON, COMING, OVER]),
            OpenApiParameter("server", int, description="Only of this server itself."),
        ]
    )
    def list(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        return super().list(request, *args, **kwargs)

    def filter_queryset(self, queryset: QuerySet[Any, Any]) -> QuerySet[Any, Any]:
        if self.action != "list":
            return queryset
        asked, now = self.request.query_params, timezone.now()
        state, server = asked.get("state", ""), asked.get("server", "")
        if state not in ("", ON, COMING, OVER):
            raise ValidationError({"state": f"Use {ON}, {COMING} or {OVER}."})
        if server:
            if not server.isdecimal() or len(server) > 18:
                raise ValidationError({"server": "Give a whole number."})
            queryset = queryset.filter(server=int(server))
        over = Q(ended_at__isnull=False) | Q(until__lte=now)
        if state == OVER:
            return queryset.filter(over)
        if state == ON:
            return queryset.exclude(over).filter(since__lte=now)
        return queryset.exclude(over).filter(since__gt=now) if state else queryset

    @extend_schema(
        request=SuppressionRowSerializer,
        responses={
            201: SuppressionRowSerializer,
            409: OpenApiResponse(description="The server is retired."),
            422: OpenApiResponse(description="No time that can be suppressed."),
        },
    )
    def create(self, request: Request) -> Response:
        form = SuppressionRowSerializer(data=request.data)
        form.is_valid(raise_exception=True)
        given = form.validated_data
        wanted = Wanted(
            SuppressionKind(given["kind"]), given["reason"], given.get("since"), given.get("until")
        )
        row = muting.mute(access_of(request), _target(given), wanted, timezone.now())
        return Response(SuppressionRowSerializer(row).data, status=201)

    @extend_schema(
        request=SuppressionRowSerializer,
        description="Another reason or end; before it begins, another beginning.",
        responses={200: SuppressionRowSerializer, 409: OpenApiResponse(description="It is over.")},
    )
    def partial_update(self, request: Request, pk: str) -> Response:
        row = self.get_object()
        form = SuppressionRowSerializer(data=request.data, partial=True)
        form.is_valid(raise_exception=True)
        given = form.validated_data
        wanted = Wanted(
            SuppressionKind(row.kind),
            given.get("reason", row.reason),
            given.get("since"),
            given.get("until", row.until),
        )
        muting.change(access_of(request), row, wanted, timezone.now())
        return Response(SuppressionRowSerializer(self.get_object()).data)

    @extend_schema(
        request=None,
        summary="End it before its time, or call it off",
        responses={204: None, 409: OpenApiResponse(description="It is over.")},
    )
    @action(detail=True, methods=["post"])
    def end(self, request: Request, pk: str) -> Response:
        muting.end(access_of(request), self.get_object(), timezone.now())
        return Response(status=204)


class RecurrenceViewSet(
    mixins.ListModelMixin, mixins.RetrieveModelMixin, GenericViewSet[Recurrence]
):
    """Maintenance and blackout that come again."""

    queryset = Recurrence.objects.select_related("server", "group")
    serializer_class = RecurrenceSerializer
    pagination_class = NewestFirst

    @extend_schema(
        request=RecurrenceSerializer,
        responses={201: RecurrenceSerializer, 422: OpenApiResponse(description="No such rule.")},
    )
    def create(self, request: Request) -> Response:
        form = RecurrenceSerializer(data=request.data)
        form.is_valid(raise_exception=True)
        given = form.validated_data
        row = muting.mute(access_of(request), _target(given), _wanted(given), timezone.now())
        return Response(RecurrenceSerializer(row).data, status=201)

    @extend_schema(request=RecurrenceSerializer, responses=RecurrenceSerializer)
    def partial_update(self, request: Request, pk: str) -> Response:
        row = self.get_object()
        form = RecurrenceSerializer(data=request.data, partial=True)
        form.is_valid(raise_exception=True)
        given = {
            "kind": row.kind,
            "reason": row.reason,
            "rule": row.rule,
            "zone": row.zone,
            "begins": row.begins,
            "lasts": row.lasts.total_seconds(),
            **{
                name: value
                for name, value in form.validated_data.items()
                if name not in ("kind", "server", "group")
            },
        }
        muting.change(access_of(request), row, _wanted(given), timezone.now())
        return Response(RecurrenceSerializer(self.get_object()).data)

    @extend_schema(request=None, summary="Have it come no more", responses={204: None})
    @action(detail=True, methods=["post"])
    def end(self, request: Request, pk: str) -> Response:
        muting.end(access_of(request), self.get_object(), timezone.now())
        return Response(status=204)


def _wanted(given: dict[str, Any]) -> Wanted:
    try:
        lasts = timedelta(seconds=given["lasts"])
    except OverflowError:
        raise ValidationError({"lasts": "That is longer than anything lasts."}) from None
    return Wanted(
        SuppressionKind(given["kind"]),
        given["reason"],
        since=given["begins"],
        repeat=Repeat(given["rule"], given["zone"], lasts),
    )
