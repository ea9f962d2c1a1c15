"""Rules that cannot be judged: an incident says so, for as long as it is so."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import datetime

from alerts.lifecycle import incidents
from alerts.models import Alert, Rule, Severity

_NAMED = "unjudged:"


def tell(broken: Iterable[Rule], waiting: Collection[int], at: datetime) -> None:
    """Open alerts for these rules, and end those of rules that are judged again, or gone.

    Of `waiting` rules nothing is known at this slot. Call it in a transaction.
    """
    found = {f"{_NAMED}{rule.pk}": rule for rule in broken}
    unknown = {f"{_NAMED}{pk}" for pk in waiting}
    open_ones = Alert.objects.filter(
        resolved_at=None, origin=Alert.OWN, fingerprint__startswith=_NAMED
    )
    standing = {alert.fingerprint: alert for alert in open_ones}
    incidents.open_all(
        [_found(name, rule, at) for name, rule in found.items() if name not in standing], at
    )
    text = "It is judged again, or not to be judged any more."
    incidents.recover_all(
        [
            incidents.Recovered(alert, None, text)
            for name, alert in standing.items()
            if name not in found and name not in unknown
        ],
        at,
    )


def _found(name: str, rule: Rule, at: datetime) -> incidents.Found:
    return incidents.Found(
        rule=None,
        fingerprint=name,
        reading=None,
        limit=None,
        severity=Severity.ERROR,
        server=None,
        service="rules",
        subject=rule.name,
        unit="",
        text=(
            f"The rule “{rule.name}” cannot be judged: its alerts stay as they are, and none opens."
            " Whoever runs this installation finds the reason in the worker's log."
        ),
        held_since=at,
        title="Rule cannot be judged",
        origin=Alert.OWN,
        resource=f"rule {rule.name}",
    )
