"""Care of the shared tables, on a schedule."""

from __future__ import annotations

from datetime import timedelta

from celery import shared_task
from django.utils import timezone

from metrics import retention

SCHEDULE = {
    "expire": {
        "task": "metrics.tasks.expire",
        "schedule": timedelta(hours=1),
        "options": {"expires": 1800},
    }
}


@shared_task
def expire() -> None:
    """Make the partitions of the next days and drop what is past its retention."""
    retention.expire(timezone.now())
