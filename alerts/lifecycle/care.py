"""What people and programs do with an incident: each is a line of its history and of the audit log.

Permission is settled by the caller: members act, viewers read.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from django.db import transaction

from accounts import queries as accounts
from accounts.access import Access, audit
from accounts.models import User
from accounts.timers import wake
from alerts.dispatching import dispatch
from alerts.lifecycle import history, incidents
from alerts.lifecycle.history import Line
from alerts.models import Event, Incident
from alerts.push import live
from alerts.values.sentences import clock
from sentinel_site.kit.problems import Problem

#: The longest that an incident may be shelved.
LONGEST = timedelta(days=90)
MAX_COMMENT = 2000


class NotTaken(Problem):
    status, code, title = 409, "not-acknowledged", "Nobody has the incident"


class NotAMember(Problem):
    status, code, title = 422, "not-a-member", "Only a member can be given an incident"


class NotAComment(Problem):
    status, code, title = 422, "not-a-comment", "There is nothing to note"


class NotATime(Problem):
    status, code, title = 422, "not-a-time", "It cannot be shelved until then"


class NotShelved(Problem):
    status, code, title = 409, "not-shelved", "The incident is not shelved"


@transaction.atomic
def acknowledge(access: Access, incident: Incident, at: datetime) -> None:
    """Take it. Raises AlreadyAcknowledged, AlreadyResolved."""
    incidents.acknowledge(incident, access.user, at)
    audit(access, "incident.acknowledged", incident)


@transaction.atomic
def release(access: Access, incident: Incident, at: datetime) -> None:
    """Give it back: nobody has it any more. Raises NotTaken, AlreadyResolved."""
    _must_be_open(incident)
    taken = Incident.objects.filter(pk=incident.pk, acknowledged_at__isnull=False)
    if not taken.update(acknowledged_at=None, taken_by=None):
        raise NotTaken("There is nothing to give back.", incident=incident.pk)
    _note(access, incident, Event.Kind.RELEASED, "Given back: nobody has it now.", at)
    dispatch.wait_again(incident, at)


@transaction.atomic
def assign(access: Access, incident: Incident, user_id: int | None, at: datetime) -> None:
    """Say which member is to see to it; None: nobody in particular.

    Raises NotAMember, AlreadyResolved.
    """
    _must_be_open(incident)
    members = {one.user_id: one.user for one in accounts.members(access.tenant)}
    if user_id is not None and user_id not in members:
        raise NotAMember("Choose one of the organization's members.")
    if (
        not Incident.objects.filter(pk=incident.pk)
        .exclude(assigned_to=user_id)
        .update(assigned_to=user_id)
        and user_id is not None
    ):
        return
    text = f"Assigned to {members[user_id]}." if user_id is not None else "Assigned to nobody."
    _note(access, incident, Event.Kind.ASSIGNED, text, at)


@transaction.atomic
def comment(access: Access, incident: Incident, text: str, at: datetime) -> None:
    """Add a note to its history, also after it is over. Raises NotAComment."""
    said = text.replace("\0", "�").strip()
    if not said or len(said) > MAX_COMMENT:
        raise NotAComment(f"Write one to {MAX_COMMENT} characters.")
    _note(access, incident, Event.Kind.COMMENTED, said, at)


@transaction.atomic
def shelve(access: Access, incident: Incident, until: datetime, reason: str, at: datetime) -> None:
    """Nobody is told of it before `until`; then it returns by itself.

    Raises NotATime, AlreadyResolved.
    """
    _must_be_open(incident)
    if not at < until <= at + LONGEST:
        raise NotATime(f"Give a time in the future, at most {LONGEST.days} days from now.")
    incidents.one_at_a_time()
    Incident.objects.filter(pk=incident.pk).update(shelved_until=until)
    dispatch.withdraw_held([incident.pk], at)
    wake(access.tenant.schema_name, until)
    why = f": {reason.strip()}" if reason.strip() else "."
    text = f"Shelved until {clock(until, at)}{why}"
    _note(access, incident, Event.Kind.SHELVED, text[:MAX_COMMENT], at)


@transaction.atomic
def unshelve(access: Access, incident: Incident, at: datetime) -> None:
    """Bring it back before its time. Raises NotShelved."""
    shelved = Incident.objects.filter(pk=incident.pk, shelved_until__isnull=False)
    if not shelved.update(shelved_until=None):
        raise NotShelved(incident=incident.pk)
    _note(access, incident, Event.Kind.RETURNED, "Taken from the shelf.", at)
    dispatch.wait_again(incident, at)


@transaction.atomic
def resolve(access: Access, incident: Incident, at: datetime) -> None:
    """End it by hand. If its rule still holds, it opens again. Raises AlreadyResolved."""
    incidents.resolve(incident, access.user, at)
    audit(access, "incident.resolved", incident)


def people(access: Access) -> list[User]:
    """Who can be given an incident."""
    return [one.user for one in accounts.members(access.tenant).select_related("user")]


def _must_be_open(incident: Incident) -> None:
    if Incident.objects.filter(pk=incident.pk, resolved_at__isnull=False).exists():
        raise incidents.AlreadyResolved(incident=incident.pk)


def _note(access: Access, incident: Incident, kind: Event.Kind, text: str, at: datetime) -> None:
    incident.refresh_from_db()
    history.write([Line(incident, kind, text)], at, access.user)
    audit(access, f"incident.{kind}", incident)
    live.announce_on_commit("incident", incident.pk)
