"""How an alert came about: the rule as it was then, the numbers it saw, what was decided when."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from alerts.engines.judging import Decision
from alerts.models import Alert, Judgement, Rule, RuleVersion
from alerts.rulebook.rulefiles import words
from alerts.values.wording import number as measured

KEPT = timedelta(days=90)
MOST = 200
#: What began to hold so long before an alert is shown with it.
BEFORE = timedelta(days=1)

_ALWAYS = frozenset(
    {
        Decision.BEGINS,
        Decision.OPENS,
        Decision.RAISED,
        Decision.LOWERED,
        Decision.RECOVERS,
    }
)


def _milestones() -> frozenset[int]:
    """10, 20, 40 … twice as many each time: some twenty for a year of slots."""
    return frozenset(10 * 2**power for power in range(24))


_MILESTONES = _milestones()


def is_kept(decision: Decision, count: int, began_to_recover: bool) -> bool:
    """Whether a judgement is written down; `count` is how often the alert was seen to hold."""
    if decision in _ALWAYS:
        return True
    if decision is Decision.RECOVERING:
        return began_to_recover
    return decision is Decision.HOLDS and count in _MILESTONES


def of(alert: Alert) -> dict[str, Any]:
    """The alert with its judgements, oldest first, and the version of the rule that opened it."""
    until = alert.resolved_at or datetime.max.replace(tzinfo=alert.opened_at.tzinfo)
    rows = Judgement.objects.filter(
        fingerprint=alert.fingerprint, at__gte=alert.opened_at - BEFORE, at__lte=until
    )
    judgements = list(rows[:MOST])
    opened = next(
        (one for one in judgements if one.decision == Decision.OPENS and one.at == alert.opened_at),
        None,
    )
    number = opened.version if opened else None
    version = (
        RuleVersion.objects.filter(rule=alert.rule_id, number=opened.version).first()
        if opened and alert.rule_id
        else None
    )
    return {
        "alert": alert,
        "judgements": judgements,
        "rows": [
            {
                "at": one.at,
                "decision": one.decision,
                "value": "" if one.value is None else measured(one.value, alert.unit),
                "limit": "" if one.limit is None else measured(one.limit, alert.unit),
            }
            for one in judgements
        ],
        "version": version,
        "number": number,
        "terms": lines(version.body) if version else [],
    }


def lines(body: Mapping[str, Any]) -> list[tuple[str, str]]:
    """A rule's terms as names and words."""
    return [(name.replace("_", " "), words(body[name])) for name in Rule.SAID if name in body]


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Name, what it was and what it became, for each term that changed."""
    return [
        (name.replace("_", " "), words(before.get(name)), words(after.get(name)))
        for name in Rule.SAID
        if before.get(name) != after.get(name)
    ]
