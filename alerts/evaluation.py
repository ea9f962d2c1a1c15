"""One evaluation of one tenant: all its rules at one slot, in one transaction."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.db import transaction

from accounts import timers
from accounts.models import Tenant
from alerts import aeolus, breaches, chronos, dispatch
from alerts.models import Rule
from clouds.models import Server
from sentinel_site.kit.tenancy import connection, current_schema

#: An evaluation that was claimed and never done (a killed worker, a lost message) is due again.
CLAIM = timedelta(minutes=1)


def evaluate(at: datetime) -> None:
    """Evaluate the current schema at this slot; does nothing while another run is at it."""
    tenant = Tenant.objects.get(schema_name=current_schema())
    with transaction.atomic():
        if not _alone(tenant):
            return
        rules = list(Rule.objects.filter(enabled=True))
        watched = list(Server.objects.exclude(status=Server.Status.RETIRED))
        breaches.resolve_orphans(at)
        heard = chronos.evaluate(tenant, rules, watched, at)
        aeolus.evaluate(tenant, rules, watched, at)
        times = [chronos.next_look(watched, heard, at), dispatch.next_due(at)]
        timers.settle(
            tenant.schema_name, at + CLAIM, min((one for one in times if one), default=None)
        )
    if dispatch.has_due(at):
        dispatch.hand_over(tenant.schema_name)


def _alone(tenant: Tenant) -> bool:
    """Whether this transaction is the tenant's only evaluation."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_xact_lock(%s, %s)", [_EVALUATION, tenant.pk])
        (locked,) = cursor.fetchone()
    return bool(locked)


_EVALUATION = 0x5E27
