"""Rules over log events of one tenant at one instant: how many, new patterns, how long none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import datetime, timedelta

import numpy as np
import structlog
from numpy.typing import NDArray

from accounts.models import Tenant
from alerts.engines.fleet import Fleet, Mask
from alerts.engines.sheets import Reading, Sheet, terms_of
from alerts.models import Remembered, Rule
from alerts.values import patterns
from alerts.values.wording import span
from metrics import events
from metrics.events import Matcher, Met

log = structlog.get_logger(__name__)

MOMENT = timedelta(milliseconds=1)
#: What was logged before is learned from so much, or from less where that takes too long.
LEARNED_FROM = (timedelta(days=7), timedelta(days=1), timedelta(hours=1))
#: Events may arrive so much later than others that were logged after them.
LATE = timedelta(hours=1)
#: A pattern that was not met for so long is forgotten, and is new when it comes again.
FORGOTTEN = timedelta(days=60)
REFRESHED = timedelta(hours=1)


def sheets(tenant: Tenant, scopes: Mapping[Rule, Mask], fleet: Fleet) -> list[Sheet]:
    """What the event rules look at."""
    found = []
    for rule, mask in scopes.items():
        if rule.kind != Rule.Kind.EVENT:
            continue
        try:
            found.append(_sheet(tenant, rule, fleet, mask))
        except events.TooMuchToSearch:  # its alerts stay as they are, and no other rule waits
            log.warning("a rule asks for too much to be searched", rule=rule.name)
    return found


def _sheet(tenant: Tenant, rule: Rule, fleet: Fleet, mask: Mask) -> Sheet:
    if rule.aggregation == Rule.Aggregation.NEW:
        return _new(tenant, rule, fleet, mask)
    if rule.aggregation == Rule.Aggregation.ABSENT:
        return _absent(tenant, rule, fleet, mask)
    met = events.met(tenant.pk, matcher_of(rule, fleet.at - rule.window, fleet.at))
    return counted(rule, met, fleet.ids[mask])


def matcher_of(rule: Rule, start: datetime, end: datetime) -> Matcher:
    """Which events the rule looks at; both ends belong to it."""
    return Matcher.parse(
        rule.words,
        levels=events.levels_from(rule.level) if rule.level else (),
        services=(rule.service,) if rule.service else (),
        test=patterns.tester(rule.pattern) if rule.pattern else None,
        start=start,
        end=end + MOMENT,
    )


def counted(rule: Rule, met: list[Met], ids: NDArray[np.int64]) -> Sheet:
    """One number per server: none at all is a number too, by which an alert resolves."""
    counts: Counter[int] = Counter()
    loudest: dict[int, tuple[int, str]] = {}
    for one in met:
        counts[one.server_id] += one.count
        loudest[one.server_id] = max(loudest.get(one.server_id, (0, "")), (one.count, one.service))
    seconds = rule.window.total_seconds()
    per = seconds if rule.aggregation == Rule.Aggregation.RATE else 1.0
    values = np.array([counts[server] / per for server in ids.tolist()], np.float64)

    def reading(number: int) -> Reading:
        server = int(ids[number])
        said = _counted_in_words(rule, counts[server])
        return Reading(
            server=server,
            value=float(values[number]),
            service=rule.service or loudest.get(server, (0, ""))[1] or "logs",
            subject=subject_of(rule),
            explained=said,
            recovered=f"Only {said}.".replace("Only no ", "No "),
        )

    return Sheet(rule, terms_of(rule), ids, values, reading)


def _new(tenant: Tenant, rule: Rule, fleet: Fleet, mask: Mask) -> Sheet:
    """How many patterns each server wrote within the window that nobody wrote before."""
    if rule.learned_at is None:
        known = _learned(tenant, rule, fleet.at)
        _remember(rule, {one.fingerprint: (one.first_at, one.last_at) for one in known})
        _learned_until(rule, fleet.at)
    met = events.met(tenant.pk, matcher_of(rule, fleet.at - rule.window, fleet.at))
    rows = Remembered.objects.filter(rule=rule)
    rows.filter(last_at__lt=fleet.at - FORGOTTEN).delete()
    keys = {one.fingerprint for one in met}
    before = {row.key: row for row in rows.filter(key__in=keys)}
    fresh: dict[int, tuple[datetime, datetime]] = {}
    for one in met:
        first, last = fresh.get(one.fingerprint, (one.first_at, one.last_at))
        fresh[one.fingerprint] = (min(first, one.first_at), max(last, one.last_at))
    _remember(rule, {key: times for key, times in fresh.items() if key not in before})
    old = [key for key, row in before.items() if fresh[key][1] - row.last_at > REFRESHED]
    if old:
        rows.filter(key__in=old).update(last_at=fleet.at)
    learned = rule.learned_at or fleet.at
    firsts = {key: row.first_at for key, row in before.items()}
    new = [
        one
        for one in met
        if firsts.get(one.fingerprint, one.first_at) > max(learned, fleet.at - rule.window)
    ]
    return new_patterns(rule, new, fleet.ids[mask])


def new_patterns(rule: Rule, new: list[Met], ids: NDArray[np.int64]) -> Sheet:
    """A number a server: how many of the new patterns it wrote."""
    of_server: dict[int, list[Met]] = {}
    for one in sorted(new, key=lambda met: met.first_at):
        of_server.setdefault(one.server_id, []).append(one)
    values = np.array([len(of_server.get(server, ())) for server in ids.tolist()], np.float64)

    def reading(number: int) -> Reading:
        server = int(ids[number])
        found = of_server.get(server, [])
        many = "log pattern" if len(found) == 1 else "log patterns"
        line = f": {found[0].message.partition(chr(10))[0][:160]}" if found else ""
        return Reading(
            server=server,
            value=float(values[number]),
            service=rule.service or (found[0].service if found else "") or "logs",
            subject=subject_of(rule),
            explained=f"{len(found) or 'No'} new {many} on {{host}}{line}",
            recovered=f"No new log pattern on {{host}} within {span(rule.window)}.",
        )

    return Sheet(rule, terms_of(rule), ids, values, reading)


def _absent(tenant: Tenant, rule: Rule, fleet: Fleet, mask: Mask) -> Sheet:
    """How long each server has not logged it that did so once; one that is named need not have."""
    if rule.learned_at is None:
        met = _learned(tenant, rule, fleet.at)
        if rule.server_id is not None:
            _remember(rule, {rule.server_id: (rule.changed_at, rule.changed_at)})
    else:
        met = events.met(tenant.pk, matcher_of(rule, rule.learned_at - LATE, fleet.at))
    rows = Remembered.objects.filter(rule=rule)
    known = {row.key: row for row in rows}
    newest: dict[int, Met] = {}
    for one in met:
        other = newest.get(one.server_id)
        if other is None or other.last_at < one.last_at:
            newest[one.server_id] = one
    _remember(
        rule,
        {key: (one.first_at, one.last_at) for key, one in newest.items() if key not in known},
    )
    later = []
    for key, one in newest.items():
        if key in known and one.last_at > known[key].last_at:
            known[key].last_at = one.last_at
            later.append(known[key])
    Remembered.objects.bulk_update(later, ["last_at"], batch_size=500)
    if rule.learned_at is None or fleet.at - rule.learned_at > timedelta(minutes=1):
        _learned_until(rule, fleet.at)
    lasts = {key: row.last_at for key, row in known.items()}
    lasts |= {key: one.last_at for key, one in newest.items() if key not in known}
    if rule.server_id is not None:
        lasts.setdefault(rule.server_id, rule.changed_at)
    return absent(rule, lasts, fleet.ids[mask], fleet.at)


def absent(
    rule: Rule,
    lasts: Mapping[int, datetime],
    ids: NDArray[np.int64],
    at: datetime,
) -> Sheet:
    """Seconds since each server logged it last."""
    judged = np.array([server for server in ids.tolist() if server in lasts], np.int64)
    values = np.array(
        [max(0.0, (at - lasts[server]).total_seconds()) for server in judged.tolist()], np.float64
    )

    def reading(number: int) -> Reading:
        server = int(judged[number])
        what = _what(rule)
        return Reading(
            server=server,
            value=float(values[number]),
            service=rule.service or "logs",
            subject=subject_of(rule),
            unit="seconds",
            explained=f"No {what} on {{host}} for {span(at - lasts[server])}",
            recovered=f"There is a {what} on {{host}} again.",
        )

    return Sheet(rule, terms_of(rule), judged, values, reading)


def _learned(tenant: Tenant, rule: Rule, at: datetime) -> list[Met]:
    """What was logged before the rule: of as long a time as can be searched."""
    for length in LEARNED_FROM:
        try:
            return events.met(tenant.pk, matcher_of(rule, at - length, at))
        except events.TooMuchToSearch:
            continue
    return []


def _remember(rule: Rule, times: Mapping[int, tuple[datetime, datetime]]) -> None:
    Remembered.objects.bulk_create(
        [Remembered(rule=rule, key=key, first_at=a, last_at=b) for key, (a, b) in times.items()],
        ignore_conflicts=True,
        batch_size=1000,
    )


def _learned_until(rule: Rule, at: datetime) -> None:
    Rule.objects.filter(pk=rule.pk).update(learned_at=at)
    rule.learned_at = at


def subject_of(rule: Rule) -> str:
    return rule.words or rule.pattern or f"{rule.level or 'any'} events"


def _what(rule: Rule) -> str:
    """`critical log event with “lost”`."""
    level = f"{rule.level} " if rule.level else ""
    words = f" with “{rule.words or rule.pattern}”" if rule.words or rule.pattern else ""
    return f"{level}log event{words}"


def _counted_in_words(rule: Rule, count: int) -> str:
    """`3 critical log events with “lost” on nova-1 within 5 min`."""
    what = _what(rule)
    if count != 1:
        what = what.replace("log event", "log events", 1)
    return f"{count or 'no'} {what} on {{host}} within {span(rule.window)}"
