"""Expected check-ins: a job says that it ran, or it is told that it did not."""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum

from django.db import transaction
from django.db.models import Min

from accounts.access import Access, audit
from accounts.timers import wake
from alerts.lifecycle import external, incidents
from alerts.lifecycle.external import Statement
from alerts.models import CheckIn, Severity
from alerts.models.checkins import MOST_BODY
from alerts.push import live
from metrics import outages
from sentinel_site.kit.problems import Problem
from sentinel_site.kit.tenancy import current_schema, public_url

ORIGIN = "check-in"
#: What could not be judged because nobody listened is looked at again after this.
LOOKS_AGAIN = timedelta(minutes=1)

#: What people decide of a check-in; the rest is what became of it.
_DECIDED = ("name", "server", "period", "cron", "zone", "grace", "severity", "advice")


class NameTaken(Problem):
    status, code, title = 409, "name-taken", "There is a check-in of this name"


class NoSuchCheckIn(Problem):
    status, code, title = 404, "no-such-check-in", "There is no such check-in"


class Ping(StrEnum):
    """What a job says of itself."""

    SUCCESS = "success"
    START = "start"
    FAIL = "fail"


def is_known(secret: str) -> bool:
    """Whether the schema has a check-in of this secret."""
    return CheckIn.objects.filter(secret=secret).exists()


@transaction.atomic
def note(
    secret: str, kind: Ping, at: datetime, *, exit_code: int | None = None, body: bytes = b""
) -> bool:
    """A ping came in for the check-in of this secret; False where the schema has none.

    A success is expected again by the schedule; a start must be followed by its end within the
    grace; a failure raises the alert at once. A ping to a paused one sets it going again.
    """
    incidents.one_at_a_time()
    row = CheckIn.objects.select_for_update(of=("self",)).filter(secret=secret).first()
    if row is None:
        return False
    if body:
        row.body = body[-MOST_BODY:].decode("utf-8", "replace").replace("\0", "�")
    if kind is Ping.START:
        row.began_at, row.deadline_at = at, at + row.grace
        if row.state == CheckIn.State.PAUSED:
            row.state = CheckIn.State.NEW
    else:
        row.exit_code = exit_code
        if kind is Ping.FAIL:
            row.state, row.due_at, row.deadline_at = CheckIn.State.DOWN, None, None
        else:
            row.took = at - row.began_at if row.began_at else None
            row.state, row.came_at = CheckIn.State.UP, at
            row.due_at = row.schedule.due_after(at)
            row.deadline_at = row.due_at + row.grace
        row.began_at = None
    row.save()
    if kind is not Ping.START:
        external.accept([_statement(row, at)], at)
    if row.deadline_at is not None:
        wake(current_schema(), row.deadline_at)
    live.announce_on_commit("checkin", row.pk)
    return True


def judge(at: datetime, listening_since: datetime | None) -> None:
    """Raise alerts for what has not come in time; call it in a transaction.

    What was due while nobody listened may have come: it has until its schedule says so again.
    """
    if listening_since is not None and listening_since >= at:
        return  # nobody listens now
    incidents.one_at_a_time()
    waiting = CheckIn.objects.filter(state__in=[CheckIn.State.NEW, CheckIn.State.UP])
    due = list(waiting.filter(deadline_at__lte=at).select_for_update(of=("self",)))
    raised = []
    for row in due:
        if row.deadline_at is None:
            continue
        expected = row.began_at or row.due_at or row.deadline_at - row.grace
        unheard = outages.between(expected - row.grace, row.deadline_at)
        if unheard:
            row.due_at = row.schedule.after_outage(expected, unheard[-1][1])
            row.deadline_at = row.due_at + row.grace
            row.began_at = None
            if row.deadline_at > at:
                row.save(update_fields=["due_at", "deadline_at", "began_at"])
                continue
        row.state = CheckIn.State.DOWN
        row.save(update_fields=["state", "due_at", "deadline_at"])
        raised.append(_statement(row, at))
        live.announce_on_commit("checkin", row.pk)
    if raised:
        external.accept(raised, at)


def next_deadline(at: datetime, listening_since: datetime | None = None) -> datetime | None:
    """When the next one is down unless it comes; soon, where nobody listened when it was due."""
    waiting = CheckIn.objects.filter(state__in=[CheckIn.State.NEW, CheckIn.State.UP])
    found: datetime | None = waiting.filter(deadline_at__gt=at).aggregate(first=Min("deadline_at"))[
        "first"
    ]
    if listening_since is not None and waiting.filter(deadline_at__lte=at).exists():
        soon = at + LOOKS_AGAIN
        return soon if found is None else min(found, soon)
    return found


