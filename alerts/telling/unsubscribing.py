"""Who gets mail of a channel can stop it, with the link that is in each of its mails."""

from __future__ import annotations

from datetime import datetime

from django.core import signing
from django.db import transaction

from accounts.access import Access, audit
from accounts.models import Role, Tenant
from alerts.models import NotificationChannel
from alerts.notifiers.email import addresses_of
from alerts.push import live
from alerts.telling import fallback
from sentinel_site.kit.problems import Problem
from sentinel_site.kit.tenancy import in_schema, public_url

_SALT = "alerts.unsubscribe"


class NotAnAddress(Problem):
    status, code, title = 422, "not-an-address", "This channel does not write there"


def link(tenant: Tenant, channel: int) -> str:
    """The address of the page on which mail of this channel is stopped. It is a secret."""
    return public_url("unsubscribe", token=signing.dumps([tenant.pk, channel], salt=_SALT))


def channel_of(token: str) -> tuple[Tenant, int] | None:
    """Whose mail a link stops; None where nobody made it, or the organization is gone."""
    try:
        tenant_id, channel = signing.loads(token, salt=_SALT)
    except (signing.BadSignature, ValueError, TypeError):
        return None
    tenant = Tenant.objects.filter(pk=tenant_id).first()
    return (tenant, channel) if tenant else None


def addresses(tenant: Tenant, channel: int) -> list[str]:
    """To whom the channel writes; nobody where it is gone or switched off."""
    with in_schema(tenant.schema_name):
        row = NotificationChannel.objects.filter(pk=channel, kind="email", enabled=True).first()
        return addresses_of(row.config) if row else []


def leave(tenant: Tenant, channel: int, address: str, at: datetime) -> None:
    """Write there no more; a channel without any address is switched off. Raises NotAnAddress."""
    with in_schema(tenant.schema_name):
        row = _leave(tenant, channel, address)
        if not row.enabled:
            fallback.mend(row, at, f"The channel “{row.name}” is switched off.")


def _leave(tenant: Tenant, channel: int, address: str) -> NotificationChannel:
    """The channel as it is then."""
    with transaction.atomic():
        row = (
            NotificationChannel.objects.select_for_update()
            .filter(pk=channel, kind="email", enabled=True)
            .first()
        )
        present = addresses_of(row.config) if row else []
        left = [one for one in present if one.lower() != address.lower()]
        if row is None or left == present:
            raise NotAnAddress(f"{address} gets no mail of this channel.")
        if left:
            row.config = {**row.config, "to": ", ".join(left)}
        else:
            row.enabled = False
        row.save(update_fields=["config", "enabled"])
        audit(Access(tenant, Role.VIEWER), "channel.left", row, address=address)
        live.announce_on_commit("delivery")
    return row
