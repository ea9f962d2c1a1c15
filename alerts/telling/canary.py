"""A canary goes all the way every minute: report, rule, notification.

It lives in an organization of its own without members, which nobody sees. Each time what is left of
the one before is swept away, so that it is always a new alert, whose message must come through.
"""

from __future__ import annotations

import secrets
from datetime import datetime, timedelta
from uuid import UUID

import structlog
from django.db import transaction

from accounts import timers
from accounts.models import Tenant
from accounts.provisioning import provision
from alerts.models import Alert, Incident, NotificationChannel, Pending, Rule
from alerts.notifiers.canary import Canary
from clouds.models import Server
from metrics import ingest, roundtrips
from metrics.batch import Batch, Point, Report
from sentinel_site.kit.tenancy import in_schema

log = structlog.get_logger(__name__)

SCHEMA = "canary"
HOST = "canary"
AGENT = UUID("c0ffee00-0000-4000-8000-00000000ca9a")


def fly(at: datetime) -> None:
    """Send one off; `alerts.notifiers.canary` notes that its message came through."""
    roundtrips.set_out(at)  # first: one that never gets away is late as well
    tenant = _home()
    with in_schema(tenant.schema_name):
        _sweep()
    report = Report(
        number=0,
        host=HOST,
        agent=AGENT,
        at=at,
        interval=timedelta(minutes=1),
        services_are_all=False,
        points=[
            Point("canary", (), {"alive": 1.0}),
            Point("evaluation", (), {"behind": timers.lag(at).total_seconds()}),
        ],
    )
    answer = ingest.accept(tenant, Batch(at, [report]))
    if answer.rejected:
        log.error("the canary was refused", rejected=str(answer.rejected))


def _home() -> Tenant:
    """Its organization, made the first time, with one rule and one channel."""
    tenant: Tenant
    tenant, _ = Tenant.objects.get_or_create(
        schema_name=SCHEMA,
        defaults={"slug": f"canary-{secrets.token_hex(8)}", "name": "Canary"},
    )
    if tenant.provisioned_at is None:
        provision(tenant)
    with in_schema(tenant.schema_name), transaction.atomic():
        if not NotificationChannel.objects.filter(kind=Canary.name).exists():
            NotificationChannel.objects.all().delete()
            Rule.objects.all().delete()
            Rule.objects.create(
                name="Canary",
                measurement="canary",
                field="alive",
                aggregation=Rule.Aggregation.LAST,
                window=timedelta(seconds=55),
                thresholds={"warning": 0.5},
            )
            NotificationChannel.objects.create(name="Canary", kind=Canary.name)
    return tenant


def _sweep() -> None:
    with transaction.atomic():
        Alert.objects.all().delete()
        Incident.objects.all().delete()
        Pending.objects.all().delete()
        Server.objects.exclude(agent_id=AGENT).delete()
