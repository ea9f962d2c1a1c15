"""When nobody listened to the agents: noted by the process that listens again.

Servers are not silent for it, and it is nobody's downtime. It is told once, to whoever runs the
installation: in the log, on /readyz, and by mail to the addresses in OPERATOR_EMAIL.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from datetime import datetime, timedelta

import structlog
from django.db import IntegrityError, transaction

from metrics.models import Listening, Outage
from sentinel_site.kit import listening, operators

log = structlog.get_logger(__name__)

#: A restart is no outage that anybody is told of.
TOLD_FROM = timedelta(minutes=1)
#: How often it is written down that somebody listens.
MARKED_EVERY = timedelta(seconds=15)
#: Without a mark for longer than this, nobody has listened.
MARK_HOLDS = MARKED_EVERY + listening.GAP
KEEP = timedelta(days=400)


def note(since: datetime, until: datetime) -> bool:
    """Keep it, and tell of it; False where another process has done so."""
    try:
        with transaction.atomic():
            Outage.objects.create(since=since, until=until)
    except IntegrityError:
        return False
    lasted = until - since
    log.warning(
        "nobody listened to agents", since=since.isoformat(), seconds=lasted.total_seconds()
    )
    if lasted >= TOLD_FROM:
        minutes = lasted.total_seconds() / 60
        operators.tell(
            f"Sentinella did not listen for {minutes:.0f} min",
            f"From {since:%Y-%m-%d %H:%M:%S} to {until:%Y-%m-%d %H:%M:%S} UTC no report could come"
            " in. Agents keep what they could not send and send it now. Servers that are not heard"
            " have their usual time from now on before anybody is told; it is nobody's downtime.\n",
        )
    return True


def mark(now: datetime) -> None:
    """Say that somebody listens; what is missing since the last mark was an outage.

    Redis, which knows it to the second, may be started anew together with us.
    """
    before = marked_at()
    if before is not None and now - before < MARKED_EVERY:
        return
    Listening.objects.update_or_create(pk=1, defaults={"said_at": now})
    if before is not None and now - before > MARK_HOLDS:
        known = Outage.objects.filter(until__gt=before, since__lt=now)
        if not known.exists():
            note(before, now)


def marked_at() -> datetime | None:
    """When it was last written down that somebody listens; None: never."""
    return Listening.objects.filter(pk=1).values_list("said_at", flat=True).first()


def between(start: datetime, end: datetime) -> list[tuple[datetime, datetime]]:
    """The outages that touch this time, in order."""
    rows = Outage.objects.filter(since__lt=end, until__gt=start).order_by("since")
    return list(rows.values_list("since", "until"))


class Lost:
    """How much of a time was lost to outages, which are asked for once and for any number of times.

    What two of them say of the same moment is lost once.
    """

    def __init__(self, outages: Iterable[tuple[datetime, datetime]]) -> None:
        self._begins: list[datetime] = []
        self._ends: list[datetime] = []
        for since, until in sorted(outages):
            if self._ends and since <= self._ends[-1]:
                self._ends[-1] = max(self._ends[-1], until)
            else:
                self._begins.append(since)
                self._ends.append(until)
        self._from_here = [timedelta()]  # with each outage, what it and all later ones took
        for since, until in zip(reversed(self._begins), reversed(self._ends), strict=True):
            self._from_here.append(self._from_here[-1] + (until - since))
        self._from_here.reverse()

    def since(self, start: datetime) -> timedelta:
        """What was lost from this time on."""
        place = bisect_right(self._ends, start)
        lost = self._from_here[place]
        if place < len(self._begins) and self._begins[place] < start:
            lost -= start - self._begins[place]
        return lost


def last() -> Outage | None:
    return Outage.objects.order_by("-since").first()


def forget(before: datetime) -> None:
    Outage.objects.filter(until__lt=before).delete()
