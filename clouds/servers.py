"""What happens to a server: it registers, says what it is, falls silent, comes back."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

from django.db import IntegrityError, transaction

from accounts.timers import wake
from clouds import history, suppression
from clouds.history import LateReport
from clouds.models import UPDATE, CloudGroup, Server, SuppressionKind, seen_long_ago
from clouds.signals import server_changed
from sentinel_site.kit.problems import Problem
from sentinel_site.kit.tenancy import current_schema

#: A server is removed only so long after its last report.
QUIET_BEFORE_REMOVAL = timedelta(minutes=10)
#: What reports alone decide.
_BY_REPORTS = (Server.Status.UP, Server.Status.SILENT)
#: Characters that a server's specs have as JSON, of all its reports together.
MOST_SPECS = 1024 * 1024


class NotInMaintenance(Problem):
    status, code, title = 409, "not-in-maintenance", "The server is not in maintenance"


class StillReports(Problem):
    status, code, title = 409, "still-reports", "The server reported just now"

    def __init__(
        self, server: Server, last_seen: datetime | None, allowed_at: datetime, at: datetime
    ) -> None:
        left = math.ceil((allowed_at - at).total_seconds())
        since = "registered" if last_seen is None else "reported"
        ago = max(0, int((at - (last_seen or server.registered_at)).total_seconds()))
        super().__init__(
            f"{server.host} can be removed in {_minutes(left)}. It {since} {_minutes(ago)} ago;"
            " stop its agent.",
            headers={"Retry-After": str(left)},
            server=server.pk,
            seconds=left,
            removable_at=allowed_at.isoformat(),
        )


def _minutes(seconds: int) -> str:
    minutes, rest = divmod(seconds, 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def register(
    agent_id: UUID | None,
    host: str,
    at: datetime,
    *,
    interval: timedelta = timedelta(seconds=60),
    version: str = "",
) -> Server:
    """The server that this agent (without one: this host) is, made if it is new.

    Calling it again only notes a new host name, interval or agent version. Two callers at once
    get the same server.
    """
    known = _find(agent_id, host)
    if known is None:
        try:
            with transaction.atomic():
                return Server.objects.create(
                    agent_id=agent_id,
                    host=host,
                    interval=interval,
                    agent_version=version[:40],
                    registered_at=at,
                    status_since=at,
                )
        except IntegrityError:
            known = _find(agent_id, host)
            if known is None:
                raise
    _update(known, host=host, interval=interval, agent_version=version[:40] or known.agent_version)
    if known.status == Server.Status.RETIRED:  # who reports is there: it begins anew
        _update(
            known,
            status=Server.Status.UP,
            status_since=at,
            registered_at=at,
            retired_at=None,
        )
        suppression.joined(known, at)
    return known


def is_agent(agent_id: UUID) -> bool:
    """Whether a server of the current schema, which is not retired, has this agent."""
    return Server.objects.filter(agent_id=agent_id).exclude(status=Server.Status.RETIRED).exists()


def note_specs(server: Server, specs: Mapping[str, Any]) -> None:
    """Keep what the server says it is made of; what it does not mention stays."""
    merged = {**server.specs, **specs}
    if len(json.dumps(merged)) > MOST_SPECS:
        merged = dict(specs)  # ever new names would grow for ever: what is said last is all
    openstack = merged.get("openstack")
    said = openstack if isinstance(openstack, dict) else {}
    release = str(said.get("release") or said.get("version") or "")[:60]
    role = specs.get("role")
    _update(
        server,
        specs=merged,
        openstack_release=release or server.openstack_release,
        role=role[:40] if isinstance(role, str) else server.role,
    )


def note_late(server_id: int, reports: Sequence[LateReport]) -> None:
    """Reports of these times came in late: the server was up meanwhile."""
    server = Server.objects.get(pk=server_id)
    history.note_late(server_id, reports, server.patience, server.interval)


def note_goodbye(server: Server, reason: str, at: datetime) -> None:
    """Keep why its agent said it stops; an agent that speaks again has not stopped.

    It was not reported meanwhile, but uptime counts it like any silence; not the update of an
    agent, whose server was up.
    """
    if reason != server.goodbye:
        if not reason and server.goodbye_at and not server.goodbye.startswith(UPDATE):
            history.note_absence(server, server.goodbye_at + server.patience, at)
        _update(server, goodbye=reason, goodbye_at=at if reason else None)


def note_silence(last_seen: Mapping[int, datetime], now: datetime) -> list[Server]:
    """Turn servers `silent` that were not heard for too long, and `up` that are heard again.

    Maintenance, blackout and retirement are people's words and stay; the silence itself is noted
    all the same, for uptime counts it in a blackout. `last_seen` is when each server's last report
    came in; servers it does not name are left alone. Returns the servers that changed, with their
    new status.
    """
    changed = []
    silent: dict[int, datetime] = {}
    spoke: dict[int, datetime] = {}
    watched = Server.objects.filter(pk__in=list(last_seen))
    for server in watched.exclude(status=Server.Status.RETIRED):
        heard = last_seen[server.pk]
        is_silent = seen_long_ago(server, heard, now)
        since = heard + server.silent_after if is_silent else heard
        is_update = server.goodbye.startswith(UPDATE)
        counted = since if is_update or not is_silent else heard + server.patience
        (silent if is_silent else spoke)[server.pk] = counted
        status = Server.Status.SILENT if is_silent else Server.Status.UP
        if server.status == status or server.status not in _BY_REPORTS:
            continue
        claimed = Server.objects.filter(pk=server.pk, status=server.status)
        if claimed.update(status=status, status_since=since):
            server.status, server.status_since = status, since
            changed.append(server)
    history.note_silences(silent, spoke)
    return changed


@transaction.atomic
def classify(server: Server, group: CloudGroup | None, role: str, at: datetime) -> Server:
    """Put it into its group and role. That group's rules, channels and silences hold from now on;
    what was, stays as it was. Raises Retired."""
    held = Server.objects.select_for_update(of=("self",)).get(pk=server.pk)
    if held.status == Server.Status.RETIRED:
        raise suppression.Retired(server=server.pk)
    moved = held.group_id != (group.pk if group else None)
    _update(held, group=group, role=role)
    if moved:
        history.note_group(held, at)
        suppression.joined(held, at)
        wake(current_schema(), at)
    return held


def removable_at(server: Server, last_seen: datetime | None) -> datetime:
    """From when on it may be removed, once it is in maintenance."""
    return (last_seen or server.registered_at) + QUIET_BEFORE_REMOVAL


@transaction.atomic
def retire(server: Server, last_seen: datetime | None, at: datetime) -> Server:
    """Remove it: it is watched no more, what was measured of it is kept for its time.

    Needs maintenance, and QUIET_BEFORE_REMOVAL without a report. Raises NotInMaintenance,
    StillReports, Retired.
    """
    held = Server.objects.select_for_update(of=("self",)).get(pk=server.pk)
    if held.status == Server.Status.RETIRED:
        raise suppression.Retired(server=server.pk)
    holds = suppression.active_for([held.pk], at).get(held.pk)
    if holds is None or holds.kind != SuppressionKind.MAINTENANCE:
        raise NotInMaintenance("Put it into maintenance first.", server=server.pk)
    allowed_at = removable_at(held, last_seen)
    if at < allowed_at:
        raise StillReports(held, last_seen, allowed_at, at)
    suppression.end_all_of(held, at)
    _update(held, status=Server.Status.RETIRED, status_since=at, retired_at=at)
    wake(current_schema(), at)
    transaction.on_commit(
        partial(server_changed.send, sender=Server, schema=current_schema(), server_id=held.pk)
    )
    return held


def set_healths(worst: Mapping[int, str | None]) -> None:
    """Keep the severity of each server's worst open alert where lists of servers find it."""
    by_health: dict[Server.Health, list[int]] = {}
    for server, severity in worst.items():
        health = Server.Health(str(severity)) if severity else Server.Health.OK
        by_health.setdefault(health, []).append(server)
    for health, pks in by_health.items():
        Server.objects.filter(pk__among=pks).exclude(health=health).update(health=health)


def _find(agent_id: UUID | None, host: str) -> Server | None:
    if agent_id is not None:
        return Server.objects.filter(agent_id=agent_id).first()
    return Server.objects.filter(agent_id=None, host=host).first()


def _update(server: Server, **values: Any) -> None:
    changed = {name: value for name, value in values.items() if getattr(server, name) != value}
    if changed:
        Server.objects.filter(pk=server.pk).update(**changed)
        for name, value in changed.items():
            setattr(server, name, value)
