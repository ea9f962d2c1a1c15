"""Alerts and incidents: open, count, raise, acknowledge, recover, resolve."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from django.db import transaction
from django.db.models import Exists, F, Min, OuterRef, Q, QuerySet

from accounts.models import User
from alerts import bulk
from alerts.dispatching import dispatch
from alerts.lifecycle import gathering, history, joining
from alerts.lifecycle.history import Line
from alerts.models import Alert, Event, Incident, Notification, Pending, Rule, Severity
from alerts.push import live
from alerts.values.wording import span
from clouds import servers, suppression
from clouds.models import Suppression
from clouds.suppression import NO_SERVER
from sentinel_site.kit.problems import Problem
from sentinel_site.kit.tenancy import connection, current_schema

#: What is back so soon after its end is the same incident, ...
RETURNS = timedelta(hours=1)
#: ... and comes and goes if it was away no longer than this.
REOPEN = timedelta(minutes=15)
#: What came and went is calm when it has stayed as it is for so long, ...
CALM = timedelta(minutes=30)
#: ... or twice as long as it ever stayed before, but no longer than this.
LONGEST_CALM = timedelta(minutes=90)
#: That it is quiet counts once reports were heard for so long.
HEARD = timedelta(minutes=10)


class AlreadyAcknowledged(Problem):
    status, code, title = 409, "already-acknowledged", "Incident is taken"


class AlreadyResolved(Problem):
    status, code, title = 409, "already-resolved", "Incident is resolved already"


class Found(NamedTuple):
    """A breach that has held long enough, with all that an alert of it must say.

    `rule` is None where another tool judged; `origin` then names it. What is on no server of ours
    says in `resource` what it is on.
    """

    rule: Rule | None
    fingerprint: str
    reading: float | None
    limit: float | None
    severity: Severity
    server: int | None
    service: str
    subject: str
    unit: str
    text: str
    held_since: datetime
    title: str
    origin: str = ""
    resource: str = ""


class Recovered(NamedTuple):
    """An alert that is over; `text` says why. A value of None leaves the one last judged.

    `is_fine`: its numbers say so, and may say otherwise soon.
    """

    alert: Alert
    value: float | None
    text: str
    is_fine: bool = False


class Turned(NamedTuple):
    """An open alert that is worse or less bad now; `text` says why."""

    alert: Alert
    severity: Severity
    text: str = ""


class Outcome(NamedTuple):
    """What became of one that was found: a new alert, or a count on the open one."""

    alert: int
    incident: int
    is_new: bool


def open_all(founds: Sequence[Found], at: datetime) -> dict[str, Outcome]:
    """See to it that each of these has its one open alert; the outcome by fingerprint.

    An alert is made, opened again, or counted once more. One that was resolved by hand while it
    held all along opens again with its incident. The number of statements is the same for any
    number of founds, but for those opened again.
    """
    if not founds:
        return {}
    with transaction.atomic():
        return _open_or_count(founds, at)


def _open_or_count(founds: Sequence[Found], at: datetime) -> dict[str, Outcome]:
    one_at_a_time()
    wanted = {found.fingerprint: found for found in founds}
    known = _known(wanted, at)
    outcomes: dict[str, Outcome] = {}
    counted, again, new = [], [], []
    for name, found in wanted.items():
        alert = known.get(name)
        if alert is None:
            new.append(found)
            continue
        outcomes[name] = Outcome(alert.pk, alert.incident_id, is_new=False)
        if alert.resolved_at is None:
            counted.append({"id": alert.pk, "value": found.reading, "breached_at": at})
        elif not _is_put_away(alert, at):
            again.append((alert, found))
    bulk.update(
        Alert,
        counted,
        "count = row.count + 1, value = given.value, breached_at = given.breached_at",
    )
    _reopen(again, at)
    outcomes |= _open(new, at)
    changed = [*new, *(found for _, found in again)]
    if changed:
        _settle_health(_servers(found.server for found in changed))
        live.announce_on_commit("alert")
        live.announce_on_commit("incident")
    return outcomes


def one_at_a_time() -> None:
    """Alerts of a tenant are opened and ended by one transaction after the other, to its end.

    Whoever does takes it before any row of the tenant's, of rules and check-ins too, so that nobody
    waits for it while holding what its owner wants.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_advisory_xact_lock(%s, hashtext(%s))", [_INCIDENTS, current_schema()]
        )


_INCIDENTS = 0x5E28


