"""What a rule looks at: one number for each series of all servers, as arrays.

Only of a number that matters a `Reading` is made: of what is past a limit or was before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from alerts.engines.judging import Terms, past_the_mildest
from alerts.models import Rule
from alerts.values.thresholds import Limits

NO_TAGS: Mapping[str, str] = MappingProxyType({})


class Reading(NamedTuple):
    """One number that a rule looks at, and whose it is.

    `explained` says what it means while the rule holds, `recovered` what when it no longer does,
    with {host} in place of its server's; without them the words are `alerts.values.sentences`'.
    `title` is what an incident of it is called, where that is not its rule's name.
    `taken_at` is the time of its newest point: a rule holds from then, not from when it is seen.
    """

    server: int
    value: float
    service: str
    subject: str
    unit: str = ""
    explained: str = ""
    recovered: str = ""
    title: str = ""
    tags: Mapping[str, str] = NO_TAGS
    taken_at: datetime | None = None


@dataclass(frozen=True)
class Sheet:
    """Numbers that one rule judges by these terms; `reading` tells all of the one at a place.

    A series whose number is NaN is there, but not known now: it stays as it is.
    """

    rule: Rule
    terms: Terms
    servers: NDArray[np.int64]
    values: NDArray[np.float64]
    reading: Callable[[int], Reading]


def of(rule: Rule, readings: Iterable[Reading]) -> Sheet:
    """A sheet of readings that were made already."""
    rows = list(readings)
    return Sheet(
        rule,
        terms_of(rule),
        np.array([row.server for row in rows], np.int64),
        np.array([row.value for row in rows], np.float64),
        rows.__getitem__,
    )


def doubted(sheet: Sheet) -> Sheet:
    """A sheet of counts that may still grow: what more could change is not known."""
    limits = sheet.terms.limits
    past = past_the_mildest(limits, sheet.values)
    known = past if limits.comparison in (">", ">=") else ~past
    return replace(sheet, values=np.where(known, sheet.values, np.nan))


def terms_of(rule: Rule) -> Terms:
    """By what a rule's numbers are judged."""
    limits = Limits(rule.compared, rule.thresholds, rule.recovery)
    return Terms(limits, rule.hold, rule.recovery_hold)
