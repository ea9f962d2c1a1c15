"""What a host is for, by what runs on it."""

from __future__ import annotations

from typing import Iterable

from agent_client.discovery.catalogue import Kind


def role_of(kinds: Iterable[Kind]) -> str:
    """all-in-one, controller, compute, network, storage, database, messaging, load-balancer, or "".

    A hypervisor under control services makes an all-in-one, unless its nova-compute is ironic's.
    A compute host that also stores or routes is a compute host.
    """
    kinds = list(kinds)
    roles = {kind.role for kind in kinds}
    names = {kind.name for kind in kinds}
    computes = "compute" in roles
    if "control" in roles:
        only_ironic = "ironic-conductor" in names and "hypervisor" not in roles
        return "all-in-one" if computes and not only_ironic else "controller"
    if computes:
        return "compute"
    if "network" in roles:
        return "network"
    if "storage" in roles or "ceph" in roles:
        return "storage"
    if any(kind.openstack for kind in kinds):
        return "console" if roles & {"console"} else "compute" if "hypervisor" in roles else ""
    if "database" in roles:
        return "database"
    if "messaging" in roles:
        return "messaging"
    return "load-balancer" if {"haproxy", "keepalived"} <= names else ""
