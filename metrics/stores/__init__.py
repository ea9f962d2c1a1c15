"""The metric stores there are; `METRICS_URL` chooses one by its scheme."""

from __future__ import annotations

from functools import cache
from urllib.parse import urlsplit

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from metrics.stores.base import Store
from metrics.stores.postgres import PostgresStore

STORES: dict[str, type[Store]] = {"postgres": PostgresStore}


@cache
def current() -> Store:
    """The store of this installation."""
    scheme = urlsplit(settings.METRICS_URL).scheme
    if scheme not in STORES:
        known = ", ".join(f"{name}:" for name in STORES)
        raise ImproperlyConfigured(f"METRICS_URL begins with “{scheme}:”. Use one of: {known}")
    return STORES[scheme]()
