"""What a new tenant watches for from the first minute: rules as data, and its owner's mailbox."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from accounts.models import User
from alerts.models import NotificationChannel, Rule
from alerts.rules import keep_version

MINUTE = timedelta(minutes=1)

RULES: tuple[dict[str, Any], ...] = (
    {
        "name": "Server silent",
        "kind": Rule.Kind.SILENCE,
        "thresholds": {"critical": 0},
        "advice": "Check power and network of the server, then run sentinella status on it.",
    },
    {
        "name": "Processor busy",
        "measurement": "cpu",
        "field": "percent",
        "window": 5 * MINUTE,
        "hold": 5 * MINUTE,
        "thresholds": {"warning": 90, "error": 98},
        "recovery": 85,
        "advice": "Find what takes it: run top on the server, and sort by CPU with P.",
    },
    {
        "name": "Memory short",
        "measurement": "memory",
        "field": "percent",
        "window": 2 * MINUTE,
        "hold": 2 * MINUTE,
        "thresholds": {"warning": 90, "critical": 97},
        "recovery": 87,
        "advice": "Find what grew before the kernel kills: ps aux --sort=-rss | head",
    },
    {
        "name": "Disk filling up",
        "measurement": "disk",
        "field": "percent",
        "aggregation": Rule.Aggregation.LAST,
        "window": 5 * MINUTE,
        "thresholds": {"warning": 85, "critical": 95},
        "recovery": 83,
        "advice": "Look for large logs, images and core dumps: du -xh --max-depth=2 / | sort -h",
    },
    {
        "name": "Inodes running out",
        "measurement": "disk",
        "field": "inodes_percent",
        "aggregation": Rule.Aggregation.LAST,
        "window": 5 * MINUTE,
        "thresholds": {"warning": 85, "critical": 95},
        "recovery": 83,
        "advice": "Many small files: look at sessions, caches and mail queues.",
    },
    {
        "name": "Load high",
        "measurement": "load",
        "field": "load_per_core",
        "window": 5 * MINUTE,
        "hold": 5 * MINUTE,
        "thresholds": {"warning": 2, "error": 4},
        "recovery": 1.5,
        "advice": "More work waits than cores can take. If processors idle, look at disk latency.",
    },
    {
        "name": "Service down",
        "measurement": "service",
        "field": "down",
        "aggregation": Rule.Aggregation.LAST,
        "window": 5 * MINUTE,
        "comparison": Rule.Comparison.AT_LEAST,
        "thresholds": {"error": 1},
        "advice": "It ran here and is gone. Read the last lines of its log, then start it: "
        "systemctl status {service}. Is it gone for good: sentinella discover --forget {service}.",
    },
    {
        "name": "Service does not answer",
        "measurement": "service",
        "field": "ports_silent",
        "aggregation": Rule.Aggregation.LAST,
        "window": 5 * MINUTE,
        "hold": 2 * MINUTE,
        "comparison": Rule.Comparison.AT_LEAST,
        "thresholds": {"warning": 1},
        "advice": "Its processes run and a port of it gives no answer: it hangs, or all its "
        "workers are busy. Look at its log, its database and RabbitMQ before you restart it.",
    },
    {
        "name": "Critical log events",
        "kind": Rule.Kind.EVENT,
        "level": "critical",
        "aggregation": Rule.Aggregation.COUNT,
        "window": 5 * MINUTE,
        "comparison": Rule.Comparison.AT_LEAST,
        "thresholds": {"error": 1},
        "advice": "Read the lines under Logs; the first one usually names the cause.",
    },
)


def install(owner: User | None) -> None:
    """Put the default rules and an e-mail channel to the owner into the current schema."""
    for terms in RULES:
        rule = Rule(**terms)
        if Rule.objects.filter(name=rule.name, group=None, server=None).exists():
            continue
        rule.full_clean()
        rule.save()
        keep_version(rule, rule.changed_at, None)
    if owner is not None:
        NotificationChannel.objects.get_or_create(
            name=f"E-mail to {owner}", defaults={"kind": "email", "config": {"to": owner.email}}
        )
