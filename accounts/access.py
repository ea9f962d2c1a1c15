"""Who is asking, in which organization, and what that allows: fetch and permit in one call."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from django.db import models
from django.http import HttpRequest, HttpResponse

from accounts.keys import KeyHolder
from accounts.models import AuditEntry, Key, Role, Tenant, User
from sentinel_site.kit.problems import NotFound, NotPermitted

M = TypeVar("M", bound=models.Model)

KEY_ROLES = {Key.Scope.READ: Role.VIEWER, Key.Scope.ADMIN: Role.ADMIN}


@dataclass(frozen=True)
class Access:
    """A settled right: this person or key may act as `role` in `tenant`."""

    tenant: Tenant
    role: Role
    user: User | None = None
    key: KeyHolder | None = None

    def may(self, least: Role) -> bool:
        return self.role.may(least)


class TenantRequest(HttpRequest):
    """A request below `/o/<slug>/`: the middleware has settled both."""

    tenant: Tenant
    access: Access


def require(request: HttpRequest, least: Role) -> Access:
    """The request's access, if its role suffices.

    Raises NotPermitted with the role that would.
    """
    access: Access = request.access  # type: ignore[attr-defined]
    if not access.may(least):
        raise NotPermitted(f"This needs the role {least.label.lower()}.", needs=least.value)
    return access


def permit(least: Role) -> Callable[[Callable[..., HttpResponse]], Callable[..., HttpResponse]]:
    """A view that people with at least this role may call."""

    def decorate(view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
        @functools.wraps(view)
        def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
            require(request, least)
            return view(request, *args, **kwargs)

        return guarded

    return decorate


def fetch(
    request: HttpRequest,
    rows: type[M] | models.QuerySet[M],
    least: Role = Role.VIEWER,
    **lookup: Any,
) -> M:
    """One row of this organization, if the role suffices. Raises NotPermitted or NotFound."""
    require(request, least)
    query: models.QuerySet[M] = (
        rows if isinstance(rows, models.QuerySet) else rows._default_manager.all()
    )
    found = query.filter(**lookup).first()
    if found is None:
        raise NotFound
    return found


def audit(access: Access, verb: str, subject: object, **data: Any) -> None:
    """Write down what was changed, by whom."""
    AuditEntry.objects.create(
        tenant=access.tenant,
        user=access.user,
        key_id=access.key.id if access.key else None,
        verb=verb,
        subject=str(subject)[:200],
        data=data,
    )
