"""The delivery log for programs: what was tried, what was answered, what still waits."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from django.utils import timezone
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework.decorators import action
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import ReadOnlyModelViewSet

from accounts.access import require
from accounts.api.auth import access_of
from accounts.models import Role
from alerts.api.serializers import AttemptSerializer, NotificationSerializer
from alerts.models import Attempt, Notification
from alerts.telling import delivery
from sentinel_site.kit.api import NewestFirst

_OF = [
    OpenApiParameter("channel", int, description="Only to this channel."),
    OpenApiParameter("incident", int, description="Only about this incident."),
]


@extend_schema(parameters=[*_OF, OpenApiParameter("delivered", enum=["true", "false"])])
class DeliveryViewSet(ReadOnlyModelViewSet[Attempt]):
    """Every try to deliver a message, newest first; kept for 90 days."""

    queryset = Attempt.objects.select_related("notification")
    serializer_class = AttemptSerializer
    pagination_class = NewestFirst

    def filter_queryset(self, queryset: QuerySet[Any, Any]) -> QuerySet[Any, Any]:
        if self.action != "list":
            return queryset
        asked = self.request.query_params
        queryset = _of(queryset, self.request, "notification__incident")
        delivered = asked.get("delivered", "")
        if delivered not in ("", "true", "false"):
            raise ValidationError({"delivered": "Use true or false."})
        return queryset.filter(is_delivered=delivered == "true") if delivered else queryset


@extend_schema(
    parameters=[*_OF, OpenApiParameter("state", enum=[one.value for one in Notification.State])]
)
class NotificationViewSet(ReadOnlyModelViewSet[Notification]):
    """What each channel is to be told of each transition, newest first."""

    queryset = Notification.objects.all()
    serializer_class = NotificationSerializer
    pagination_class = NewestFirst

    def filter_queryset(self, queryset: QuerySet[Any, Any]) -> QuerySet[Any, Any]:
        if self.action != "list":
            return queryset
        state = self.request.query_params.get("state", "")
        if state and state not in Notification.State.values:
            raise ValidationError({"state": f"Use one of {', '.join(Notification.State.values)}."})
        queryset = _of(queryset, self.request, "incident")
        return queryset.filter(state=state) if state else queryset

    @extend_schema(
        request=None,
        responses={
            201: NotificationSerializer,
            409: OpenApiResponse(description="It still waits"),
        },
    )
    @action(detail=True, methods=["post"])
    def resend(self, request: Request, pk: str) -> Response:
        """Tell it once more, under a key of its own."""
        require(request._request, Role.MEMBER)
        made = delivery.resend(access_of(request), self.get_object(), timezone.now())
        return Response(NotificationSerializer(made).data, status=201)


def _of(rows: QuerySet[Any, Any], request: Request, incident: str) -> QuerySet[Any, Any]:
    for name, column in (("channel", "channel"), ("incident", incident)):
        text = request.query_params.get(name)
        if text:
            if not text.isdecimal() or len(text) > 18:
                raise ValidationError({name: "Give a whole number."})
            rows = rows.filter(**{column: int(text)})
    return rows
