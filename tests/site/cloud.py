"""A cloud to look at: servers, incidents, log lines and services, as rows without a database."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace as Row
from typing import Any

from accounts.models import Tenant, User
from clouds.models import CloudGroup, Server, Service

NOW = datetime.now(UTC)
MINUTE = timedelta(minutes=1)

ALICE = User(pk=1, email="alice.rojas@andes.example", name="Alice Rojas")
BOB = User(pk=2, email="bob@andes.example")
ACME = Tenant(pk=1, slug="acme", name="Andes Cloud")
GRU = CloudGroup(pk=1, name="gru-prod", location="São Paulo, BR")
SCL = CloudGroup(pk=2, name="scl-prod", location="Santiago, CL")
LAB = CloudGroup(pk=3, name="lab", location="")

SPECS = {
    "os": {"name": "Ubuntu", "version": "24.04.3"},
    "kernel": "6.8.0-60-generic",
    "architecture": "x86_64",
    "processor": {"model": "AMD EPYC 7313", "threads": 32, "cores": 16},
    "memory": {"total": 64 * 1024**3},
    "storage": [{"device": "nvme0n1", "size": 960 * 10**9, "model": "NVMe"}] * 2,
    "boot_at": (NOW - timedelta(days=112)).timestamp(),
}


def make_server(pk: int, host: str, **changes: Any) -> Server:
    return Server(
        **{
            "pk": pk,
            "host": host,
            "agent_id": uuid.UUID(int=pk),
            "group": GRU,
            "status": "up",
            "health": "ok",
            "agent_version": "2.0.0",
            "interval": MINUTE,
            **changes,
        }
    )


CTL_1 = make_server(
    1, "ctl-1", health="critical", specs=SPECS, openstack_release="2025.1 Epoxy", role="controller"
)
CMP_7 = make_server(2, "cmp-7", status="silent", group=SCL)
STO_3 = make_server(3, "sto-3", health="warning", group=SCL)
CMP_12 = make_server(4, "cmp-12", status="maintenance")
AIO_1 = make_server(5, "aio-1", status="blackout", group=LAB)
FINE = [make_server(100 + n, f"cmp-{n}") for n in range(13, 60)]


def make_incident(pk: int, title: str, severity: str, **changes: Any) -> Row:
    return Row(
        **{
            "pk": pk,
            "title": title,
            "severity": severity,
            "seen": "",
            "opened_at": NOW - 14 * MINUTE,
            "resolved_at": None,
            "acknowledged_by": None,
            "acknowledged_at": None,
            "server": CTL_1,
            "alert_count": 1,
            **changes,
        }
    )


RABBIT = make_incident(
    318,
    "RabbitMQ is down on ctl-1",
    "critical",
    seen="The kernel killed RabbitMQ for lack of memory. Its queue notifications.info had grown "
    "to 1.9 million messages.",
    alert_count=98,
)
SILENT = make_incident(
    317,
    "cmp-7 has been silent for 6 min",
    "warning",
    seen="Last report 03:20:04. Its neighbours report as usual.",
    acknowledged_by=BOB,
    acknowledged_at=NOW - 3 * MINUTE,
    server=CMP_7,
    opened_at=NOW - 6 * MINUTE,
)
FULL = make_incident(
    316,
    "sto-3 fills up: /var/lib/ceph above 90 %",
    "error",
    seen="/var/lib/ceph at 91 %, threshold 90 %.",
    server=STO_3,
    opened_at=NOW - timedelta(hours=6, minutes=21),
)
TAKEN = Row(**{**vars(FULL), "acknowledged_by": ALICE, "acknowledged_at": NOW})
CLOSED = make_incident(
    300, "CPU above 90 % on cmp-13", "warning", resolved_at=NOW - 60 * MINUTE, server=FINE[0]
)
INCIDENTS = [RABBIT, FULL, SILENT]
NOTICES = [
    {
        "id": 40 - place,
        "kind": kind,
        "at": NOW - timedelta(minutes=3 * place + 1),
        "incident": one.pk,
        "title": one.title,
        "severity": one.severity,
        "text": "It is past its limit on ctl1 since 11:59 UTC.",
        "by": "Bob" if kind == "acknowledged" else "",
        "is_unread": place < 2,
    }
    for place, (kind, one) in enumerate(
        [("opened", RABBIT), ("acknowledged", FULL), ("raised", SILENT), ("resolved", FULL)]
    )
]


def make_alert(
    pk: int, severity: str, service: str, subject: str, title: str, closed: int = 0
) -> Row:
    return Row(
        pk=pk,
        severity=severity,
        service=service,
        subject=subject,
        title=title,
        server=CTL_1,
        count=pk * 7,
        incident_id=318,
        opened_at=NOW - timedelta(hours=closed + 1),
        resolved_at=NOW - timedelta(hours=closed) if closed else None,
    )


ALERTS = [
    make_alert(1, "critical", "rabbitmq-server", "service", "Broker process is gone"),
    make_alert(2, "error", "rabbitmq-server", "memory", "Memory alarm: publishers blocked"),
    make_alert(3, "warning", "rabbitmq-server", "queue", "notifications.info passed 1 million"),
    make_alert(4, "error", "nova-conductor", "rpc", "No answer within 60 s, 14 times", 7),
    make_alert(5, "warning", "glance-api", "latency", "Slow answers, p95 over 2 s", 11),
]

TRACEBACK = (
    "oslo_db.exception.DBConnectionError\nTraceback (most recent call last):\n  File x\nError"
)


def make_line(ago: int, level: str, service: str, message: str, **changes: Any) -> Row:
    return Row(
        **{
            "at": NOW - timedelta(seconds=ago, milliseconds=137 * ago % 1000),
            "level": level,
            "service": service,
            "message": message,
            "component": "oslo.messaging._drivers.impl_rabbit",
            "request_id": "",
            "server": CTL_1,
            "path": "/var/log/nova/nova-conductor.log",
            **changes,
        }
    )


LINES = [
    make_line(
        2,
        "error",
        "nova-conductor",
        "AMQP server on 10.20.0.11:5672 is unreachable: [Errno 111] ECONNREFUSED. "
        "Trying again in 32 seconds.",
    ),
    make_line(
        3, "critical", "kernel", "Out of memory: Killed process 2187 (beam.smp) total-vm:41284412kB"
    ),
    make_line(
        9,
        "warning",
        "neutron-openvswitch-agent",
        "Timed out waiting for a reply to message ID 0abc",
        request_id="req-5d1f0c7e-93a4-4f0b-8a52-1c6be0d2a917",
    ),
    make_line(
        14, "info", "nova-api", '10.20.0.9 "GET /v2.1/servers" status: 200 len: 1893 time: 0.0321'
    ),
    make_line(20, "error", "nova-compute", TRACEBACK),
    make_line(31, "debug", "nova-scheduler", "Filter ComputeFilter returned 44 host(s)"),
]


def make_service(name: str, project: str, state: str = "up") -> Service:
    return Service(
        server=CTL_1,
        name=name,
        project=project,
        state=state,
        since=NOW - timedelta(hours=3),
        seen_at=NOW,
        seen_up_at=NOW,
        workers=4,
        detail="" if state == "up" else "exited with status 1",
    )


NOVA = [make_service("nova-conductor", "nova", "down")] + [
    make_service(f"nova-{name}", "nova")
    for name in ("api", "scheduler", "novncproxy", "compute", "metadata")
]
PROJECTS = [
    {
        "name": "nova",
        "version": "26.1.0",
        "total": 6,
        "down": 1,
        "unknown": 0,
        "services": NOVA,
        "base": False,
    },
    {
        "name": "neutron",
        "total": 3,
        "down": 0,
        "unknown": 1,
        "services": [
            make_service("neutron-l3-agent", "neutron", "unknown"),
            make_service("neutron-server", "neutron"),
            make_service("neutron-dhcp-agent", "neutron"),
        ],
        "base": False,
    },
    {
        "name": "keystone",
        "total": 1,
        "down": 0,
        "unknown": 0,
        "services": [make_service("keystone-wsgi", "keystone")],
        "base": False,
    },
    {
        "name": "rabbitmq",
        "total": 1,
        "down": 1,
        "unknown": 0,
        "services": [make_service("rabbitmq-server", "rabbitmq", "down")],
        "base": True,
    },
]
