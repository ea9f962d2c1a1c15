"""What servers and cloud groups look like to programs."""

from __future__ import annotations

from typing import Any

from django.utils import timezone
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from clouds.models import AgentSettings, CloudGroup, Server, Service, Suppression
from clouds.suppression import active_for


class CloudGroupSerializer(serializers.ModelSerializer[CloudGroup]):
    class Meta:
        model = CloudGroup
        fields = ["id", "name", "location"]


class ServiceSerializer(serializers.ModelSerializer[Service]):
    is_down = serializers.BooleanField(read_only=True)

    class Meta:
        model = Service
        fields = ["name", "project", "state", "is_down", "since", "seen_at", "workers", "detail"]
        read_only_fields = fields


class ServerSerializer(serializers.ModelSerializer[Server]):
    """A server. Group and role can be set; the rest is what it said or what was seen of it."""

    interval = serializers.SerializerMethodField(help_text="Seconds between reports.")

    class Meta:
        model = Server
        fields = [
            "id",
            "host",
            "agent_id",
            "group",
            "role",
            "status",
            "status_since",
            "health",
            "interval",
            "agent_version",
            "openstack_release",
            "specs",
            "goodbye",
            "goodbye_at",
            "registered_at",
        ]
        read_only_fields = [name for name in fields if name not in ("group", "role")]

    def get_interval(self, server: Server) -> float:
        return server.interval.total_seconds()


class SuppressionSerializer(serializers.ModelSerializer[Suppression]):
    class Meta:
        model = Suppression
        fields = ["kind", "reason", "since", "until", "by", "by_key"]
        read_only_fields = fields


class ServerDetailSerializer(ServerSerializer):
    services = ServiceSerializer(source="service_set", many=True, read_only=True)
    suppression = serializers.SerializerMethodField(
        help_text="Why nobody is told of its alerts now; null: people are."
    )

    class Meta(ServerSerializer.Meta):
        fields = [*ServerSerializer.Meta.fields, "services", "suppression"]
        read_only_fields = [*ServerSerializer.Meta.read_only_fields, "services", "suppression"]

    @extend_schema_field(SuppressionSerializer(allow_null=True))
    def get_suppression(self, server: Server) -> dict[str, Any] | None:
        holds = active_for([server.pk], timezone.now()).get(server.pk)
        return dict(SuppressionSerializer(holds).data) if holds else None


class AgentSettingsSerializer(serializers.ModelSerializer[AgentSettings]):
    """What a server's agent is asked for; what is empty stays as configured there."""

    interval = serializers.IntegerField(allow_null=True, required=False)
    levels = serializers.DictField(child=serializers.CharField(), required=False)
    collectors = serializers.DictField(child=serializers.BooleanField(), required=False)
    applied = serializers.SerializerMethodField(
        help_text="The version that the agent says it works with; null: none."
    )

    class Meta:
        model = AgentSettings
        fields = [
            "version",
            "interval",
            "levels",
            "levels_until",
            "collectors",
            "changed_at",
            "applied",
        ]
        read_only_fields = ["version", "changed_at"]

    def get_applied(self, row: AgentSettings) -> int | None:
        said = row.server.specs.get("settings")
        version = said.get("version") if isinstance(said, dict) else None
        return version if isinstance(version, int) else None
