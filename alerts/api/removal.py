"""Removing a server: stands here, for it asks when its last report came in."""

from __future__ import annotations

from django.utils import timezone
from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework.generics import get_object_or_404
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from accounts.api.auth import AtLeastAdmin, access_of
from clouds import muting
from clouds.models import Server
from metrics import queries


class RemovalView(APIView):
    permission_classes = [AtLeastAdmin]

    @extend_schema(
        operation_id="remove_server",
        tags=["servers"],
        summary="Remove a server that is in maintenance and was silent for ten minutes",
        description="What it sent is kept for its time. One that reports again begins anew.",
        request=None,
        responses={
            204: None,
            409: OpenApiResponse(
                description="Not in maintenance, or heard too lately: `seconds` are left."
            ),
        },
    )
    def post(self, request: Request, pk: int) -> Response:
        access = access_of(request)
        server = get_object_or_404(Server.objects.all(), pk=pk)
        muting.remove(
            access, server, queries.last_seen(access.tenant.pk).get(server.pk), timezone.now()
        )
        return Response(status=204)
