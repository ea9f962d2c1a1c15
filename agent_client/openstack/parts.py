"""The questions of a round, each a function that adds points and may fail alone.

Amounts are turned into bytes; spans are seconds. Every point carries the tag `cloud`, for these
numbers are the cloud's and not those of the host that asked: nobody may sum them over hosts.
"""

from __future__ import annotations

import calendar
import collections
import dataclasses
import re
import time
from typing import Any, Callable, Iterator, Mapping, Sequence

from agent_client.openstack.client import Cloud, Failure, NoRight, OutOfBudget

_MIB = 1024**2
_GIB = 1024**3
#: nova left the numbers of hypervisors out from 2.88 on.
_HYPERVISORS = "2.53"
_PLACEMENT = "1.20"
#: Projects and resource providers that one round asks about; the next goes on with the others.
_PER_ROUND = 15
#: Quotas that projects run into -> bytes of their unit, 1 for a mere count.
_QUOTAS = {
    **dict.fromkeys(("cores", "instances", "volumes", "snapshots", "network", "port"), 1),
    **dict.fromkeys(("router", "floatingip", "security_group"), 1),
    "ram": _MIB,
    "gigabytes": _GIB,
}


@dataclasses.dataclass
class Row:
    """One service of the cloud as an API lists it: its state may change, and it may vanish."""

    project: str
    service: str
    host: str
    state: str  # up, down
    enabled: bool
    detail: str = ""

    @property
    def key(self) -> str:
        return f"{self.project} {self.service} {self.host}"


@dataclasses.dataclass
class Found:
    """What one part found."""

    points: list[tuple[str, dict[str, float], dict[str, str]]] = dataclasses.field(
        default_factory=list
    )
    rows: list[Row] = dataclasses.field(default_factory=list)
    items: int = 0
    #: What was left out, and why.
    notes: list[str] = dataclasses.field(default_factory=list)

    def add(
        self, measurement: str, fields: Mapping[str, Any], tags: Mapping[str, object] | None = None
    ) -> None:
        """Add a point; what is no number (`infinite`, `unknown`, null) is left out."""
        numbers = {
            name: float(value) if isinstance(value, float) else int(value)
            for name, value in fields.items()
            if isinstance(value, (int, float)) and value == value and abs(value) < 1e100
        }
        if numbers:
            said = {name: str(value) for name, value in (tags or {}).items() if value}
            self.points.append((measurement, numbers, said))

    def add_row(self, row: Row, zone: str, updated_at: str | None, now: float) -> None:
        """Add a service as a row and as a point."""
        self.rows.append(row)
        self.items += 1
        age = None
        if updated_at:
            age = max(0.0, round(now - _unix(updated_at), 3))
        self.add(
            "openstack_service",
            {"up": row.state == "up", "enabled": row.enabled, "heartbeat_age_seconds": age},
            {"project": row.project, "service": row.service, "host": row.host, "zone": zone},
        )


@dataclasses.dataclass
class Cursor:
    """Where a part that cannot ask everything in one round went on, from round to round."""

    last: str = ""


Part = Callable[[Cloud, Found, float, Cursor], None]


def compute_services(cloud: Cloud, found: Found, now: float, cursor: Cursor) -> None:
    for one in cloud.get("compute", "v2.1", "os-services", "2.53")["services"]:
        detail = one.get("disabled_reason") or ("forced down" if one.get("forced_down") else "")
        found.add_row(
            Row("nova", one["binary"], one["host"], one["state"], one["status"] == "enabled",
                detail),
            one.get("zone", ""), one.get("updated_at"), now,
        )  # fmt: skip


def hypervisors(cloud: Cloud, found: Found, now: float, cursor: Cursor) -> None:
    total: collections.Counter[str] = collections.Counter()
    for one in cloud.get("compute", "v2.1", "os-hypervisors/detail", _HYPERVISORS)["hypervisors"]:
        fields = {
            "up": one["state"] == "up",
            "enabled": one["status"] == "enabled",
            "vcpus": one["vcpus"],
            "vcpus_used": one["vcpus_used"],
            "memory_bytes": one["memory_mb"] * _MIB,
            "memory_used_bytes": one["memory_mb_used"] * _MIB,
            "disk_bytes": one["local_gb"] * _GIB,
            "disk_used_bytes": one["local_gb_used"] * _GIB,
            "instances": one["running_vms"],
            "workload": one["current_workload"],
        }
        service = one.get("service") or {}
        found.add(
            "openstack_hypervisor",
            fields,
            {
                "hypervisor": one["hypervisor_hostname"],
                "host": service.get("host", ""),
                "type": one.get("hypervisor_type", ""),
            },
        )
        found.items += 1
        total.update({name: int(value) for name, value in fields.items()})
    if found.items:
        total["down"] = found.items - total["up"]
        found.add("openstack_hypervisors", {"hypervisors": found.items, **total})


