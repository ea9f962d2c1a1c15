"""Rules over log events of one tenant at one instant: count, judge, open or resolve."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import datetime, timedelta

from accounts.models import Tenant
from alerts import breaches
from alerts.breaches import Reading
from alerts.models import Rule
from alerts.wording import span
from clouds.models import Server
from metrics import events
from metrics.events import Matcher


def evaluate(tenant: Tenant, rules: list[Rule], watched: list[Server], at: datetime) -> None:
    """Judge the event rules at this slot; call it in a transaction."""
    readings: dict[Rule, Iterable[Reading]] = {
        rule: _counted(tenant, rule, watched, at) for rule in rules if rule.kind == Rule.Kind.EVENT
    }
    breaches.settle(readings, at)


def _counted(tenant: Tenant, rule: Rule, watched: list[Server], at: datetime) -> list[Reading]:
    """One number per server: none at all is a number too, by which an alert resolves."""
    matcher = Matcher.parse(
        rule.words,
        levels=events.levels_from(rule.level) if rule.level else (),
        services=(rule.service,) if rule.service else (),
        start=at - rule.window,
        end=at + timedelta(milliseconds=1),
    )
    counts: Counter[int] = Counter()
    loudest: dict[int, tuple[int, str]] = {}
    for (server, service), count in events.count_window(tenant.pk, matcher).items():
        counts[server] += count
        loudest[server] = max(loudest.get(server, (0, "")), (count, service))
    return [
        Reading(
            server=server.pk,
            value=float(counts[server.pk]),
            service=rule.service or loudest.get(server.pk, (0, ""))[1] or "logs",
            subject=rule.words or f"{rule.level or 'any'} events",
            explained=_counted_in_words(rule, server, counts[server.pk]),
            recovered=f"Only {_counted_in_words(rule, server, counts[server.pk])}.".replace(
                "Only no ", "No "
            ),
        )
        for server in watched
        if rule.server_id in (None, server.pk) and rule.group_id in (None, server.group_id)
    ]


def _counted_in_words(rule: Rule, server: Server, count: int) -> str:
    """`3 critical log events with “lost” on nova-1 within 5 min`."""
    level = f"{rule.level} " if rule.level else ""
    events_ = "log event" if count == 1 else "log events"
    words = f" with “{rule.words}”" if rule.words else ""
    return f"{count or 'no'} {level}{events_}{words} on {server.host} within {span(rule.window)}"
