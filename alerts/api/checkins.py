"""Expected check-ins for programs."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, cast

from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import BaseSerializer
from rest_framework.viewsets import ModelViewSet

from accounts.api.auth import access_of
from accounts.models import Role
from alerts.api.serializers import SecondsField, Validated
from alerts.jobs import checkins
from alerts.models import CheckIn
from sentinel_site.kit.api import NewestFirst


class CheckInSerializer(Validated):
    """A job that is expected; by `period` or by `cron`. Spans are in seconds."""

    period = SecondsField(required=False, allow_null=True)
    grace = SecondsField(default=timedelta(minutes=5))
    took = SecondsField(read_only=True)
    state = serializers.SerializerMethodField(help_text="new, up, late, down or paused.")
    url = serializers.SerializerMethodField(
        help_text="Where the job calls: GET, HEAD or POST, also with /start, /fail or /<exit code>."
        " Null for viewers: whoever has it can check in."
    )

    class Meta:
        model = CheckIn
        fields = [
            *("id", "name", "server", "period", "cron", "zone", "grace", "severity", "advice"),
            *("state", "url", "came_at", "due_at", "deadline_at", "began_at", "took"),
            *("exit_code", "body", "created_at"),
        ]
        read_only_fields = [
            *("came_at", "due_at", "deadline_at", "began_at", "exit_code", "body", "created_at")
        ]

    def get_state(self, row: CheckIn) -> str:
        return row.state_at(timezone.now())

    def get_url(self, row: CheckIn) -> str | None:
        access = access_of(self.context["request"])
        return checkins.ping_url(access.tenant.pk, row) if access.may(Role.MEMBER) else None


class CheckInViewSet(ModelViewSet[CheckIn]):
    """Jobs that say when they have run; one that does not come in time raises an alert."""

    queryset = CheckIn.objects.all()
    serializer_class = CheckInSerializer
    pagination_class = NewestFirst

    def perform_create(self, serializer: BaseSerializer[Any]) -> None:
        row = cast(Validated, serializer).judged
        serializer.instance = checkins.save(access_of(self.request), row, timezone.now())

    perform_update = perform_create

    def perform_destroy(self, instance: CheckIn) -> None:
        checkins.delete(access_of(self.request), instance, timezone.now())

    @extend_schema(request=None, summary="Expect it no more until it comes again")
    @action(detail=True, methods=["post"])
    def pause(self, request: Request, pk: str) -> Response:
        row = self.get_object()
        checkins.pause(access_of(request), row, timezone.now())
        return Response(self.get_serializer(row).data)