def zones(cloud: Cloud, found: Found, now: float, cursor: Cursor) -> None:
    try:
        given = cloud.get("compute", "v2.1", "os-availability-zone/detail")
    except NoRight:
        given = cloud.get("compute", "v2.1", "os-availability-zone")
        found.notes.append("our role sees zones without their hosts")
    for one in given["availabilityZoneInfo"]:
        hosts = one.get("hosts")
        found.items += 1
        found.add(
            "openstack_zone",
            {
                "available": one["zoneState"]["available"],
                "hosts": None if hosts is None else len(hosts),
            },
            {"zone": one["zoneName"]},
        )


def instances(cloud: Cloud, found: Found, now: float, cursor: Cursor) -> None:
    try:
        servers = cloud.pages(
            "compute", "v2.1", "servers/detail", "servers", "2.1", all_tenants="True"
        )
    except NoRight:
        servers = cloud.pages("compute", "v2.1", "servers/detail", "servers", "2.1")
        found.notes.append("our role sees the instances of its own project only")
    by_status = collections.Counter(one["status"] for one in servers)
    found.items = len(servers)
    for status, count in sorted(by_status.items()):
        found.add("openstack_instances", {"instances": count}, {"status": status.lower()})
    slow = [
        now - _unix(one["updated"])
        for one in servers
        if one.get("OS-EXT-STS:task_state") and one.get("updated")
    ]
    found.add(
        "openstack_instances_total",
        {
            "instances": len(servers),
            "errors": by_status.get("ERROR", 0),
            "busy": len(slow),
            "busy_longest_seconds": round(max(slow), 1) if slow else 0,
        },
    )


def placement(cloud: Cloud, found: Found, now: float, cursor: Cursor) -> None:
    providers = cloud.get("placement", "", "resource_providers", _PLACEMENT)["resource_providers"]
    found.items = len(providers)
    names = {one["uuid"]: one["name"] for one in providers}
    for uuid in _in_turn(sorted(names), cursor, found, "resource providers"):
        path = f"resource_providers/{uuid}"
        inventories = cloud.get("placement", "", f"{path}/inventories", _PLACEMENT)["inventories"]
        usages = cloud.get("placement", "", f"{path}/usages", _PLACEMENT)["usages"]
        for resource, one in inventories.items():
            scale = {"MEMORY_MB": _MIB, "DISK_GB": _GIB}.get(resource, 1)
            what = {"MEMORY_MB": "memory", "DISK_GB": "disk"}.get(resource, resource.lower())
            capacity = (one["total"] - one["reserved"]) * one["allocation_ratio"]
            used = usages.get(resource, 0)
            suffix = "" if scale == 1 else "_bytes"
            found.add(
                "openstack_placement",
                {
                    f"total{suffix}": one["total"] * scale,
                    f"reserved{suffix}": one["reserved"] * scale,
                    f"capacity{suffix}": capacity * scale,
                    f"used{suffix}": used * scale,
                    "allocation_ratio": one["allocation_ratio"],
                    "used_percent": round(100.0 * used / capacity, 3) if capacity > 0 else None,
                },
                {"provider": names[uuid], "resource": what},
            )


def network_agents(cloud: Cloud, found: Found, now: float, cursor: Cursor) -> None:
    for one in cloud.get("network", "v2.0", "agents")["agents"]:
        found.add_row(
            Row("neutron", one["binary"], one["host"], "up" if one["alive"] else "down",
                bool(one["admin_state_up"])),
            one.get("availability_zone") or "", one.get("heartbeat_timestamp"), now,
        )  # fmt: skip


def networks(cloud: Cloud, found: Found, now: float, cursor: Cursor) -> None:
    for what, key in (("network", "networks"), ("router", "routers"), ("floating", "floatingips")):
        items = cloud.pages("network", "v2.0", key, key, fields=["id", "status"])
        found.items += len(items)
        by_status = collections.Counter(str(one.get("status", "")).lower() for one in items)
        # A floating address that is not attached is DOWN, and all is well.
        found.add(f"openstack_{what}s", {"total": len(items)})
        for status, count in sorted(by_status.items()):
            found.add(f"openstack_{what}s_by_status", {"count": count}, {"status": status})


