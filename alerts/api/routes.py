"""Routes for programs, and the preview that says who would be told, and why."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, cast

from django.utils import timezone
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import BaseSerializer
from rest_framework.viewsets import ModelViewSet

from accounts.api.auth import AtLeastAdmin, access_of
from alerts.api.serializers import SecondsField, Validated
from alerts.dispatching import routes
from alerts.models import Incident, NotificationChannel, Route, RouteStep, Severity
from clouds.models import CloudGroup
from sentinel_site.kit.api import NewestFirst
from sentinel_site.kit.problems import NotFound

MOST_STEPS = 20


class StepSerializer(serializers.ModelSerializer[RouteStep]):
    """Whom to tell, so many seconds after nobody took it."""

    after = SecondsField(default=timedelta())
    channels = serializers.PrimaryKeyRelatedField(
        many=True, queryset=NotificationChannel.objects.all()
    )

    class Meta:
        model = RouteStep
        fields = ["after", "channels"]


class RouteSerializer(Validated):
    """Which incidents go to which channels; `repeat` is in seconds, or null."""

    services = serializers.ListField(child=serializers.CharField(), required=False)
    groups = serializers.PrimaryKeyRelatedField(
        many=True, queryset=CloudGroup.objects.all(), required=False
    )
    repeat = SecondsField(required=False, allow_null=True)
    steps = StepSerializer(many=True)

    class Meta:
        model = Route
        fields = [
            "id",
            "name",
            "position",
            "enabled",
            "groups",
            "services",
            "least_severity",
            "hours",
            "days",
            "begins",
            "ends",
            "zone",
            "repeat",
            "goes_on",
            "steps",
        ]

    def validate_steps(self, steps: list[dict[str, Any]]) -> list[dict[str, Any]]:
        times = [step["after"] for step in steps]
        if len(times) > MOST_STEPS:
            raise ValidationError(f"At most {MOST_STEPS} steps.")
        if len(set(times)) < len(times):
            raise ValidationError("Two steps have the same time.")
        if any(not timedelta() <= one <= timedelta(days=7) for one in times):
            raise ValidationError("A step is between now and seven days later.")
        return steps

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        related: dict[str, Any] = {
            name: attrs.pop(name) for name in ("groups", "steps") if name in attrs
        }
        judged: dict[str, Any] = super().validate(attrs)
        return judged | related


class StepDecision(serializers.Serializer[Any]):
    """Channels that would be told, so many seconds after nobody took it."""

    after = SecondsField()
    channels = serializers.ListField(child=serializers.IntegerField())


class DecisionSerializer(serializers.Serializer[Any]):
    """What one route says; `route` is null for what holds without any."""

    route = serializers.IntegerField(allow_null=True)
    fits = serializers.BooleanField()
    why = serializers.CharField()
    steps = StepDecision(many=True)


class RouteViewSet(ModelViewSet[Route]):
    """Which incidents go to which channels. Admins change them."""

    queryset = Route.objects.prefetch_related("groups", "steps__channels")
    serializer_class = RouteSerializer
    permission_classes = [AtLeastAdmin]
    pagination_class = NewestFirst

    def perform_create(self, serializer: BaseSerializer[Any]) -> None:
        given = cast(dict[str, Any], serializer.validated_data)
        row: Route = cast(RouteSerializer, serializer).judged
        known = row.pk is not None
        groups = given.get("groups", list(row.groups.all()) if known else [])
        if "steps" in given:
            steps = [(one["after"], [c.pk for c in one["channels"]]) for one in given["steps"]]
        else:
            steps = [(one.after, [c.pk for c in one.channels.all()]) for one in row.steps.all()]
        saved = routes.save_route(
            access_of(self.request), row, [group.pk for group in groups], steps
        )
        serializer.instance = self.get_queryset().get(pk=saved.pk)

    perform_update = perform_create

    def perform_destroy(self, instance: Route) -> None:
        routes.delete_route(access_of(self.request), instance)

    @extend_schema(
        parameters=[
            OpenApiParameter("incident", int, description="Of this incident, or of the rest:"),
            OpenApiParameter("severity", enum=Severity.values),
            OpenApiParameter("group", int, description="A cloud group."),
            OpenApiParameter("service"),
        ],
        responses=DecisionSerializer(many=True),
        filters=False,
    )
    @action(detail=False, methods=["get"], pagination_class=None)
    def preview(self, request: Request) -> Response:
        """Who would be told now, and why: the routes in order, up to the one that decides."""
        found = routes.decide(
            routes.everything(),
            _asked(request),
            NotificationChannel.objects.all(),
            timezone.now(),
        )
        return Response(
            [
                {
                    "route": one.route.pk if one.route else None,
                    "fits": one.fits,
                    "why": one.why,
                    "steps": [
                        {
                            "after": step.after.total_seconds(),
                            "channels": [channel.pk for channel in step.channels],
                        }
                        for step in one.steps
                    ],
                }
                for one in found
            ]
        )


def _asked(request: Request) -> routes.About:
    asked = request.query_params
    numbers = {name: asked.get(name, "") for name in ("incident", "group")}
    for name, text in numbers.items():
        if text and (not text.isdecimal() or len(text) > 18):
            raise ValidationError({name: "Give a whole number."})
    if numbers["incident"]:
        incident = Incident.objects.filter(pk=int(numbers["incident"])).first()
        if incident is None:
            raise NotFound
        return routes.about(incident)
    severity = asked.get("severity", Severity.CRITICAL)
    if severity not in Severity.values:
        raise ValidationError({"severity": f"Use one of {', '.join(Severity.values)}."})
    return routes.About(
        Severity(severity),
        frozenset([int(numbers["group"])] if numbers["group"] else []),
        frozenset(name for name in [asked.get("service", "")] if name),
    )
