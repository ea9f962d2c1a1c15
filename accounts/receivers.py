"""What allauth tells us."""

from __future__ import annotations

from typing import Any

from allauth.account.models import EmailAddress
from allauth.account.signals import email_confirmed
from django.dispatch import receiver

from accounts.models import Membership, Role
from accounts.provisioning import provision


@receiver(email_confirmed)
def provision_what_waits(email_address: EmailAddress, **_: Any) -> None:
    """A confirmed owner gets the schemas of the organizations founded at sign-up."""
    provision_owned_by(email_address.user_id)


def provision_owned_by(user_id: int) -> None:
    waiting = Membership.objects.filter(
        user_id=user_id, role=Role.OWNER, tenant__provisioned_at=None
    ).select_related("tenant")
    for membership in waiting:
        provision(membership.tenant)
