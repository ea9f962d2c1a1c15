"""What the doors of other people's alerting tools share: whose key it is, and what it may."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.views import APIView

from accounts import keys
from accounts.access import Access
from accounts.keys import KeyHolder
from accounts.models import Key, Role, Tenant
from sentinel_site.kit.problems import NotAuthenticated, Problem, TooLarge
from sentinel_site.kit.tenancy import in_schema

MAX_BODY = 16 * 2**20


class NotJson(Problem):
    status, code, title = 400, "not-json", "The body is not JSON"


class ServersKey(Problem):
    status, code, title = 403, "servers-key", "A server's own key speaks for that server alone"


class ForeignDoor(APIView):
    """The key names the organization, so one address serves all; no session, no CSRF token."""

    authentication_classes = []
    permission_classes = [AllowAny]
    schema = None  # the tools' own documentation describes it

    def sender(self, request: Request) -> KeyHolder:
        """Who may send alerts. Raises NotAuthenticated, UnknownKey, WrongScope, ServersKey."""
        return self._holder(request, Key.Scope.INGEST, Key.Scope.ADMIN)

    def reader(self, request: Request) -> KeyHolder:
        return self._holder(request, Key.Scope.READ, Key.Scope.ADMIN)

    def operator(self, request: Request) -> KeyHolder:
        """Who may acknowledge and resolve."""
        return self._holder(request, Key.Scope.ADMIN)

    def _holder(self, request: Request, *scopes: str) -> KeyHolder:
        holder = keys.find(_key_in(request), *scopes)
        if holder.agent_id is not None:
            raise ServersKey("Use a key of the organization; Settings, Keys makes one.")
        return holder

    def body(self, request: Request) -> Any:
        """Raises NotJson, TooLarge."""
        text = request._request.read(MAX_BODY + 1)
        if len(text) > MAX_BODY:
            raise TooLarge(f"At most {MAX_BODY // 2**20} MiB.")
        try:
            return json.loads(text)
        except (ValueError, RecursionError) as error:
            raise NotJson(f"It must be one JSON value in UTF-8: {error}") from error


@contextmanager
def inside(holder: KeyHolder) -> Iterator[Tenant]:
    """The schema of the key's organization."""
    tenant = Tenant.objects.get(pk=holder.tenant_id)
    with in_schema(holder.schema_name):
        yield tenant


def access_of(holder: KeyHolder, tenant: Tenant) -> Access:
    """What is written in the audit log of what this key does."""
    return Access(tenant, Role.ADMIN, key=holder)


def _key_in(request: Request) -> str:
    """`Bearer`, Alerta's `Key`, the password of `Basic`, `X-API-Key` or `?api-key=`."""
    scheme, _, text = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() in ("bearer", "key") and text.strip():
        return text.strip()
    if scheme.lower() == "basic":
        return _password(text.strip())
    text = request.headers.get("X-API-Key", "") or request.query_params.get("api-key", "")
    if not text:
        raise NotAuthenticated("Send a key of your organization: “Authorization: Bearer snt_…”.")
    return text


def _password(text: str) -> str:
    try:
        return base64.b64decode(text, validate=True).decode().partition(":")[2]
    except (binascii.Error, UnicodeDecodeError) as error:
        raise NotAuthenticated("Basic authentication takes the key as its password.") from error