def _known(wanted: Mapping[str, Found], at: datetime) -> dict[str, Alert]:
    """The alert of each fingerprint that is open, or is to open again.

    That is one which was resolved by hand while it held all along, and one that ended so shortly
    ago that it is the same trouble; a symptom only while its incident is open. Of other tools it is
    not known since when it holds: what was resolved by hand is the same for as long as any, or
    while it is shelved.
    """
    found: dict[str, Alert] = {}
    rows = Alert.objects.select_related("incident").extra(  # one parameter for any number
        where=["alerts_alert.fingerprint = ANY(%s)"], params=[list(wanted)]
    )
    lately = Q(resolved_by_hand=False, resolved_at__gte=at - RETURNS) & (
        Q(incident__resolved_at=None) | ~Q(part=Alert.Part.SYMPTOM)
    )
    for alert in rows.filter(Q(resolved_at=None) | Q(resolved_by_hand=True) | lately).order_by(
        F("resolved_at").asc(nulls_last=True), "pk"
    ):
        ended = alert.resolved_at
        if (
            not alert.resolved_by_hand
            or ended is None
            or ended >= _same_since(wanted[alert.fingerprint], at)
            or (alert.rule_id is None and _is_put_away(alert, at))
        ):
            found[alert.fingerprint] = alert
    return found


def _same_since(found: Found, at: datetime) -> datetime:
    return found.held_since if found.rule is not None else at - REOPEN


def _is_put_away(alert: Alert, at: datetime) -> bool:
    """Resolved by hand, and shelved: it stays away until then."""
    until = alert.incident.shelved_until
    return alert.resolved_by_hand and until is not None and until > at


def _open(founds: Sequence[Found], at: datetime) -> dict[str, Outcome]:
    """New alerts: in the incident of their cause, or each in one of its own."""
    if not founds:
        return {}
    muted = suppression.active_for({found.server or NO_SERVER for found in founds}, at)
    fresh = dict(zip(bulk.take_ids(Alert, len(founds)), founds, strict=True))
    placed = joining.place([_row(pk, found) for pk, found in fresh.items()], at)
    bulk.insert(
        Incident,
        [
            {
                "id": one.pk,
                "title": bulk.fit(one.title, 300),
                "severity": str(one.severity),
                "opened_at": at,
                "cause": one.cause,
                "cause_key": one.cause_key,
                "evidence": one.evidence,
            }
            for one in placed.new
        ],
    )
    bulk.insert(
        Alert,
        [
            {
                "id": pk,
                "incident_id": placed.homes[pk].incident.pk,
                "rule_id": found.rule.pk if found.rule else None,
                "server_id": found.server,
                "fingerprint": found.fingerprint,
                "severity": str(found.severity),
                "service": bulk.fit(found.service, 200) or "system",
                "subject": bulk.fit(found.subject or _name(found), 300),
                "title": bulk.fit(_name(found), 300),
                "value": found.reading,
                "limit": found.limit,
                "unit": bulk.fit(found.unit, 20),
                "count": 1,
                "held_since": found.held_since if found.rule else None,
                "opened_at": at,
                "breached_at": at,
                "resolved_by_hand": False,
                "part": placed.homes[pk].part,
                "suppressed": _suppressed(found, muted),
                "origin": found.origin,
                "resource": bulk.fit(found.resource, 255),
            }
            for pk, found in fresh.items()
        ],
    )
    history.write(placed.lines, at)
    return {
        found.fingerprint: Outcome(pk, placed.homes[pk].incident.pk, is_new=True)
        for pk, found in fresh.items()
    }


def _suppressed(found: Found, muted: Mapping[int, Suppression]) -> str:
    """Why nobody is told of it; empty: people are."""
    holds = muted.get(found.server or NO_SERVER)
    return str(holds.kind) if holds else ""


def _row(pk: int, found: Found) -> gathering.Row:
    """A new alert as it is compared with others."""
    rule = found.rule
    return gathering.Row(
        key=pk,
        incident=0,
        server=found.server,
        service=found.service,
        subject=found.subject,
        severity=str(found.severity),
        at=found.held_since,
        kind=rule.kind if rule else "",
        measurement=rule.measurement if rule else "",
        field=rule.field if rule else "",
        title=_name(found),
        called=found.title,
        text=found.text,
    )


def _name(found: Found) -> str:
    return found.rule.name if found.rule else found.title


