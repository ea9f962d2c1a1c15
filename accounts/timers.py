"""When a tenant must be looked at though no data of it arrives."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import F, Max, Min, Q, Value
from django.db.models.functions import Coalesce, Least

from accounts.models import Tenant

LATELY = timedelta(minutes=5)


def wake(schema: str, at: datetime) -> None:
    """See to it that the tenant is evaluated at `at` or sooner."""
    Tenant.objects.filter(schema_name=schema).filter(Q(timer_at=None) | Q(timer_at__gt=at)).update(
        timer_at=Least(Coalesce(F("timer_at"), Value(at)), Value(at))
    )


def claim_due(now: datetime, active: Iterable[str], until: datetime) -> list[str]:
    """Schemas of the tenants that sent data lately or whose timer has run down.

    Such a timer runs down again at `until`, unless `settle` says by then that the work is done.
    """
    tenants = Tenant.objects.filter(provisioned_at__isnull=False)
    with transaction.atomic():
        rung = tenants.select_for_update(skip_locked=True).filter(timer_at__lte=now).order_by("pk")
        schemas = {tenant.schema_name for tenant in rung}
        tenants.filter(schema_name__in=schemas).update(timer_at=until)
    due = tenants.filter(schema_name__in=schemas.union(active))
    return list(due.order_by("pk").values_list("schema_name", flat=True))


def settle(
    schema: str, until: datetime, following: datetime | None, slot: datetime, took: timedelta
) -> None:
    """The tenant was looked at: its claim ends, and it is looked at again at `following`.

    `slot` is the instant it was judged for, `took` how long after it that was done.
    """
    Tenant.objects.filter(schema_name=schema, timer_at=until).update(timer_at=following)
    Tenant.objects.filter(schema_name=schema).update(evaluated_at=slot, evaluated_in=took)
    if following is not None:
        wake(schema, following)


def provisioned() -> list[str]:
    """The schemas of all tenants that are served."""
    tenants = Tenant.objects.filter(provisioned_at__isnull=False)
    return list(tenants.order_by("pk").values_list("schema_name", flat=True))


def lag(now: datetime) -> timedelta:
    """By how much evaluation is behind, of all tenants: the worst of what was done within LATELY,
    and of what is due and not done."""
    tenants = Tenant.objects.filter(provisioned_at__isnull=False)
    took = tenants.filter(evaluated_at__gte=now - LATELY).aggregate(most=Max("evaluated_in"))
    rung = tenants.filter(timer_at__lte=now).aggregate(first=Min("timer_at"))
    waits = now - rung["first"] if rung["first"] else timedelta()
    return max(took["most"] or timedelta(), waits)
