"""What each field of each measurement is counted in: one table for agent and server.

Units: `percent` (0 to 100, of one processor it may be more), `bytes`, `seconds`, `milliseconds`,
`count`. A field that is not in the table is told by its name, for plugins bring their own.
"""

from __future__ import annotations

from typing import Mapping

UNITS = ("percent", "bytes", "seconds", "milliseconds", "count")


def _fields(**units: str) -> Mapping[str, str]:
    """Fields by their unit: `percent="user system"`."""
    return {name: unit for unit, names in units.items() for name in names.split()}


#: measurement -> field -> unit
FIELDS: Mapping[str, Mapping[str, str]] = {
    "cpu": _fields(percent="percent user system iowait idle steal"),
    "load": _fields(count="load1 load5 load15 load_per_core"),
    "memory": _fields(bytes="total used free available", percent="percent"),
    "swap": _fields(bytes="total used free", percent="percent"),
    "disk": _fields(bytes="total used free", percent="percent inodes_percent"),
    "disk_io": _fields(
        bytes="read_bytes write_bytes", count="reads writes", milliseconds="busy_ms"
    ),
    "network": _fields(
        bytes="received_bytes sent_bytes",
        count="received_packets sent_packets received_errors sent_errors received_drops sent_drops",
    ),
    "service": _fields(
        percent="cpu_percent memory_percent",
        bytes="memory",
        seconds="uptime",
        count=(
            "up down workers threads descriptors restarts"
            " ports_listening ports_answering ports_silent"
        ),
    ),
    "pressure": _fields(percent="some_percent full_percent", seconds="some_seconds full_seconds"),
    "system": _fields(
        seconds="uptime_seconds",
        percent="descriptors_percent",
        count="tasks blocked context_switches forks descriptors descriptors_limit",
    ),
    "clock": _fields(
        seconds="offset_seconds error_seconds bound_seconds", count="synchronised stratum"
    ),
    "guests": _fields(
        bytes="memory",
        seconds="age_seconds",
        count="running paused off crashed defined left_out vcpus libvirt",
    ),
    "guest": _fields(
        percent="cpu_percent",
        bytes="memory memory_limit read_bytes written_bytes received_bytes sent_bytes",
        count="state vcpus threads",
    ),
    "rabbitmq": _fields(
        seconds="answer_seconds",
        bytes="memory_bytes memory_limit_bytes disk_free_bytes disk_free_limit_bytes",
        count=(
            "up connections channels queues consumers messages_ready messages_unacknowledged"
            " descriptors descriptors_limit connections_opened connections_closed alarm_memory"
            " alarm_disk alarm_descriptors nodes nodes_running partitions queues_without_consumer"
            " messages_without_consumer"
        ),
    ),
    "rabbitmq_queue": _fields(count="messages consumers"),
    "mariadb": _fields(
        seconds="answer_seconds uptime_seconds",
        percent="connections_percent flow_control_percent",
        count=(
            "up connections connections_limit connections_most threads_running open_files questions"
            " slow_queries aborted_clients aborted_connects refused_connections deadlocks"
            " row_lock_waits cluster_size receive_queue send_queue certification_failures"
            " cluster_ready cluster_connected cluster_primary cluster_synced"
        ),
    ),
    "memcached": _fields(
        seconds="answer_seconds uptime_seconds",
        percent="used_percent hit_percent",
        bytes="used_bytes limit_bytes",
        count=("up connections connections_limit connections_refused items hits misses evictions"),
    ),
    "haproxy": _fields(
        seconds="check_seconds answer_seconds down_seconds",
        bytes="received_bytes sent_bytes",
        count=(
            "up sessions sessions_limit sessions_total queue connection_errors response_errors"
            " refused_requests responses_5xx servers_up"
        ),
    ),
    "certificate": _fields(seconds="seconds_left", count="trusted"),
    "openstack_service": _fields(seconds="heartbeat_age_seconds", count="up enabled"),
    "openstack_services": _fields(count="services up down disabled missing"),
    **dict.fromkeys(
        ("openstack_hypervisor", "openstack_hypervisors"),
        _fields(
            bytes="memory_bytes memory_used_bytes disk_bytes disk_used_bytes",
            count="hypervisors up down enabled vcpus vcpus_used instances workload",
        ),
    ),
    "openstack_zone": _fields(count="available hosts"),
    "openstack_instances": _fields(count="instances"),
    "openstack_instances_total": _fields(
        seconds="busy_longest_seconds", count="instances errors busy"
    ),
    "openstack_placement": _fields(
        percent="used_percent",
        bytes="total_bytes reserved_bytes capacity_bytes used_bytes",
        count="total reserved capacity used allocation_ratio",
    ),
    **{
        f"openstack_{what}s{by}": _fields(count="total count")
        for what in ("network", "router", "floating")
        for by in ("", "_by_status")
    },
    "openstack_addresses": _fields(percent="used_percent", count="total used"),
    "openstack_pool": _fields(
        percent="used_percent reserved_percent",
        bytes="total_bytes free_bytes allocated_bytes provisioned_bytes",
        count="over_subscription_ratio",
    ),
    "openstack_volumes": _fields(bytes="bytes", count="volumes"),
    "openstack_volumes_total": _fields(count="volumes errors"),
    "openstack_images": _fields(bytes="bytes", count="images"),
    "openstack_catalogue": _fields(count="services endpoints"),
    "openstack_quota": _fields(
        percent="used_percent", bytes="limit_bytes used_bytes", count="limit used"
    ),
    "openstack_endpoint": _fields(seconds="seconds certificate_seconds_left", count="up status"),
    "openstack_api": _fields(seconds="seconds age_seconds", count="ok no_right calls status items"),
    "openstack_round": _fields(
        seconds="seconds cpu_seconds", bytes="memory_bytes", count="ok lease failed_parts calls"
    ),
    "agent": _fields(
        percent="cpu_percent",
        bytes="memory spool_bytes",
        seconds="cycle_seconds clock_offset round_trip",
        count="spool_reports dropped_reports dropped_points dropped_events rejected_items",
    ),
    "agent_plugin": _fields(count="up restarts pushes refused"),
    "agent_collector": _fields(count="ok points failures", seconds="seconds"),
}

