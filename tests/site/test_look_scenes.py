"""Every page and fragment is drawn with what its opening comment asks for, and keeps the CSP."""

from __future__ import annotations

import copy
import uuid
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from types import SimpleNamespace as Row
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.template.loader import get_template
from django.test import RequestFactory
from django.urls import ResolverMatch, clear_script_prefix, set_script_prefix, set_urlconf

from accounts.access import Access
from accounts.forms import InviteForm, KeyForm, OrganizationForm
from accounts.models import AuditEntry, Invitation, Key, Membership, Role, Tenant, User
from alerts import knowledge, notifiers
from alerts.knowledge import Known
from alerts.models import Notification, NotificationChannel, Rule
from alerts.pages.forms import ChannelForm, RuleForm
from clouds.models import CloudGroup, Server, Service
from metrics.agents import AgentHealth, CollectorHealth, Figure
from sentinel_site.kit.problems import Problem

NOW = datetime.now(UTC)
MINUTE = timedelta(minutes=1)


# -- a cloud to look at --------------------------------------------------------

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

SHELL = {
    "organizations": [
        {"name": "Andes Cloud", "path": "/o/acme/"},
        {"name": "Lab", "path": "/o/lab/"},
    ],
    "groups": [
        {"pk": 1, "name": "gru-prod", "state": "critical"},
        {"pk": 2, "name": "scl-prod", "state": "warning"},
        {"pk": 3, "name": "lab", "state": "blackout"},
    ],
    "open": {"count": 3, "untaken": 2, "critical": 1},
    "unread": 2,
}
SERVERS = [
    {
        "server": CTL_1,
        "cpu": 11.2,
        "memory": 38.1,
        "disk": 64.0,
        "load": 3.2,
        "seen_at": NOW - timedelta(seconds=8),
        "why": "RabbitMQ is down",
        "trend": [16 + n % 7 for n in range(48)],
    },
    {
        "server": CMP_7,
        "cpu": None,
        "memory": None,
        "disk": None,
        "load": None,
        "seen_at": NOW - 6 * MINUTE,
        "why": "No report for 6 min",
        "trend": None,
    },
    {
        "server": STO_3,
        "cpu": 4.25,
        "memory": 44.0,
        "disk": 91.0,
        "load": 2.0,
        "seen_at": NOW,
        "why": "Disk above 90 %",
        "trend": [1, 2, None, 4],
    },
    {
        "server": CMP_12,
        "cpu": 3.0,
        "memory": 9.0,
        "disk": 22.0,
        "load": 0.1,
        "seen_at": NOW,
        "why": "",
        "trend": [3] * 10,
    },
    {
        "server": AIO_1,
        "cpu": 71.0,
        "memory": 83.0,
        "disk": 48.0,
        "load": 9.7,
        "seen_at": None,
        "why": "",
        "trend": None,
    },
]
GROUPS = [
    {
        "pk": 1,
        "name": "gru-prod",
        "location": "São Paulo, BR",
        "state": "critical",
        "up": 48,
        "servers": 49,
        "alerts": 98,
        "release": "2025.1 Epoxy",
    },
    {
        "pk": 2,
        "name": "scl-prod",
        "location": "Santiago, CL",
        "state": "warning",
        "up": 1,
        "servers": 2,
        "alerts": 2,
        "release": "",
    },
    {
        "pk": 3,
        "name": "lab",
        "location": "",
        "state": "blackout",
        "up": 0,
        "servers": 1,
        "alerts": 0,
        "release": "",
    },
]
DASHBOARD = {
    "total": 52,
    "headline": "One incident needs someone",
    "subline": "50 of 52 servers are up. The trouble is in gru-prod.",
    "incidents": INCIDENTS,
    "more": 0,
    "closed_at": None,
    "groups": GROUPS,
    "fleet": [
        {"name": "gru-prod", "servers": [CTL_1, CMP_12, *FINE]},
        {"name": "scl-prod", "servers": [STO_3, CMP_7]},
        {"name": "", "servers": [AIO_1]},
    ],
    "servers": SERVERS,
    "events_url": "/chart/events?range=86400",
}
SERVER = {
    "server": CTL_1,
    "tab": "overview",
    "range": 86400,
    "seen_at": NOW - timedelta(seconds=8),
    "worst": RABBIT,
    "counts": {"alerts": 3, "services_down": 2},
    "charts": {
        name: f"/chart/{name}?range=86400" for name in ("events", "cpu", "memory", "disk", "load")
    },
    "spans": [
        {"x": 120.0, "width": 30.0, "row": 0, "severity": "warning", "title": "Slow answers"},
        {"x": 900.0, "width": 100.0, "row": 1, "severity": "critical", "title": "Broker is gone"},
    ],
    "closed_count": 6,
    "incidents": [RABBIT],
    "open_by_severity": {"critical": 1, "error": 1, "warning": 1},
    "now": [
        {
            "label": "CPU",
            "percent": 11.2,
            "note": "3.5 of 32 threads",
            "at": NOW - timedelta(seconds=8),
            "warning": 80,
            "critical": 95,
        },
        {
            "label": "Memory",
            "percent": 83.0,
            "note": "53.4 of 64 GB",
            "at": NOW - timedelta(seconds=8),
            "warning": 80,
            "critical": 95,
        },
        {
            "label": "Disk",
            "percent": None,
            "note": "",
            "at": None,
            "warning": None,
            "critical": None,
        },
    ],
    "last_alerts": ALERTS,
    "alerts": ALERTS,
    "projects": PROJECTS,
    "numbers": {
        "nova-api": {
            "cpu_percent": 3.2,
            "memory": 412 * 1024**2,
            "uptime": 86_400.0,
            "restarts": 1.0,
            "ports_listening": 2.0,
            "ports_answering": 2.0,
        }
    },
    "agent": AgentHealth(
        costs=[Figure("cpu_percent", "CPU, of one processor", 0.49, "percent", NOW)],
        delivery=[Figure("dropped_points", "Points dropped", 12, "count", NOW)],
        collectors=[
            CollectorHealth("disk", False, 5.0, 0, 3),
            CollectorHealth("cpu", True, 0.0004, 1, 0),
        ],
    ),
    "offered": "2.1.0",
    "custom": {
        "lanes": [
            {
                "id": "c-1",
                "title": "backup seconds",
                "whose": [("target", "s3")],
                "value": "41 s",
                "at": NOW - 3 * MINUTE,
                "url": "/chart/backup",
                "unit": "seconds",
                "last": True,
            },
            {
                "id": "c-2",
                "title": "status",
                "whose": [("plugin", "docker"), ("row", "neo4j")],
                "value": "running",
                "at": NOW,
                "url": "",
                "unit": "count",
                "last": False,
            },
        ],
        "more": 3,
    },
    "vitals": [
        {"id": "v-cpu", "title": "CPU", "url": "/chart/cpu", "unit": "percent", "threshold": 90},
        {
            "id": "v-net",
            "title": "Network",
            "url": "/chart/network",
            "unit": "bytes_per_second",
            "threshold": None,
        },
        {
            "id": "v-mem",
            "title": "Memory used",
            "url": "/chart/bytes",
            "unit": "bytes",
            "threshold": None,
        },
    ],
}
LOGS = {
    "filters": {
        "q": "unreachable",
        "levels": ["error", "critical"],
        "server": "1",
        "service": "",
        "start": "",
        "end": "",
        "span": "3600",
    },
    "servers": [CTL_1, CMP_7],
    "services": ["nova-api", "nova-conductor"],
    "query": "q=unreachable&level=error",
    "events": LINES,
    "older_url": "/logs/?fragment=older&before=abc",
    "took": 0.014,
    "total": None,
}
HISTORY = [
    Row(
        at=NOW - MINUTE, text="97 symptoms folded in", by=None, kind="counted", severity="", note=""
    ),
    Row(
        at=NOW - 9 * MINUTE, text="Acknowledged", by=BOB, kind="acknowledged", severity="", note=""
    ),
    Row(
        at=NOW - 14 * MINUTE,
        text="Incident opened, critical",
        by=None,
        kind="opened",
        severity="critical",
        note="Rule “Service is down”, after 20 s",
    ),
]
CASCADE = {
    "incident": make_incident(
        319,
        "RabbitMQ is down",
        "critical",
        cause="RabbitMQ on ctl-1",
        server=None,
        host="",
        alert_count=98,
    ),
    "alerts": ALERTS,
    "why": "nova-compute on 44 servers says “The message broker can't be reached”",
    "symptom_count": 97,
    "symptoms": [
        {"text": "nova-compute is down", "count": 44, "servers": 44, "over": 0},
        {"text": "heat-engine is down", "count": 2, "servers": 1, "over": 1},
    ],
    "figures": [],
    "known": [Known(knowledge.entries()[0], 12)],
    "lines": LINES,
    "history": HISTORY,
    "people": [ALICE, BOB],
    "charts": [],
    "around": {"before": FULL, "after": SILENT},
}
ENROL = Key(pk=9, tenant=ACME, scope="enrol", prefix="abcdefghijkl", expires_at=NOW + 59 * MINUTE)
WAITING = {"key": ENROL, "server": None, "seen_at": None, "services": [], "expired": False}
ADD = {
    "command": "curl -fsS https://sentinella.example/install | sh -s -- "
    "--token snt_abcdefghijkl_0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcd",
    "expires_at": NOW + 59 * MINUTE,
    **WAITING,
}
ALICES = Membership(pk=1, user=ALICE, tenant=ACME, role="owner")
INVITATION = Invitation(
    pk=1,
    tenant=ACME,
    email="carla@andes.example",
    role="member",
    invited_by=ALICE,
    expires_at=NOW + timedelta(days=7),
)
WRONG = InviteForm({"email": "not an address", "role": "viewer"})
WRONG.is_valid()
RULES = [
    Rule(
        pk=1,
        name="Processor busy",
        measurement="cpu",
        field="percent",
        window=5 * MINUTE,
        hold=5 * MINUTE,
        thresholds={"warning": 90, "error": 98},
        group=GRU,
    ),
    Rule(
        pk=2,
        name="Critical log events",
        kind="event",
        level="critical",
        words="Traceback",
        aggregation="count",
        window=5 * MINUTE,
        comparison=">=",
        thresholds={"error": 1},
        enabled=False,
    ),
    Rule(pk=3, name="Server silent", kind="silence", thresholds={"critical": 0}),
]


