"""What the doors of other people's alerting tools share: whose key it is, and what it may."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.views import APIView

from accounts.access import Access
from accounts.keys import KeyHolder
from accounts.models import Key, Role, Tenant
from alerts.doors import entry
from sentinel_site.kit.tenancy import in_schema


class ForeignDoor(APIView):
    """The key names the organization, so one address serves all; no session, no CSRF token."""

    authentication_classes = []
    permission_classes = [AllowAny]
    schema = None  # the tools' own documentation describes it

    def sender(self, request: Request) -> KeyHolder:
        """Who may send alerts. Raises NotAuthenticated, UnknownKey, WrongScope, ServersKey."""
        return entry.sender(*_headers_and_query(request))

    def reader(self, request: Request) -> KeyHolder:
        return entry.holder(*_headers_and_query(request), Key.Scope.READ, Key.Scope.ADMIN)

    def operator(self, request: Request) -> KeyHolder:
        """Who may acknowledge and resolve."""
        return entry.holder(*_headers_and_query(request), Key.Scope.ADMIN)

    def body(self, request: Request) -> Any:
        """Raises NotJson, TooLarge."""
        return entry.parsed(request._request.read(entry.MAX_BODY + 1))


@contextmanager
def inside(holder: KeyHolder) -> Iterator[Tenant]:
    """The schema of the key's organization."""
    tenant = Tenant.objects.get(pk=holder.tenant_id)
    with in_schema(holder.schema_name):
        yield tenant


def access_of(holder: KeyHolder, tenant: Tenant) -> Access:
    """What is written in the audit log of what this key does."""
    return Access(tenant, Role.ADMIN, key=holder)


def _headers_and_query(request: Request) -> tuple[dict[str, str], str]:
    headers = {name.lower(): value for name, value in request.headers.items()}
    return headers, request.META.get("QUERY_STRING", "")
