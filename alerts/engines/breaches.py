"""From sheets of numbers to alerts: what one evaluation of one tenant changes.

`chronos` and `aeolus` read; here the numbers of all rules are compared with their limits at once.
Only those past a limit, and those of a series on which something is pending or open, are looked at
one by one (`alerts.engines.judging`), and only the differences are written.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import groupby
from math import isnan
from typing import Any, NamedTuple

import msgspec
import numpy as np
from django.db.models import DateTimeField, ExpressionWrapper, F, Min, Q
from django.db.models.functions import Coalesce

from alerts import bulk
from alerts.engines import traces
from alerts.engines.judging import (
    NOTHING,
    Decision,
    Judged,
    State,
    judge_next,
    past_the_mildest,
)
from alerts.engines.left_out import LeftOut
from alerts.engines.sheets import Reading, Sheet
from alerts.lifecycle import incidents
from alerts.models import Alert, Judgement, Pending, Rule, Severity
from alerts.values import sentences
from alerts.values.sentences import Measured, Seen
from alerts.values.wording import number, span
from clouds import services
from clouds.models import Server
from sentinel_site.kit.tenancy import connection

GONE = timedelta(minutes=15)
_EVER = datetime.min.replace(tzinfo=UTC)
#: The same for rules by which missing data leaves alerts as they are: nothing waits for ever.
KEPT = timedelta(days=1)
#: The measurement in which agents tell of services.
SERVICES = "service"


def fingerprint(rule: Rule, server: int, tags: Mapping[str, str]) -> str:
    """Rule, server and tags as one short text; it names a series of alerts."""
    said = [rule.pk, server, sorted(tags.items())]
    text = msgspec.json.encode(said)
    if _WRITTEN_OTHERWISE.search(text):
        text = json.dumps(said, separators=(",", ":")).encode()
    return hashlib.sha256(text).hexdigest()[:40]


#: What the two of them write in different ways; a fingerprint must stay what it was.
_WRITTEN_OTHERWISE = re.compile(rb"[^ -~]|\\")


class _Open(NamedTuple):
    """What must be known of an open alert to judge its series."""

    pk: int
    fingerprint: str
    rule: int
    server: int
    service: str
    severity: str
    breached_at: datetime
    held: int
    since: datetime | None


class _Waiting(NamedTuple):
    pk: int
    fingerprint: str
    rule: int
    server: int
    since: datetime
    recovering: datetime | None
    missing_since: datetime | None


@dataclass
class _Standing:
    """What is open and pending of the rules, by fingerprint, and on which servers, by rule."""

    open: dict[str, _Open]
    waiting: dict[str, _Waiting]
    servers: dict[int, set[int]] = field(default_factory=lambda: defaultdict(set))

    @classmethod
    def of(cls, keys: Collection[int]) -> _Standing:
        alerts = Alert.objects.filter(rule__in=keys, resolved_at=None, server__isnull=False)
        pending = Pending.objects.filter(rule__in=keys)
        standing = cls(
            {row[1]: _Open(*row) for row in alerts.order_by().values_list(*_OPEN)},
            {row[1]: _Waiting(*row) for row in pending.values_list(*_WAITING)},
        )
        for alert in standing.open.values():
            standing.servers[alert.rule].add(alert.server)
        for waiting in standing.waiting.values():
            standing.servers[waiting.rule].add(waiting.server)
        return standing

    def of_rules(self, rules: Collection[int]) -> set[str]:
        """The fingerprints of all that is open and pending of these rules."""
        some: list[_Open | _Waiting] = [*self.open.values(), *self.waiting.values()]
        return {one.fingerprint for one in some if one.rule in rules}

    def state(self, name: str) -> State:
        alert, waiting = self.open.get(name), self.waiting.get(name)
        if waiting is not None:
            return State(waiting.since, waiting.recovering, alert.severity if alert else "")
        return State(alert.since, None, alert.severity) if alert is not None else NOTHING


_OPEN = (
    "pk", "fingerprint", "rule_id", "server_id", "service", "severity", "breached_at", "count",
    "held_since",
)  # fmt: skip
_WAITING = ("pk", "fingerprint", "rule_id", "server_id", "since", "recovering", "missing_since")


class _Case(NamedTuple):
    """One series of one rule that is looked at, what was decided of it, and what is told of that.

    There are words only where somebody may hear them.
    """

    rule: Rule
    name: str
    reading: Reading
    judged: Judged
    text: str = ""
    title: str = ""


@dataclass
class _Changes:
    """What is to be written at the end, all of a kind at once."""

    begun: list[dict[str, Any]] = field(default_factory=list)
    recovering: list[tuple[int, datetime | None]] = field(default_factory=list)
    ended: list[int] = field(default_factory=list)
    found_again: list[int] = field(default_factory=list)
    held: list[tuple[int, float, float]] = field(default_factory=list)
    opens: list[_Case] = field(default_factory=list)
    turns: dict[int, _Case] = field(default_factory=dict)  # by alert
    recovers: dict[int, _Case] = field(default_factory=dict)  # by alert
    kept: list[_Case] = field(default_factory=list)


def settle(
    sheets: Sequence[Sheet],
    at: datetime,
    listening_since: datetime | None = None,
    left_out: LeftOut | None = None,
) -> None:
    """Open, count, raise, lower and resolve what these numbers mean at this slot.

    A series without a number stays as it is, for no data is not good news; after GONE of listening
    it is taken for removed, unless its whole server is silent, in maintenance or in blackout. A
    service that its agent was told to watch no more is done with at once. Of a rule that cannot be
    judged, or not be told in words, all stays as it is. Call it in a transaction.
    """
    left_out = left_out or LeftOut()
    standing = _Standing.of({sheet.rule.pk for sheet in sheets})
    given_up = functools.cache(functools.partial(services.given_up, at))
    cases, seen = _judge_all(sheets, standing, given_up, at, left_out)
    changes = _Changes()
    for case in _in_words(cases, at, left_out):
        _note(changes, case, standing)
    _write(changes, at)
    seen |= standing.of_rules(left_out.rules)
    _end_what_is_gone(sheets, standing, seen, given_up, at, listening_since or _EVER)


def _judge_all(
    sheets: Sequence[Sheet],
    standing: _Standing,
    given_up: Callable[[], set[tuple[int, str]]],
    at: datetime,
    left_out: LeftOut,
) -> tuple[list[_Case], set[str]]:
    """The same of all sheets, but those of rules that are left out."""
    cases: list[_Case] = []
    seen: set[str] = set()
    for sheet in sheets:
        if sheet.rule.pk in left_out.rules:
            continue
        with left_out.around(sheet.rule):
            judged, present = _judge(sheet, standing, given_up, at)
            cases += judged
            seen |= present
    return [case for case in cases if case.rule.pk not in left_out.rules], seen


def _judge(
    sheet: Sheet, standing: _Standing, given_up: Callable[[], set[tuple[int, str]]], at: datetime
) -> tuple[list[_Case], set[str]]:
    """What is decided of a sheet's numbers, and the fingerprints of all series that are there."""
    rule, cases, seen = sheet.rule, [], set()
    for place in _worth_a_look(sheet, standing.servers.get(rule.pk)):
        reading = sheet.reading(place)
        name = fingerprint(rule, reading.server, reading.tags)
        if isnan(sheet.values[place]):
            seen.add(name)
            continue
        judged = judge_next(sheet.terms, standing.state(name), reading.value, at, reading.taken_at)
        if (
            judged.breach is not None
            and rule.measurement == SERVICES
            and (reading.server, reading.service) in given_up()
        ):
            continue  # the last that was said of it is not how it is
        seen.add(name)
        cases.append(_Case(rule, name, reading, judged))
    return cases, seen


