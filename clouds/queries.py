"""Reads of clouds for pages and other apps."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from uuid import UUID

from django.db.models import QuerySet

from clouds.models import SHORT_NAME, CloudGroup, Server, Service

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


def by_names(names: Iterable[str]) -> dict[str, int]:
    """The servers that other tools mean by these names: `nova-1` or `nova-1.example.org`.

    A name that may mean several servers means none.
    """
    wanted = {name: name.lower().rstrip(".") for name in names}
    rows = Server.objects.exclude(status=Server.Status.RETIRED).annotate(short=SHORT_NAME)
    known = rows.filter(short__in={name.partition(".")[0] for name in wanted.values()})
    hosts = {host.lower(): pk for pk, host in known.values_list("pk", "host")}
    found = {}
    for name, text in wanted.items():
        meant = [text] if text in hosts else [host for host in hosts if _same_host(host, text)]
        if len(meant) == 1:
            found[name] = hosts[meant[0]]
    return found


def _same_host(one: str, other: str) -> bool:
    """Whether one of the names is the other without its domain."""
    return one.startswith(other + ".") or other.startswith(one + ".")


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
