"""The doors of agents as DRF views: they document the API and serve pure WSGI deployments."""

from __future__ import annotations

import time
from typing import Any

from django.utils import timezone
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework import status
from rest_framework.parsers import BaseParser
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from agent_client import wire
from metrics.api.serializers import (
    AnswerSerializer,
    EnrolmentSerializer,
    EnrolSerializer,
    LegacyLogSerializer,
    LegacyMetricsSerializer,
    ProblemSerializer,
    ReportSerializer,
)
from metrics.doors import body as body_of
from metrics.doors import entry
from sentinel_site.kit.problems import NotFound

_BY_KEY: Any = [{"key": []}]
_UNPARSED = [BaseParser]
_PROBLEMS = {
    400: OpenApiResponse(ProblemSerializer, "Not JSON, nested too deeply, or no reports."),
    401: OpenApiResponse(ProblemSerializer, "The key is missing, unknown, expired or revoked."),
    403: OpenApiResponse(ProblemSerializer, "The key is for something else."),
    413: OpenApiResponse(ProblemSerializer, "More than 16 MiB, or more than 500 reports."),
    503: OpenApiResponse(
        ProblemSerializer, "Nothing was acknowledged; send again after `Retry-After` seconds."
    ),
}


class Door(APIView):
    """A door brings its own key: no session, no CSRF token, whatever the content type."""

    authentication_classes = []
    permission_classes = [AllowAny]
    parser_classes = _UNPARSED
    throttle_classes = []

    def perform_content_negotiation(self, request: Request, force: bool = False) -> Any:
        """Whatever the client says it accepts, it gets JSON rather than a 406 and a lost report."""
        return super().perform_content_negotiation(request, force=True)

    def finalize_response(
        self, request: Request, response: Response, *args: Any, **kwargs: Any
    ) -> Response:
        """Every answer says what the next body may be packed with."""
        response = super().finalize_response(request, response, *args, **kwargs)
        response.headers.setdefault("Accept-Encoding", body_of.ACCEPTED)
        return response

    def body(self, request: Request) -> bytes:
        """The raw body, refused by its length before it is read. Raises TooLarge."""
        length = request.META.get("CONTENT_LENGTH") or "0"
        body_of.check_length(int(length) if length.isdecimal() else 0)
        body: bytes = request._request.read(wire.MAX_BODY + 1)
        return body

    def encoding(self, request: Request) -> str:
        return str(request.headers.get("Content-Encoding", ""))


class ReportsView(Door):
    @extend_schema(
        operation_id="send_reports",
        tags=["agents"],
        summary="Send one or many reports of an agent",
        description=(
            "One report, a list of them, or an object with `reports`; zstd or gzip is welcome, and"
            " `Accept-Encoding` of every answer says what is understood. A 2xx means"
            " that everything but the items in `rejected` is committed. A report is known by"
            " (agent, epoch, sequence): the same one again has no effect."
        ),
        parameters=[
            OpenApiParameter(
                "Content-Encoding",
                str,
                OpenApiParameter.HEADER,
                enum=["zstd", "gzip", "identity"],
            )
        ],
        request=ReportSerializer(many=True),
        responses={200: AnswerSerializer, **_PROBLEMS},
        auth=_BY_KEY,
    )
    def post(self, request: Request) -> Response:
        answer = entry.reports(
            request.headers.get("Authorization", ""),
            self.encoding(request),
            self.body(request),
            timezone.now(),
        )
        # As late as can be: the agent measures its clock against this.
        return Response({**answer.to_json(), "server_time": round(time.time(), 3)})


class EnrolView(Door):
    @extend_schema(
        operation_id="enrol",
        tags=["agents"],
        summary="Turn a one-time token into the key of one server",
        description="The token goes into `Authorization: Bearer`; the key is shown here only.",
        request=EnrolSerializer,
        responses={
            201: EnrolmentSerializer,
            401: _PROBLEMS[401],
            422: OpenApiResponse(ProblemSerializer, "Some fields are not valid."),
            503: _PROBLEMS[503],
        },
        auth=_BY_KEY,
    )
    def post(self, request: Request) -> Response:
        enrolled = entry.enrol(
            request.headers.get("Authorization", ""), self.body(request), timezone.now()
        )
        return Response(
            enrolled, status=status.HTTP_201_CREATED, headers={"Cache-Control": "no-store"}
        )


class LegacyMetricsView(Door):
    @extend_schema(
        operation_id="legacy_metrics",
        tags=["original agents"],
        summary="Measurements of the original agents 0.5 and 1.1",
        request=LegacyMetricsSerializer,
        responses={202: OpenApiResponse(description="Stored."), **_PROBLEMS},
        auth=[],
    )
    def post(self, request: Request) -> Response:
        entry.metrics(self.encoding(request), self.body(request), timezone.now())
        return Response({"status": "stored"}, status=status.HTTP_202_ACCEPTED)


class LegacyLogsView(Door):
    @extend_schema(
        operation_id="legacy_logs",
        tags=["original agents"],
        summary="One log line of the original agents 0.5 and 1.1",
        request=LegacyLogSerializer,
        responses={202: OpenApiResponse(description="Stored."), **_PROBLEMS},
        auth=[],
    )
    def post(self, request: Request) -> Response:
        entry.logs(self.encoding(request), self.body(request), timezone.now())
        return Response({"status": "stored"}, status=status.HTTP_202_ACCEPTED)


class PluginDownloadView(Door):
    """No plugin is released yet, so every name is unknown; the client says so and ends."""

    @extend_schema(
        operation_id="legacy_plugin_download",
        tags=["original agents"],
        summary="A plugin's archive, as `sentinella install` of 1.1 asks for it",
        responses={(200, "application/zip"): bytes, 404: ProblemSerializer},
        auth=[],
    )
    def get(self, request: Request, name: str, version: str) -> Response:
        raise NotFound(f"No plugin {name} {version} is released here.")