def catch_up(sheets: Sequence[Sheet], at: datetime, left_out: LeftOut) -> None:
    """Note since when rules hold at a slot that was missed. Nothing opens or ends: it is past."""
    standing = _Standing.of({sheet.rule.pk for sheet in sheets})
    changes = _Changes()
    for case in _judge_all(sheets, standing, set, at, left_out)[0]:
        if not standing.state(case.name).severity:
            _note(changes, case, standing)
    late = [_wait(case) for case in changes.opens if case.name not in standing.waiting]
    bulk.insert(Pending, changes.begun + late, _ONCE)
    if changes.ended:
        Pending.objects.filter(pk__among=changes.ended).delete()


#: A series waits once.
_ONCE = "ON CONFLICT (fingerprint) DO NOTHING"


def _worth_a_look(sheet: Sheet, standing: set[int] | None) -> list[int]:
    """The places of numbers past a limit, and of servers on which the rule held before."""
    chosen = past_the_mildest(sheet.terms.limits, sheet.values)
    if standing:
        chosen |= np.isin(sheet.servers, np.fromiter(standing, np.int64, len(standing)))
    places: list[int] = np.flatnonzero(chosen).tolist()
    return places


def _note(changes: _Changes, case: _Case, standing: _Standing) -> None:
    """Sort a decision to the others of its kind."""
    alert, waiting = standing.open.get(case.name), standing.waiting.get(case.name)
    decision, state, breach = case.judged.decision, case.judged.state, case.judged.breach
    if waiting is None and state.since is not None:
        if decision is not Decision.OPENS and not (
            alert is not None and alert.since == state.since and state.recovering is None
        ):  # else the alert tells it
            changes.begun.append(_wait(case))
    elif waiting is not None and state.since is None:
        changes.ended.append(waiting.pk)
    elif waiting is not None and waiting.recovering != state.recovering:
        changes.recovering.append((waiting.pk, state.recovering))
    if waiting is not None and waiting.missing_since is not None and state.since is not None:
        changes.found_again.append(waiting.pk)
    began = waiting is None or waiting.recovering is None
    if traces.is_kept(decision, alert.held + 1 if alert else 0, began):
        changes.kept.append(case)
    if decision is Decision.OPENS:
        changes.opens.append(case)
    elif alert is not None and breach is not None:
        changes.held.append((alert.pk, case.reading.value, breach.limit))
        if decision is not Decision.HOLDS:
            changes.turns[alert.pk] = case
    elif alert is not None and decision is Decision.RECOVERS:
        changes.recovers[alert.pk] = case


