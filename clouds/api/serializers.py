"""What servers and cloud groups look like to programs."""

from __future__ import annotations

from rest_framework import serializers

from clouds.models import CloudGroup, Server, Service


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
            "registered_at",
        ]
        read_only_fields = [name for name in fields if name not in ("group", "role")]

    def get_interval(self, server: Server) -> float:
        return server.interval.total_seconds()


class ServerDetailSerializer(ServerSerializer):
    services = ServiceSerializer(source="service_set", many=True, read_only=True)

    class Meta(ServerSerializer.Meta):
        fields = [*ServerSerializer.Meta.fields, "services"]
        read_only_fields = [*ServerSerializer.Meta.read_only_fields, "services"]
