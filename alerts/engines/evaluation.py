"""One evaluation of one tenant: all its rules at one slot, in one transaction."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta

import numpy as np
import structlog
from celery import current_app
from django.conf import settings
from django.db import transaction
from django.utils import timezone
from kombu.exceptions import OperationalError

from accounts import timers
from accounts.models import Tenant
from alerts.dispatching import dispatch, escalations
from alerts.engines import aeolus, breaches, chronos, early, fleet, rhythm
from alerts.engines.fleet import Fleet, Mask
from alerts.engines.left_out import LeftOut
from alerts.engines.sheets import Sheet
from alerts.jobs import checkins
from alerts.lifecycle import external, incidents, muting, unjudged
from alerts.models import Rule
from clouds import suppression
from sentinel_site.kit.tenancy import connection, current_schema

log = structlog.get_logger(__name__)

#: An evaluation that was claimed and never done (a killed worker, a lost message) is due again.
CLAIM = timedelta(minutes=1)
#: What is due at an instant is true just after it.
MOMENT = timedelta(milliseconds=1)


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Leave cycles of garbage till later: an evaluation makes many objects and hardly any of those.

    Python looks for them ever again while thousands of alerts open, for two fifths of the time.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@_collector_paused()
def evaluate(at: datetime) -> None:
    """Evaluate the current schema at this slot; does nothing while another run is at it."""
    tenant = Tenant.objects.get(schema_name=current_schema())
    with transaction.atomic(), timers.gathered(tenant.schema_name) as woken:
        if not _alone(tenant):
            early.wake(tenant.schema_name)  # that run may have begun before this data came
            return
        tenant.refresh_from_db()
        if tenant.evaluated_at is not None and at < tenant.evaluated_at:
            return  # a message that was late: what it would see is not how it is
        seen = timers.rung(tenant.schema_name, at)
        watched = fleet.read(tenant.pk, at)
        scopes = fleet.scopes(Rule.objects.all(), watched)
        due = {
            rule: mask
            for rule, mask in scopes.items()
            if rule.enabled and rhythm.is_due(rule, tenant.evaluated_at, at)
        }
        left_out = LeftOut()
        of_metrics = chronos.sheets(tenant, due, watched, left_out)
        of_events, learned = aeolus.sheets(tenant, due, watched, left_out)
        late = _missed(tenant, due, watched, at, left_out)
        incidents.one_at_a_time()  # all that reads much is behind us, all that writes before us
        suppression.expire(at)
        chronos.note_silence(watched)
        breaches.resolve_orphans(at)
        if rhythm.turned(timedelta(days=1), tenant.evaluated_at, at):
            breaches.forget(at)
        for slot, found in late:
            breaches.catch_up(found, slot, left_out)
        breaches.settle(of_metrics + of_events, at, watched.listening_since, left_out)
        learned.drop(left_out.rules)
        learned.keep()
        others = {rule.pk for rule in scopes if rule.enabled and rule not in due}
        unjudged.tell(left_out.rules.values(), others, at)
        external.expire(at, watched.listening_since)
        checkins.judge(at, watched.listening_since)
        incidents.settle(at, watched.listening_since)
        muting.tell_what_was_muted(at)
        escalations.pursue(at)
        times = [
            chronos.next_look(watched),
            breaches.next_to_hold(at),
            dispatch.next_due(at),
            escalations.next_at(),
            suppression.next_change(at),
            external.next_expiry(at, watched.listening_since),
            checkins.next_deadline(at, watched.listening_since),
            incidents.next_change(at, watched.listening_since),
            *(one for one in woken if one > at),
        ]
        following = min((one for one in times if one), default=None)
        took = max(timezone.now() - at, timedelta())
        timers.settle(tenant.schema_name, seen, following, at, took)
    if dispatch.has_due(at):
        dispatch.hand_over(tenant.schema_name)
    if following is not None and at < following < at + settings.TICK:
        _look_then(tenant.schema_name, following + MOMENT)


def _missed(
    tenant: Tenant, due: dict[Rule, Mask], watched: Fleet, at: datetime, left_out: LeftOut
) -> list[tuple[datetime, list[Sheet]]]:
    """After an outage: what began in it counts from then, what came and went is told to nobody."""
    waiting = {rule: mask for rule, mask in due.items() if rule.hold}
    everyone = np.ones(len(watched.ids), np.bool_)
    return [
        (slot, chronos.at_slot(tenant, waiting, watched, everyone, slot, left_out))
        for slot in rhythm.missed(waiting, tenant.evaluated_at, at)
    ]


def _look_then(schema: str, at: datetime) -> None:
    """Have the schema evaluated at this instant: what holds between two ticks waits for neither.

    A courtesy that may be lost: the tick after it finds the same.
    """
    try:
        current_app.send_task(
            "alerts.tasks.evaluate",
            ([schema], at.isoformat()),
            eta=at,
            expires=at + CLAIM,
            retry=False,
        )
    except OperationalError as error:
        log.warning("broker away; the next tick looks", error=str(error))


def _alone(tenant: Tenant) -> bool:
    """Whether this transaction is the tenant's only evaluation.

    Of a process that is stopped in the middle PostgreSQL takes it away after CLAIM.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_try_advisory_xact_lock(%s, %s),"
            " set_config('idle_in_transaction_session_timeout', %s, TRUE)",
            [_EVALUATION, tenant.pk, f"{CLAIM.total_seconds():.0f}s"],
        )
        locked, _ = cursor.fetchone()
    return bool(locked)


_EVALUATION = 0x5E27
