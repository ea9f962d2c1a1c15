"""Servers and cloud groups for programs."""

from __future__ import annotations

from typing import Any

from django.db import transaction
from django.db.models import QuerySet
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import mixins
from rest_framework.exceptions import ValidationError
from rest_framework.serializers import BaseSerializer
from rest_framework.viewsets import GenericViewSet, ModelViewSet

from accounts.access import audit
from accounts.api.auth import access_of
from clouds.api.serializers import (
    CloudGroupSerializer,
    ServerDetailSerializer,
    ServerSerializer,
)
from clouds.models import CloudGroup, Server
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
    http_method_names = ["get", "patch", "head", "options"]

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

    @transaction.atomic
    def perform_update(self, serializer: BaseSerializer[Any]) -> None:
        server = serializer.save()
        audit(access_of(self.request), "server.classified", server)


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
        instance.delete()
