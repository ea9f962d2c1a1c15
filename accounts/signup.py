"""How organizations and people come and go: sign up, invite, join, leave."""

from __future__ import annotations

import hashlib
import secrets
from datetime import datetime, timedelta

from django.core.mail import EmailMultiAlternatives
from django.db import IntegrityError, transaction
from django.template.loader import render_to_string
from django.utils.text import slugify

from accounts.access import Access, audit
from accounts.models import RESERVED_SLUGS, Invitation, Membership, Role, Tenant, User
from sentinel_site.kit.problems import NotPermitted, Problem
from sentinel_site.kit.tenancy import public_url

INVITATION_LIFETIME = timedelta(days=7)


class AlreadyMember(Problem):
    status, code, title = 409, "already-member", "This person is a member already"


class InvitationUnknown(Problem):
    status, code, title = 404, "invitation-unknown", "This invitation is not valid any more"


class WrongAddress(Problem):
    status, code, title = 403, "wrong-address", "This invitation is for another e-mail address"


class LastOwner(Problem):
    status, code, title = 409, "last-owner", "An organization keeps at least one owner"


def found(name: str, owner: User) -> Tenant:
    """A new organization under a free slug made of its name; its schema comes later."""
    name = " ".join(name.split())  # it stands in the subjects of mails
    base = (slugify(name) or "cloud")[:40].strip("-") or "cloud"
    for number in range(1, 1000):
        slug = base if number == 1 else f"{base}-{number}"
        if slug in RESERVED_SLUGS:
            continue
        try:
            with transaction.atomic():
                tenant: Tenant = Tenant.objects.create(slug=slug, name=name)
                Membership.objects.create(user=owner, tenant=tenant, role=Role.OWNER)
            return tenant
        except IntegrityError:
            if not Tenant.objects.filter(slug=slug).exists():
                raise
    raise Problem(f"No free address is left for “{name}”. Choose another name.")


@transaction.atomic
def invite(access: Access, email: str, role: Role, at: datetime) -> Invitation:
    """Mail somebody a link by which to join; a second invitation replaces the first.

    Raises AlreadyMember, or NotPermitted when the role is above the inviter's own.
    """
    if access.user is None:
        raise NotPermitted("Invitations are sent by people; sign in.")
    _not_above(access, role)
    email = email.strip().lower()
    if Membership.objects.filter(tenant=access.tenant, user__email=email).exists():
        raise AlreadyMember
    Invitation.objects.filter(tenant=access.tenant, email__iexact=email, accepted_at=None).delete()
    token = secrets.token_urlsafe(32)
    invitation = Invitation.objects.create(
        tenant=access.tenant,
        email=email,
        role=role,
        token_hash=_hash(token),
        invited_by=access.user,
        expires_at=at + INVITATION_LIFETIME,
    )
    audit(access, "member.invited", email, role=role)
    transaction.on_commit(lambda: _send(invitation, public_url("invitation", token=token)))
    return invitation


def invitation_for(token: str, at: datetime) -> Invitation:
    """The open invitation of this link. Raises InvitationUnknown."""
    found = (
        Invitation.objects.select_related("tenant", "invited_by")
        .filter(token_hash=_hash(token), accepted_at=None, expires_at__gt=at)
        .first()
    )
    if found is None:
        raise InvitationUnknown("Ask for a new one; it works for seven days and once.")
    return found


@transaction.atomic
def withdraw(access: Access, invitation: Invitation) -> None:
    """Take an open invitation back; its link ends at once."""
    audit(access, "member.invitation-withdrawn", invitation.email)
    Invitation.objects.filter(pk=invitation.pk, accepted_at=None).delete()


@transaction.atomic
def join(invitation: Invitation, user: User, at: datetime) -> Membership:
    """Make the invited person a member. Raises WrongAddress, InvitationUnknown."""
    if user.email.lower() != invitation.email.lower():
        raise WrongAddress(f"It was sent to {invitation.email}; you are {user.email}.")
    open_one = Invitation.objects.filter(pk=invitation.pk, accepted_at=None)
    if not open_one.update(accepted_at=at):
        raise InvitationUnknown
    membership, _ = Membership.objects.get_or_create(
        user=user, tenant=invitation.tenant, defaults={"role": invitation.role}
    )
    audit(Access(invitation.tenant, Role(membership.role), user), "member.joined", user.email)
    return membership


@transaction.atomic
def change_role(access: Access, membership: Membership, role: Role) -> None:
    """Raises LastOwner, or NotPermitted when either role is above one's own."""
    _not_above(access, role)
    _not_above(access, Role(membership.role))
    if membership.role == Role.OWNER and role != Role.OWNER:
        _keep_an_owner(membership)
    membership.role = role
    membership.save(update_fields=["role"])
    audit(access, "member.role", membership.user.email, role=role)


@transaction.atomic
def remove(access: Access, membership: Membership) -> None:
    """Take somebody's access away. Raises LastOwner, or NotPermitted for a role above one's own."""
    _not_above(access, Role(membership.role))
    if membership.role == Role.OWNER:
        _keep_an_owner(membership)
    audit(access, "member.removed", membership.user.email)
    membership.delete()


@transaction.atomic
def retire_user(user: User, at: datetime) -> None:
    """End a person's access everywhere; the row stays, since histories point at it."""
    for membership in Membership.objects.filter(user=user, role=Role.OWNER):
        _keep_an_owner(membership)
    Membership.objects.filter(user=user).delete()
    user.is_active = False
    user.retired_at = at
    user.save(update_fields=["is_active", "retired_at"])


def _keep_an_owner(membership: Membership) -> None:
    owners = Membership.objects.select_for_update().filter(
        tenant=membership.tenant, role=Role.OWNER
    )
    if len(owners) < 2:
        raise LastOwner("Make somebody else an owner first.")


def _not_above(access: Access, role: Role) -> None:
    if role.rank > access.role.rank:
        raise NotPermitted(f"Only an {role.label.lower()} can do this to an {role.label.lower()}.")


def _send(invitation: Invitation, link: str) -> None:
    context = {"invitation": invitation, "link": link}
    mail = EmailMultiAlternatives(
        subject=f"{invitation.invited_by} invites you to {invitation.tenant} on Sentinella",
        body=render_to_string("accounts/mail/invitation.txt", context),
        to=[invitation.email],
    )
    mail.attach_alternative(render_to_string("accounts/mail/invitation.html", context), "text/html")
    mail.send()


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
