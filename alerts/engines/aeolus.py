"""Rules over log events of one tenant at one instant: how many, new patterns, how long none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import numpy as np
import structlog
from numpy.typing import NDArray

from accounts.models import Tenant
from alerts.engines.fleet import Fleet, Mask
from alerts.engines.judging import as_far_as_known
from alerts.engines.left_out import LeftOut
from alerts.engines.sheets import Reading, Sheet, doubted, terms_of
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


#: When something was met first, and when last.
_Times = tuple[datetime, datetime]


@dataclass
class Learned:
    """What event rules are to remember of a slot."""

    fresh: dict[Rule, dict[int, _Times]] = field(default_factory=dict)
    later: list[Remembered] = field(default_factory=list)
    until: dict[Rule, datetime] = field(default_factory=dict)
    old: list[tuple[Rule, datetime]] = field(default_factory=list)

    def drop(self, rules: Collection[int]) -> None:
        """Remember nothing of rules that were not judged: what is new to them is so still."""
        self.fresh = {rule: one for rule, one in self.fresh.items() if rule.pk not in rules}
        self.until = {rule: one for rule, one in self.until.items() if rule.pk not in rules}
        self.later = [row for row in self.later if row.rule_id not in rules]

    def keep(self) -> None:
        """Write it; call it in the transaction in which these rules' alerts are changed."""
        for rule, before in self.old:
            Remembered.objects.filter(rule=rule, last_at__lt=before).delete()
        Remembered.objects.bulk_create(
            [
                Remembered(rule=rule, key=key, first_at=first, last_at=last)
                for rule, times in self.fresh.items()
                for key, (first, last) in times.items()
            ],
            ignore_conflicts=True,
            batch_size=1000,
        )
        Remembered.objects.bulk_update(self.later, ["last_at"], batch_size=500)
        for rule, at in self.until.items():
            Rule.objects.filter(pk=rule.pk).update(learned_at=at)
            rule.learned_at = at


def sheets(
    tenant: Tenant, scopes: Mapping[Rule, Mask], fleet: Fleet, left_out: LeftOut
) -> tuple[list[Sheet], Learned]:
    """What the event rules look at, and what they are to remember of it."""
    found, learned = [], Learned()
    for rule, mask in scopes.items():
        if rule.kind != Rule.Kind.EVENT:
            continue
        with left_out.around(rule):
            try:
                found.append(_sheet(tenant, rule, fleet, mask, learned))
            except events.TooMuchToSearch:  # its alerts stay as they are, and no other rule waits
                log.warning("a rule asks for too much to be searched", rule=rule.name)
    return found, learned


def _sheet(tenant: Tenant, rule: Rule, fleet: Fleet, mask: Mask, learned: Learned) -> Sheet:
    if rule.aggregation == Rule.Aggregation.NEW:
        return _new(tenant, rule, fleet, mask, learned)
    if rule.aggregation == Rule.Aggregation.ABSENT:
        return _absent(tenant, rule, fleet, mask, learned)
    met = events.met(tenant.pk, matcher_of(rule, fleet.at - rule.window, fleet.at))
    found = counted(rule, met, fleet.ids[mask])
    return doubted(found) if fleet.catches_up else found


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


def _new(tenant: Tenant, rule: Rule, fleet: Fleet, mask: Mask, learned: Learned) -> Sheet:
    """How many patterns each server wrote within the window that nobody wrote before."""
    first_look: dict[int, _Times] = {}
    if rule.learned_at is None:
        first_look = _times(_before(tenant, rule, fleet.at))
        learned.until[rule] = fleet.at
    met = events.met(tenant.pk, matcher_of(rule, fleet.at - rule.window, fleet.at))
    fresh = _times(met)
    forgotten = fleet.at - FORGOTTEN
    learned.old.append((rule, forgotten))
    rows = Remembered.objects.filter(rule=rule, key__in=fresh, last_at__gte=forgotten)
    before = {row.key: row for row in rows}
    learned.fresh[rule] = first_look | {
        key: times for key, times in fresh.items() if key not in before and key not in first_look
    }
    for key, row in before.items():
        if fresh[key][1] - row.last_at > REFRESHED:
            row.last_at = fleet.at
            learned.later.append(row)
    firsts = {key: first for key, (first, _) in first_look.items()}
    firsts |= {key: row.first_at for key, row in before.items()}
    since = max(rule.learned_at or fleet.at, fleet.at - rule.window)
    new = [one for one in met if firsts.get(one.fingerprint, one.first_at) > since]
    found = new_patterns(rule, new, fleet.ids[mask])
    return doubted(found) if fleet.catches_up else found


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


def _absent(tenant: Tenant, rule: Rule, fleet: Fleet, mask: Mask, learned: Learned) -> Sheet:
    """How long each server has not logged it that did so once; one that is named need not have."""
    if rule.learned_at is None:
        met = _before(tenant, rule, fleet.at)
    else:
        met = events.met(tenant.pk, matcher_of(rule, rule.learned_at - LATE, fleet.at))
    known = {row.key: row for row in Remembered.objects.filter(rule=rule)}
    newest: dict[int, Met] = {}
    for one in met:
        other = newest.get(one.server_id)
        if other is None or other.last_at < one.last_at:
            newest[one.server_id] = one
    fresh = {key: (one.first_at, one.last_at) for key, one in newest.items() if key not in known}
    if rule.server_id is not None and rule.server_id not in known:
        fresh.setdefault(rule.server_id, (rule.changed_at, rule.changed_at))
    learned.fresh[rule] = fresh
    for key, one in newest.items():
        if key in known and one.last_at > known[key].last_at:
            known[key].last_at = one.last_at
            learned.later.append(known[key])
    if rule.learned_at is None or fleet.at - rule.learned_at > timedelta(minutes=1):
        learned.until[rule] = fleet.at
    lasts = {key: row.last_at for key, row in known.items()}
    lasts |= {key: last for key, (_, last) in fresh.items()}
    found = absent(rule, lasts, fleet.ids[mask], fleet.at)
    values = as_far_as_known(found.terms.limits, found.values, fleet.heard_for)
    return replace(found, values=values)


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


def _times(met: Iterable[Met]) -> dict[int, _Times]:
    """By pattern, when it was met first and last."""
    found: dict[int, _Times] = {}
    for one in met:
        first, last = found.get(one.fingerprint, (one.first_at, one.last_at))
        found[one.fingerprint] = (min(first, one.first_at), max(last, one.last_at))
    return found


def _before(tenant: Tenant, rule: Rule, at: datetime) -> list[Met]:
    """What was logged before the rule: of as long a time as can be searched."""
    for length in LEARNED_FROM:
        try:
            return events.met(tenant.pk, matcher_of(rule, at - length, at))
        except events.TooMuchToSearch:
            continue
    return []


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
