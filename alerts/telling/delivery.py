"""Telling: one message after the other to each channel, whatever becomes of the others.

Who sends to a channel holds its lease; a try that comes back later than that changes nothing but
the log. When more wait than people read they go together, at most once a minute.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from functools import partial
from math import inf
from typing import Any

import structlog
from django.conf import settings
from django.db import DatabaseError, InterfaceError, transaction
from django.db.models import Exists, F, OuterRef

from accounts.access import Access, audit
from accounts.timers import wake
from alerts import bulk, notifiers
from alerts.dispatching import dispatch
from alerts.models import Attempt, ChannelState, Notification, NotificationChannel
from alerts.notifiers import Message, Receipt, Undelivered
from alerts.push import live
from alerts.telling import fallback, messages
from sentinel_site.kit.gates import Gate
from sentinel_site.kit.problems import Problem
from sentinel_site.kit.tenancy import current_schema

log = structlog.get_logger(__name__)

CLAIM = timedelta(seconds=30)  # longer than any notifier may take
FIRST_RETRY = timedelta(seconds=10)
LAST_RETRY = timedelta(minutes=15)
GIVE_UP = timedelta(hours=24)
#: When more than this many wait, they go in one message, and then one a `storm_pause`.
STORM = 10
#: What comes so soon after a message waits this long: a storm shows, other things aren't delayed.
GAP = timedelta(seconds=0.25)
#: What began to wait so soon after a message belongs to the storm that it was the first of.
SAME_STORM = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
#: So long the delivery log goes back.
KEPT = timedelta(days=90)
#: So much of what the other side says is kept.
SAID = 400
#: A worker turns to other channels after so many seconds with one.
TURN = 20.0

_Clock = Callable[[], datetime]


@dataclass(frozen=True)
class Parcel:
    """What goes in one message, and who may say what became of it."""

    channel: NotificationChannel
    rows: list[Notification]
    key: uuid.UUID
    is_digest: bool
    claim: uuid.UUID
    lease: uuid.UUID
    taken: float  # monotonic


def deliver_due(now: datetime, clock: _Clock | None = None) -> int:
    """Send what is due in this schema, channel after channel; how many messages were tried.

    A claim counts from when it is made by `clock`, which stands still at `now` if none is given.
    """
    clock = clock or (lambda: now)
    return sum(deliver_to(channel, clock, inf) for channel in dispatch.due_channels(now))


def deliver_to(channel: int, clock: _Clock, turn: float = TURN) -> int:
    """Send what is due to this channel, if nobody else is at it; how many messages were tried.

    After `turn` seconds the rest is left to another task, so that other channels get theirs.
    """
    lease, tried, began = uuid.uuid4(), 0, time.monotonic()
    while (parcel := _take(channel, lease, clock())) is not None:
        _deliver(parcel, clock)
        tried += 1
        if time.monotonic() - began > turn:
            ChannelState.objects.filter(pk=channel, lease=lease).update(lease=None, busy_until=None)
            dispatch.ask_workers(current_schema(), [channel])
            break
    return tried


# -- what goes next -----------------------------------------------------------


@transaction.atomic
def _take(channel_id: int, lease: uuid.UUID, now: datetime) -> Parcel | None:
    """The next message to this channel; it is ours for CLAIM. None: nothing now."""
    channel = NotificationChannel.objects.filter(pk=channel_id).first()
    if channel is None:
        return None
    state = _locked(channel)
    if state.busy_until is not None and state.busy_until > now and state.lease != lease:
        return None
    found, batch, following = _next(channel, state, now)
    while found and not (rows := _still_there(found)):
        found, batch, following = _next(channel, state, now)
    if not found:
        state.lease = state.busy_until = None
        if following is not None:
            state.next_at = following
            _come_back(channel, following, now)
        state.save(update_fields=["lease", "busy_until", "next_at"])
        return None
    parcel = Parcel(
        channel=channel,
        rows=rows,
        key=batch or rows[0].key,
        is_digest=batch is not None,
        claim=uuid.uuid4(),
        lease=lease,
        taken=time.monotonic(),
    )
    Notification.objects.filter(pk__in=[row.pk for row in rows]).update(
        attempts=F("attempts") + 1, due_at=now + CLAIM, claim=parcel.claim, batch=batch
    )
    state.lease, state.busy_until = lease, now + CLAIM
    state.save(update_fields=["lease", "busy_until"])
    wake(current_schema(), now + CLAIM)  # if we die now, it is found again then
    return parcel


def _still_there(found: list[Notification]) -> list[Notification]:
    """Those that nobody withdrew since they were read; from now on nobody does."""
    held = Notification.objects.select_for_update().filter(
        pk__in=[row.pk for row in found], state=Notification.State.WAITING
    )
    keys = set(held.order_by("pk").values_list("pk", flat=True))
    return [row for row in found if row.pk in keys]


def _locked(channel: NotificationChannel) -> ChannelState:
    ChannelState.objects.bulk_create([ChannelState(channel=channel)], ignore_conflicts=True)
    return ChannelState.objects.select_for_update(of=("self",)).get(pk=channel.pk)


def _come_back(channel: NotificationChannel, at: datetime, now: datetime) -> None:
    schema = current_schema()
    wake(schema, at)
    if at < now + settings.TICK:
        transaction.on_commit(partial(dispatch.ask_workers, schema, [channel.pk], at))


_Next = tuple[list[Notification], uuid.UUID | None, datetime | None]


def _next(channel: NotificationChannel, state: ChannelState, now: datetime) -> _Next:
    """Rows for one message, its batch if it is a digest; or when there will be one.

    Later transitions of an incident wait for the earlier ones.
    """
    waiting = Notification.objects.filter(channel=channel, state=Notification.State.WAITING)
    if not channel.enabled:
        waiting.update(state=Notification.State.FAILED, error="The channel is switched off.")
        return [], None, None
    if state.next_at is not None and state.next_at > now:
        return [], None, state.next_at
    due = waiting.filter(due_at__lte=now).order_by("due_at", "pk")
    due = due.select_related("incident__merged_into", "channel")
    begun = due.exclude(batch=None).first()
    if begun is not None:  # under the key of the first try, to the very same
        return list(due.filter(batch=begun.batch)), begun.batch, None
    oldest = due.order_by("created_at", "pk").first()
    if oldest is None:
        return [], None, None
    count = due.count()
    earlier = waiting.filter(incident=OuterRef("incident"), pk__lt=OuterRef("pk"))
    first_ones = due.filter(~Exists(earlier))
    tried = first_ones.filter(attempts__gt=0).first() if count > STORM else None
    if tried is not None:  # it may have arrived: never under another key, as a digest has
        return [tried], None, None
    free_at = _free_at(channel, state, oldest, count, now)
    if free_at > now:
        return [], None, free_at
    if count > STORM:
        fresh = due.filter(attempts=0)
        return list(fresh[: notifiers.most(channel.kind)]), uuid.uuid4(), None
    row = first_ones.first()
    return ([row] if row else []), None, None


def _free_at(
    channel: NotificationChannel,
    state: ChannelState,
    oldest: Notification,
    count: int,
    now: datetime,
) -> datetime:
    """When the channel may be sent its next message, of so many that wait."""
    last = state.sent_at
    if last is None:
        return now
    came_after = oldest.created_at - last
    if state.digest_at == last or (count > STORM and came_after < SAME_STORM):
        return last + notifiers.storm_pause(channel.kind)
    if count > STORM:
        return now
    sent = Attempt.objects.filter(channel=channel, is_delivered=True, at__gt=now - MINUTE)
    times = list(sent.exclude(transition="test").order_by("at").values_list("at", flat=True))
    if len(times) >= channel.most_a_minute:
        return times[-channel.most_a_minute] + MINUTE
    return last + GAP if came_after > timedelta() else now


# -- sending, and what becomes of it ------------------------------------------


@dataclass(frozen=True)
class Tried:
    """What became of one try. `is_theirs`: the channel failed, and not this message alone."""

    at: datetime
    took: timedelta
    title: str
    receipt: Receipt | None = None
    failure: Undelivered | None = None
    is_theirs: bool = True


def _deliver(parcel: Parcel, clock: _Clock) -> None:
    """Send one message; whatever goes wrong is kept on its rows and stops no other."""
    channel, first = parcel.channel, parcel.rows[0]
    words = {"notification": first.pk, "count": len(parcel.rows), "channel": channel.name}
    at, began, title = clock(), time.monotonic(), first.incident.title
    failure, receipt, is_theirs = None, None, True
    try:
        if parcel.is_digest:
            message = messages.digest_of(parcel.rows, parcel.key, at)
        else:
            message = messages.message_of(first)
        title = message.heading
        if time.monotonic() - parcel.taken > CLAIM.total_seconds() / 2:
            log.warning("held up for so long that others may be at it", **words)
            return
        receipt = _send(channel, message)
        log.info("notification sent", transition=message.transition, **words)
    except Undelivered as undelivered:
        failure = undelivered
        log.warning("notification not delivered", reason=_said(channel, str(failure)), **words)
    except (DatabaseError, InterfaceError):
        raise
    except Exception as error:
        failure, is_theirs = Undelivered(f"{type(error).__name__}: {error}"), False
        log.exception("notification not delivered", **words)
    took = timedelta(seconds=time.monotonic() - began)
    now = clock()
    tried = Tried(at, took, title, receipt, failure, is_theirs)
    fares = _settle(parcel, tried, now)
    if fares is _Fares.BADLY:
        fallback.report(channel, _said(channel, str(failure)), now)
    elif fares is _Fares.AGAIN:
        fallback.mend(channel, now)


def _send(channel: NotificationChannel, message: Message) -> Receipt:
    notifier = notifiers.carrying(channel.kind)
    if notifier is None:
        raise Undelivered(f"There is no kind of channel {channel.kind}.", for_good=True)
    return notifier.send(channel.config, message) or Receipt()


class _Fares(Enum):
    """What people are to hear of a channel."""

    AS_EVER = "as ever"
    BADLY = "badly"
    AGAIN = "well again"


@transaction.atomic
def _settle(parcel: Parcel, tried: Tried, now: datetime) -> _Fares:
    """Write down what became of it, unless its channel was deleted meanwhile."""
    held = NotificationChannel.objects.select_for_update(no_key=True).filter(pk=parcel.channel.pk)
    if not held.exists():
        return _Fares.AS_EVER
    state = _locked(parcel.channel)
    ours = Notification.objects.filter(
        pk__in=[row.pk for row in parcel.rows],
        state=Notification.State.WAITING,
        claim=parcel.claim,
    )
    rows = list(ours.select_for_update(no_key=True, of=("self",)).select_related("incident"))
    _log(parcel, tried)
    fares = _Fares.AS_EVER
    if tried.failure is None:
        reference = tried.receipt.reference if tried.receipt else ""
        ours.update(state=Notification.State.SENT, sent_at=now, error="", reference=reference[:200])
        if state.lease == parcel.lease:
            _note_success(parcel, state, now)
            fares = _Fares.AGAIN if state.is_broken else fares
    elif _put_off(parcel, rows, state, tried, now) and not state.is_broken:
        fares = _Fares.BADLY
    live.announce_on_commit("delivery")
    return fares


def _log(parcel: Parcel, tried: Tried) -> None:
    first = parcel.rows[0]
    exists = Notification.objects.filter(pk=first.pk).exists()
    write_attempt(
        parcel.channel,
        tried,
        key=parcel.key,
        transition="digest" if parcel.is_digest else first.transition,
        count=len(parcel.rows),
        notification=first if exists and not parcel.is_digest else None,
    )


def write_attempt(channel: NotificationChannel, tried: Tried, **more: Any) -> None:
    """One line of the delivery log; what others answered is cut, and secrets are taken out."""
    failure, receipt = tried.failure, tried.receipt
    said = str(failure) if failure else receipt.answer if receipt else ""
    status = failure.status if failure else receipt.status if receipt else None
    Attempt.objects.create(
        channel=channel,
        title=bulk.fit(tried.title, 300),
        at=tried.at,
        took=tried.took,
        is_delivered=failure is None,
        status=status,
        answer=_said(channel, said),
        **more,
    )


def _said(channel: NotificationChannel, text: str) -> str:
    """What others said without our secrets, and then cut: of one in two pieces none would show."""
    return bulk.fit(notifiers.masked(channel.kind, channel.config, text), SAID)


def _note_success(parcel: Parcel, state: ChannelState, now: datetime) -> None:
    state.failures, state.failing_since = 0, None
    state.next_at, state.sent_at = None, now
    if parcel.is_digest:
        state.digest_at = now
    state.save(update_fields=["failures", "failing_since", "next_at", "sent_at", "digest_at"])


def _put_off(
    parcel: Parcel,
    rows: Sequence[Notification],
    state: ChannelState,
    tried: Tried,
    now: datetime,
) -> bool:
    """Try again later, or give up; whether others stand in, as it fails for good or long."""
    failure = tried.failure
    assert failure is not None  # noqa: S101  narrows the type
    tries = max((row.attempts for row in rows), default=1)
    if tried.is_theirs and state.lease == parcel.lease:
        state.failures += 1
        state.failing_since = state.failing_since or tried.at
        tries = state.failures
    pause = failure.retry_after or min(FIRST_RETRY * 2 ** min(tries - 1, 12), LAST_RETRY)
    if tried.is_theirs and state.lease == parcel.lease:
        state.next_at = None if failure.for_good else now + pause
        state.save(update_fields=["failures", "failing_since", "next_at"])
    text = _said(parcel.channel, str(failure))
    given_up = [row for row in rows if failure.for_good or now + pause > row.created_at + GIVE_UP]
    ended = {row.pk for row in given_up}
    later = [row.pk for row in rows if row.pk not in ended]
    put_off = Notification.objects.filter(pk__in=[row.pk for row in rows])
    put_off.update(due_at=now + pause, error=text)
    put_off.filter(pk__in=ended).update(state=Notification.State.FAILED)
    if later:
        wake(current_schema(), now + pause)
    return fallback.stand_in(parcel.channel, state, given_up, now)


# -- by hand ------------------------------------------------------------------


def send_test(access: Access, channel: NotificationChannel, at: datetime) -> str:
    """Deliver a test message at once; what went wrong, or nothing.

    One that arrives ends what was known of a channel that failed. Raises Busy.
    """
    busy = "Another test of a channel waits for its answer. Try again in a moment."
    with _tests.passed(access.tenant.schema_name, busy):
        return _send_test(access, channel, at)


#: Whoever does not answer holds a thread: one at once of an organization, eight in all.
_tests = Gate(1, 8)


def _send_test(access: Access, channel: NotificationChannel, at: datetime) -> str:
    message, began = messages.test_of(channel, access.tenant, at), time.monotonic()
    failure, receipt = None, None
    try:
        receipt = _send(channel, message)
    except Undelivered as undelivered:
        failure = undelivered
    except Exception as error:
        log.exception("test message not delivered", channel=channel.name)
        failure = Undelivered(f"{type(error).__name__}: {error}")
    took = timedelta(seconds=time.monotonic() - began)
    tried = Tried(at, took, message.title, receipt, failure)
    with transaction.atomic():
        write_attempt(channel, tried, key=uuid.UUID(message.key), transition="test")
        audit(access, "channel.tested", channel, delivered=failure is None)
    if failure:
        return _said(channel, str(failure))
    _is_well_again(channel, at)
    return ""


def _is_well_again(channel: NotificationChannel, at: datetime) -> None:
    """Somebody saw to it: what waits goes now."""
    failing = ChannelState.objects.filter(pk=channel.pk, failing_since__isnull=False)
    if failing.update(failing_since=None, failures=0, next_at=None):
        fallback.mend(channel, at)
        waiting = Notification.objects.filter(
            channel=channel, state=Notification.State.WAITING, claim__isnull=False
        )
        waiting.exclude(channel__fares__busy_until__gt=at).update(due_at=at)
        dispatch.hand_over(current_schema())


class NothingToResend(Problem):
    status, code, title = 409, "still-waiting", "It is on its way"


@transaction.atomic
def resend(access: Access, notification: Notification, at: datetime) -> Notification:
    """Tell the same again, as a message of its own. Raises NothingToResend while it waits."""
    if notification.state == Notification.State.WAITING:
        raise NothingToResend("It was not sent yet.", notification=notification.pk)
    base = notification.transition.partition("~")[0]
    same = Notification.objects.filter(
        incident=notification.incident_id, channel=notification.channel_id
    )
    NotificationChannel.objects.select_for_update(no_key=True).get(pk=notification.channel_id)
    again = same.filter(transition__startswith=f"{base}~").count() + 2
    made = Notification.objects.create(
        incident_id=notification.incident_id,
        channel_id=notification.channel_id,
        transition=f"{base}~{again}",
        severity=notification.severity,
        created_at=at,
        due_at=at,
    )
    audit(access, "notification.resent", notification.incident, name=notification.channel.name)
    schema = current_schema()
    wake(schema, at)
    transaction.on_commit(partial(dispatch.hand_over, schema))
    return made


def forget_attempts(before: datetime) -> int:
    """Drop the delivery log's lines from before this time; how many."""
    return Attempt.objects.filter(at__lt=before).delete()[0]
