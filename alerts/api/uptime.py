"""Uptime for programs: the same numbers as on pages."""

from __future__ import annotations

from typing import Any

from django.utils import timezone
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework import serializers
from rest_framework.generics import get_object_or_404
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from alerts import uptimes
from clouds.models import CloudGroup, Server
from clouds.uptime import Uptime


class UptimeSerializer(serializers.Serializer[Any]):
    """Time up outside maintenance / (window since registration - maintenance). Spans in seconds."""

    percent = serializers.FloatField(allow_null=True, help_text="Null: there is nothing to count.")
    shown = serializers.CharField(help_text="As pages show it, rounded down.")
    up = serializers.FloatField()
    down = serializers.FloatField()
    counted = serializers.FloatField()
    maintenance = serializers.FloatField(help_text="Not counted.")


class ServerUptimeSerializer(serializers.Serializer[Any]):
    """By window: 24h, 7d, 30d, 90d; of services by name, then by window."""

    windows = serializers.DictField(child=UptimeSerializer())
    services = serializers.DictField(child=serializers.DictField(child=UptimeSerializer()))


class GroupUptimeSerializer(serializers.Serializer[Any]):
    """By window; of its servers, while they belonged to it."""

    windows = serializers.DictField(child=UptimeSerializer())


class UptimeOfServerSerializer(UptimeSerializer):
    """One server's share of a report."""

    server = serializers.IntegerField()
    host = serializers.CharField()


class UptimeOfGroupSerializer(UptimeSerializer):
    """One group's share of a report; null: the servers that were in none."""

    group = serializers.IntegerField(allow_null=True)
    name = serializers.CharField()
    servers = UptimeOfServerSerializer(many=True)


class UptimeReportSerializer(serializers.Serializer[Any]):
    """Everything over one period."""

    start = serializers.DateTimeField()
    end = serializers.DateTimeField()
    total = UptimeSerializer()
    groups = UptimeOfGroupSerializer(many=True)


def plain(one: Uptime) -> dict[str, Any]:
    return {
        "percent": one.percent,
        "shown": one.in_words,
        "up": one.up.total_seconds(),
        "down": one.down.total_seconds(),
        "counted": one.counted.total_seconds(),
        "maintenance": one.maintenance.total_seconds(),
    }


def _windows(found: dict[str, Uptime]) -> dict[str, Any]:
    return {name: plain(one) for name, one in found.items()}


class ServerUptimeView(APIView):
    @extend_schema(
        operation_id="server_uptime",
        tags=["servers"],
        summary="Uptime of a server and its services",
        responses=ServerUptimeSerializer,
    )
    def get(self, request: Request, pk: int) -> Response:
        server = get_object_or_404(Server.objects.all(), pk=pk)
        found = uptimes.of_server(server, timezone.now())
        services = {name: _windows(one) for name, one in found.services.items()}
        return Response({"windows": _windows(found.windows), "services": services})


class GroupUptimeView(APIView):
    @extend_schema(
        operation_id="cloud_group_uptime",
        tags=["cloud-groups"],
        summary="Uptime of a cloud group",
        responses=GroupUptimeSerializer,
    )
    def get(self, request: Request, pk: int) -> Response:
        group = get_object_or_404(CloudGroup.objects.all(), pk=pk)
        return Response({"windows": _windows(uptimes.of_group(group, timezone.now()))})


class UptimeReportView(APIView):
    @extend_schema(
        operation_id="uptime_report",
        tags=["uptime"],
        summary="Uptime of all servers over a period",
        description="Without a period, the present month.",
        parameters=[
            OpenApiParameter("month", str, description="2026-11"),
            OpenApiParameter("window", enum=list(uptimes.WINDOWS)),
            OpenApiParameter("from", str, description="A day: 2026-11-01"),
            OpenApiParameter("to", str, description="The day after the last: 2026-12-01"),
            OpenApiParameter("zone", str, description="By whose days; UTC by default."),
        ],
        responses={
            200: UptimeReportSerializer,
            422: OpenApiResponse(description="No such period."),
        },
    )
    def get(self, request: Request) -> Response:
        asked, now = request.query_params, timezone.now()
        period = uptimes.period(
            now,
            month=asked.get("month", ""),
            window=asked.get("window", ""),
            start=asked.get("from", ""),
            end=asked.get("to", ""),
            zone=asked.get("zone", "") or "UTC",
        )
        found = uptimes.report(period, now)
        groups = [
            {
                "group": one.group.pk if one.group else None,
                "name": one.name,
                **plain(one.uptime),
                "servers": [
                    {"server": row.server.pk, "host": row.server.host, **plain(row.uptime)}
                    for row in one.rows
                ],
            }
            for one in found.sections
        ]
        return Response(
            {
                "start": found.span.start,
                "end": found.span.end,
                "total": plain(found.total),
                "groups": groups,
            }
        )
