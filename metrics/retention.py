"""How long data is kept: whole days are dropped, never rows one by one."""

from __future__ import annotations

from datetime import datetime, timedelta

import structlog
from django.conf import settings
from django.db import OperationalError, connection, transaction

from accounts.models import Tenant
from metrics import isolation, outages, partitions
from metrics.knocks import NOBODY
from metrics.models import Alarm
from metrics.partitions import AHEAD, DAY, EVENTS, POINTS, Partitioned

log = structlog.get_logger(__name__)

#: A sequence is remembered for longer than a spool may be old.
REMEMBER_SOURCES = timedelta(days=30)


def expire(now: datetime) -> list[str]:
    """Make the partitions ahead and drop the days whose data is all too old; returns these."""
    dropped = []
    for table, kept in ((POINTS, settings.RETENTION_RAW), (EVENTS, settings.RETENTION_EVENTS)):
        with transaction.atomic(), connection.cursor() as cursor:
            days = [(now + number * DAY).date() for number in range(AHEAD + 1)]
            partitions.make(cursor, table, days)
        dropped += _drop(table, now - kept)
    outages.forget(now - outages.KEEP)
    Alarm.objects.filter(until__lt=now - outages.KEEP).delete()
    _forget_unused(now - max(settings.RETENTION_RAW, REMEMBER_SOURCES))
    return dropped


def _drop(table: Partitioned, before: datetime) -> list[str]:
    dropped = []
    with connection.cursor() as cursor:
        for name in partitions.older_than(cursor, table, before.date()):
            try:
                with transaction.atomic():
                    partitions.drop(cursor, name)
            except OperationalError as error:  # somebody reads it: the next hour will do
                log.warning("partition not dropped", partition=name, error=str(error).strip())
                continue
            dropped.append(name)
            log.info("partition dropped", partition=name)
    return dropped


def _forget_unused(before: datetime) -> None:
    """Newest values, sets, epochs and knocks not heard for longer than data is kept."""
    tenants = Tenant.objects.values_list("pk", flat=True)
    ms = int(before.timestamp() * 1000)
    with isolation.only(NOBODY, *tenants) as cursor:
        cursor.execute("DELETE FROM public.metrics_knock WHERE last_at < %s", [before])
        cursor.execute("DELETE FROM public.metrics_latest WHERE ts < %s", [ms])
        cursor.execute(
            "DELETE FROM public.metrics_set s WHERE NOT EXISTS (SELECT FROM public.metrics_latest l"
            " WHERE l.tenant_id = s.tenant_id AND l.set_id = s.id)"
        )
        cursor.execute(
            "DELETE FROM public.metrics_source s WHERE received_at < %s AND EXISTS"
            " (SELECT FROM public.metrics_source n WHERE n.tenant_id = s.tenant_id"
            " AND n.source = s.source AND n.received_at > s.received_at)",
            [before],
        )
