"""Servers and cloud groups for programs."""

from __future__ import annotations

from typing import Any

from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import mixins
from rest_framework.decorators import action
from rest_framework.exceptions import MethodNotAllowed, ValidationError
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import BaseSerializer
from rest_framework.viewsets import GenericViewSet, ModelViewSet

from accounts.access import audit
from accounts.api.auth import access_of
from clouds import muting, suppression
from clouds.agent_settings import Wanted, change
from clouds.api.serializers import (
    AgentSettingsSerializer,
    CloudGroupSerializer,
    ServerDetailSerializer,
    ServerSerializer,
)
from clouds.models import AgentSettings, CloudGroup, Server
from sentinel_site.kit.api import NewestFirst


@extend_schema(
    parameters=[
        OpenApiParameter("status", enum=Server.Status.values),
        OpenApiParameter("health", enum=Server.Health.values),
        OpenApiParameter("host", str, description="Part of the host name."),
    ]
)
class ServerViewSet(
    mixins.ListModelMixin,
    mixins.RetrieveModelMixin,
    mixins.UpdateModelMixin,
    GenericViewSet[Server],
):
    """What is watched. Servers register themselves with their first report."""

    queryset = Server.objects.select_related("group")
    pagination_class = NewestFirst
    http_method_names = ["get", "patch", "put", "head", "options"]

    def get_serializer_class(self) -> type[ServerSerializer]:
        return ServerSerializer if self.action == "list" else ServerDetailSerializer

    def filter_queryset(self, queryset: QuerySet[Any, Any]) -> QuerySet[Any, Any]:
        if self.action != "list":
            return queryset
        asked = self.request.query_params
        for name, choices in (
            ("status", Server.Status.values),
            ("health", Server.Health.values),
        ):
            if asked.get(name):
                if asked[name] not in choices:
                    raise ValidationError({name: f"Use one of {', '.join(choices)}."})
                queryset = queryset.filter(**{name: asked[name]})
        host = asked.get("host", "").replace("\0", "�")  # which no host name has
        return queryset.filter(host__icontains=host) if host else queryset

    @extend_schema(exclude=True)
    def update(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        if not kwargs.get("partial"):
            raise MethodNotAllowed("PUT")  # a server is changed in part, only its settings whole
        return super().update(request, *args, **kwargs)

    def perform_update(self, serializer: BaseSerializer[Any]) -> None:
        server, given = self.get_object(), serializer.validated_data
        serializer.instance = muting.classify(
            access_of(self.request),
            server,
            given.get("group", server.group),
            given.get("role", server.role),
            timezone.now(),
        )

    @extend_schema(
        operation_id="server_settings",
        summary="What the server's agent is asked for",
        responses=AgentSettingsSerializer,
    )
    @action(detail=True, methods=["get"], url_path="settings", pagination_class=None)
    def asked(self, request: Request, pk: str) -> Response:
        server = self.get_object()
        row = getattr(server, "agent_settings", None) or AgentSettings(server=server, version=0)
        return Response(AgentSettingsSerializer(row).data)

    @extend_schema(
        operation_id="change_server_settings",
        summary="Ask the server's agent for an interval, log levels and collectors",
        description="All of them together: what is left out stays as configured on the server.",
        request=AgentSettingsSerializer,
        responses=AgentSettingsSerializer,
    )
    @asked.mapping.put
    def ask(self, request: Request, pk: str) -> Response:
        form = AgentSettingsSerializer(data=request.data)
        form.is_valid(raise_exception=True)
        row = change(
            access_of(request), self.get_object(), Wanted(**form.validated_data), timezone.now()
        )
        return Response(AgentSettingsSerializer(row).data)


class CloudGroupViewSet(ModelViewSet[CloudGroup]):
    """Servers that belong together, usually one cloud at one place."""

    queryset = CloudGroup.objects.all()
    serializer_class = CloudGroupSerializer
    pagination_class = NewestFirst

    @transaction.atomic
    def perform_create(self, serializer: BaseSerializer[Any]) -> None:
        audit(access_of(self.request), "group.added", serializer.save())

    @transaction.atomic
    def perform_update(self, serializer: BaseSerializer[Any]) -> None:
        audit(access_of(self.request), "group.changed", serializer.save())

    @transaction.atomic
    def perform_destroy(self, instance: CloudGroup) -> None:
        audit(access_of(self.request), "group.deleted", instance)
        suppression.remove_group(instance, timezone.now())
