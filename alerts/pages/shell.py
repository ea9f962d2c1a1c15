"""What every page of a tenant shows around its content."""

from __future__ import annotations

from typing import Any

from django.db.models import Count, Q
from django.http import HttpRequest
from django.utils.functional import SimpleLazyObject

from accounts import queries as accounts
from alerts.lifecycle import notices
from alerts.models import Incident, Severity
from alerts.pages import queries
from sentinel_site.kit.tenancy import public_path, tenant_path


def shell(request: HttpRequest) -> dict[str, Any]:
    """`shell`: organizations, groups, incidents, what is muted; asked for where it is drawn."""
    access = getattr(request, "access", None)
    if access is None or access.user is None:
        return {}
    return {"shell": SimpleLazyObject(lambda: _around(access.user))}


def _around(user: Any) -> dict[str, Any]:
    counted = Incident.objects.filter(resolved_at=None).aggregate(
        count=Count("pk"),
        untaken=Count("pk", filter=Q(acknowledged_at=None)),
        critical=Count("pk", filter=Q(acknowledged_at=None, severity=Severity.CRITICAL)),
    )
    return {
        "organizations": [
            {"name": one.tenant.name, "path": tenant_path(one.tenant, "dashboard")}
            for one in accounts.memberships_of(user)
        ],
        "groups": queries.groups_with_state(),
        "open": counted,
        "unread": notices.unread(user.pk),
        "muted": queries.muted(),
        "theme_url": public_path("theme"),
    }
