"""Series and log events for programs, below `/o/<slug>/api/v1/`."""

from __future__ import annotations

from django.http import QueryDict
from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from accounts.access import fetch
from accounts.api.auth import access_of
from clouds.models import Server
from metrics import events, knocks, queries
from metrics.api.serializers import (
    ChartSerializer,
    EventPageSerializer,
    EventsQuery,
    KnockSerializer,
    ProblemSerializer,
    SeriesQuery,
    StoredEventSerializer,
)
from metrics.events import Matcher

_INVALID = OpenApiResponse(ProblemSerializer, "Some parameters are not valid; see `errors`.")
_UNKNOWN = OpenApiResponse(ProblemSerializer, "There is no such server.")


class SeriesView(APIView):
    @extend_schema(
        operation_id="servers_series",
        tags=["servers"],
        summary="One or several fields of a server over time",
        parameters=[SeriesQuery],
        responses={200: ChartSerializer, 404: _UNKNOWN, 422: _INVALID},
    )
    def get(self, request: Request, pk: int) -> Response:
        server = fetch(request._request, Server, pk=pk)
        query = SeriesQuery(data=request.query_params)
        query.is_valid(raise_exception=True)
        asked = query.validated_data
        chart = queries.series(
            access_of(request).tenant.pk,
            server.pk,
            asked["measurement"],
            [name for name in asked["field"].split(",") if name],
            asked.get("tags"),
            start=asked["start"],
            end=asked["end"],
            points=asked["points"],
            agg=asked["agg"],
        )
        return Response(chart.to_json())


class EventsView(APIView):
    @extend_schema(
        operation_id="events",
        tags=["events"],
        summary="Log events, newest first",
        description="Every word of `q` must be in the line; “quoted words” stay together.",
        parameters=[EventsQuery],
        responses={200: EventPageSerializer, 422: _INVALID},
    )
    def get(self, request: Request) -> Response:
        query = EventsQuery(data=request.query_params)
        query.is_valid(raise_exception=True)
        asked = query.validated_data
        levels = tuple(asked.get("level", ()))
        if "at_least" in asked:
            worse = events.levels_from(asked["at_least"])
            levels = tuple(level for level in worse if not levels or level in levels)
        matcher = Matcher.parse(
            asked["q"],
            levels=levels,
            services=(asked["service"],) if "service" in asked else (),
            server_ids=(asked["server"],) if "server" in asked else (),
            request_id=asked.get("request_id", ""),
            start=asked["start"],
            end=asked["end"],
        )
        page = events.search(
            access_of(request).tenant.pk, matcher, cursor=asked.get("cursor"), limit=asked["size"]
        )
        return Response(
            {
                "next": _with_cursor(request, page.next),
                "cursor": page.next,
                "results": StoredEventSerializer(page.events, many=True).data,
            }
        )


class KnocksView(APIView):
    @extend_schema(
        operation_id="knocks",
        tags=["plugins"],
        summary="What sends with a plugin key that nobody issued",
        responses={200: KnockSerializer(many=True)},
    )
    def get(self, request: Request) -> Response:
        found = knocks.of_tenant(access_of(request).tenant.pk)
        return Response(KnockSerializer(found, many=True).data)


def _with_cursor(request: Request, cursor: str | None) -> str | None:
    if cursor is None:
        return None
    query: QueryDict = request.query_params.copy()
    query["cursor"] = cursor
    return request.build_absolute_uri(f"{request.path}?{query.urlencode()}")