def _wait(case: _Case) -> dict[str, Any]:
    state = case.judged.state
    return {
        "rule_id": case.rule.pk,
        "server_id": case.reading.server,
        "fingerprint": case.name,
        "since": state.since,
        "recovering": state.recovering,
    }


def _in_words(cases: Sequence[_Case], at: datetime, left_out: LeftOut) -> list[_Case]:
    """The cases with what is told of them; none of a rule of which one cannot be told."""
    hosts = _hosts({case.reading.server for case in cases if case.judged.decision in _TOLD})
    found: list[_Case] = []
    for _, of_rule in groupby(cases, key=lambda case: case.rule.pk):
        some = list(of_rule)
        if some[0].rule.pk not in left_out.rules:
            with left_out.around(some[0].rule):
                found += [
                    _worded(case, hosts[case.reading.server], at)
                    if case.judged.decision in _TOLD
                    else case
                    for case in some
                ]
    return [case for case in found if case.rule.pk not in left_out.rules]


_TOLD = (Decision.OPENS, Decision.RAISED, Decision.LOWERED, Decision.RECOVERS)


def _worded(case: _Case, host: str, at: datetime) -> _Case:
    rule, reading, breach = case.rule, case.reading, case.judged.breach
    if breach is None:
        return _Case(
            rule, case.name, reading, case.judged, _why_it_is_over(rule, reading, host, at)
        )
    since = case.judged.state.since
    assert since is not None  # noqa: S101  narrows the type
    text = _explain(rule, reading, breach.limit, host, since, at)
    opens = case.judged.decision is Decision.OPENS
    title = _title(rule, reading) if opens else ""
    return _Case(rule, case.name, reading, case.judged, text, title)


