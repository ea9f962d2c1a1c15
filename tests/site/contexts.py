"""What the pages that show a cloud are drawn with, as their views would have it."""

from __future__ import annotations

import uuid
from datetime import timedelta
from types import SimpleNamespace as Row

from accounts.forms import InviteForm
from accounts.models import Invitation, Key, Membership
from alerts import knowledge
from alerts.knowledge import Known
from alerts.models import Notification, NotificationChannel, Rule
from alerts.pages.forms import ChannelForm, RuleForm
from metrics.agents import AgentHealth, CollectorHealth, Figure
from tests.site.cloud import (
    ACME,
    AIO_1,
    ALERTS,
    ALICE,
    BOB,
    CMP_7,
    CMP_12,
    CTL_1,
    FINE,
    FULL,
    GRU,
    INCIDENTS,
    LINES,
    MINUTE,
    NOW,
    PROJECTS,
    RABBIT,
    SILENT,
    STO_3,
    make_incident,
)

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
