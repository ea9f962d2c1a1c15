"""By what a service is known, and what does not fit together: for people who ask."""

from __future__ import annotations

import time

from agent_client.discovery.catalogue import Kind
from agent_client.discovery.host import container_id
from agent_client.discovery.look import Discovery, Found

_LONGEST_LINE = 200
_CONFIGURATIONS = 3


def how(discovery: Discovery, found: Found) -> list[str]:
    """By what a service is known: process, unit, container, configuration; or until when it ran."""
    seen = discovery.memory.services.get(found.name)
    if found.state != "up":
        if seen is None:
            return ["the configuration names it"]
        since = seen.down_since
        return [f"ran here until {_utc(since)}" if since else "ran here"]
    main = discovery.process((found.mains or found.members)[0].pid)
    if main is None:
        return []
    words = [word.strip("()[]'\"") for part in main.argv for word in part.split()]
    lines = [f"process {main.stat.pid}: {' '.join(main.argv)[:_LONGEST_LINE]}"]
    if found.unit:
        state = discovery.units.get(found.unit)
        lines.append(f"unit {found.unit}" + (f" ({state})" if state else ""))
    inside = container_id(main.cgroup)
    container = discovery.containers.get(inside)
    if container is not None:
        image = f" ({container.image})" if container.image else ""
        lines.append(f"container {container.name}{image}")
    elif inside:
        lines.append(f"container {inside[:12]}")
    files = [word.rpartition("=")[2] for word in words if word.endswith((".conf", ".ini"))]
    files = [path for path in dict.fromkeys(files) if path.startswith("/")]
    usual = f"/etc/{found.project}/{found.project}.conf"
    if not files and not inside and discovery.host.exists(usual):
        files = [usual]
    lines += [f"configuration {path}" for path in files[:_CONFIGURATIONS]]
    return lines


def uncertain(discovery: Discovery) -> list[str]:
    """What could not be looked at, what speaks against what was found, and what may be missing."""
    doubts = [*discovery.verdict.doubts, *discovery.host.blind.values()]
    if discovery.table.incomplete:
        doubts.append(discovery.table.incomplete)
    if discovery.has_openstack and not discovery.verdict.release:
        doubts.append(
            "OpenStack's release is not known: no package, image or nova-manage that this user "
            "may see tells it (inside containers only root may look)"
        )
    known = {found.kind.name for found in discovery.found if found.kind is not None}
    known |= {found.name for found in discovery.found}
    units = {found.unit for found in discovery.found}
    for kind in discovery.catalogue.kinds.values():
        if kind.openstack and kind.name not in known:
            signs = _signs(discovery, kind, units)
            if signs:
                doubts.append(f"{kind.name} has not been seen running, but {' and '.join(signs)}")
    return doubts


def _signs(discovery: Discovery, kind: Kind, known_units: set[str]) -> list[str]:
    """What is there of a service that does not run: an enabled unit, a log."""
    signs = [
        f"{unit}.service is enabled"
        for unit in kind.units
        if discovery.units.get(f"{unit}.service") == "enabled"
        and f"{unit}.service" not in known_units
    ]
    log = f"/var/log/{kind.project}/{kind.name}.log"
    if discovery.host.exists(log):
        signs.append(f"{log} is there")
    return signs


def _utc(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(at))
