"""The notices behind the bell for programs that act for a person."""

from __future__ import annotations

from dataclasses import asdict

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from accounts.api.auth import AtLeast, access_of
from accounts.models import Role
from alerts.lifecycle import notices


class Looks(AtLeast):
    """Whoever sees notices says that they were read."""

    write = Role.VIEWER


class NoticeSerializer(serializers.Serializer[notices.Notice]):
    """One thing that happened to an incident, and that people were told of."""

    id = serializers.IntegerField()
    kind = serializers.CharField()
    at = serializers.DateTimeField()
    incident = serializers.IntegerField()
    title = serializers.CharField()
    severity = serializers.CharField()
    text = serializers.CharField()
    by = serializers.CharField(help_text="Who did it; empty: a rule or a program.")
    is_unread = serializers.BooleanField()


class NoticesSerializer(serializers.Serializer[object]):
    """`unread` is 100 where there are more than 99; a key has read everything."""

    unread = serializers.IntegerField()
    results = NoticeSerializer(many=True)


class ReadSerializer(serializers.Serializer[object]):
    """The newest notice that was seen."""

    upto = serializers.IntegerField(min_value=0, max_value=2**63 - 1)


class OlderSerializer(serializers.Serializer[object]):
    """Where an earlier answer ended."""

    before = serializers.IntegerField(required=False, min_value=0, max_value=2**63 - 1)


class NoticesView(APIView):
    permission_classes = [Looks]

    @extend_schema(
        operation_id="notices",
        tags=["notices"],
        summary="The newest notices of all cloud groups, and how many are unread",
        parameters=[OpenApiParameter("before", int, description="Only those before this one.")],
        responses=NoticesSerializer,
    )
    def get(self, request: Request) -> Response:
        user = access_of(request).user
        asked = OlderSerializer(data=request.query_params)
        asked.is_valid(raise_exception=True)
        found = notices.newest(user.pk if user else None, before=asked.validated_data.get("before"))
        unread = notices.unread(user.pk) if user else 0
        return Response({"unread": unread, "results": [asdict(one) for one in found]})

    @extend_schema(
        operation_id="read_notices",
        tags=["notices"],
        summary="Say that all notices to this one were read",
        description="By the person who is signed in; for a key there is nothing to be done.",
        request=ReadSerializer,
        responses={204: None},
    )
    def post(self, request: Request) -> Response:
        given = ReadSerializer(data=request.data)
        given.is_valid(raise_exception=True)
        user = access_of(request).user
        if user is not None:
            notices.read(user.pk, given.validated_data["upto"])
        return Response(status=204)