def ping_url(tenant_id: int, row: CheckIn) -> str:
    """Where the job calls: whoever has it can check in."""
    return public_url("ping", tenant_id, row.secret)


@transaction.atomic
def save(access: Access, row: CheckIn, at: datetime) -> CheckIn:
    """Store a validated check-in. Under another schedule it is expected anew from now on.

    Of one that is there only what people decide is changed: a ping may have come in meanwhile.
    Raises NameTaken, NoSuchCheckIn.
    """
    incidents.one_at_a_time()
    if CheckIn.objects.filter(name=row.name).exclude(pk=row.pk).exists():
        raise NameTaken(f"There is a check-in called {row.name} already.")
    is_new = row.pk is None
    if not is_new:
        row = _decide(_held(row), row, at)
    row.save()
    audit(access, "checkin.added" if is_new else "checkin.changed", row)
    live.announce_on_commit("checkin", row.pk)
    return row


def _decide(held: CheckIn, wanted: CheckIn, at: datetime) -> CheckIn:
    """Decide for a check-in what was decided for another one; it is not stored yet."""
    changed = held.schedule != wanted.schedule
    for name in _DECIDED:
        setattr(held, name, getattr(wanted, name))
    if changed and held.state == CheckIn.State.UP:
        held.due_at = held.schedule.due_after(max(at, held.came_at or at))
        held.deadline_at = held.due_at + held.grace
        wake(current_schema(), held.deadline_at)
    return held


@transaction.atomic
def pause(access: Access, row: CheckIn, at: datetime) -> None:
    """It is not expected until it comes again; its alert ends. Raises NoSuchCheckIn."""
    incidents.one_at_a_time()
    held = _held(row)
    held.state = CheckIn.State.PAUSED
    held.due_at = held.deadline_at = held.began_at = None
    held.save(update_fields=["state", "due_at", "deadline_at", "began_at"])
    external.accept([_statement(held, at)], at)
    audit(access, "checkin.paused", held)
    live.announce_on_commit("checkin", held.pk)
    row.refresh_from_db()


@transaction.atomic
def delete(access: Access, row: CheckIn, at: datetime) -> None:
    """It is expected no more; its alert ends. Raises NoSuchCheckIn."""
    incidents.one_at_a_time()
    held = _held(row)
    held.state = CheckIn.State.PAUSED
    external.accept([_statement(held, at)], at)
    audit(access, "checkin.deleted", held)
    held.delete()


def _held(row: CheckIn) -> CheckIn:
    """The row as it now is, locked. Raises NoSuchCheckIn."""
    found = CheckIn.objects.select_for_update(of=("self",)).filter(pk=row.pk).first()
    if found is None:
        raise NoSuchCheckIn("Somebody has deleted it.", checkin=row.pk)
    return found


def _statement(row: CheckIn, at: datetime) -> Statement:
    is_down = row.state == CheckIn.State.DOWN
    return Statement(
        origin=ORIGIN,
        names={"checkin": row.pk},
        severity=Severity(row.severity) if is_down else None,
        resource=row.server.host if row.server else row.name,
        service=row.name,
        subject="check-in",
        title=f"{row.name} did not run" if not row.exit_code else f"{row.name} failed",
        text=_said(row, at) if is_down else _ended(row),
        advice=row.advice,
    )


def _said(row: CheckIn, at: datetime) -> str:
    if row.deadline_at is None:
        code = "" if row.exit_code is None else f" with exit code {row.exit_code}"
        last = row.body.strip().rpartition("\n")[2]
        return f"{row.name} says that it failed{code}" + (f": {last[:200]}" if last else ".")
    if row.began_at is not None:
        return f"{row.name} began at {row.began_at:%H:%M} UTC and has not ended in time."
    came = f"it last came {_ago(at - row.came_at)} ago" if row.came_at else "it has never come"
    due = row.due_at or row.deadline_at
    return f"{row.name} was expected by {due:%Y-%m-%d %H:%M} UTC; {came}."


def _ended(row: CheckIn) -> str:
    if row.state == CheckIn.State.PAUSED:
        return f"{row.name} is not expected now."
    return f"{row.name} has run."


def _ago(span: timedelta) -> str:
    minutes = int(span.total_seconds() // 60)
    if minutes < 120:
        return f"{minutes} min"
    return f"{minutes // 60} h" if minutes < 2880 else f"{minutes // 1440} days"