def rule_form(rule: Rule) -> RuleForm:
    form = RuleForm(instance=rule)
    for name in ("group", "server"):
        form.fields[name].queryset = form.fields[name].queryset.none()
    return form


def channel_form(channel: NotificationChannel) -> ChannelForm:
    form = ChannelForm(instance=channel, kind=channel.kind)
    form.fields["fallback"].queryset = NotificationChannel.objects.none()
    return form


def make_channel(pk: int, name: str, kind: str, last: Notification | None) -> NotificationChannel:
    channel = NotificationChannel(pk=pk, name=name, kind=kind)
    channel.last = last
    return channel


CHANNELS = [
    make_channel(1, "Owner", "email", Notification(state="sent", sent_at=NOW - 13 * MINUTE)),
    make_channel(2, "Ops", "slack", Notification(state="failed", error="404 no_service")),
    make_channel(3, "Night", "email", None),
]
KEYS = [
    Key(
        pk=1,
        tenant=ACME,
        scope="ingest",
        prefix="k3q9x2m4p7aa",
        name="Telegraf",
        created_by=ALICE,
        used_at=NOW - MINUTE,
    ),
    Key(
        pk=2,
        tenant=ACME,
        scope="ingest",
        prefix="k3q9x2m4p7ab",
        name="ctl-1",
        agent_id=uuid.UUID(int=1),
    ),
    Key(pk=3, tenant=ACME, scope="read", prefix="k3q9x2m4p7ac", revoked_at=NOW),
]

