"""Suppression as people and their programs ask for it: each change is in the audit log."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from django.db import transaction

from accounts.access import Access, audit
from clouds import servers, suppression
from clouds.models import CloudGroup, Recurrence, Server, Suppression, SuppressionKind
from clouds.suppression import NotASpan, Repeat, Target, Why


@dataclass(frozen=True)
class Wanted:
    """What is to be suppressed, why and when; `repeat`: again and again."""

    kind: SuppressionKind
    reason: str
    since: datetime | None = None
    until: datetime | None = None
    repeat: Repeat | None = None


@transaction.atomic
def mute(access: Access, target: Target, wanted: Wanted, at: datetime) -> Suppression | Recurrence:
    """Begin it, or plan it. Raises NotASpan, Retired."""
    why = decided_by(access, wanted.reason)
    if wanted.repeat is None:
        row: Suppression | Recurrence = suppression.suppress(
            target, wanted.kind, why, at, wanted.until, wanted.since
        )
    else:
        row = suppression.repeat(target, wanted.kind, why, at, wanted.since or at, wanted.repeat)
    kind = wanted.kind.value
    audit(access, f"suppression.{kind}", row.where, **_terms(wanted))
    return row


@transaction.atomic
def change(access: Access, row: Suppression | Recurrence, wanted: Wanted, at: datetime) -> None:
    """Other terms of what stands, which stays of its kind and of its target."""
    if isinstance(row, Suppression):
        suppression.change(row, at, reason=wanted.reason, until=wanted.until, since=wanted.since)
    elif wanted.repeat is None:
        raise NotASpan("Say how it comes again; to have it no more, end it.")
    else:
        begins = wanted.since or row.begins
        suppression.change_repeat(row, at, reason=wanted.reason, begins=begins, how=wanted.repeat)
    audit(access, "suppression.changed", row.where, kind=row.kind, **_terms(wanted))


@transaction.atomic
def end(access: Access, row: Suppression | Recurrence, at: datetime) -> None:
    """End it, call it off, or have it come no more. Raises Over."""
    if isinstance(row, Suppression):
        suppression.end_one(row, at)
    else:
        suppression.end_repeat(row, at)
    audit(access, "suppression.ended", row.where, kind=row.kind, reason=row.reason)


@transaction.atomic
def classify(
    access: Access, server: Server, group: CloudGroup | None, role: str, at: datetime
) -> Server:
    """Put a server into a group and role. Raises Retired."""
    row = servers.classify(server, group, role, at)
    audit(access, "server.classified", row, group=str(group or ""), role=role)
    return row


@transaction.atomic
def remove(access: Access, server: Server, last_seen: datetime | None, at: datetime) -> Server:
    """Remove a server. Raises NotInMaintenance, StillReports, Retired."""
    row = servers.retire(server, last_seen, at)
    audit(access, "server.removed", row)
    return row


def decided_by(access: Access, reason: str) -> Why:
    return Why(
        reason,
        by=access.user.pk if access.user else None,
        by_key=access.key.id if access.key else None,
    )


def _terms(wanted: Wanted) -> dict[str, str]:
    terms = {"reason": wanted.reason}
    if wanted.since is not None:
        terms["since"] = wanted.since.isoformat()
    if wanted.until is not None:
        terms["until"] = wanted.until.isoformat()
    if wanted.repeat is not None:
        terms["rule"] = f"{wanted.repeat.rule} ({wanted.repeat.zone})"
    return terms