def addresses(cloud: Cloud, found: Found, now: float, cursor: Cursor) -> None:
    given = cloud.get("network", "v2.0", "network-ip-availabilities")
    for one in given["network_ip_availabilities"]:
        total, used = int(one["total_ips"]), int(one["used_ips"])
        found.items += 1
        found.add(
            "openstack_addresses",
            {
                # An IPv6 network has more addresses than a number can tell apart.
                "total": total if total < 2**53 else None,
                "used": used,
                "used_percent": round(100.0 * used / total, 3) if total else None,
            },
            {"network": one["network_name"] or one["network_id"], "id": one["network_id"]},
        )


def volume_services(cloud: Cloud, found: Found, now: float, cursor: Cursor) -> None:
    for one in cloud.get("volume", "v3", f"{cloud.project}/os-services")["services"]:
        found.add_row(
            Row("cinder", one["binary"], one["host"], one["state"], one["status"] == "enabled",
                one.get("disabled_reason") or ""),
            one.get("zone", ""), one.get("updated_at"), now,
        )  # fmt: skip


def volume_pools(cloud: Cloud, found: Found, now: float, cursor: Cursor) -> None:
    path = f"{cloud.project}/scheduler-stats/get_pools"
    for one in cloud.get("volume", "v3", path, detail="true")["pools"]:
        said = one.get("capabilities") or {}
        sizes = {
            f"{name}_bytes": _gigabytes(said.get(f"{name}_capacity_gb"))
            for name in ("total", "free", "allocated", "provisioned")
        }
        total, free = sizes["total_bytes"], sizes["free_bytes"]
        found.items += 1
        found.add(
            "openstack_pool",
            {
                **sizes,
                "used_percent": (
                    round(100.0 * (total - free) / total, 3) if total and free is not None else None
                ),
                "reserved_percent": said.get("reserved_percentage"),
                "over_subscription_ratio": _number(said.get("max_over_subscription_ratio")),
            },
            {"pool": one["name"], "backend": said.get("volume_backend_name", "")},
        )


def volumes(cloud: Cloud, found: Found, now: float, cursor: Cursor) -> None:
    items = cloud.pages(
        "volume", "v3", f"{cloud.project}/volumes/detail", "volumes", all_tenants="True"
    )
    found.items = len(items)
    by_status: dict[str, list[int]] = {}
    for one in items:
        by_status.setdefault(one["status"], []).append(int(one["size"]))
    for status, sizes in sorted(by_status.items()):
        found.add(
            "openstack_volumes",
            {"volumes": len(sizes), "bytes": sum(sizes) * _GIB},
            {"status": status},
        )
    errors = sum(len(sizes) for status, sizes in by_status.items() if status.startswith("error"))
    found.add("openstack_volumes_total", {"volumes": len(items), "errors": errors})


def orchestration_services(cloud: Cloud, found: Found, now: float, cursor: Cursor) -> None:
    # One row an engine's start: those that ended long ago stay listed as down.
    newest: dict[tuple[str, str], dict[str, Any]] = {}
    workers: dict[tuple[str, str], int] = {}
    for one in cloud.get("orchestration", "v1", f"{cloud.project}/services")["services"]:
        place = (one["binary"], one["host"])
        workers[place] = workers.get(place, 0) + (one["status"] == "up")
        if place not in newest or str(one["updated_at"]) > str(newest[place]["updated_at"]):
            newest[place] = one
    for (binary, host), one in sorted(newest.items()):
        state = "up" if workers[binary, host] else "down"
        found.add_row(Row("heat", binary, host, state, True), "", one.get("updated_at"), now)


def images(cloud: Cloud, found: Found, now: float, cursor: Cursor) -> None:
    items = cloud.pages("image", "v2", "images", "images")
    found.items = len(items)
    by_status: dict[str, list[int]] = {}
    for one in items:
        by_status.setdefault(one["status"], []).append(int(one.get("size") or 0))
    for status, sizes in sorted(by_status.items()):
        found.add(
            "openstack_images", {"images": len(sizes), "bytes": sum(sizes)}, {"status": status}
        )


def catalogue(cloud: Cloud, found: Found, now: float, cursor: Cursor) -> None:
    endpoints = list(cloud.endpoints())
    found.items = len(endpoints)
    found.add(
        "openstack_catalogue",
        {"services": len({one["type"] for one in endpoints}), "endpoints": len(endpoints)},
    )


