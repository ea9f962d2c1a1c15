"""When a tenant must be looked at though no data of it arrives."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import F, Q, Value
from django.db.models.functions import Coalesce, Least

from accounts.models import Tenant

LEASE = timedelta(minutes=1)


def wake(schema: str, at: datetime) -> None:
    """See to it that the tenant is evaluated at `at` or sooner."""
    Tenant.objects.filter(schema_name=schema).filter(Q(timer_at=None) | Q(timer_at__gt=at)).update(
        timer_at=Least(Coalesce(F("timer_at"), Value(at)), Value(at))
    )


def claim_due(now: datetime, active: Iterable[str], at: datetime) -> list[str]:
    """Schemas of the tenants that sent data lately or whose timer has run down, for slot `at`.

    A timer rings again after `LEASE` unless `release` says that the slot was evaluated: a task
    that is lost with its broker or worker must not be the last look at a silent tenant.
    """
    tenants = Tenant.objects.filter(provisioned_at__isnull=False)
    with transaction.atomic():
        rung = tenants.select_for_update().filter(timer_at__lte=now).order_by("pk")
        schemas = {tenant.schema_name for tenant in rung}
        tenants.filter(schema_name__in=schemas).update(timer_at=at + LEASE)
    due = tenants.filter(schema_name__in=schemas.union(active))
    return list(due.order_by("pk").values_list("schema_name", flat=True))


def release(schema: str, at: datetime) -> None:
    """The slot `at` is evaluated: its lease ends. A timer set meanwhile stays."""
    Tenant.objects.filter(schema_name=schema, timer_at=at + LEASE).update(timer_at=None)
