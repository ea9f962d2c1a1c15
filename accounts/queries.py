"""Reads of accounts for pages and other apps."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from django.db.models import QuerySet

from accounts.models import AuditEntry, Invitation, Key, Membership, Tenant, User


def memberships_of(user: User) -> QuerySet[Membership]:
    """The organizations whose data this person may see."""
    return (
        Membership.objects.filter(user=user, tenant__provisioned_at__isnull=False)
        .select_related("tenant")
        .order_by("tenant__name", "pk")
    )


def members(tenant: Tenant) -> QuerySet[Membership]:
    return Membership.objects.filter(tenant=tenant).select_related("user").order_by("user__email")


def invitations(tenant: Tenant, now: datetime) -> QuerySet[Invitation]:
    """Those that may still be accepted."""
    return (
        Invitation.objects.filter(tenant=tenant, accepted_at=None, expires_at__gt=now)
        .select_related("invited_by")
        .order_by("email")
    )


def keys(tenant: Tenant) -> QuerySet[Key]:
    """Newest first; enrol tokens are spent within an hour and not listed."""
    return (
        Key.objects.filter(tenant=tenant)
        .exclude(scope=Key.Scope.ENROL)
        .select_related("created_by")
        .order_by("revoked_at", "-created_at", "-pk")
    )


def audit_log(tenant: Tenant) -> QuerySet[AuditEntry]:
    return AuditEntry.objects.filter(tenant=tenant).select_related("user", "key")


def people(user_ids: Iterable[int]) -> dict[int, User]:
    """These people by id; the retired too, since histories name them."""
    return User.objects.in_bulk(set(user_ids))


def schema_of(tenant_id: int) -> str | None:
    """The schema of an organization that is served, by its id."""
    return provisioned().filter(pk=tenant_id).values_list("schema_name", flat=True).first()


def provisioned() -> QuerySet[Tenant]:
    ready: QuerySet[Tenant] = Tenant.objects.filter(provisioned_at__isnull=False)
    return ready