#: scene -> (template, name of the current URL, context): each page, and its other faces.
SCENES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "landing": ("landing.html", "landing", {}),
    "dashboard": ("dashboard.html", "dashboard", DASHBOARD),
    "dashboard-fine": (
        "dashboard.html",
        "dashboard",
        {
            **DASHBOARD,
            "incidents": [],
            "headline": "All 52 servers are fine",
            "subline": "The last check ran 3 s ago.",
            "closed_at": NOW - timedelta(days=2),
        },
    ),
    "dashboard-first": ("dashboard.html", "dashboard", {**DASHBOARD, "total": 0}),
    "servers": (
        "clouds/servers.html",
        "clouds:servers",
        {
            "total": 52,
            "groups": [GRU, SCL],
            "filters": {"q": "", "group": "1", "status": ""},
            "query": "group=1",
            "headline": "50 of 52 servers are up",
            "servers": SERVERS,
            "next_url": "?after=9",
        },
    ),
    "servers-none": (
        "clouds/servers.html",
        "clouds:servers",
        {
            "total": 0,
            "groups": [],
            "filters": {},
            "query": "",
            "headline": "No server yet",
            "servers": [],
        },
    ),
    "palette": ("clouds/_palette.html", "clouds:servers", {"servers": [CTL_1, CMP_7]}),
    "server": ("clouds/server.html", "clouds:server", SERVER),
    "group": (
        "clouds/group.html",
        "clouds:group",
        {
            "group": GRU,
            "state": "critical",
            "headline": "48 of 49 servers report.",
            "total": 49,
            "releases": ["2025.1 Epoxy"],
            "incidents": INCIDENTS,
            "cells": [CTL_1, CMP_12, *FINE],
            "servers": SERVERS,
            "listed": 50,
            "suppression": None,
            "uptime": {},
        },
    ),
    "group-empty": (
        "clouds/group.html",
        "clouds:group",
        {"group": LAB, "state": "ok", "headline": "No server is in it yet.", "total": 0},
    ),
    "server-bare": (
        "clouds/server.html",
        "clouds:server",
        {
            "server": make_server(9, "new-1", group=None),
            "tab": "overview",
            "range": 3600,
            "seen_at": None,
            "counts": {"alerts": 0, "services_down": 0},
            "charts": SERVER["charts"],
            "spans": [],
            "closed_count": 0,
            "incidents": [],
            "open_by_severity": {},
            "now": [],
            "last_alerts": [],
            "projects": [],
        },
    ),
    "server-alerts": ("clouds/server.html", "clouds:server", {**SERVER, "tab": "alerts"}),
    "server-vitals": ("clouds/server.html", "clouds:server", {**SERVER, "tab": "vitals"}),
    "custom": ("clouds/_custom.html", "clouds:server", {**SERVER, "tab": "vitals"}),
    "server-services": ("clouds/server.html", "clouds:server", {**SERVER, "tab": "services"}),
    "server-agent": ("clouds/server.html", "clouds:server", {**SERVER, "tab": "agent"}),
    "server-logs": ("clouds/server.html", "clouds:server", {**SERVER, **LOGS, "tab": "logs"}),
    "add-server": ("clouds/add.html", "clouds:add-server", ADD),
    "add-server-empty": ("clouds/add.html", "clouds:add-server", {"command": ""}),
    "add-server-dialog": ("clouds/add_server.html", "clouds:add-server", ADD),
    "waiting-done": (
        "clouds/_add_server_waiting.html",
        "clouds:add-server",
        {
            **WAITING,
            "key": Key(scope="enrol", used_at=NOW),
            "server": CTL_1,
            "seen_at": NOW,
            "services": ["nova-compute", "libvirtd"],
        },
    ),
    "waiting-expired": (
        "clouds/_add_server_waiting.html",
        "clouds:add-server",
        {**WAITING, "expired": True},
    ),
    "incidents": (
        "alerts/list.html",
        "alerts:list",
        {
            "state": "open",
            "severity": "",
            "open_count": 3,
            "closed_count": 41,
            "title": "3 incidents are open",
            "query": "state=open",
            "incidents": INCIDENTS,
            "next_url": "",
        },
    ),
    "incidents-taken": (
        "alerts/_list.html",
        "alerts:list",
        {"state": "open", "incidents": [RABBIT, TAKEN, SILENT]},
    ),
    "incidents-closed": (
        "alerts/list.html",
        "alerts:list",
        {
            "state": "closed",
            "severity": "",
            "open_count": 3,
            "closed_count": 41,
            "title": "41 incidents were closed",
            "query": "state=closed",
            "incidents": [CLOSED],
            "next_url": "?before=300",
        },
    ),
    "incidents-none": (
        "alerts/list.html",
        "alerts:list",
        {
            "state": "open",
            "severity": "",
            "open_count": 0,
            "closed_count": 0,
            "title": "Nothing is wrong",
            "query": "",
            "incidents": [],
        },
    ),
    "bell": ("alerts/_bell.html", "alerts:notices", {"notices": NOTICES}),
    "incident": (
        "alerts/incident.html",
        "alerts:incident",
        {
            "incident": RABBIT,
            "alerts": ALERTS,
            "figures": [
                {"label": "Memory used", "value": "93 %", "note": "threshold 90 %"},
                {"label": "For", "value": "20 s", "note": ""},
            ],
            "lines": LINES[:2],
            "history": HISTORY,
            "charts": [
                {
                    "id": "evidence-1",
                    "title": "Memory",
                    "url": "/chart/memory",
                    "unit": "percent",
                    "threshold": 90,
                }
            ],
        },
    ),
    "incident-cause": ("alerts/incident.html", "alerts:incident", CASCADE),
    "incident-cause-again": (
        "alerts/_incident.html",
        "alerts:incident",
        {**CASCADE, "symptom_count": 98},
    ),
    "incident-closed": (
        "alerts/incident.html",
        "alerts:incident",
        {
            "incident": CLOSED,
            "alerts": [],
            "figures": [],
            "lines": [],
            "history": [
                Row(
                    at=NOW,
                    text="Resolved by itself",
                    by=None,
                    kind="resolved",
                    severity="",
                    note="",
                )
            ],
            "charts": [],
        },
    ),
    "rules": ("alerts/rules.html", "alerts:rules", {"rules": RULES, "may_edit": True}),
    "rules-viewer": ("alerts/rules.html", "alerts:rules", {"rules": RULES, "may_edit": False}),
    "rule": (
        "alerts/rule_form.html",
        "alerts:rule",
        {"form": rule_form(RULES[0]), "rule": RULES[0], "labels": []},
    ),
    "rule-new": (
        "alerts/rule_form.html",
        "alerts:rule-new",
        {"form": rule_form(Rule()), "rule": None, "labels": []},
    ),
    "channels": (
        "alerts/channels.html",
        "alerts:channels",
        {"channels": CHANNELS, "kinds": notifiers.NOTIFIERS, "may_manage": True},
    ),
    "channel": (
        "alerts/channel_form.html",
        "alerts:channel",
        {
            "form": channel_form(CHANNELS[1]),
            "kind": notifiers.by_name("slack"),
            "channel": CHANNELS[1],
        },
    ),
    "logs": ("metrics/logs.html", "metrics:logs", LOGS),
    "logs-more": (
        "metrics/_logs.html",
        "metrics:logs",
        {**LOGS, "events": [make_line(0, "error", "nova-compute", TRACEBACK), *LINES]},
    ),
    "logs-none": ("metrics/logs.html", "metrics:logs", {**LOGS, "events": [], "older_url": ""}),
    "logs-older": ("metrics/_older.html", "metrics:logs", LOGS),
    "members": (
        "accounts/members.html",
        "accounts:members",
        {
            "members": [ALICES, Membership(pk=2, user=BOB, tenant=ACME, role="member")],
            "invitations": [INVITATION],
            "form": WRONG,
            "roles": list(Role),
            "may_manage": True,
        },
    ),
    "audit": (
        "accounts/audit.html",
        "accounts:audit",
        {
            "entries": [
                AuditEntry(
                    tenant=ACME, at=NOW, user=ALICE, verb="key.issued", subject="snt_k3q9x2m4p7aa_…"
                )
            ]
        },
    ),
    "keys": (
        "accounts/keys.html",
        "accounts:keys",
        {
            "keys": KEYS,
            "form": KeyForm(),
            "secret": "snt_k3q9x2m4p7aa_0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcd",
            "issued": KEYS[0],
            "may_manage": True,
        },
    ),
    "knocks": (
        "metrics/_knocks.html",
        "metrics:knocks",
        {
            "knocks": [
                Row(hint="…a1b2", host="old-1", count=12, first_at=NOW, last_at=NOW),
            ]
        },
    ),
    "organizations": (
        "accounts/organizations.html",
        "home",
        {"organizations": [{"membership": ALICES, "url": "/o/acme/"}], "form": OrganizationForm()},
    ),
    "invitation": (
        "accounts/invitation.html",
        "invitation",
        {"invitation": INVITATION, "has_account": True},
    ),
    "404": ("404.html", "landing", {}),
    "403": ("403.html", "landing", {"problem": Problem("This needs the role admin.")}),
    "500": ("500.html", "landing", {}),
    "503": ("503.html", "landing", {}),
    "400": ("400.html", "landing", {}),
    "problem": (
        "components/problem.html",
        "alerts:list",
        {"problem": Problem("Someone else has it.")},
    ),
}


