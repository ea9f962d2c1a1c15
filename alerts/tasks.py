"""Thin tasks: evaluation on a short beat, deliveries as soon as there are any."""

from __future__ import annotations

from datetime import datetime
from functools import partial

from celery import shared_task
from django.conf import settings
from django.utils import timezone

from accounts import timers
from alerts.engines import evaluation
from alerts.lifecycle import evidence, retention
from alerts.telling import canary, delivery
from metrics import queries
from sentinel_site.kit import heartbeat
from sentinel_site.kit.tenancy import for_each_tenant

SHARD = 50
#: Into so many tasks a tick is divided where it can be: one tenant's storm holds up few others.
TASKS = 16
EXPIRES = 60


@shared_task
def evaluate_due() -> None:
    """Claim the tenants with new data or a timer due and send them out in shards."""
    now = timezone.now()
    schemas = timers.claim_due(now, queries.active_tenants(now), now + evaluation.CLAIM)
    size = min(SHARD, -(-len(schemas) // TASKS) or 1)
    for start in range(0, len(schemas), size):
        shard = schemas[start : start + size]
        evaluate.apply_async((shard, now.isoformat()), expires=EXPIRES)
    heartbeat.beat(now)


@shared_task
def evaluate(schemas: list[str], at: str) -> None:
    """The slot, not now(): a rerun is the same run."""
    for_each_tenant(schemas, partial(evaluation.evaluate, datetime.fromisoformat(at)))


@shared_task
def notify(schemas: list[str], channel: int | None = None) -> None:
    """Send what is due to one channel, or to all of them."""
    if channel is None:
        for_each_tenant(schemas, lambda: delivery.deliver_due(timezone.now(), timezone.now))
    else:
        for_each_tenant(schemas, partial(delivery.deliver_to, channel, timezone.now))


@shared_task
def tidy() -> None:
    """Drop what all tenants kept long enough: delivery logs, incidents that are over."""
    now = timezone.now()
    for forget, kept in (
        (delivery.forget_attempts, delivery.KEPT),
        (retention.forget_words, retention.WORDS_KEPT),
        (retention.forget, settings.RETENTION_INCIDENTS),
    ):
        for_each_tenant(timers.provisioned(), partial(forget, now - kept))


@shared_task
def trim() -> None:
    """Keep no more alerts of other tools than an organization may have."""
    for_each_tenant(timers.provisioned(), partial(retention.trim, timezone.now()))


@shared_task
def keep_evidence() -> None:
    """Keep with closed incidents the log lines that are forgotten before they are."""
    for_each_tenant(timers.provisioned(), partial(evidence.keep_lines, timezone.now()))


@shared_task
def fly_canary() -> None:
    canary.fly(timezone.now())
