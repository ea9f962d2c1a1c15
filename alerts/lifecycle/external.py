"""Alerts that other tools raise and end: kept, counted, correlated and told of like our own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

from django.db import transaction
from django.db.models import Min

from accounts.timers import wake
from alerts import bulk
from alerts.lifecycle import incidents
from alerts.lifecycle.incidents import Found, Recovered, Turned
from alerts.models import Alert, Received, Severity
from clouds import queries as clouds
from metrics import outages
from sentinel_site.kit.problems import Problem
from sentinel_site.kit.tenancy import current_schema

#: The tools of other people whose alerts come in by a door.
FOREIGN = ("alerta", "alertmanager")
#: So many alerts of other tools may be open at once in one organization.
MOST_OPEN = 50_000
#: After an outage of ours whoever repeats an alert has so long to do it.
ANEW = timedelta(hours=1)


class TooManyOpen(Problem):
    """`refused` are the fingerprints for which there is no room."""

    status, code, title = 429, "too-many-open-alerts", "Too many alerts of other tools are open"
    headers = {"Retry-After": "60"}

    def __init__(self, refused: Iterable[str]) -> None:
        super().__init__(
            f"At most {MOST_OPEN} may be open. Send what is over as resolved, or a shorter timeout."
        )
        self.refused = frozenset(refused)


@dataclass(frozen=True)
class Statement:
    """What a tool says of one alert at one time. Its identity is (origin, `names`)."""

    origin: str
    #: What the tool knows the alert by: `{"resource": "web01", "event": "NodeDown"}`.
    names: Mapping[str, Any]
    #: None: it is over.
    severity: Severity | None
    #: What it is on, as the tool calls it; a server of ours is found by its host name.
    resource: str
    service: str
    subject: str
    title: str
    text: str
    #: What to do about it, or where that is written.
    advice: str = ""
    #: In the tool's own unit; None where it is no number.
    value: float | None = None
    #: Without a repetition until then it is over.
    expires_at: datetime | None = None
    #: The tool's own words, for giving them back.
    said: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_foreign(self) -> bool:
        return self.origin in FOREIGN

    @cached_property
    def fingerprint(self) -> str:
        text = json.dumps([self.origin, self.names], sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:40]


@transaction.atomic
def accept(statements: Iterable[Statement], at: datetime) -> dict[str, Alert]:
    """Open, count, raise, lower or end what these say; the alert of each fingerprint.

    Of several statements with one fingerprint the last decides. What ends and was not open has no
    alert in the answer. Raises TooManyOpen; then nothing was changed.
    """
    wanted = {statement.fingerprint: statement for statement in statements}
    incidents.one_at_a_time()
    before = _open_of(wanted)
    firing = {name: one for name, one in wanted.items() if one.severity is not None}
    _keep_within_limit([one for name, one in firing.items() if name not in before])
    servers = clouds.by_names({one.resource for one in firing.values()})
    incidents.open_all([_found(one, name, servers, at) for name, one in firing.items()], at)
    other = {name for name, one in before.items() if one.severity != wanted[name].severity}
    incidents.note_severities(
        [
            Turned(alert, severity, firing[name].text)
            for name, alert in _open_of(
                other & firing.keys()
            ).items()  # anew: theirs may have merged
            if (severity := firing[name].severity) is not None
        ],
        at,
    )
    _note_ends([name for name in wanted if name not in before and name not in firing], at)
    over = [before[name] for name in wanted if name in before and name not in firing]
    incidents.recover_all(
        [
            Recovered(alert, wanted[alert.fingerprint].value, _over(wanted[alert.fingerprint]))
            for alert in over
        ],
        at,
    )
    found = {**_open_of(firing), **{alert.fingerprint: alert for alert in over}}
    for alert in over:
        alert.resolved_at = max(at, alert.opened_at)
    _keep_words(found.values(), wanted, at)
    return found


def expire(at: datetime, listening_since: datetime | None = None) -> None:
    """End what its tool has not repeated in time; when nobody listened is no part of that.

    After an outage of ours there is ANEW for it, or as long as there ever was, if that is less.
    """
    incidents.one_at_a_time()
    over = [pk for pk, ends_at in _ends(at, listening_since).items() if ends_at <= at]
    if not over:
        return
    alerts = Alert.objects.filter(pk__among=over, resolved_at=None)
    incidents.recover_all(
        [
            Recovered(alert, None, f"{alert.origin} has not repeated it in time.")
            for alert in alerts
        ],
        at,
    )
    Received.objects.filter(pk__among=over).update(expires_at=None)


def next_expiry(at: datetime, listening_since: datetime | None = None) -> datetime | None:
    """When the next one is over unless it is repeated."""
    coming = Received.objects.filter(expires_at__gt=at).aggregate(first=Min("expires_at"))
    spared = _ends(at, listening_since).values()
    return min((one for one in (coming["first"], *spared) if one), default=None)


def _ends(at: datetime, listening_since: datetime | None) -> dict[int, datetime]:
    """When what was to be repeated before now is over: later by the outages since it was sent."""
    past = Received.objects.filter(expires_at__lte=at).order_by()
    rows = list(past.values_list("pk", "repeated_at", "expires_at"))
    if not rows:
        return {}
    lost = outages.Lost(outages.between(min(repeated_at for _, repeated_at, _ in rows), at))
    ends: dict[int, datetime] = {}
    for pk, repeated_at, expires_at in rows:
        if expires_at is not None:
            ends[pk] = expires_at + lost.since(repeated_at)
            if listening_since is not None:
                anew = listening_since + min(expires_at - repeated_at, ANEW)
                ends[pk] = max(ends[pk], anew)
    return ends


def _open_of(wanted: Collection[str]) -> dict[str, Alert]:
    if not wanted:
        return {}
    rows = Alert.objects.filter(resolved_at=None, fingerprint__in=list(wanted))
    return {row.fingerprint: row for row in rows.select_related("incident", "server__group")}


def _note_ends(names: Collection[str], at: datetime) -> None:
    """What people resolved is over at its tool, too: when it comes again, it is no longer that."""
    if names:
        lately = Alert.objects.filter(resolved_by_hand=True, resolved_at__gte=at - incidents.REOPEN)
        lately.filter(fingerprint__in=list(names)).update(resolved_by_hand=False)


def _keep_within_limit(new: Sequence[Statement]) -> None:
    """The limit is of other people's tools; what watches for us, as check-ins do, has none."""
    foreign = [statement.fingerprint for statement in new if statement.is_foreign]
    if not foreign:
        return
    room = MOST_OPEN - Alert.objects.filter(resolved_at=None, origin__in=FOREIGN).count()
    if len(foreign) > room:
        raise TooManyOpen(foreign[max(0, room) :])


