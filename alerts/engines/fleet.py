"""The servers of one tenant at one instant, as arrays: who is watched, who is overdue, whose rule.

Ten thousand servers as objects cost more than the judging of all their numbers.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from math import inf

import numpy as np
import redis
import structlog
from numpy.typing import NDArray

from alerts.models import Rule
from clouds.models import FAREWELLS, STOPPED, Server, Silence
from metrics import outages, queries
from sentinel_site.kit import listening
from sentinel_site.kit.tenancy import connection

log = structlog.get_logger(__name__)

Mask = NDArray[np.bool_]

#: After an outage of ours agents have so long to send what they kept.
CATCHING_UP = timedelta(minutes=3)


def _graces() -> str:
    """As `clouds.models.grace_after` has it."""
    return " ".join(
        f"WHEN goodbye LIKE '{words}%' THEN {grace.total_seconds():.0f}"
        for words, grace in FAREWELLS
    )


#: Seconds; see `Server.silent_after`.
_SERVERS = f"""
SELECT id, coalesce(group_id, 0), status = '{Server.Status.SILENT}' OR EXISTS (
    SELECT FROM "{Silence._meta.db_table}" s WHERE s.server_id = server.id AND s.until IS NULL),
  CASE WHEN agent_id IS NULL THEN 210 ELSE 3 * extract(epoch FROM interval) + 30 END::float8
  + CASE WHEN goodbye = '' THEN 0 {_graces()} ELSE {STOPPED.total_seconds():.0f} END,
  extract(epoch FROM registered_at)::float8
FROM "{Server._meta.db_table}" server WHERE status <> '{Server.Status.RETIRED}' ORDER BY id
"""  # noqa: S608  nothing in it comes from outside


@dataclass(frozen=True)
class Fleet:
    """Watched servers in the order of their ids; times are seconds since 1970."""

    ids: NDArray[np.int64]
    groups: NDArray[np.int64]  # 0: none
    silent: Mask  # before this evaluation, in maintenance and blackout too
    silent_after: NDArray[np.float64]
    heard: NDArray[np.float64]
    at: datetime
    #: Since when reports can have come in without a break: `at`, while nobody listens. None: it is
    #: not known, or nobody ever listened.
    listening_since: datetime | None = None

    @property
    def overdue(self) -> NDArray[np.float64]:
        """By how many seconds each one's report is overdue; negative: it still has time."""
        late: NDArray[np.float64] = self.at.timestamp() - self.heard - self.silent_after
        return late

    @property
    def heard_for(self) -> float:
        """For how many seconds reports could come in without a break, up to now."""
        if self.listening_since is None:
            return inf
        return (self.at - self.listening_since).total_seconds()

    @property
    def catches_up(self) -> bool:
        """Whether agents may still keep what they could not send."""
        return self.heard_for < CATCHING_UP.total_seconds()

    def chosen(self, mask: Mask, servers: NDArray[np.int64]) -> Mask:
        """Which of these server ids the mask chooses; a server that is not watched is not."""
        if not len(self.ids):
            return np.zeros(len(servers), np.bool_)
        places = np.minimum(np.searchsorted(self.ids, servers), len(self.ids) - 1)
        found: Mask = mask[places] & (self.ids[places] == servers)
        return found

    def heard_at(self, mask: Mask) -> dict[int, datetime]:
        ids, heard = self.ids[mask].tolist(), self.heard[mask].tolist()
        return {pk: datetime.fromtimestamp(at, UTC) for pk, at in zip(ids, heard, strict=True)}

    def next_overdue(self) -> datetime | None:
        """When the next of them will be silent if it is not heard."""
        deadlines = self.heard + self.silent_after
        coming = deadlines[deadlines >= self.at.timestamp()]
        return datetime.fromtimestamp(float(coming.min()), UTC) if len(coming) else None


def read(tenant_id: int, at: datetime) -> Fleet:
    """Who is silent already keeps the time of its last report; others have until we listen again.

    Reports could not come in while nobody listened, and nobody is silent for that.
    """
    with connection.cursor() as cursor:
        cursor.execute(_SERVERS)
        rows = np.array(cursor.fetchall(), np.float64).reshape(-1, 5)
    ids = rows[:, 0].astype(np.int64)
    silent, heard = rows[:, 2] > 0, rows[:, 4].copy()
    known, times = queries.last_heard(tenant_id)
    if len(known) and len(ids):
        places = np.minimum(np.searchsorted(known, ids), len(known) - 1)
        found = known[places] == ids
        heard[found] = times[places[found]]
    began = listening_since(at)
    if began is not None:
        heard[~silent] = np.maximum(heard[~silent], began.timestamp())
    return Fleet(ids, rows[:, 1].astype(np.int64), silent, rows[:, 3], heard, at, began)


def scopes(rules: Iterable[Rule], fleet: Fleet) -> dict[Rule, Mask]:
    """On which servers each rule is in force.

    Of rules that share a name the one for a server overrides the one for its cloud group, and that
    the one for all. One that is switched off overrides as well: there is none then.
    """
    named: dict[str, list[Rule]] = defaultdict(list)
    for rule in rules:
        named[rule.name].append(rule)
    found: dict[Rule, Mask] = {}
    for alike in named.values():
        taken = np.zeros(len(fleet.ids), np.bool_)
        for rule in sorted(alike, key=_reach):
            mask = np.ones(len(fleet.ids), np.bool_)
            if rule.server_id is not None:
                mask &= fleet.ids == rule.server_id
            if rule.group_id is not None:
                mask &= fleet.groups == rule.group_id
            found[rule] = mask & ~taken
            taken |= mask
    return found


def _reach(rule: Rule) -> int:
    """The closest first."""
    if rule.server_id is not None:
        return 0
    return 1 if rule.group_id is not None else 2


def listening_since(at: datetime) -> datetime | None:
    """Since when reports can have come in without a break: now, while nobody listens.

    Where Redis is away, or was emptied, the mark in the database tells whether anybody does.
    """
    try:
        run = listening.last()
    except redis.RedisError as error:
        log.warning("not known since when anybody listens", error=str(error))
        run = None
    if run is not None:
        return at if run.is_over(at) else run.since
    marked_at = outages.marked_at()
    is_over = marked_at is not None and at - marked_at > outages.MARK_HOLDS
    return at if is_over else None
