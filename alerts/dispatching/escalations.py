"""Incidents that nobody takes: more people are told, and the same ones again."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from django.db.models import Min, Q

from alerts.dispatching import dispatch, routes
from alerts.models import Alert, Escalation, Route

#: While an incident is muted or gone, its next step waits and is looked at again after this.
_WAITS = timedelta(minutes=1)


def pursue(at: datetime) -> None:
    """Take the steps that are due. Done with every evaluation, in its transaction.

    What is muted or shelved takes none; they are counted anew when people are told of it again.
    Nor does what comes and goes while it is gone: that is not still there.
    """
    if not Escalation.objects.exists():
        return
    Escalation.objects.filter(
        Q(incident__resolved_at__isnull=False) | Q(incident__acknowledged_at__isnull=False)
    ).delete()
    due = list(
        Escalation.objects.select_for_update(skip_locked=True, of=("self",))
        .filter(next_at__lte=at)
        .select_related("incident")
    )
    if not due:
        return
    known = {route.pk: route for route in routes.in_force()}
    muted = dispatch.muted({one.incident_id for one in due}, at)
    gone = _gone({one.incident_id for one in due if one.incident.flapping_until is not None})
    told: list[dispatch.Told] = []
    ended: list[int] = []
    for one in due:
        route = known.get(one.route_id)
        if route is None:
            ended.append(one.pk)
        elif one.incident_id in muted or one.incident_id in gone:
            one.next_at = at + _WAITS
        elif one.incident.shelved_until is not None and one.incident.shelved_until > at:
            one.next_at = one.incident.shelved_until
        else:
            told.append(_step(one, route, at))
            following = next_step(route, one.step, one.began_at, at)
            if following is None:
                ended.append(one.pk)
            else:
                one.next_at = following
    Escalation.objects.filter(pk__in=ended).delete()
    Escalation.objects.bulk_update(due, ["next_at", "step", "repeats"], batch_size=500)
    dispatch.queue_all(told, at)


def _gone(incidents: set[int]) -> set[int]:
    """Those of these incidents of which no alert is open."""
    if not incidents:
        return set()
    there = Alert.objects.filter(incident__in=incidents, resolved_at=None).order_by()
    return incidents - set(there.values_list("incident", flat=True).distinct())


def _step(one: Escalation, route: Route, at: datetime) -> dispatch.Told:
    """The next step of an escalation, or its first ones again."""
    steps = list(route.steps.all())
    if one.step < len(steps):
        channels = _channels(steps[one.step : one.step + 1])
        one.step += 1
        return dispatch.Told(
            one.incident, f"escalated:{route.pk}.{one.step}", to=frozenset(channels)
        )
    one.repeats += 1
    return dispatch.Told(
        one.incident,
        f"repeated:{route.pk}.{one.repeats}",
        to=frozenset(_channels(steps)),
    )


def _channels(steps: Iterable[object]) -> set[int]:
    return {one.pk for step in steps for one in step.channels.all()}  # type: ignore[attr-defined]


def next_step(route: Route, taken: int, began_at: datetime, at: datetime) -> datetime | None:
    """When a route does something more about an incident that nobody takes."""
    steps = list(route.steps.all())
    if taken < len(steps):
        return max(began_at + steps[taken].after, at)
    return at + route.repeat if route.repeat else None


def next_at() -> datetime | None:
    """When the next step is due."""
    found: datetime | None = Escalation.objects.aggregate(first=Min("next_at"))["first"]
    return found
