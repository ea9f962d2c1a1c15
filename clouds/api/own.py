"""What a server may say of itself, with the key that its agent got when it enrolled."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.db import transaction
from django.utils import timezone
from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework import serializers
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from accounts import keys
from accounts.access import Access, audit
from accounts.keys import KeyHolder
from accounts.models import Key, Role, Tenant
from clouds import suppression
from clouds.models import Server, Suppression
from clouds.suppression import Why
from sentinel_site.kit.problems import NotAuthenticated, Problem
from sentinel_site.kit.tenancy import in_schema

_BY_KEY: Any = [{"key": []}]
LONGEST_SECONDS = 30 * 86_400


class NotAServersKey(Problem):
    status, code, title = 403, "not-a-servers-key", "This key belongs to no server"


class NotReported(Problem):
    status, code, title = 409, "not-reported", "The server has not reported yet"


class OwnSuppressionSerializer(serializers.Serializer[Any]):
    """How long this server's alerts are to be muted, and why."""

    kind = serializers.ChoiceField(choices=Suppression.Kind.choices)
    seconds = serializers.FloatField(
        min_value=1, max_value=LONGEST_SECONDS, help_text="From now on."
    )
    reason = serializers.CharField(max_length=300)


class EndSerializer(serializers.Serializer[Any]):
    """Which of the two is over."""

    kind = serializers.ChoiceField(choices=Suppression.Kind.choices)


class SuppressionStateSerializer(serializers.Serializer[Any]):
    """What holds now. Times in Unix seconds."""

    server = serializers.CharField()
    kind = serializers.CharField()
    until = serializers.FloatField(allow_null=True, help_text="Null: it has ended.")
    ended = serializers.BooleanField(help_text="Whether something was ended by this request.")


class OwnServerView(APIView):
    """Brings its own key; no session, no organization in the address."""

    authentication_classes = []
    permission_classes = [AllowAny]

    def settle(self, request: Request) -> KeyHolder:
        """Whose key it is. Raises NotAuthenticated, UnknownKey, WrongScope, NotAServersKey."""
        text = keys.from_header(request.headers.get("Authorization", ""))
        if not text:
            raise NotAuthenticated("Send the agent's key as “Authorization: Bearer snt_…”.")
        holder = keys.find(text, Key.Scope.INGEST)
        if holder.agent_id is None:
            raise NotAServersKey("Enrol this server; an organization's key speaks for no server.")
        return holder


def own_server(holder: KeyHolder) -> Server:
    """The key's server, in the current schema. Raises NotReported."""
    found = Server.objects.filter(agent_id=holder.agent_id).first()
    if found is None:
        raise NotReported("Try again after its agent's first report.")
    return found


class OwnServerStateSerializer(serializers.Serializer[Any]):
    """Whose key it is."""

    agent = serializers.UUIDField()
    host = serializers.CharField(allow_null=True, help_text="Null before the first report.")
    status = serializers.CharField(allow_null=True)


class OwnStateView(OwnServerView):
    @extend_schema(
        operation_id="own_server",
        tags=["agents"],
        summary="Which agent and server the key belongs to",
        responses={200: OwnServerStateSerializer},
        auth=_BY_KEY,
    )
    def get(self, request: Request) -> Response:
        holder = self.settle(request)
        with in_schema(holder.schema_name):
            found = Server.objects.filter(agent_id=holder.agent_id).first()
        return Response(
            {
                "agent": str(holder.agent_id),
                "host": found.host if found else None,
                "status": found.status if found else None,
            }
        )


class OwnSuppressionView(OwnServerView):
    @extend_schema(
        operation_id="suppress_own_alerts",
        tags=["agents"],
        summary="Put the key's own server into maintenance or blackout",
        description="One of the same kind that is under way is replaced. It ends by itself.",
        request=OwnSuppressionSerializer,
        responses={
            200: SuppressionStateSerializer,
            403: OpenApiResponse(description="The key belongs to no server."),
            409: OpenApiResponse(description="The server has not reported yet, or is retired."),
        },
        auth=_BY_KEY,
    )
    def post(self, request: Request) -> Response:
        holder = self.settle(request)
        form = OwnSuppressionSerializer(data=request.data)
        form.is_valid(raise_exception=True)
        wanted = form.validated_data
        now = timezone.now()
        until = now + timedelta(seconds=wanted["seconds"])
        why = Why(wanted["reason"], by_key=holder.id)
        maintenance = wanted["kind"] == Suppression.Kind.MAINTENANCE
        start = suppression.start_maintenance if maintenance else suppression.black_out
        with in_schema(holder.schema_name), transaction.atomic():
            server = own_server(holder)
            start(server, why, now, until)
            _note(
                holder, f"server.{wanted['kind']}", server,
                reason=wanted["reason"], until=until.isoformat(),
            )  # fmt: skip
        return Response(_state(server, wanted["kind"], until.timestamp()))


class OwnSuppressionEndView(OwnServerView):
    @extend_schema(
        operation_id="end_own_suppression",
        tags=["agents"],
        summary="End the maintenance or blackout of the key's own server",
        request=EndSerializer,
        responses={200: SuppressionStateSerializer},
        auth=_BY_KEY,
    )
    def post(self, request: Request) -> Response:
        holder = self.settle(request)
        form = EndSerializer(data=request.data)
        form.is_valid(raise_exception=True)
        kind = Suppression.Kind(form.validated_data["kind"])
        with in_schema(holder.schema_name), transaction.atomic():
            server = own_server(holder)
            ended = suppression.end(server, kind, timezone.now())
            if ended:
                _note(holder, f"server.{kind}-ended", server)
        return Response(_state(server, kind, None, ended=ended))


def _state(server: Server, kind: str, until: float | None, ended: bool = False) -> dict[str, Any]:
    return {"server": server.host, "kind": str(kind), "until": until, "ended": ended}


def _note(holder: KeyHolder, verb: str, server: Server, **data: Any) -> None:
    tenant = Tenant.objects.get(pk=holder.tenant_id)
    audit(Access(tenant, Role.VIEWER, key=holder), verb, server, **data)
