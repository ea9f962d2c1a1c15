"""Rules over log events of one tenant at one instant: count them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import timedelta

import numpy as np

from accounts.models import Tenant
from alerts.fleet import Fleet, Mask
from alerts.models import Rule
from alerts.sheets import Reading, Sheet
from alerts.wording import span
from clouds.models import Server
from metrics import events
from metrics.events import Matcher


def sheets(tenant: Tenant, scopes: Mapping[Rule, Mask], fleet: Fleet) -> dict[Rule, Sheet]:
    """What the event rules look at."""
    return {
        rule: _counted(tenant, rule, fleet, mask)
        for rule, mask in scopes.items()
        if rule.kind == Rule.Kind.EVENT
    }


def _counted(tenant: Tenant, rule: Rule, fleet: Fleet, mask: Mask) -> Sheet:
    """One number per server: none at all is a number too, by which an alert resolves."""
    matcher = Matcher.parse(
        rule.words,
        levels=events.levels_from(rule.level) if rule.level else (),
        services=(rule.service,) if rule.service else (),
        start=fleet.at - rule.window,
        end=fleet.at + timedelta(milliseconds=1),
    )
    counts: Counter[int] = Counter()
    loudest: dict[int, tuple[int, str]] = {}
    for (server, service), count in events.count_window(tenant.pk, matcher).items():
        counts[server] += count
        loudest[server] = max(loudest.get(server, (0, "")), (count, service))
    ids = fleet.ids[mask]
    values = np.array([counts[server] for server in ids.tolist()], np.float64)

    def reading(number: int) -> Reading:
        server = Server.objects.only("host").get(pk=int(ids[number]))
        said = _counted_in_words(rule, server, counts[server.pk])
        return Reading(
            server=server.pk,
            value=float(values[number]),
            service=rule.service or loudest.get(server.pk, (0, ""))[1] or "logs",
            subject=rule.words or f"{rule.level or 'any'} events",
            explained=said,
            recovered=f"Only {said}.".replace("Only no ", "No "),
        )

    return Sheet(ids, values, reading)


def _counted_in_words(rule: Rule, server: Server, count: int) -> str:
    """`3 critical log events with “lost” on nova-1 within 5 min`."""
    level = f"{rule.level} " if rule.level else ""
    events_ = "log event" if count == 1 else "log events"
    words = f" with “{rule.words}”" if rule.words else ""
    return f"{count or 'no'} {level}{events_}{words} on {server.host} within {span(rule.window)}"