PUBLIC = ("landing", "home", "invitation")


def draw(scene: str, role: Role = Role.OWNER) -> str:
    """The HTML of a scene, as that role sees it at its own address."""
    template, view_name, context = SCENES[scene]
    public = view_name in PUBLIC
    request = RequestFactory().get("/")
    request.user = ALICE
    request.tenant = ACME
    request.access = Access(ACME, role, ALICE)
    request.htmx = False
    namespace, _, name = view_name.rpartition(":")
    request.resolver_match = ResolverMatch(
        draw, (), {}, url_name=name, namespaces=[namespace] if namespace else []
    )
    set_urlconf(django_settings.PUBLIC_SCHEMA_URLCONF if public else django_settings.ROOT_URLCONF)
    if not public:
        set_script_prefix("/o/acme/")
    try:
        return get_template(template).render({"shell": SHELL, "user": ALICE, **context}, request)
    finally:
        set_urlconf(None)
        clear_script_prefix()


@pytest.fixture(autouse=True)
def _shell_of_the_scene(settings: Any) -> None:
    settings.TEMPLATES = copy.deepcopy(settings.TEMPLATES)
    processors = settings.TEMPLATES[0]["OPTIONS"]["context_processors"]
    processors[:] = [name for name in processors if "alerts" not in name and "messages" not in name]