def _reopen(again: Sequence[tuple[Alert, Found]], at: datetime) -> None:
    """Alerts that are back, with their incidents; people are told once that it comes and goes."""
    if not again:
        return
    muted = suppression.active_for({found.server or NO_SERVER for _, found in again}, at)
    bulk.update(
        Alert,
        [
            {
                "id": alert.pk,
                "severity": str(found.severity),
                "value": found.reading,
                "breached_at": at,
                "held_since": found.held_since if found.rule else None,
                "suppressed": _suppressed(found, muted),
            }
            for alert, found in again
        ],
        "resolved_at = NULL, resolved_by_hand = FALSE, severity = given.severity,"
        " value = given.value, breached_at = given.breached_at, count = row.count + 1,"
        " held_since = given.held_since,"
        " suppressed = given.suppressed",
    )
    by_incident: dict[int, list[tuple[Alert, Found]]] = {}
    for alert, found in again:
        by_incident.setdefault(alert.incident_id, []).append((alert, found))
    rows = Incident.objects.select_for_update().order_by("pk").in_bulk(by_incident)
    reopened = history.times(by_incident, Event.Kind.REOPENED)
    flapped = history.times(by_incident, Event.Kind.FLAPPING)
    raised = _raised_by(by_incident, rows, at)
    in_turns = _told_as_back([pk for pk in by_incident if rows[pk].flapping_until is not None])
    lines, changed = [], []
    for pk, back in by_incident.items():
        incident, (alert, found) = rows[pk], back[0]
        was_open = incident.resolved_at is None
        severities = [one.severity for _, one in back]
        incident.severity = worst(
            [*severities, incident.severity] if was_open else severities
        ) or Severity(incident.severity)
        if alert.resolved_by_hand:
            incident.acknowledged_at = incident.taken_by = None
            text = f"It was resolved by hand, but still holds. {found.text}"
            told = f"reopened:{reopened[pk] + 1}"
            lines.append(Line(incident, Event.Kind.REOPENED, text, told))
        elif incident.flapping_until is not None:
            _turn(incident, at)
            if pk not in in_turns:  # its end was not told yet
                incident.calm_after = max(incident.calm_after or CALM, CALM)
                incident.flapping_until = at + incident.calm_after
                calm = span(incident.calm_after or CALM)
                text = (
                    f"It comes and goes. You are told of its end when it has been fine for {calm}."
                )
                told = f"flapping:{flapped[pk] + 1}"
                lines.append(
                    Line(incident, Event.Kind.FLAPPING, text, "" if pk in raised else told)
                )
        elif not was_open:
            pause = _begin_to_flap(incident, alert, at)
            calm = span(incident.calm_after or CALM)
            end = f"You are told of its end when it has been fine for {calm}."
            if pause > REOPEN:  # whoever had it thinks that it is over
                incident.acknowledged_at = incident.taken_by = None
                text = f"It is back after {span(pause)}. {end} {found.text}"
                told = f"reopened:{reopened[pk] + 1}"
                lines.append(Line(incident, Event.Kind.REOPENED, text, told))
            else:
                text = f"It is back after {span(pause)}: it comes and goes. {end} {found.text}"
                told = f"flapping:{flapped[pk] + 1}"
                lines.append(
                    Line(incident, Event.Kind.FLAPPING, text, "" if pk in raised else told)
                )
        said = lines[-1] if lines and lines[-1].incident is incident else None
        if pk in raised and (said is None or said.kind != Event.Kind.REOPENED):
            text, told = raised[pk]
            lines.append(Line(incident, Event.Kind.RAISED, text, told))
        incident.resolved_at = None
        changed.append(incident)
    Incident.objects.bulk_update(
        changed,
        ["resolved_at", "severity", "acknowledged_at", "taken_by", "flapping_until", "calm_after"],
        batch_size=1000,
    )
    history.write(lines, at)


