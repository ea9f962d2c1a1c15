"""The door at which agents settle who of them asks a cloud's APIs."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.utils import timezone
from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework import serializers
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from accounts import keys
from accounts.models import Key
from clouds import leases, servers
from sentinel_site.kit.problems import NotAuthenticated, Problem
from sentinel_site.kit.tenancy import in_schema


class AnotherAgent(Problem):
    status, code, title = 403, "wrong-agent", "This key belongs to another agent"


class UnknownAgent(Problem):
    """Told to come again soon: the first report may be on its way."""

    status, code, title = 403, "unknown-agent", "No server of this organization has this agent"
    headers = {"Retry-After": "15"}


class LeaseSerializer(serializers.Serializer[Any]):
    """Which cloud, for whom, for how long."""

    cloud = serializers.CharField(max_length=300, help_text="The cloud's identity URL.")
    agent = serializers.UUIDField()
    seconds = serializers.FloatField(
        min_value=1,
        max_value=leases.LONGEST.total_seconds(),
        help_text="How long it is needed; three intervals of asking are usual.",
    )


class LeaseStateSerializer(serializers.Serializer[Any]):
    """Whether the agent may ask the cloud's APIs, and how long."""

    held = serializers.BooleanField()
    until = serializers.FloatField(allow_null=True, help_text="Unix seconds; null if not held.")
    seconds = serializers.FloatField(help_text="From now on; 0 if not held.")


class LeaseView(APIView):
    """Brings the agent's own key; no session, no organization in the address."""

    authentication_classes = []
    permission_classes = [AllowAny]

    @extend_schema(
        operation_id="take_lease",
        tags=["agents"],
        summary="Take or prolong the right to ask a cloud's APIs",
        description=(
            "One agent of an organization holds the lease of a cloud. Its end frees it: an agent"
            " that is gone is followed by the next one that asks."
        ),
        request=LeaseSerializer,
        responses={
            200: LeaseStateSerializer,
            403: OpenApiResponse(
                description=(
                    "The key belongs to another agent, or the agent is no server's of the"
                    " organization: `Retry-After` says when it may have reported."
                )
            ),
            409: OpenApiResponse(description="There are leases of too many clouds."),
        },
        auth=[{"key": []}],  # type: ignore[list-item]
    )
    def post(self, request: Request) -> Response:
        text = keys.from_header(request.headers.get("Authorization", ""))
        if not text:
            raise NotAuthenticated("Send the agent's key as “Authorization: Bearer snt_…”.")
        holder = keys.find(text, Key.Scope.INGEST)
        form = LeaseSerializer(data=request.data)
        form.is_valid(raise_exception=True)
        asked = form.validated_data
        if holder.agent_id not in (None, asked["agent"]):
            raise AnotherAgent("Its own agent may take the lease with it.")
        now = timezone.now()
        with in_schema(holder.schema_name):
            # An agent's own key is proof enough; an organization's speaks for its servers only.
            if holder.agent_id is None and not servers.is_agent(asked["agent"]):
                raise UnknownAgent("It may ask after its first report.")
            lease = leases.take(
                asked["cloud"], asked["agent"], timedelta(seconds=asked["seconds"]), now
            )
        if lease is None:
            return Response({"held": False, "until": None, "seconds": 0.0})
        return Response(
            {
                "held": True,
                "until": lease.until.timestamp(),
                "seconds": (lease.until - now).total_seconds(),
            }
        )
