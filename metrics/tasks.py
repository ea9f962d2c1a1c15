"""Care of the shared tables, on a schedule."""

from __future__ import annotations

from celery import shared_task
from django.utils import timezone

from metrics import retention


@shared_task
def expire() -> None:
    """Make the partitions of the next days and drop what is past its retention."""
    retention.expire(timezone.now())
