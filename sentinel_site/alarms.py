"""What does not work of the installation itself is told to those who run it, by mail.

Web processes watch, for the workers that would tell otherwise may be what is wrong.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import NamedTuple

from django.db import IntegrityError, transaction

from metrics.models import Alarm
from sentinel_site import health
from sentinel_site.kit import operators

#: What mends itself within that time is told to nobody.
TOLD_AFTER = timedelta(minutes=1)


class _Words(NamedTuple):
    broken: str
    advice: str
    mended: str


_WORDS = {
    "evaluation": _Words(
        "Sentinella judges its rules late",
        "Rules have not been judged in time for {minutes:.0f} min, so nobody hears of what breaks."
        " See whether beat and worker run and how busy they are; /readyz says by how much they are"
        " behind. What waits is judged when they come back, and nothing is lost.\n",
        "Sentinella judges its rules in time again",
    ),
    "canary": _Words(
        "Sentinella's own test message does not come through",
        "Each minute a report goes the whole way to a notification, and none has arrived for"
        " {minutes:.0f} min. See whether notifier and worker run, and what their logs say; /readyz"
        " tells the state of each part.\n",
        "Sentinella's own test message comes through again",
    ),
}


def watch(now: datetime) -> None:
    """Begin, tell and end alarms as things are now; any number of processes may."""
    states = {"evaluation": health.evaluation(now), "canary": health.canary(now)}
    open_ones = {alarm.kind: alarm for alarm in Alarm.objects.filter(until=None)}
    for kind, component in states.items():
        alarm = open_ones.get(kind)
        if component["state"] == "down":
            _is_down(kind, alarm, now)
        elif component["state"] == "up" and alarm is not None:
            _is_up(alarm, now)


def _is_down(kind: str, alarm: Alarm | None, now: datetime) -> None:
    if alarm is None:
        try:
            with transaction.atomic():
                Alarm.objects.create(kind=kind, since=now)
        except IntegrityError:
            return  # another process saw it first
    elif alarm.told_at is None and now - alarm.since >= TOLD_AFTER:
        untold = Alarm.objects.filter(pk=alarm.pk, told_at=None)
        words = _WORDS[kind]
        minutes = (now - alarm.since).total_seconds() / 60
        if untold.update(told_at=now) and not operators.tell(
            words.broken, words.advice.format(minutes=minutes)
        ):
            Alarm.objects.filter(pk=alarm.pk).update(told_at=None)


def _is_up(alarm: Alarm, now: datetime) -> None:
    ended = Alarm.objects.filter(pk=alarm.pk, until=None).update(until=now)
    if not ended or alarm.told_at is None:
        return
    text = f"It did not from {alarm.since:%Y-%m-%d %H:%M:%S} to {now:%Y-%m-%d %H:%M:%S} UTC.\n"
    if not operators.tell(_WORDS[alarm.kind].mended, text):
        Alarm.objects.filter(pk=alarm.pk).update(until=None)
