"""What a new tenant watches for from the first minute: rules as data, and its owner's mailbox."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from accounts.models import User
from alerts.models import NotificationChannel, Rule, RuleVersion
from alerts.rulebook.rules import version_of

MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)

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
        "name": "Disk full soon",
        "kind": Rule.Kind.FORECAST,
        "measurement": "disk",
        "field": "percent",
        "tags": {"fstype": {"not": ["squashfs", "iso9660"]}},
        "comparison": Rule.Comparison.AT_LEAST,
        "target": 100,
        "guard": 60,
        "window": 24 * HOUR,
        "history": 6 * HOUR,
        "hold": 10 * MINUTE,
        "thresholds": {"warning": 24 * 3600, "error": 4 * 3600},
        "recovery": 36 * 3600,
        "advice": "See what grows before it is full: du -xh --max-depth=2 / | sort -h, twice.",
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
        "name": "Service restarts again and again",
        "kind": Rule.Kind.SERVICE,
        "aggregation": Rule.Aggregation.RESTARTS,
        "window": 15 * MINUTE,
        "comparison": Rule.Comparison.AT_LEAST,
        "thresholds": {"warning": 4},
        "advice": "It dies soon after it starts. Its last lines say why: "
        "journalctl -u {service} -n 50.",
    },
    {
        "name": "RabbitMQ does not answer",
        "measurement": "rabbitmq",
        "field": "up",
        "aggregation": Rule.Aggregation.LAST,
        "window": 5 * MINUTE,
        "hold": timedelta(seconds=30),
        "comparison": Rule.Comparison.BELOW,
        "thresholds": {"critical": 1},
        "advice": "All of OpenStack waits for it. systemctl status rabbitmq-server, then "
        "rabbitmqctl cluster_status on each of its nodes.",
    },
    {
        "name": "RabbitMQ takes no messages: disk",
        "measurement": "rabbitmq",
        "field": "alarm_disk",
        "aggregation": Rule.Aggregation.LAST,
        "window": 5 * MINUTE,
        "comparison": Rule.Comparison.AT_LEAST,
        "thresholds": {"critical": 1},
        "advice": "Free space below /var/lib/rabbitmq; publishers go on by themselves.",
    },
    {
        "name": "RabbitMQ takes no messages: memory",
        "measurement": "rabbitmq",
        "field": "alarm_memory",
        "aggregation": Rule.Aggregation.LAST,
        "window": 5 * MINUTE,
        "comparison": Rule.Comparison.AT_LEAST,
        "thresholds": {"critical": 1},
        "advice": "Look for a queue that nobody reads: rabbitmqctl list_queues messages name.",
    },
    {
        "name": "RabbitMQ is partitioned",
        "measurement": "rabbitmq",
        "field": "partitions",
        "aggregation": Rule.Aggregation.LAST,
        "window": 5 * MINUTE,
        "comparison": Rule.Comparison.AT_LEAST,
        "thresholds": {"critical": 1},
        "advice": "Its nodes went apart. Choose the side to keep, restart the other's nodes.",
    },
    {
        "name": "MariaDB does not answer",
        "measurement": "mariadb",
        "field": "up",
        "aggregation": Rule.Aggregation.LAST,
        "window": 5 * MINUTE,
        "hold": timedelta(seconds=30),
        "comparison": Rule.Comparison.BELOW,
        "thresholds": {"critical": 1},
        "advice": "Every API needs it. systemctl status mariadb, then the end of its error log.",
    },
    {
        "name": "Galera node serves nobody",
        "measurement": "mariadb",
        "field": "cluster_ready",
        "aggregation": Rule.Aggregation.LAST,
        "window": 5 * MINUTE,
        "hold": MINUTE,
        "comparison": Rule.Comparison.BELOW,
        "thresholds": {"critical": 1},
        "advice": "Compare wsrep_cluster_status and wsrep_local_state_comment on every node; "
        "take this one out of the load balancer.",
    },
    {
        "name": "Database connections running out",
        "measurement": "mariadb",
        "field": "connections_percent",
        "aggregation": Rule.Aggregation.LAST,
        "window": 5 * MINUTE,
        "hold": 2 * MINUTE,
        "thresholds": {"warning": 85, "critical": 96},
        "recovery": 80,
        "advice": "See who holds them: SHOW PROCESSLIST. Raise max_connections, or shrink pools.",
    },
    {
        "name": "Certificate ends",
        "measurement": "certificate",
        "field": "seconds_left",
        "aggregation": Rule.Aggregation.LAST,
        "window": 15 * MINUTE,
        "comparison": Rule.Comparison.BELOW,
        "thresholds": {"warning": 21 * 86400, "error": 7 * 86400, "critical": 86400},
        "advice": "Renew it and reload what serves it; all that talks to it fails at once.",
    },
    {
        "name": "Clock not synchronised",
        "measurement": "clock",
        "field": "synchronised",
        "aggregation": Rule.Aggregation.LAST,
        "window": 5 * MINUTE,
        "hold": 15 * MINUTE,
        "comparison": Rule.Comparison.BELOW,
        "thresholds": {"warning": 1},
        "advice": "Tokens and heartbeats need one time. chronyc sources, chronyc tracking.",
    },
    {
        "name": "OpenStack services missing",
        "measurement": "openstack_services",
        "field": "missing",
        "aggregation": Rule.Aggregation.LAST,
        "window": 5 * MINUTE,
        "hold": 2 * MINUTE,
        "comparison": Rule.Comparison.AT_LEAST,
        "thresholds": {"error": 1},
        "advice": "An API answers and leaves out services it knew: a cell's database is down, or "
        "somebody removed them.",
    },
    {
        "name": "API does not answer",
        "measurement": "openstack_endpoint",
        "field": "up",
        "aggregation": Rule.Aggregation.LAST,
        "window": 5 * MINUTE,
        "hold": MINUTE,
        "comparison": Rule.Comparison.BELOW,
        "thresholds": {"error": 1},
        "advice": "Ask it yourself: openstack --debug catalog list. Then proxy, process, log.",
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
    known = set(Rule.objects.filter(group=None, server=None).values_list("name", flat=True))
    rules = [Rule(**terms) for terms in RULES if terms["name"] not in known]
    for rule in rules:  # the database holds its constraints; asking for each first takes a second
        rule.full_clean(validate_unique=False, validate_constraints=False)
    Rule.objects.bulk_create(rules)
    RuleVersion.objects.bulk_create(version_of(rule, rule.changed_at, None) for rule in rules)
    if owner is not None:
        NotificationChannel.objects.get_or_create(
            name=f"E-mail to {owner}", defaults={"kind": "email", "config": {"to": owner.email}}
        )