def _raised_by(
    by_incident: Mapping[int, Sequence[tuple[Alert, Found]]],
    rows: Mapping[int, Incident],
    at: datetime,
) -> dict[int, tuple[str, str]]:
    """Incidents that are worse than ever lately by what is back: why, and the transition."""
    worse: dict[int, tuple[Alert, Found]] = {}
    for pk, back in by_incident.items():
        worst_back = max(back, key=lambda one: one[1].severity.rank)
        if worst_back[1].severity.rank > Severity(rows[pk].severity).rank:
            worse[pk] = worst_back
    if not worse:
        return {}
    times = history.times(worse, Event.Kind.RAISED)
    lately = _worst_lately(worse, at)
    found: dict[int, tuple[str, str]] = {}
    for pk, (alert, back_as) in worse.items():
        if back_as.severity.rank <= lately.get(pk, -1):
            continue  # it goes up and down, and this was told
        is_cause = alert.part != Alert.Part.SYMPTOM
        text = f"It is back, and now {back_as.severity.label.lower()}. {back_as.text}".strip()
        found[pk] = text, f"raised:{times[pk] + 1}" if is_cause else f"opened:{pk}"
    return found


def _told_as_back(incidents: Sequence[int]) -> set[int]:
    """Those of which people know that they are back since they opened, or were calm or over."""
    if not incidents:
        return set()
    back = (Event.Kind.FLAPPING, Event.Kind.REOPENED)
    begins = (Event.Kind.OPENED, Event.Kind.CALM, Event.Kind.RESOLVED)
    lines = Event.objects.filter(incident__among=incidents, kind__in=[*back, *begins])
    latest = dict(lines.order_by("pk").values_list("incident", "kind"))
    return {pk for pk, kind in latest.items() if kind in back}


def _begin_to_flap(incident: Incident, alert: Alert, at: datetime) -> timedelta:
    """From now on the incident comes and goes; how long it was away."""
    ended = alert.resolved_at or at
    pause, held = at - ended, ended - alert.opened_at
    longest = max(pause, held if held <= RETURNS else timedelta())
    incident.calm_after = min(max(CALM, 2 * longest), LONGEST_CALM)
    incident.flapping_until = at + incident.calm_after
    return pause


def _turn(incident: Incident, at: datetime) -> None:
    """It came or went once more: how long it stayed says how slowly it does so."""
    calm = incident.calm_after or CALM
    if incident.flapping_until is not None:
        stayed = at - (incident.flapping_until - calm)
        incident.calm_after = max(calm, min(2 * stayed, LONGEST_CALM))
    incident.flapping_until = at + (incident.calm_after or calm)


def note_severities(turned: Sequence[Turned], at: datetime) -> None:
    """Changes of severity update the open alerts; people are told of incidents that became worse.

    A symptom that becomes worse is told only to whom the incident was not bad enough before. The
    number of statements is the same for any number of alerts.
    """
    turns = {one.alert.pk: one for one in turned if one.alert.severity != one.severity}
    updated = bulk.update(
        Alert,
        [{"id": pk, "severity": str(one.severity)} for pk, one in turns.items()],
        "severity = given.severity",
        where="row.resolved_at IS NULL",
        returning="id incident_id server_id part",  # it may have gone to another incident since
    )
    if not updated:
        return
    worst_turns: dict[int, tuple[int, bool, Turned]] = {}
    for pk, incident, _, part in sorted(updated):
        rank, is_cause = turns[pk].severity.rank, part != Alert.Part.SYMPTOM
        known = worst_turns.get(incident)
        if known is None or (rank, is_cause) > known[:2]:
            worst_turns[incident] = rank, is_cause, turns[pk]
        turns[pk].alert.severity = turns[pk].severity
    open_ones = Alert.objects.filter(incident__among=worst_turns, resolved_at=None).order_by()
    severities: dict[int, list[str]] = {incident: [] for incident in worst_turns}
    for incident, severity in open_ones.values_list("incident", "severity").distinct():
        severities[incident].append(severity)
    times = history.times(worst_turns, Event.Kind.RAISED)
    lately = _worst_lately(worst_turns, at)
    lines, changed = [], []
    for incident in (
        Incident.objects.select_for_update().filter(pk__among=worst_turns).order_by("pk")
    ):
        _, is_cause, turn = worst_turns[incident.pk]
        before = Severity(incident.severity)
        now = incident.severity = worst(severities[incident.pk]) or turn.severity
        if now == before:
            continue
        changed.append({"id": incident.pk, "severity": str(now)})
        text = f"Now {turn.severity.label.lower()}. {turn.text}".strip()
        if now.rank > before.rank:
            raised = f"raised:{times[incident.pk] + 1}"
            if now.rank <= lately.get(incident.pk, -1):
                raised = ""  # it goes up and down, and this was told
            told = raised if is_cause else f"opened:{incident.pk}"
            lines.append(Line(incident, Event.Kind.RAISED, text, told))
        else:
            lines.append(Line(incident, Event.Kind.LOWERED, text))
    bulk.update(Incident, changed, "severity = given.severity")
    history.write(lines, at)
    _settle_health(_servers(server for _, _, server, _ in updated))
    live.announce_on_commit("alert")
    if changed:
        live.announce_on_commit("incident")