def _found(statement: Statement, name: str, servers: Mapping[str, int], at: datetime) -> Found:
    return Found(
        rule=None,
        fingerprint=name,
        reading=statement.value,
        limit=None,
        severity=statement.severity or Severity.WARNING,
        server=servers.get(statement.resource),
        resource=statement.resource,
        service=statement.service,
        subject=statement.subject,
        unit="",
        text=statement.text,
        held_since=at,
        title=statement.title,
        origin=statement.origin,
    )


def _over(statement: Statement) -> str:
    return statement.text or f"{statement.origin} says that it is over."


def _keep_words(alerts: Iterable[Alert], wanted: Mapping[str, Statement], at: datetime) -> None:
    """The sender's own words beside each alert, in place of what it said before."""
    rows = []
    ends: list[datetime] = []
    for alert in alerts:
        statement = wanted[alert.fingerprint]
        expires_at = statement.expires_at if statement.severity is not None else None
        row: dict[str, Any] = {
            "text": bulk.fit(statement.text, Received.TEXT),
            "advice": bulk.fit(statement.advice, 2000),
            "said": dict(statement.said),
            "repeated_at": at,
            "expires_at": expires_at,
        }
        if expires_at is not None:
            ends.append(expires_at)
        alert.received = Received(alert=alert, **row)
        rows.append({"alert_id": alert.pk, **row})
    bulk.insert(Received, rows, _IN_PLACE)
    if ends:
        wake(current_schema(), max(at, min(ends)))


_IN_PLACE = (
    "ON CONFLICT (alert_id) DO UPDATE SET text = excluded.text, advice = excluded.advice,"
    " said = excluded.said, repeated_at = excluded.repeated_at, expires_at = excluded.expires_at"
)