class Page(HTMLParser):
    """What a test asks of a drawn page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.forbidden: list[str] = []
        self.ids: list[str] = []
        self.labels_for: set[str] = set()
        self.referred: set[str] = set()
        self.fields: list[dict[str, str | None]] = []
        self.heads = 0
        self.landmarks: list[str] = []
        self._script = False
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        self._script = tag == "script" and "src" not in given
        if tag == "style" or "style" in given:
            self.forbidden.append(f"<{tag} style>")
        self.forbidden += [f"<{tag} {name}>" for name in given if name.startswith(("on", "hx-on"))]
        if tag == "a" and (given.get("href") or "").startswith("javascript:"):
            self.forbidden.append("javascript:")
        if tag == "h1":
            self.heads += 1
        if tag == "main":
            self.landmarks.append(tag)
        if given.get("id"):
            self.ids.append(str(given["id"]))
        if tag == "label" and given.get("for"):
            self.labels_for.add(str(given["for"]))
        for name in ("aria-labelledby", "aria-describedby", "aria-controls"):
            self.referred |= set((given.get(name) or "").split())
        if tag in ("input", "select", "textarea") and given.get("type") != "hidden":
            self.fields.append(given)

    def handle_data(self, data: str) -> None:
        if self._script and data.strip():
            self.forbidden.append("inline script")
        self._script = False


@pytest.mark.parametrize("scene", SCENES)
def test_a_page_has_no_inline_script_or_style(scene: str) -> None:
    assert Page(draw(scene)).forbidden == []


@pytest.mark.parametrize("scene", SCENES)
def test_a_page_says_nothing_twice_and_refers_to_what_is_there(scene: str) -> None:
    html = draw(scene)
    page = Page(html)
    assert len(page.ids) == len(set(page.ids)), sorted(page.ids)
    if "<html" in html:
        assert page.heads == 1
        assert page.landmarks == ["main"]
        made_by_script = {"dialog-title"}
        assert page.referred <= set(page.ids) | made_by_script


@pytest.mark.parametrize("scene", [name for name in SCENES if name not in ("palette",)])
def test_every_field_has_a_label(scene: str) -> None:
    page = Page(draw(scene))
    for field in page.fields:
        inside_a_label = field.get("type") in ("radio", "checkbox") and not field.get("id")
        assert inside_a_label or field.get("aria-label") or field.get("id") in page.labels_for, (
            field
        )


@pytest.mark.parametrize("scene", SCENES)
def test_nothing_of_the_template_language_is_left_over(scene: str) -> None:
    html = draw(scene)
    assert "{%" not in html
    assert "{{" not in html
    assert "{#" not in html
    assert "None" not in html


def test_the_error_page_needs_no_request() -> None:
    assert "Something broke on our side" in get_template("500.html").render()


def test_a_name_that_is_markup_stays_text() -> None:
    SCENES["evil"] = (
        "alerts/_open.html",
        "dashboard",
        {"incidents": [make_incident(1, "<script>alert(1)</script>", "info")]},
    )
    try:
        assert "<script>" not in draw("evil")
    finally:
        del SCENES["evil"]
