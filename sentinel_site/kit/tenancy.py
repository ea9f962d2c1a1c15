"""The tenant as a mount point: `/o/<slug>/…`, and the only two ways to make a URL across it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import structlog
from django.conf import settings
from django.db import connection as django_connection
from django.urls import reverse
from django_tenants.utils import schema_context

log = structlog.get_logger(__name__)

#: Django's connection with the methods that django-tenants adds, which its stubs don't know.
connection: Any = django_connection

MOUNT = "/o/"


class Mounted(Protocol):
    """What a tenant must have to be linked to."""

    slug: str
    schema_name: str


def mount_path(slug: str) -> str:
    return f"{MOUNT}{slug}/"


def public_url(name: str, *args: Any, **kwargs: Any) -> str:
    """The absolute address of a public page, whatever tenant this thread is serving."""
    return settings.PUBLIC_URL + public_path(name, *args, **kwargs)


def public_path(name: str, *args: Any, **kwargs: Any) -> str:
    """The path of a public page from the root of the host, as in links from a tenant's pages."""
    path = reverse(name, urlconf=settings.PUBLIC_SCHEMA_URLCONF, args=args, kwargs=kwargs)
    return _below_root(path)


def tenant_path(tenant: Mounted, name: str, *args: Any, **kwargs: Any) -> str:
    """The path of a tenant's page from the root of the host."""
    path = reverse(name, urlconf=settings.ROOT_URLCONF, args=args, kwargs=kwargs)
    return mount_path(tenant.slug) + _below_root(path).lstrip("/")


def tenant_link(tenant: Mounted, name: str, *args: Any, **kwargs: Any) -> str:
    """The absolute address of a tenant's page; what mails, tasks and cross-links use."""
    return settings.PUBLIC_URL + tenant_path(tenant, name, *args, **kwargs)


def _below_root(path: str) -> str:
    """`reverse` puts this thread's script prefix in front; take it off again."""
    from django.urls import get_script_prefix

    prefix = get_script_prefix()
    return "/" + path[len(prefix) :] if path.startswith(prefix) else path


def current_schema() -> str:
    return str(connection.schema_name)


@contextmanager
def in_schema(schema: str) -> Iterator[None]:
    with schema_context(schema):
        yield


def for_each_tenant(schemas: Iterable[str], work: Callable[[], object]) -> list[str]:
    """Do `work` in each schema; one that fails is logged and named, and stops no other."""
    failed = []
    for schema in schemas:
        with schema_context(schema), structlog.contextvars.bound_contextvars(tenant=schema):
            try:
                work()
            except Exception:
                log.exception("tenant failed")
                failed.append(schema)
    return failed