def _write(changes: _Changes, at: datetime) -> None:
    """What is opened and ended comes first: it waits for others before it touches a row."""
    incidents.open_all([_found(case) for case in changes.opens], at)
    alerts = _loaded([*changes.turns, *changes.recovers])  # what opened may have merged theirs
    incidents.recover_all(
        [
            incidents.Recovered(alerts[pk], case.reading.value, case.text, is_fine=True)
            for pk, case in changes.recovers.items()
        ],
        at,
    )
    incidents.note_severities([_turned(case, alerts[pk]) for pk, case in changes.turns.items()], at)
    if changes.held:
        _count(changes.held, at)
    bulk.insert(
        Judgement,
        [
            {
                "version": case.rule.version,
                "fingerprint": case.name,
                "at": at,
                "value": case.reading.value,
                "limit": case.judged.breach.limit if case.judged.breach else None,
                "decision": str(case.judged.decision),
            }
            for case in changes.kept
        ],
    )
    bulk.insert(Pending, changes.begun, _ONCE)
    if changes.ended:
        Pending.objects.filter(pk__among=changes.ended).delete()
    if changes.found_again:
        Pending.objects.filter(pk__among=changes.found_again).update(missing_since=None)
    if changes.recovering:
        Pending.objects.bulk_update(
            [Pending(pk=pk, recovering=since) for pk, since in changes.recovering],
            ["recovering"],
            batch_size=500,
        )


def _count(held: list[tuple[int, float, float]], at: datetime) -> None:
    """Once more each, in one statement: it is what most of a bad night consists of."""
    with connection.cursor() as cursor:
        cursor.execute(
            f'UPDATE "{Alert._meta.db_table}" AS a SET count = a.count + 1, value = g.value,'  # noqa: S608
            ' "limit" = g.reached, breached_at = %s'
            " FROM unnest(%s::bigint[], %s::float8[], %s::float8[]) AS g(id, value, reached)"
            " WHERE a.id = g.id",
            [at, *map(list, zip(*held, strict=True))],
        )


def _found(case: _Case) -> incidents.Found:
    rule, reading, breach = case.rule, case.reading, case.judged.breach
    since = case.judged.state.since
    assert breach is not None and since is not None  # noqa: S101, PT018  narrow the types
    return incidents.Found(
        rule=rule,
        fingerprint=case.name,
        reading=reading.value,
        limit=breach.limit,
        severity=Severity(breach.severity),
        server=reading.server,
        service=reading.service,
        subject=reading.subject,
        unit=reading.unit,
        text=case.text,
        held_since=since,
        title=case.title,
    )


def _turned(case: _Case, alert: Alert) -> incidents.Turned:
    breach = case.judged.breach
    assert breach is not None  # noqa: S101  narrows the type
    return incidents.Turned(alert, Severity(breach.severity), case.text)


def _end_what_is_gone(
    sheets: Sequence[Sheet],
    standing: _Standing,
    seen: set[str],
    given_up: Callable[[], set[tuple[int, str]]],
    at: datetime,
    heard_since: datetime,
) -> None:
    """Alerts and waits of series that had no number this time."""
    rules = {sheet.rule.pk: sheet.rule for sheet in sheets}
    ends: dict[int, str] = {}
    old = []
    for alert in standing.open.values():
        if alert.fingerprint in seen:
            continue
        of_service = rules[alert.rule].measurement == SERVICES
        if of_service and (alert.server, alert.service) in given_up():
            ends[alert.pk] = "The agent of {host} does not watch {service} any more."
        elif at - max(alert.breached_at, heard_since) > gone_after(rules[alert.rule]):
            old.append(alert)
    if old:
        up = _up(alert.server for alert in old)
        ends |= {
            alert.pk: f"Nothing was measured for {span(gone_after(rules[alert.rule]))}."
            for alert in old
            if alert.server in up
        }
    if ends:
        alerts = _loaded(ends)
        incidents.recover_all(
            [
                incidents.Recovered(
                    alert,
                    None,
                    ends[pk].format(host=alert.host, service=alert.service),
                )
                for pk, alert in alerts.items()
            ],
            at,
        )
        names = [one.fingerprint for one in standing.open.values() if one.pk in ends]
        Pending.objects.filter(fingerprint__in=names).delete()
    missing = [
        one
        for one in standing.waiting.values()
        if one.fingerprint not in seen and one.fingerprint not in standing.open
    ]
    _give_up_waiting(missing, at, heard_since)