#: Transitions that tell how bad an incident is, and those of them after which that counts anew.
_TELLS = ("opened:", "reopened:", "raised:", "flapping:", "unmuted:", "returned:")
_ANEW = ("opened:", "reopened:")


def _worst_lately(incidents: Iterable[int], at: datetime) -> dict[int, int]:
    """As how bad (its rank) people were told of each within RETURNS, since it last opened."""
    rows = Notification.objects.filter(incident__among=incidents, created_at__gt=at - RETURNS)
    found: dict[int, int] = {}
    began: dict[int, str] = {}
    for incident, transition, severity in rows.order_by("pk").values_list(
        "incident", "transition", "severity"
    ):
        if not transition.startswith(_TELLS):
            continue
        if transition.startswith(_ANEW) and began.get(incident) != transition:
            began[incident] = transition
            found.pop(incident, None)
        found[incident] = max(found.get(incident, -1), Severity(severity).rank)
    return found


def recover_all(
    recovered: Sequence[Recovered],
    at: datetime,
    by: User | None = None,
    by_hand: bool = False,
) -> None:
    """End these alerts, and each incident with the last of its alerts.

    A slot may lie a little ahead of the clock, so that a person can be quicker than it. The number
    of statements is the same for any number of alerts.
    """
    if recovered:
        with transaction.atomic():
            _recover(recovered, at, by, by_hand)


def _recover(recovered: Sequence[Recovered], at: datetime, by: User | None, by_hand: bool) -> None:
    one_at_a_time()
    ended = bulk.update(
        Alert,
        [
            {"id": one.alert.pk, "value": one.value, "resolved_at": at, "resolved_by_hand": by_hand}
            for one in recovered
        ],
        "resolved_at = greatest(given.resolved_at, row.opened_at),"
        " value = coalesce(given.value, row.value), resolved_by_hand = given.resolved_by_hand",
        where="row.resolved_at IS NULL",
        returning="id incident_id server_id",
    )
    if not ended:
        return
    said = {one.alert.pk: one.text for one in recovered}
    texts = {incident: said[alert] for alert, incident, _ in sorted(ended)}
    if by_hand:
        _keep_since_when([alert for alert, _, _ in ended])
        Incident.objects.filter(pk__among=texts).update(flapping_until=None, calm_after=None)
    flapping = list(Incident.objects.filter(pk__among=texts, flapping_until__isnull=False))
    for row in flapping:
        _turn(row, at)
    Incident.objects.bulk_update(flapping, ["flapping_until", "calm_after"], batch_size=1000)
    # asked for apart: as a part of the update below PostgreSQL compares each with each
    left_open = set(
        Alert.objects.filter(incident__among=texts, resolved_at=None)
        .order_by()
        .values_list("incident", flat=True)
        .distinct()
    )
    ending = [pk for pk in texts if pk not in left_open]
    fine = {one.alert.pk for one in recovered if one.is_fine}
    judged = {incident for alert, incident, _ in ended if alert in fine}
    held_back = _hold_back([pk for pk in ending if pk in judged], texts, at)
    over = bulk.update(
        Incident,
        [{"id": pk, "resolved_at": at} for pk in ending],
        "resolved_at = greatest(given.resolved_at, row.opened_at), untold = FALSE",
        where="row.resolved_at IS NULL AND row.flapping_until IS NULL",
    )
    incidents = {one.pk: one for one in Incident.objects.filter(pk__among=[pk for (pk,) in over])}
    times = history.times(incidents, Event.Kind.RESOLVED)
    dispatch.withdraw_held(incidents, at)
    ends = [
        Line(row, Event.Kind.RESOLVED, texts[pk], f"resolved:{times[pk] + 1}")
        for pk, row in sorted(incidents.items())
    ]
    history.write([*held_back, *ends], at, by)
    _settle_health(_servers(server for _, _, server in ended))
    live.announce_on_commit("alert")
    live.announce_on_commit("incident")


