"""Who gets mail of a channel can stop it, with the link that is in each of its mails.

A link is for those to whom its mail went, and for as long as it HOLDS: whoever else sees it later
learns nobody's address by it and takes nobody else off.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from django.core import signing
from django.db import transaction
from django.utils.crypto import salted_hmac

from accounts.access import Access, audit
from accounts.models import Role, Tenant
from alerts.lifecycle import incidents
from alerts.models import NotificationChannel
from alerts.notifiers.email import addresses_of
from alerts.push import live
from alerts.telling import fallback
from sentinel_site.kit.problems import Problem
from sentinel_site.kit.tenancy import in_schema, public_url

HOLDS = timedelta(days=90)
_SALT = "alerts.unsubscribe"
_MARK = 8  # characters that an address is known by
_FIRST_LINKS = 2  # values of links that were made before they said for whom they are


class NotAnAddress(Problem):
    status, code, title = 422, "not-an-address", "This channel does not write there"


class LinkTooOld(Problem):
    status, code, title = 410, "link-too-old", "This link is too old"


@dataclass(frozen=True)
class Link:
    """What a link says: mail of which channel, and by which marks its addresses are known."""

    tenant: Tenant
    channel: int
    marks: frozenset[str]

    def is_for(self, address: str) -> bool:
        """Whether its mail went there."""
        return _mark(self.tenant.pk, self.channel, address) in self.marks


def link(tenant: Tenant, channel: NotificationChannel, at: datetime) -> str:
    """The address of the page on which this mail is stopped; empty where the channel sends none.

    It is a secret of those to whom the channel writes now.
    """
    if channel.kind != "email":
        return ""
    marks = [_mark(tenant.pk, channel.pk, one) for one in addresses_of(channel.config)]
    said = [tenant.pk, channel.pk, int(at.timestamp()), "".join(sorted(marks))]
    return public_url("unsubscribe", token=signing.dumps(said, salt=_SALT))


def read(token: str, now: datetime) -> Link | None:
    """What a link says; None where nobody made it, or the organization is gone.

    Raises LinkTooOld.
    """
    try:
        said = signing.loads(token, salt=_SALT)
    except (signing.BadSignature, ValueError):
        return None
    if len(said) == _FIRST_LINKS:
        raise LinkTooOld("It does not say whom its mail went to. Use the link of a newer mail.")
    tenant_id, channel, made_at, marks = said
    tenant = Tenant.objects.filter(pk=tenant_id).first()
    if tenant is None:
        return None
    if now - datetime.fromtimestamp(made_at, UTC) > HOLDS:
        raise LinkTooOld(f"It held for {HOLDS.days} days. Use the link of a newer mail.")
    places = range(0, len(marks), _MARK)
    return Link(tenant, channel, frozenset(marks[place : place + _MARK] for place in places))


def _mark(tenant: int, channel: int, address: str) -> str:
    """What tells an address from others of a channel, and not what it is."""
    digest = salted_hmac(_SALT, f"{tenant} {channel} {address.lower()}", algorithm="sha256")
    return base64.urlsafe_b64encode(digest.digest()).decode()[:_MARK]


def addresses(said: Link) -> list[str]:
    """Those to whom the mail went and the channel still writes; none where it is switched off."""
    with in_schema(said.tenant.schema_name):
        row = NotificationChannel.objects.filter(
            pk=said.channel, kind="email", enabled=True
        ).first()
        return [one for one in addresses_of(row.config) if said.is_for(one)] if row else []


def leave(said: Link, address: str, at: datetime) -> None:
    """Write there no more. Raises NotAnAddress, also of one to which the link's mail did not go.

    A channel without any address is switched off, and others are told that it is, and what it was
    still to be told.
    """
    with in_schema(said.tenant.schema_name), transaction.atomic():
        incidents.one_at_a_time()
        fallback.make_state(said.channel)  # a worker that is making it wants the channel for that
        row = (
            NotificationChannel.objects.select_for_update()
            .filter(pk=said.channel, kind="email", enabled=True)
            .first()
        )
        present = addresses_of(row.config) if row else []
        left = [one for one in present if one.lower() != address.lower()]
        if row is None or left == present or not said.is_for(address):
            raise NotAnAddress(f"{address} gets no mail of this channel by this link.")
        if left:
            row.config = {**row.config, "to": ", ".join(left)}
        else:
            fallback.hand_on(row, at)
            row.enabled = False
        row.save(update_fields=["config", "enabled"])
        audit(Access(said.tenant, Role.VIEWER), "channel.left", row, address=address)
        live.announce_on_commit("delivery")
        if not left:
            fallback.report(row, "it is switched off, as the last one to get it stopped it.", at)
