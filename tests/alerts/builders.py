"""Small makers of what alerts are about."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from accounts.models import Tenant, Timer
from alerts.models import Rule, Severity
from alerts.notifiers import Message
from clouds.models import Server

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)


def looked_at(tenant: Tenant) -> datetime | None:
    """When this organization is looked at next though no data of it arrives."""
    own = Tenant.objects.get(pk=tenant.pk).timer_at
    rings = Timer.objects.filter(tenant=tenant).values_list("at", flat=True)
    return min((at for at in (own, *rings) if at is not None), default=None)


def make_server(host: str = "nova-1", **more: Any) -> Server:
    more.setdefault("agent_id", uuid4())
    more.setdefault("registered_at", NOON - timedelta(days=1))
    more.setdefault("status_since", NOON - timedelta(days=1))
    more.setdefault("interval", 10 * SECOND)
    return Server.objects.create(host=host, **more)


def make_rule(name: str = "Busy", **more: Any) -> Rule:
    more.setdefault("measurement", "cpu")
    more.setdefault("field", "percent")
    more.setdefault("thresholds", {Severity.WARNING: 60})
    more.setdefault("window", 20 * SECOND)
    return Rule.objects.create(name=name, **more)


def make_message(**more: Any) -> Message:
    return Message(
        **{
            "key": "k-1",
            "transition": "opened:1",
            "severity": "critical",
            "title": "Disk <full>",
            "organization": "Acme",
            "server": "nova-1",
            "service": "system",
            "subject": "/var",
            "text": "98 % & rising",
            "advice": "Delete old images.",
            "link": "http://localhost/o/acme/incidents/1/",
            "at": NOON,
            "is_resolved": False,
            "thread": "k-1",
            "source": "http://localhost/o/acme/",
            **more,
        }
    )
