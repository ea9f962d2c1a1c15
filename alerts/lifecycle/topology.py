"""What depends on what in an OpenStack cloud: the model by which alerts are gathered.

Data, read by `alerts.lifecycle.correlation`. A component is what fails as a whole: RabbitMQ, the
database, a family of services. Hosts and cloud groups are the places where components run; every
service also depends on its host.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Component:
    """One of the things that depend on each other.

    `services` are names as agents and logs give them; one that ends with * is a beginning. `needs`
    are names of components without which it fails. A local one serves its own host only.
    """

    name: str
    label: str
    services: tuple[str, ...]
    needs: tuple[str, ...] = ()
    is_local: bool = False


_DATABASE = ("mariadb", "postgresql")
_CONTROL = (*_DATABASE, "rabbitmq", "keystone", "memcached", "haproxy")

#: Upstream first: where two could be the cause and nothing else decides, the earlier one is.
COMPONENTS: Final = (
    Component("mariadb", "MariaDB", ("mariadb", "mariadbd", "mysqld", "mysql", "galera")),
    Component("postgresql", "PostgreSQL", ("postgresql", "postgres")),
    Component("rabbitmq", "RabbitMQ", ("rabbitmq-server", "rabbitmq", "beam.smp")),
    Component("ceph", "Ceph", ("ceph-mon", "ceph-mgr", "ceph-osd", "ceph-mds")),
    Component("keepalived", "keepalived", ("keepalived",)),
    Component("haproxy", "HAProxy", ("haproxy",), ("keepalived",)),
    Component("memcached", "memcached", ("memcached",)),
    Component("keystone", "Keystone", ("keystone*",), (*_DATABASE, "memcached", "haproxy")),
    Component("libvirt", "libvirt", ("libvirtd", "virtqemud", "virtlogd", "libvirt*"), (), True),
    Component(
        "openvswitch",
        "Open vSwitch",
        ("ovs-vswitchd", "ovsdb-server", "openvswitch*", "ovn-controller"),
        (),
        True,
    ),
    Component("placement", "Placement", ("placement*",), (*_DATABASE, "keystone", "haproxy")),
    Component("glance", "Glance", ("glance*",), (*_DATABASE, "keystone", "ceph", "haproxy")),
    Component("nova-conductor", "nova-conductor", ("nova-conductor",), (*_DATABASE, "rabbitmq")),
    Component(
        "neutron-server",
        "Neutron's server",
        ("neutron-server", "neutron-api", "neutron-rpc-server", "neutron-periodic-workers"),
        _CONTROL,
    ),
    Component("nova-scheduler", "nova-scheduler", ("nova-scheduler",), (*_CONTROL, "placement")),
    Component(
        "nova-api",
        "Nova's API",
        ("nova-api*", "nova-metadata*", "nova-novncproxy", "nova-cells"),
        (*_CONTROL, "placement", "neutron-server", "glance", "nova-conductor", "nova-scheduler"),
    ),
    Component("cinder", "Cinder", ("cinder-api", "cinder-scheduler", "cinder-backup"), _CONTROL),
    Component("cinder-volume", "cinder-volume", ("cinder-volume",), (*_CONTROL, "ceph")),
    Component(
        "neutron-agent",
        "Neutron's agents",
        ("neutron-*", "ovn-metadata-agent"),
        ("rabbitmq", "neutron-server", "openvswitch", "keystone"),
    ),
    Component(
        "nova-compute",
        "nova-compute",
        ("nova-compute*",),
        ("rabbitmq", "nova-conductor", "libvirt", "openvswitch", "placement", "keystone", "ceph"),
    ),
    Component("heat", "Heat", ("heat*",), (*_CONTROL, "nova-api", "neutron-server", "cinder")),
    Component("nova", "Nova", ("nova*",), _CONTROL),
    *(
        Component(name, label, (f"{name}*",), _CONTROL)
        for name, label in (
            ("octavia", "Octavia"),
            ("ironic", "Ironic"),
            ("magnum", "Magnum"),
            ("barbican", "Barbican"),
            ("designate", "Designate"),
            ("manila", "Manila"),
            ("mistral", "Mistral"),
            ("trove", "Trove"),
            ("sahara", "Sahara"),
            ("masakari", "Masakari"),
            ("horizon", "Horizon"),
            ("ceilometer", "Ceilometer"),
            ("aodh", "Aodh"),
            ("gnocchi", "Gnocchi"),
            ("swift", "Swift"),
        )
    ),
)

BY_NAME: Final[Mapping[str, Component]] = {one.name: one for one in COMPONENTS}
RANK: Final[Mapping[str, int]] = {one.name: rank for rank, one in enumerate(COMPONENTS)}

#: The words of the knowledge base for what a line accuses, where they are not a component's name.
ACCUSED: Final[Mapping[str, str]] = {
    "nova": "nova-conductor",
    "neutron": "neutron-server",
    "storage": "ceph",
}


@functools.cache
def component_of(service: str) -> Component | None:
    """The component that a service belongs to; None for one that nothing is known of."""
    name = service.lower().rpartition("/")[2]
    for one in COMPONENTS:
        if name in one.services:
            return one
    beginnings = (
        (len(given), -RANK[one.name], one)
        for one in COMPONENTS
        for given in one.services
        if given.endswith("*") and _begins(name, given[:-1])
    )
    return max(beginnings, default=(0, 0, None), key=lambda found: found[:2])[2]


@functools.cache
def services_pattern() -> str:
    """A regular expression of PostgreSQL's for names that `component_of` may know; none is missed.

    It is for leaving out the many that are of no component before they are read.
    """
    known = {given.rstrip("*-") for one in COMPONENTS for given in one.services}
    return f"(^|/)({'|'.join(sorted(re.escape(name) for name in known))})"


def _begins(name: str, beginning: str) -> bool:
    if beginning.endswith("-"):
        return name.startswith(beginning)
    return name == beginning or name.startswith((beginning + "-", beginning + "_"))


@functools.cache
def needs(name: str) -> frozenset[str]:
    """All that a component depends on, directly or through others."""
    found: set[str] = set()
    waiting = list(BY_NAME[name].needs)
    while waiting:
        one = waiting.pop()
        if one not in found:
            found.add(one)
            waiting.extend(BY_NAME[one].needs)
    return frozenset(found)


@functools.cache
def depends(name: str) -> bool:
    """Whether a component depends on any other."""
    return bool(BY_NAME[name].needs)


@functools.cache
def needed_by_others() -> frozenset[str]:
    """The components that others depend on: what can be a cause."""
    return frozenset(one for component in COMPONENTS for one in component.needs)


def accused(word: str) -> str | None:
    """The component that a word of the knowledge base's `about` means; None for a host's parts."""
    name = ACCUSED.get(word, word)
    return name if name in BY_NAME else None
