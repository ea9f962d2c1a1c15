"""The series that scripts and plugins bring: what no collector of the agent measures itself."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime, timedelta

from agent_client import units
from metrics import queries
from metrics.batch import Tags

#: So many of them are on a page, the newest ones.
MOST = 24
#: A script that brought nothing for so long is taken for gone.
KEPT = timedelta(days=30)

#: A plugin's table, cell by cell: numbers, and words as a tag of a series that is there.
NUMBER, WORD = "plugin", "plugin_state"
#: What the original agents measure and the new one does not, or by another name.
_OF_ORIGINALS = frozenset({"disk_io_delta", "net_io"})
_OPENSTACK_OF_ORIGINALS = "openstack."


@dataclass(frozen=True)
class Custom:
    """One series with its newest value; `word` where a plugin says it in a word."""

    measurement: str
    field: str
    tags: Tags
    value: float
    unit: str
    at: datetime
    word: str = ""

    @property
    def id(self) -> str:
        """The same for the same series, for a page's element."""
        text = json.dumps([self.measurement, self.field, self.tags])
        return f"c-{hashlib.sha256(text.encode()).hexdigest()[:12]}"

    @property
    def title(self) -> str:
        """What it is: `backup seconds`, or as a plugin calls it."""
        if self.measurement in (NUMBER, WORD):
            return dict(self.tags).get("metric") or self.measurement
        return f"{self.measurement} {self.field}"

    @property
    def whose(self) -> list[tuple[str, str]]:
        """The tags that tell it from its like."""
        told = {"metric", "id", "type", "state"} if self.measurement in (NUMBER, WORD) else set()
        return [(name, text) for name, text in self.tags if name not in told]


@dataclass(frozen=True)
class Customs:
    """Of a server's: those that are shown, by name, and how many older ones are not."""

    shown: list[Custom]
    more: int = 0


def of_server(tenant_id: int, server_id: int, now: datetime) -> Customs:
    """What scripts and plugins of this server brought, each series with its newest value."""
    newest = queries.latest(tenant_id, [server_id], fresh=None).get(server_id, {})
    found: dict[tuple[str, str, Tags], Custom] = {}
    for (measurement, tags), fields in newest.items():
        if not _is_custom(measurement):
            continue
        for name, (value, at) in fields.items():
            if now - at > KEPT:
                continue
            one = Custom(
                measurement,
                name,
                tags,
                value,
                _unit(measurement, name, tags),
                at,
                dict(tags).get("state", "") if measurement == WORD else "",
            )
            # Each word of a cell is a series of its own: the newest is what it says now.
            cell = (measurement, name, _without_word(tags) if measurement == WORD else tags)
            if cell not in found or found[cell].at < at:
                found[cell] = one
    newest_first = sorted(found.values(), key=lambda one: (-one.at.timestamp(), _name(one)))
    return Customs(sorted(newest_first[:MOST], key=_name), max(0, len(newest_first) - MOST))


def _is_custom(measurement: str) -> bool:
    return not (
        measurement in units.FIELDS
        or measurement in _OF_ORIGINALS
        or measurement.startswith(_OPENSTACK_OF_ORIGINALS)
    )


def _unit(measurement: str, name: str, tags: Tags) -> str:
    """By the field's name; of a plugin's cell as the plugin says."""
    if measurement == NUMBER:
        return "percent" if dict(tags).get("type") == "percent" else "count"
    return queries.unit_of(measurement, name)


def _without_word(tags: Tags) -> Tags:
    return tuple(pair for pair in tags if pair[0] != "state")


def _name(one: Custom) -> tuple[str, str, Tags]:
    return (one.measurement, one.field, one.tags)