#: (measurement, field) that only ever grow until they start again; a chart shows their rate.
COUNTERS: frozenset[tuple[str, str]] = frozenset(
    (measurement, name)
    for measurement, names in {
        "disk_io": "read_bytes write_bytes reads writes busy_ms",
        "network": (
            "received_bytes sent_bytes received_packets sent_packets received_errors sent_errors"
            " received_drops sent_drops"
        ),
        "pressure": "some_seconds full_seconds",
        "system": "context_switches forks",
        "guest": "read_bytes written_bytes received_bytes sent_bytes",
        "rabbitmq": "connections_opened connections_closed",
        "mariadb": (
            "questions slow_queries aborted_clients aborted_connects refused_connections deadlocks"
            " row_lock_waits certification_failures"
        ),
        "memcached": "connections_refused hits misses evictions",
        "haproxy": (
            "sessions_total received_bytes sent_bytes connection_errors response_errors"
            " refused_requests responses_5xx down_seconds"
        ),
    }.items()
    for name in names.split()
)


def unit_of(measurement: str, name: str) -> str:
    """The unit of a field: as the table says, else as its name does."""
    known = FIELDS.get(measurement, {}).get(name)
    if known is not None:
        return known
    words = name.replace(".", "_").split("_")
    for word, unit in (
        ("percent", "percent"), ("bytes", "bytes"), ("seconds", "seconds"), ("ms", "milliseconds"),
    ):  # fmt: skip
        if word in words:
            return unit
    return "count"
