"""When a tenant must be looked at though no data of it arrives."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime, timedelta

from django.db import connection, transaction
from django.db.models import Exists, Max, Min, OuterRef, Q

from accounts.models import Tenant, Timer

LATELY = timedelta(minutes=5)

#: Of the tenant that is being looked at: its schema, and when it is to be looked at again.
_gathered: ContextVar[tuple[str, list[datetime]] | None] = ContextVar("gathered", default=None)


def wake(schema: str, at: datetime) -> None:
    """See to it that the tenant is evaluated at `at` or sooner."""
    gathered = _gathered.get()
    if gathered is not None and gathered[0] == schema:
        gathered[1].append(at)
        return
    with connection.cursor() as cursor:
        cursor.execute(
            f'INSERT INTO public."{Timer._meta.db_table}" (tenant_id, at)'  # noqa: S608
            f' SELECT id, %s FROM public."{Tenant._meta.db_table}" WHERE schema_name = %s',
            [at, schema],
        )


@contextmanager
def gathered(schema: str) -> Iterator[list[datetime]]:
    """What wakes the tenant inside, for whoever looks at it anyway and tells `settle`."""
    times: list[datetime] = []
    token = _gathered.set((schema, times))
    try:
        yield times
    finally:
        _gathered.reset(token)


def claim_due(now: datetime, active: Iterable[str], until: datetime) -> list[str]:
    """Schemas of the tenants that sent data lately or whose timer has run down.

    Such a timer runs down again at `until`, unless `settle` says by then that the work is done.
    """
    tenants = Tenant.objects.filter(provisioned_at__isnull=False)
    rung = Q(timer_at__lte=now) | Exists(Timer.objects.filter(tenant=OuterRef("pk"), at__lte=now))
    free = Q(claimed_until=None) | Q(claimed_until__lte=now)
    with transaction.atomic():
        due = tenants.select_for_update(skip_locked=True, no_key=True).filter(rung & free)
        schemas = {tenant.schema_name for tenant in due.order_by("pk")}
        tenants.filter(schema_name__in=schemas).update(claimed_until=until)
    found = tenants.filter(schema_name__in=schemas.union(active))
    return list(found.order_by("pk").values_list("schema_name", flat=True))


def rung(schema: str, slot: datetime) -> list[int]:
    """What has rung by this slot. Ask before anything else is read: `settle` takes it for done."""
    found = Timer.objects.filter(tenant__schema_name=schema, at__lte=slot)
    return list(found.values_list("pk", flat=True))


def settle(
    schema: str,
    seen: Sequence[int],
    following: datetime | None,
    slot: datetime,
    took: timedelta,
) -> None:
    """The tenant was looked at: its claim ends, and it is looked at again at `following`.

    `seen` is what had rung, `slot` the instant it was judged for, `took` how long after it that was
    done. What rang meanwhile rings still.
    """
    if seen:
        Timer.objects.filter(pk__in=seen).delete()
    Tenant.objects.filter(schema_name=schema).update(
        timer_at=following, claimed_until=None, evaluated_at=slot, evaluated_in=took
    )


def provisioned() -> list[str]:
    """The schemas of all tenants that are served."""
    tenants = Tenant.objects.filter(provisioned_at__isnull=False)
    return list(tenants.order_by("pk").values_list("schema_name", flat=True))


def lag(now: datetime) -> timedelta:
    """By how much evaluation is behind, of all tenants.

    That is the worst of what was done within LATELY, and of what is due and not done.
    """
    tenants = Tenant.objects.filter(provisioned_at__isnull=False)
    took = tenants.filter(evaluated_at__gte=now - LATELY).aggregate(most=Max("evaluated_in"))
    own = tenants.filter(timer_at__lte=now).aggregate(first=Min("timer_at"))["first"]
    rings = Timer.objects.filter(tenant__provisioned_at__isnull=False, at__lte=now)
    told = rings.aggregate(first=Min("at"))["first"]
    waits = now - min((one for one in (own, told) if one), default=now)
    return max(took["most"] or timedelta(), waits)
