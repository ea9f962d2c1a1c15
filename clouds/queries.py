"""Reads of clouds for pages and other apps."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from uuid import UUID

from django.db.models import QuerySet

from clouds.models import CloudGroup, Server, Service

#: What OpenStack stands on; listed after OpenStack's own services.
BASE = frozenset(
    {
        *("apache", "ceph", "chrony", "corosync", "etcd", "haproxy", "keepalived", "libvirt"),
        *("libvirtd", "mariadb", "memcached", "mysql", "nginx", "openvswitch", "ovn"),
        *("pacemaker", "postgresql", "rabbitmq", "redis", "uwsgi", "valkey"),
    }
)


@dataclass(frozen=True)
class Project:
    """An OpenStack project's services on one server: "nova 1/6 down"."""

    name: str
    services: list[Service]
    version: str = ""

    @property
    def total(self) -> int:
        return len(self.services)

    @property
    def down(self) -> int:
        return sum(service.is_down for service in self.services)

    @property
    def unknown(self) -> int:
        """Neither up nor down: one that never ran, or could not be looked at."""
        up = sum(service.state == Service.State.UP for service in self.services)
        return self.total - up - self.down

    @property
    def base(self) -> bool:
        return self.name in BASE


def fleet() -> QuerySet[Server]:
    """All servers that are still watched, by name."""
    return (
        Server.objects.exclude(status=Server.Status.RETIRED)
        .select_related("group")
        .order_by("host", "pk")
    )


def groups() -> QuerySet[CloudGroup]:
    return CloudGroup.objects.order_by("name")


def by_agent(agent_id: UUID | None) -> Server | None:
    """The server of this agent, once it has reported."""
    return Server.objects.filter(agent_id=agent_id).first() if agent_id else None


def projects(server: Server) -> list[Project]:
    """Services by project: OpenStack's own first, of them those with something down."""
    found: dict[str, list[Service]] = {}
    for service in sorted(server.service_set.all(), key=lambda one: (not one.is_down, one.name)):
        found.setdefault(service.project or "other", []).append(service)
    versions = server.openstack_versions
    rows = [Project(name, services, versions.get(name, "")) for name, services in found.items()]
    return sorted(rows, key=lambda one: (one.base, -one.down, one.name))


def by_id(server_ids: Iterable[int]) -> dict[int, Server]:
    return Server.objects.in_bulk(set(server_ids))
