"""Care of what is known of the past, on a schedule."""

from __future__ import annotations

from functools import partial

from celery import shared_task
from django.utils import timezone

from accounts import queries
from clouds import history
from sentinel_site.kit.tenancy import for_each_tenant


@shared_task
def forget() -> None:
    """Forget what is older than any window that is asked for."""
    schemas = [tenant.schema_name for tenant in queries.provisioned()]
    for_each_tenant(schemas, partial(history.forget, timezone.now() - history.KEEP))