def _keep_since_when(alerts: Sequence[int]) -> None:
    """What people resolve may hold all the same: then it opens again, as old as it is."""
    ours = Alert.objects.filter(pk__among=alerts, rule__isnull=False, server__isnull=False)
    Pending.objects.bulk_create(
        [
            Pending(rule_id=rule, server_id=server, fingerprint=name, since=since)
            for rule, server, name, since in ours.values_list(
                "rule_id", "server_id", "fingerprint", "held_since"
            )
            if since is not None
        ],
        ignore_conflicts=True,
    )


def _hold_back(ending: Sequence[int], texts: Mapping[int, str], at: datetime) -> list[Line]:
    """Keep open what people were told of twice lately, till it is surely over; lines that say so.

    Who is told of its end at once, and then that it is back, gets four messages within the hour.
    """
    lately = Notification.objects.filter(
        incident__among=ending, created_at__gt=at - RETURNS, due_at__lte=at
    )
    got_worse = lately.filter(transition__startswith="raised:").order_by()
    candidates = list(got_worse.values_list("incident", flat=True).distinct())
    if not candidates:
        return []
    told: Counter[tuple[int, int]] = Counter()
    rows = lately.filter(incident__in=candidates).order_by("pk")
    for incident, channel, transition in rows.values_list("incident", "channel", "transition"):
        if transition.startswith("resolved:"):
            del told[incident, channel]
        elif transition.startswith(("opened:", "reopened:", "raised:")):
            told[incident, channel] += 1
    twice = {incident for (incident, _), times in told.items() if times > 1}
    open_ones = Incident.objects.filter(pk__in=twice, resolved_at=None, flapping_until=None)
    held = list(open_ones.filter(acknowledged_at=None))  # who has it wants to know at once
    lines = []
    for one in held:
        one.flapping_until, one.calm_after = at + REOPEN, REOPEN
        later = f"You are told of its end when it has been fine for {span(REOPEN)}."
        lines.append(Line(one, Event.Kind.LOWERED, f"{texts[one.pk]} {later}"))
    Incident.objects.bulk_update(held, ["flapping_until", "calm_after"], batch_size=1000)
    return lines


@transaction.atomic
def acknowledge(incident: Incident, by: User | None, at: datetime) -> None:
    """Record who has it; None is a program's key. A second person is told that it is taken.

    One that is fine, and of which only its end is not told yet, ends with it: whoever has it wants
    to know. Raises AlreadyAcknowledged, AlreadyResolved.
    """
    if incident.flapping_until is not None:
        one_at_a_time()
    free = Incident.objects.filter(pk=incident.pk, acknowledged_at=None, resolved_at=None)
    if not free.update(acknowledged_at=at, taken_by=by.pk if by else None):
        incident.refresh_from_db()
        if incident.resolved_at is not None:
            raise AlreadyResolved("There is nothing left to take.", incident=incident.pk)
        raise AlreadyAcknowledged("Someone else has it.", incident=incident.pk)
    incident.refresh_from_db()
    incident.event_set.create(kind=Event.Kind.ACKNOWLEDGED, by=by.pk if by else None, at=at)
    times = incident.event_set.filter(kind=Event.Kind.ACKNOWLEDGED).count()
    dispatch.queue(incident, f"acknowledged:{times}", at)
    if incident.flapping_until is not None and not _told_as_back([incident.pk]):
        _end_calm([incident.pk], at, "It is fine.")
        incident.refresh_from_db()
    live.announce_on_commit("incident", incident.pk)


@transaction.atomic
def resolve(incident: Incident, by: User | None, at: datetime) -> None:
    """End it by hand. If its rule still holds at the next slot, it opens again.

    Raises AlreadyResolved.
    """
    one_at_a_time()
    open_alerts = list(Alert.objects.filter(incident=incident, resolved_at=None))
    if not open_alerts and _end_calm([incident.pk], at, "Resolved by hand.", by):
        incident.refresh_from_db()
        return
    if not open_alerts:
        raise AlreadyResolved(incident=incident.pk)
    text = "Resolved by hand."
    recover_all([Recovered(alert, None, text) for alert in open_alerts], at, by, by_hand=True)
    incident.refresh_from_db()


@transaction.atomic
def settle(at: datetime, listening_since: datetime | None = None) -> None:
    """What time alone changes: causes that turn up later, what is calm, what was shelved.

    That all is quiet says nothing where nobody listened.
    """
    one_at_a_time()
    joining.look_again(at)
    if listening_since is None or at - listening_since >= HEARD:
        _note_calm(at)
    _bring_back(at)