def _give_up_waiting(missing: Sequence[_Waiting], at: datetime, heard_since: datetime) -> None:
    """Waits of series without a number begin anew only when those are taken for removed."""
    fresh = [one.pk for one in missing if one.missing_since is None]
    if fresh:
        Pending.objects.filter(pk__among=fresh).update(missing_since=at)
    old = [
        one
        for one in missing
        if one.missing_since is not None and at - max(one.missing_since, heard_since) > GONE
    ]
    if old:
        up = _up(one.server for one in old)
        Pending.objects.filter(pk__among=[one.pk for one in old if one.server in up]).delete()


def _up(servers: Iterable[int]) -> set[int]:
    """Those of these servers that report and are not muted: of others it says nothing."""
    found = Server.objects.filter(pk__among=set(servers), status=Server.Status.UP)
    return set(found.values_list("pk", flat=True))


def gone_after(rule: Rule) -> timedelta:
    """After which time a series without numbers is taken for removed."""
    return GONE if rule.no_data == Rule.NoData.IGNORE else KEPT


def next_to_hold(at: datetime) -> datetime | None:
    """When the next breach or recovery that has begun will have lasted as long as its rule asks."""
    waiting = Pending.objects.filter(rule__enabled=True).annotate(
        holds_at=ExpressionWrapper(
            Coalesce(
                F("recovering") + F("rule__recovery_hold"),
                F("since") + F("rule__hold"),
                output_field=DateTimeField(),
            ),
            output_field=DateTimeField(),
        )
    )
    found: datetime | None = waiting.filter(holds_at__gt=at).aggregate(first=Min("holds_at"))[
        "first"
    ]
    return found


def _loaded(pks: Iterable[int]) -> dict[int, Alert]:
    keys = list(pks)
    return Alert.objects.select_related("incident", "server", "rule").in_bulk(keys) if keys else {}


def _hosts(servers: set[int]) -> dict[int, str]:
    return (
        dict(Server.objects.filter(pk__among=servers).values_list("pk", "host")) if servers else {}
    )


def _seen(reading: Reading, host: str, since: datetime | None = None) -> Seen:
    return Seen(
        host, reading.service, reading.subject, reading.value, reading.unit, reading.tags, since
    )


def _why_it_is_over(rule: Rule, reading: Reading, host: str, at: datetime) -> str:
    if reading.recovered:
        return reading.recovered.replace("{host}", host)
    return sentences.over(Measured.by(rule), _seen(reading, host), at)


def _explain(
    rule: Rule, reading: Reading, limit: float, host: str, since: datetime, at: datetime
) -> str:
    """The reading in words; those that count or wait name a limit where it is worth it."""
    if not reading.explained:
        return sentences.holds(Measured.by(rule), _seen(reading, host, since), limit, at)
    said = reading.explained.replace("{host}", host)
    if rule.kind in _NAMES_NO_LIMIT or reading.title or limit == 1:
        return said
    return f"{said} (limit {number(limit, reading.unit)})"


_NAMES_NO_LIMIT = (Rule.Kind.SILENCE, Rule.Kind.FORECAST)


def _title(rule: Rule, reading: Reading) -> str:
    """What the incident is called: a service's by its state, others as their rule is."""
    if reading.explained:
        return reading.title or rule.name
    return sentences.title(Measured.by(rule), reading.service) or rule.name


def forget(at: datetime) -> None:
    """Drop what alerts of long ago were judged by."""
    Judgement.objects.filter(at__lt=at - traces.KEPT).delete()


def resolve_orphans(at: datetime) -> None:
    """An alert whose rule or server is gone, or its rule switched off, can't recover: it ends."""
    ended = ~Q(rule__enabled=True) | Q(server__status=Server.Status.RETIRED)
    orphans = Alert.objects.filter(ended, resolved_at=None, origin="").select_related(
        "rule", "server"
    )
    incidents.recover_all(
        [incidents.Recovered(alert, None, _why_it_ended(alert)) for alert in orphans], at
    )
    Pending.objects.filter(ended).delete()


def _why_it_ended(orphan: Alert) -> str:
    if orphan.rule is None or not orphan.rule.enabled:
        return "Its rule was switched off or deleted."
    return f"{orphan.host} was removed."
