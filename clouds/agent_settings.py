"""Settings that a server's agent takes from here, where its own configuration consents."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import F

from accounts.access import Access, audit
from agent_client.wire import LEVELS
from clouds.models import AgentSettings, Server
from clouds.signals import server_changed
from sentinel_site.kit.problems import Problem
from sentinel_site.kit.tenancy import current_schema, in_schema

SHORTEST, LONGEST = 5, 3600
MOST_NAMES = 50
CACHE_SECONDS = 10.0

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@:-]{0,99}")


class NotSettings(Problem):
    status, code, title = 422, "not-settings", "An agent can't be asked for this"


class NoAgent(Problem):
    status, code, title = 409, "no-agent", "The original agent takes no settings"


@dataclass(frozen=True)
class Wanted:
    """What the agent is asked for; what is empty stays as its configuration has it."""

    interval: int | None = None
    levels: Mapping[str, str] = field(default_factory=dict)
    levels_until: datetime | None = None
    collectors: Mapping[str, bool] = field(default_factory=dict)

    def errors(self, at: datetime) -> dict[str, str]:
        """What is wrong with it, by field."""
        found = {}
        if self.interval is not None and not SHORTEST <= self.interval <= LONGEST:
            found["interval"] = f"Between {SHORTEST} and {LONGEST} seconds."
        if not _named(self.levels) or not set(self.levels.values()) <= set(LEVELS):
            found["levels"] = f"A service or default, with one of {', '.join(LEVELS)}."
        if self.levels_until is not None and self.levels_until <= at:
            found["levels_until"] = "It must lie ahead."
        switches = all(isinstance(one, bool) for one in self.collectors.values())
        if not _named(self.collectors) or not switches:
            found["collectors"] = "Names of collectors by commas, like swap, +network."
        return found


def _named(values: Mapping[str, object]) -> bool:
    return len(values) <= MOST_NAMES and all(_NAME.fullmatch(name) for name in values)


@transaction.atomic
def change(access: Access, server: Server, wanted: Wanted, at: datetime) -> AgentSettings:
    """Ask the server's agent for this from now on. Raises NotSettings, NoAgent."""
    if server.agent_id is None:
        raise NoAgent("Put the new agent in its place first.")
    errors = wanted.errors(at)
    if errors:
        raise NotSettings("One or more fields are not valid; see errors.", errors=errors)
    values = {
        "interval": wanted.interval,
        "levels": dict(wanted.levels),
        "levels_until": wanted.levels_until if wanted.levels else None,
        "collectors": dict(wanted.collectors),
        "changed_at": at,
    }
    row, made = AgentSettings.objects.get_or_create(server=server, defaults=values)
    if not made:
        AgentSettings.objects.filter(pk=row.pk).update(version=F("version") + 1, **values)
        row.refresh_from_db()
    audit(access, "server.settings", server, **_document(row))
    schema = current_schema()
    transaction.on_commit(partial(_wanted.forget, schema))
    transaction.on_commit(
        partial(server_changed.send, sender=AgentSettings, schema=schema, server_id=server.pk)
    )
    return row


def for_agent(schema: str, agent: UUID) -> dict[str, Any] | None:
    """What this agent is asked for, as the answer to its reports says it; None: nothing.

    Asked with every report, so it comes from a cache of this process for CACHE_SECONDS.
    """
    return _wanted.of(schema).get(agent)


def forget_cached() -> None:
    """Start with an empty cache; what tests do."""
    _wanted.forget()


def _document(row: AgentSettings) -> dict[str, Any]:
    until = row.levels_until
    return {
        "version": row.version,
        "interval": row.interval,
        "levels": row.levels,
        "levels_until": until.timestamp() if until else None,
        "collectors": row.collectors,
    }


class _Wanted:
    """Settings by schema and agent, each schema's read anew when it is old."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[float, dict[UUID, dict[str, Any]]]] = {}
        self._lock = threading.Lock()

    def of(self, schema: str) -> dict[UUID, dict[str, Any]]:
        known = self._known.get(schema)
        if known is not None and known[0] > time.monotonic():
            return known[1]
        with in_schema(schema):
            rows = AgentSettings.objects.exclude(server__agent_id=None).select_related("server")
            found = {row.server.agent_id: _document(row) for row in rows if row.server.agent_id}
        with self._lock:
            self._known[schema] = (time.monotonic() + CACHE_SECONDS, found)
        return found

    def forget(self, schema: str | None = None) -> None:
        with self._lock:
            if schema is None:
                self._known.clear()
            else:
                self._known.pop(schema, None)


_wanted = _Wanted()
