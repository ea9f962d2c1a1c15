"""From readings to alerts: what one evaluation of one tenant changes.

`chronos` and `aeolus` read; here the readings of all rules are judged against the limits, compared
with what is pending and open, and only the differences are written.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from django.db.models import DateTimeField, ExpressionWrapper, F, Min

from alerts import incidents, sentences
from alerts.models import Alert, Pending, Rule, Severity
from alerts.sentences import Measured, Seen
from alerts.thresholds import Limits, judge
from alerts.wording import number, span
from clouds import services
from clouds.models import Server

GONE = timedelta(minutes=15)
#: The measurement in which agents tell of services.
SERVICES = "service"


@dataclass(frozen=True)
class Reading:
    """One number that a rule looks at, and whose it is.

    `explained` says what it means while the rule holds, `recovered` what when it no longer does;
    without them the words are those of `alerts.sentences`.
    `taken_at` is the time of its newest point: a rule holds from then, not from when it is seen.
    """

    server: int
    value: float
    service: str
    subject: str
    unit: str = ""
    explained: str = ""
    recovered: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    taken_at: datetime | None = None


def fingerprint(rule: Rule, server: int, tags: Mapping[str, str]) -> str:
    """Rule, server and tags as one short text; it names a series of alerts."""
    text = json.dumps([rule.pk, server, sorted(tags.items())], separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:40]


def limits_of(rule: Rule) -> Limits:
    return Limits(rule.comparison, rule.thresholds, rule.recovery)


def settle(readings: Mapping[Rule, Iterable[Reading]], at: datetime) -> None:
    """Open, count, raise, lower and resolve what these readings mean at this slot.

    A series without a reading stays as it is, for no data is not good news; after GONE it is taken
    for removed, unless its whole server is silent, in maintenance or in blackout. A service that
    its agent was told to watch no more is done with at once. Call it in a transaction.
    """
    rules = list(readings)
    open_alerts = {
        alert.fingerprint: alert
        for alert in Alert.objects.filter(rule__in=rules, resolved_at=None).select_related(
            "incident", "server", "rule"
        )
    }
    seen: set[str] = set()
    hosts = functools.cache(_hosts)
    given_up = functools.cache(functools.partial(services.given_up, at))
    pending = {one.fingerprint: one for one in Pending.objects.filter(rule__in=rules)}
    counted: list[Alert] = []
    founds: list[incidents.Found] = []
    recovered: list[incidents.Recovered] = []
    begun: list[Pending] = []
    ended: list[int] = []
    for rule, found in readings.items():
        limits = limits_of(rule)
        for reading in found:
            name = fingerprint(rule, reading.server, reading.tags)
            alert, waiting = open_alerts.get(name), pending.get(name)
            breach = judge(limits, reading.value, is_open=alert is not None)
            if (
                breach is not None
                and rule.measurement == SERVICES
                and (reading.server, reading.service) in given_up()
            ):
                continue  # the last that was said of it is not how it is
            seen.add(name)
            if breach is None:
                if waiting is not None:
                    ended.append(waiting.pk)
                if alert is not None:
                    said = reading.recovered or sentences.over(
                        Measured.by(rule), _seen(reading, alert.host), at
                    )
                    recovered.append(incidents.Recovered(alert, reading.value, said))
                continue
            if waiting is None:
                since = min(reading.taken_at or at, at)
                waiting = Pending(rule=rule, fingerprint=name, since=since)
                begun.append(waiting)
            if alert is not None:
                alert.count += 1
                alert.value, alert.limit, alert.breached_at = reading.value, breach.limit, at
                counted.append(alert)
                if alert.severity != breach.severity:
                    said = _explain(rule, reading, breach.limit, alert.host, waiting.since, at)
                    incidents.note_severity(alert, Severity(breach.severity), at, said)
            elif at - waiting.since >= rule.hold:
                founds.append(
                    incidents.Found(
                        rule=rule,
                        fingerprint=name,
                        reading=reading.value,
                        limit=breach.limit,
                        severity=Severity(breach.severity),
                        server=reading.server,
                        service=reading.service,
                        subject=reading.subject,
                        unit=reading.unit,
                        text=_explain(
                            rule,
                            reading,
                            breach.limit,
                            hosts()[reading.server],
                            waiting.since,
                            at,
                        ),
                        held_since=waiting.since,
                        title=_title(rule, reading),
                    )
                )
    for alert in open_alerts.values():
        if alert.fingerprint in seen:
            continue
        if (
            alert.rule is not None
            and alert.rule.measurement == SERVICES
            and (alert.server_id, alert.service) in given_up()
        ):
            text = f"The agent of {alert.host} does not watch {alert.service} any more."
            recovered.append(incidents.Recovered(alert, None, text))
        elif _is_gone(alert, at):
            text = f"Nothing was measured for {span(GONE)}."
            recovered.append(incidents.Recovered(alert, None, text))
    incidents.open_all(founds, at)
    incidents.recover_all(recovered, at)
    ended += [
        one.pk for one in pending.values() if one.fingerprint not in seen and at - one.since > GONE
    ]
    Pending.objects.bulk_create(begun, ignore_conflicts=True)
    Pending.objects.filter(pk__in=ended).delete()
    Alert.objects.bulk_update(counted, ["count", "value", "limit", "breached_at"], batch_size=500)


def next_to_hold(at: datetime) -> datetime | None:
    """When the next breach that has begun will have lasted as long as its rule demands."""
    waiting = Pending.objects.filter(rule__enabled=True).annotate(
        holds_at=ExpressionWrapper(F("since") + F("rule__hold"), output_field=DateTimeField())
    )
    found: datetime | None = waiting.filter(holds_at__gt=at).aggregate(first=Min("holds_at"))[
        "first"
    ]
    return found


def _hosts() -> dict[int, str]:
    return dict(Server.objects.values_list("pk", "host"))


def _seen(reading: Reading, host: str, since: datetime | None = None) -> Seen:
    return Seen(
        host, reading.service, reading.subject, reading.value, reading.unit, reading.tags, since
    )


def _explain(
    rule: Rule, reading: Reading, limit: float, host: str, since: datetime, at: datetime
) -> str:
    """The reading in words; those that count or wait name a limit where it is worth it."""
    if not reading.explained:
        return sentences.holds(Measured.by(rule), _seen(reading, host, since), limit, at)
    if rule.kind == Rule.Kind.SILENCE or limit == 1:
        return reading.explained
    return f"{reading.explained} (limit {number(limit, reading.unit)})"


def _title(rule: Rule, reading: Reading) -> str:
    """What the incident is called: a service's by its state, others as their rule is."""
    said = sentences.title(Measured.by(rule), reading.service) if not reading.explained else ""
    return said or rule.name


def _is_gone(alert: Alert, at: datetime) -> bool:
    up = alert.server is not None and alert.server.status == Server.Status.UP
    return up and at - alert.breached_at > GONE


def resolve_orphans(at: datetime) -> None:
    """An alert whose rule was switched off or deleted can't recover; it ends here."""
    orphans = Alert.objects.filter(resolved_at=None, origin="").exclude(rule__enabled=True)
    text = "Its rule was switched off or deleted."
    incidents.recover_all([incidents.Recovered(alert, None, text) for alert in orphans], at)
    Pending.objects.exclude(rule__enabled=True).delete()
