"""What is over for long goes: incidents with all that belongs to them, and others' own words."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import Exists, OuterRef, Q, QuerySet

from alerts.lifecycle import incidents
from alerts.lifecycle.external import FOREIGN
from alerts.models import Alert, Incident, Notification, Received

#: Of an alert that is over, what its tool said of it is kept for so long, for giving it back.
WORDS_KEPT = timedelta(days=30)
#: So many alerts of other tools that are over are kept in one organization, the newest.
MOST_CLOSED = 200_000
#: Of what ended so lately that it may be the same when it is back, so many in a storm.
MOST_LATELY = 1_000_000
#: So many go in one transaction, so that nobody waits for it.
AT_ONCE = 500


def forget(before: datetime) -> int:
    """Drop incidents that were over before this time, with alerts, history, messages; how many.

    One into which others were merged goes with the last of them.
    """
    left_open = Alert.objects.filter(incident=OuterRef("pk")).filter(
        Q(resolved_at=None) | Q(resolved_at__gte=before)
    )
    merged = Incident.objects.filter(merged_into=OuterRef("pk"), resolved_at__gte=before)
    over = Incident.objects.filter(~Exists(left_open), ~Exists(merged), resolved_at__lt=before)
    gone = 0
    while True:
        with transaction.atomic():
            rows = over.select_for_update(skip_locked=True, of=("self",)).order_by("pk")
            pks = list(rows.values_list("pk", flat=True)[:AT_ONCE])
            Incident.objects.filter(pk__in=pks).delete()
        gone += len(pks)
        if len(pks) < AT_ONCE:
            return gone


def forget_words(before: datetime) -> int:
    """Drop what other tools said of alerts that were over before this time; how many."""
    gone = 0
    while True:
        over = Received.objects.filter(alert__resolved_at__lt=before)
        pks = list(over.order_by("pk").values_list("pk", flat=True)[:AT_ONCE])
        gone += Received.objects.filter(pk__in=pks).delete()[0]
        if len(pks) < AT_ONCE:
            return gone


def trim(now: datetime) -> int:
    """Drop the oldest of other tools' alerts that are over, above MOST_CLOSED; how many.

    An incident that is over goes with its last alert. Of one of which somebody is still to be told
    nothing goes, and what ended within RETURNS goes only above MOST_LATELY: it may be back.
    """
    beyond = _beyond(MOST_CLOSED)
    if beyond is None:
        return 0
    too_many = Q(beyond, resolved_at__lt=now - incidents.RETURNS)
    surplus = _over().filter(too_many | (_beyond(MOST_LATELY) or Q(pk__in=[])))
    waiting = Notification.objects.filter(state=Notification.State.WAITING)
    told = surplus.filter(
        ~Exists(waiting.filter(incident=OuterRef("incident"))),
        ~Exists(waiting.filter(incident__merged_into=OuterRef("incident"))),
    )
    gone, last = 0, 0
    while True:
        with transaction.atomic():
            incidents.one_at_a_time()  # none of them is just being opened again, or told of
            some = told.filter(pk__gt=last).order_by("pk")
            rows = dict(some.values_list("pk", "incident")[:AT_ONCE])
            Alert.objects.filter(pk__in=rows).delete()
            _drop_empty(set(rows.values()))
        gone, last = gone + len(rows), max(rows, default=last)
        if len(rows) < AT_ONCE:
            return gone


def _over() -> QuerySet[Alert]:
    """Alerts of other tools that are over."""
    return Alert.objects.filter(origin__in=FOREIGN, resolved_at__isnull=False)


def _beyond(most: int) -> Q | None:
    """What all but the newest of these are; None where there are no more."""
    newest = _over().order_by("-resolved_at", "-pk").values_list("resolved_at", "pk")
    first_too_many = next(iter(newest[most : most + 1]), None)
    if first_too_many is None:
        return None
    at, last = first_too_many
    return Q(resolved_at__lt=at) | Q(resolved_at=at, pk__lte=last)


def _drop_empty(pks: set[int]) -> None:
    """Those of these incidents that are over and have no alert left, with what they absorbed."""
    has_some = Exists(Alert.objects.filter(incident=OuterRef("pk")))
    empty = Incident.objects.filter(~has_some, pk__in=pks, resolved_at__isnull=False)
    left = list(empty.values_list("pk", flat=True))
    Incident.objects.filter(~has_some, merged_into__in=left).delete()
    Incident.objects.filter(pk__in=left).delete()