def quotas(cloud: Cloud, found: Found, now: float, cursor: Cursor) -> None:
    try:
        listed = cloud.get("identity", "v3", "projects")["projects"]
        projects = {one["id"]: one["name"] for one in listed if one.get("enabled", True)}
    except NoRight:
        projects = {cloud.project: cloud.project}
        found.notes.append("our role sees its own project's quotas only")
    found.items = len(projects)
    for project in _in_turn(sorted(projects), cursor, found, "projects"):
        for service, resource, limit, used in _quotas_of(cloud, project, found):
            if limit < 0 or resource not in _QUOTAS:
                continue  # without limit, or never the one that is reached
            scale = _QUOTAS[resource]
            suffix = "" if scale == 1 else "_bytes"
            found.add(
                "openstack_quota",
                {
                    f"limit{suffix}": limit * scale,
                    f"used{suffix}": used * scale,
                    "used_percent": round(100.0 * used / limit, 3) if limit else None,
                },
                {"project": projects[project], "service": service, "resource": resource},
            )


def _quotas_of(cloud: Cloud, project: str, found: Found) -> Iterator[tuple[str, str, int, int]]:
    def asked(service: str, version: str, path: str, key: str, **query: str) -> Mapping[str, Any]:
        try:
            body = cloud.get(service, version, path, **query)
        except OutOfBudget:
            raise
        except Failure as failure:
            found.notes.append(f"{service}: {failure}")
            return {}
        given: Mapping[str, Any] = body[key]
        return given

    for service, said in (
        ("nova", asked("compute", "v2.1", f"os-quota-sets/{project}/detail", "quota_set")),
        (
            "cinder",
            asked(
                "volume", "v3", f"{cloud.project}/os-quota-sets/{project}", "quota_set",
                usage="true",
            ),
        ),
        ("neutron", asked("network", "v2.0", f"quotas/{project}/details", "quota")),
    ):  # fmt: skip
        for resource, one in said.items():
            if isinstance(one, Mapping) and isinstance(one.get("limit"), int):
                used = one.get("in_use", one.get("used", 0))
                yield service, resource, one["limit"], int(used)


@dataclasses.dataclass(frozen=True)
class Question:
    """A part with its name. `never_empty`: an empty answer after a full one is an outage."""

    name: str
    ask: Part
    never_empty: bool = False


#: In the order of their worth, for the last ones are those that a spent budget leaves out.
QUESTIONS: Sequence[Question] = (
    Question("catalogue", catalogue, never_empty=True),
    Question("compute_services", compute_services, never_empty=True),
    Question("network_agents", network_agents, never_empty=True),
    Question("volume_services", volume_services, never_empty=True),
    Question("orchestration_services", orchestration_services, never_empty=True),
    Question("hypervisors", hypervisors, never_empty=True),
    Question("zones", zones, never_empty=True),
    Question("instances", instances),
    Question("networks", networks),
    Question("addresses", addresses),
    Question("volume_pools", volume_pools, never_empty=True),
    Question("volumes", volumes),
    Question("images", images),
    Question("placement", placement, never_empty=True),
    Question("quotas", quotas),
)


def _in_turn(names: Sequence[str], cursor: Cursor, found: Found, what: str) -> Iterator[str]:
    """Those of this round, going on behind the last round's last one."""
    behind = [name for name in names if name > cursor.last]
    order = behind + [name for name in names if name <= cursor.last]
    taken = order[:_PER_ROUND]
    if len(order) > len(taken):
        found.notes.append(f"{len(taken)} of {len(order)} {what} in this round")
    for name in taken:
        yield name
        cursor.last = name


def _unix(text: str) -> float:
    """Unix seconds of an API's time, which is UTC, with or without a zone and a fraction."""
    match = re.match(r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d)", text)
    if match is None:
        raise Failure(f"{text!r} is no time")
    return float(
        calendar.timegm(time.strptime(f"{match.group(1)} {match.group(2)}", "%Y-%m-%d %H:%M:%S"))
    )


def _gigabytes(value: object) -> float | None:
    number = _number(value)
    return None if number is None else number * _GIB


def _number(value: object) -> float | None:
    """A number, or one that is written as text; None of `infinite` and `unknown`."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, (int, float)) and abs(value) < 1e100:
        return float(value)
    return None
