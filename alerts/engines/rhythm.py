"""How often each rule is judged: as often as there can be news, and not at every tick for a day."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from django.conf import settings

from alerts.models import Rule
from metrics.queries import READ_WHOLE

#: A tenant whose slot before was longer ago has missed some.
GAP = 3 * settings.TICK + timedelta(seconds=30)
#: So many of the slots missed are made up for, evenly spread.
MOST_MISSED = 20

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def period(rule: Rule) -> timedelta:
    """Nothing: at every slot. A sixtieth of a long window; of a forecast 2 to 15 minutes."""
    if rule.kind == Rule.Kind.FORECAST:
        return min(max(rule.window / 120, timedelta(minutes=2)), timedelta(minutes=15))
    if rule.no_data == Rule.NoData.ALERT and rule.window <= READ_WHOLE:
        return timedelta(seconds=30)
    return timedelta() if rule.window <= READ_WHOLE else rule.window / 60


def is_due(rule: Rule, last: datetime | None, at: datetime) -> bool:
    """Whether the rule is judged at this slot, when the tenant's slot before was `last`."""
    every = period(rule)
    return not every or last is None or rule.changed_at > last or turned(every, last, at)


def turned(every: timedelta, last: datetime | None, at: datetime) -> bool:
    """Whether a new period of this length began between the two."""
    return last is None or (at - _EPOCH) // every != (last - _EPOCH) // every


def missed(rules: Iterable[Rule], last: datetime | None, at: datetime) -> list[datetime]:
    """Slots between the last one and this that still matter: as far back as a `hold` reaches."""
    longest = max((rule.hold for rule in rules), default=timedelta())
    if last is None or at - last <= GAP or not longest:
        return []
    first = max(last, at - longest)
    count = min(MOST_MISSED, (at - first) // settings.TICK)
    step = (at - first) / (count + 1)
    return [first + number * step for number in range(1, count + 1)]