def next_change(at: datetime, listening_since: datetime | None = None) -> datetime | None:
    """When time alone changes an incident next."""
    open_ones = Incident.objects.filter(resolved_at=None)
    waiting = open_ones.filter(Q(flapping_until__gt=at) | Q(shelved_until__gt=at))
    found = waiting.aggregate(
        calm=Min("flapping_until", filter=Q(flapping_until__gt=at)),
        back=Min("shelved_until", filter=Q(shelved_until__gt=at)),
    )
    if listening_since is not None and open_ones.filter(flapping_until__lte=at).exists():
        found["heard"] = max(listening_since + HEARD, at)
    return min((one for one in found.values() if one), default=None)


def _note_calm(at: datetime) -> None:
    """What came and went has neither come nor gone for long enough: told as it now is."""
    calm = Incident.objects.filter(flapping_until__lte=at, resolved_at=None).order_by("pk")
    still = list(calm.filter(Exists(_open_alerts())))
    over = calm.filter(~Exists(_open_alerts())).values_list("pk", flat=True)
    _end_calm(list(over), at)
    times = history.times([one.pk for one in still], Event.Kind.CALM)
    flapped = history.times([one.pk for one in still], Event.Kind.FLAPPING)
    lines = []
    for one in still:
        text = f"It no longer comes and goes: it has held for {span(one.calm_after or CALM)}."
        told = f"calm:{times[one.pk] + 1}" if flapped[one.pk] else ""
        lines.append(Line(one, Event.Kind.CALM, text, told))
        one.flapping_until = one.calm_after = None
    Incident.objects.bulk_update(still, ["flapping_until", "calm_after"], batch_size=1000)
    history.write(lines, at)


def _open_alerts() -> QuerySet[Alert]:
    return Alert.objects.filter(incident=OuterRef("pk"), resolved_at=None)


def _end_calm(pks: Sequence[int], at: datetime, text: str = "", by: User | None = None) -> int:
    """End flapping incidents all whose alerts are over; how many. The text says who did it."""
    rows = list(
        Incident.objects.filter(
            ~Exists(_open_alerts()), pk__in=pks, resolved_at=None, flapping_until__isnull=False
        )
    )
    times = history.times([one.pk for one in rows], Event.Kind.RESOLVED)
    in_turns = _told_as_back([one.pk for one in rows])
    lines = []
    for one in rows:
        calm = span(one.calm_after or CALM)
        fine = f"It has been fine for {calm}."
        if one.pk in in_turns:
            fine = f"It no longer comes and goes: it has been fine for {calm}."
        told = f"resolved:{times[one.pk] + 1}"
        lines.append(Line(one, Event.Kind.RESOLVED, text or fine, told))
        one.flapping_until, one.resolved_at = None, max(at, one.opened_at)
        one.calm_after, one.untold = None, False
    Incident.objects.bulk_update(
        rows, ["flapping_until", "resolved_at", "calm_after", "untold"], batch_size=1000
    )
    history.write(lines, at, by)
    if rows:
        live.announce_on_commit("incident")
    return len(rows)


def _bring_back(at: datetime) -> None:
    """What was shelved until now is told again, if it is still there."""
    due = Incident.objects.filter(shelved_until__lte=at)
    rows = list(due.filter(Exists(_open_alerts()), resolved_at=None))
    due.update(shelved_until=None)
    times = history.times([one.pk for one in rows], Event.Kind.RETURNED)
    text = "It was shelved until now, and is still there."
    lines = [Line(one, Event.Kind.RETURNED, text, f"returned:{times[one.pk] + 1}") for one in rows]
    for one in rows:
        one.shelved_until = None
    history.write(lines, at)
    if rows:
        live.announce_on_commit("incident")


def worst(severities: Iterable[str]) -> Severity | None:
    return max(map(Severity, severities), key=lambda one: one.rank, default=None)


def _servers(found: Iterable[int | None]) -> set[int]:
    """Those that are servers of ours."""
    return {server for server in found if server is not None}


def _settle_health(changed: set[int]) -> None:
    """Keep the worst open alert of each of these servers where lists of servers find it."""
    open_ones = Alert.objects.filter(server__among=changed, resolved_at=None)
    severities: dict[int, list[str]] = {server: [] for server in changed}
    rows = open_ones.order_by().values_list("server", "severity").distinct()
    for server, severity in rows:
        severities[server or 0].append(severity)
    servers.set_healths({server: worst(found) for server, found in severities.items()})
