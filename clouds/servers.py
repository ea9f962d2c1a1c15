"""What happens to a server: it registers, says what it is, falls silent, comes back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import IntegrityError, transaction

from clouds.models import Server, seen_long_ago

#: Characters that a server's specs have as JSON, of all its reports together.
MOST_SPECS = 1024 * 1024


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


def note_goodbye(server: Server, reason: str, at: datetime) -> None:
    """Keep why its agent said it stops; an agent that speaks again has not stopped."""
    if reason != server.goodbye:
        _update(server, goodbye=reason, goodbye_at=at if reason else None)


def note_silence(last_seen: Mapping[int, datetime], now: datetime) -> list[Server]:
    """Turn servers `silent` that were not heard for too long, and `up` that are heard again.

    Maintenance, blackout and retirement are people's words and stay. `last_seen` is when each
    server's last report came in; servers it does not name are left alone. Returns the servers that
    changed, with their new status.
    """
    watched = Server.objects.filter(
        pk__in=list(last_seen), status__in=[Server.Status.UP, Server.Status.SILENT]
    )
    changed = []
    for server in watched:
        heard = last_seen[server.pk]
        silent = seen_long_ago(server, heard, now)
        status = Server.Status.SILENT if silent else Server.Status.UP
        if server.status == status:
            continue
        since = heard + server.silent_after if silent else heard
        claimed = Server.objects.filter(pk=server.pk, status=server.status)
        if claimed.update(status=status, status_since=since):
            server.status, server.status_since = status, since
            changed.append(server)
    return changed


def set_healths(worst: Mapping[int, str | None]) -> None:
    """Keep the severity of each server's worst open alert where lists of servers find it."""
    by_health: dict[Server.Health, list[int]] = {}
    for server, severity in worst.items():
        health = Server.Health(str(severity)) if severity else Server.Health.OK
        by_health.setdefault(health, []).append(server)
    for health, pks in by_health.items():
        Server.objects.filter(pk__in=pks).exclude(health=health).update(health=health)


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
