"""Pure judgement: a rule's limits and a number make a Breach or nothing. No ORM, no clock."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

#: How bad, from the least to the worst; the same words as `alerts.models.Severity`.
SEVERITIES: Final = ("info", "warning", "error", "critical")

COMPARISONS: Final[Mapping[str, Callable[[float, float], bool]]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}


@dataclass(frozen=True)
class Limits:
    """A limit per severity, and the value past which an open alert may resolve."""

    comparison: str
    by_severity: Mapping[str, float]
    recovery: float | None = None


class Breach(NamedTuple):
    """The worst severity whose limit holds, and that limit."""

    severity: str
    limit: float


def judge(limits: Limits, value: float, is_open: bool) -> Breach | None:
    """What holds for this value now.

    An open alert stays open between its lowest limit and `recovery` (hysteresis), at the severity
    of that lowest limit.
    """
    holds = COMPARISONS[limits.comparison]
    for severity in reversed(SEVERITIES):
        limit = limits.by_severity.get(severity)
        if limit is not None and holds(value, limit):
            return Breach(severity, limit)
    if is_open and limits.recovery is not None and holds(value, limits.recovery):
        mildest = next(name for name in SEVERITIES if name in limits.by_severity)
        return Breach(mildest, limits.by_severity[mildest])
    return None


def errors(limits: Limits) -> dict[str, str]:
    """What is wrong with them, by field, in words."""
    found: dict[str, str] = {}
    named = [name for name in SEVERITIES if name in limits.by_severity]
    if not named:
        return {"thresholds": "Give a limit for at least one severity."}
    unknown = sorted(set(limits.by_severity) - set(SEVERITIES))
    if unknown:
        return {"thresholds": f"Unknown severity {unknown[0]}; use {', '.join(SEVERITIES)}."}
    values = [limits.by_severity[name] for name in named]
    upward = limits.comparison in (">", ">=")
    if values != sorted(values, reverse=not upward):
        direction = "higher" if upward else "lower"
        found["thresholds"] = f"A worse severity needs a {direction} limit than a milder one."
    if limits.recovery is not None:
        beyond = limits.recovery > values[0] if upward else limits.recovery < values[0]
        if beyond:
            side = "below" if upward else "above"
            found["recovery"] = f"Recovery must lie at or {side} the mildest limit, {values[0]:g}."
    return found
