"""Members and keys for programs."""

from __future__ import annotations

from typing import Any

from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone
from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework import mixins, status
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import GenericViewSet

from accounts import keys, queries, signup
from accounts.access import audit
from accounts.api.auth import AtLeastAdmin, access_of
from accounts.api.serializers import (
    InviteSerializer,
    IssuedKeySerializer,
    KeySerializer,
    MemberSerializer,
    NewKeySerializer,
)
from accounts.models import Key, Membership, Role
from sentinel_site.kit.api import NewestFirst


class MemberViewSet(mixins.ListModelMixin, mixins.RetrieveModelMixin, GenericViewSet[Membership]):
    """Who belongs to the organization. Adding somebody sends an invitation."""

    queryset = Membership.objects.none()
    serializer_class = MemberSerializer
    permission_classes = [AtLeastAdmin]
    pagination_class = NewestFirst

    def get_queryset(self) -> QuerySet[Membership]:
        return queries.members(access_of(self.request).tenant)

    @extend_schema(request=InviteSerializer, responses={202: InviteSerializer})
    def create(self, request: Request) -> Response:
        form = InviteSerializer(data=request.data)
        form.is_valid(raise_exception=True)
        signup.invite(
            access_of(request),
            form.validated_data["email"],
            Role(form.validated_data["role"]),
            timezone.now(),
        )
        return Response(form.data, status=status.HTTP_202_ACCEPTED)

    def partial_update(self, request: Request, pk: str) -> Response:
        membership = self.get_object()
        form = MemberSerializer(membership, data=request.data, partial=True)
        form.is_valid(raise_exception=True)
        if "role" in form.validated_data:
            signup.change_role(access_of(request), membership, Role(form.validated_data["role"]))
        return Response(MemberSerializer(membership).data)

    @extend_schema(responses={204: OpenApiResponse(description="Access has ended.")})
    def destroy(self, request: Request, pk: str) -> Response:
        signup.remove(access_of(request), self.get_object())
        return Response(status=status.HTTP_204_NO_CONTENT)


class KeyViewSet(mixins.ListModelMixin, mixins.RetrieveModelMixin, GenericViewSet[Key]):
    """Credentials of programs. `DELETE` revokes; the row stays for the record."""

    queryset = Key.objects.none()
    serializer_class = KeySerializer
    permission_classes = [AtLeastAdmin]
    pagination_class = NewestFirst

    def get_queryset(self) -> QuerySet[Key]:
        return queries.keys(access_of(self.request).tenant)

    @extend_schema(request=NewKeySerializer, responses={201: IssuedKeySerializer})
    @transaction.atomic
    def create(self, request: Request) -> Response:
        form = NewKeySerializer(data=request.data)
        form.is_valid(raise_exception=True)
        access = access_of(request)
        wanted: dict[str, Any] = form.validated_data
        if wanted["scope"] == Key.Scope.ENROL:
            key, text = keys.issue_enrol_token(access.tenant, access.user, timezone.now())
        else:
            key, text = keys.issue(
                access.tenant, wanted["scope"], name=wanted["name"], by=access.user
            )
        audit(access, "key.issued", key, name=key.name, scope=key.scope)
        return Response({**KeySerializer(key).data, "key": text}, status=status.HTTP_201_CREATED)

    @extend_schema(responses={204: OpenApiResponse(description="It ends within 30 seconds.")})
    @transaction.atomic
    def destroy(self, request: Request, pk: str) -> Response:
        key = self.get_object()
        keys.revoke(key, timezone.now())
        audit(access_of(request), "key.revoked", key, name=key.name)
        return Response(status=status.HTTP_204_NO_CONTENT)
