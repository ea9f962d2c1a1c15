"""What lower apps tell: a new tenant, stored data."""

from __future__ import annotations

from typing import Any

from anymail.signals import AnymailTrackingEvent, tracking
from django.dispatch import receiver
from django.utils import timezone

from accounts.models import User
from accounts.signals import tenant_provisioned
from alerts.engines import early
from alerts.push import live
from alerts.rulebook import defaults
from alerts.telling import bounces
from clouds.signals import server_changed
from metrics.signals import stored


@receiver(tenant_provisioned)
def give_defaults(owner: User | None, **_: Any) -> None:
    """A new tenant watches and tells from its first minute."""
    defaults.install(owner)


@receiver(stored)
def hint_at_what_came(schema: str, kinds: frozenset[str], **_: Any) -> None:
    """Open pages look again at what a report changed."""
    for kind in kinds:
        live.announce(schema, kind)


@receiver(stored)
def judge_what_came(schema: str, **_: Any) -> None:
    """Where one looks often, a breach does not wait for the tick."""
    early.wake(schema)


@receiver(server_changed)
def hint_at_a_server(schema: str, server_id: int, **_: Any) -> None:
    """Open pages look again at a server whose status somebody changed."""
    live.announce(schema, "server", server_id)


@receiver(tracking)
def note_what_became_of_mail(event: AnymailTrackingEvent, **_: Any) -> None:
    """A channel whose mail came back says so."""
    said = event.mta_response or event.description or ""
    bounces.note(event.event_type, event.recipient or "", said, event.timestamp or timezone.now())
