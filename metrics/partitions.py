"""One partition a day, for all tenants together: made before it is needed, dropped when too old.

There is no default partition: a row that fits no day is an error, not a row nobody ever drops.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

DAY = timedelta(days=1)
AHEAD = 3
_LOCK = 0x5E27_1E12


@dataclass(frozen=True)
class Partitioned:
    """A table partitioned by day, over milliseconds or timestamps."""

    table: str
    in_milliseconds: bool

    def partition(self, day: date) -> str:
        return f"{self.table}_{day:%Y%m%d}"

    def bounds(self, day: date) -> tuple[str, str]:
        start = datetime(day.year, day.month, day.day, tzinfo=UTC)
        if self.in_milliseconds:
            first = int(start.timestamp()) * 1000
            return str(first), str(first + 86_400_000)
        return f"'{start.isoformat()}'", f"'{(start + DAY).isoformat()}'"


POINTS = Partitioned("metrics_points", in_milliseconds=True)
EVENTS = Partitioned("metrics_event", in_milliseconds=False)

_MAKE = """
CREATE TABLE public.{name} (LIKE public.{table} INCLUDING ALL);
ALTER TABLE public.{name} ENABLE ROW LEVEL SECURITY;
ALTER TABLE public.{name} FORCE ROW LEVEL SECURITY;
CREATE POLICY named_tenants ON public.{name} USING (
  tenant_id = ANY ((SELECT string_to_array(
    nullif(current_setting('sentinella.tenants', true), ''), ',')::bigint[])::bigint[])
);
ALTER TABLE public.{table} ATTACH PARTITION public.{name} FOR VALUES FROM ({first}) TO ({last});
"""


def make(cursor: Any, table: Partitioned, days: Iterable[date]) -> list[str]:
    """Make the partitions of these days that are missing; attaching blocks no reader or writer."""
    made = []
    for day in sorted(set(days)):
        name = table.partition(day)
        if _exists(cursor, name):
            continue
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])
        if _exists(cursor, name):
            continue
        first, last = table.bounds(day)
        cursor.execute(_MAKE.format(name=name, table=table.table, first=first, last=last))
        made.append(name)
    return made


def older_than(cursor: Any, table: Partitioned, day: date) -> list[str]:
    """The partitions that hold nothing but days before `day`, oldest first."""
    cursor.execute(
        "SELECT c.relname FROM pg_inherits JOIN pg_class c ON c.oid = inhrelid"
        " WHERE inhparent = %s::regclass AND c.relname < %s ORDER BY 1",
        [f"public.{table.table}", table.partition(day)],
    )
    return [row[0] for row in cursor.fetchall()]


def drop(cursor: Any, name: str) -> None:
    """Drop one partition; gives up after 2 s rather than make everybody wait behind it."""
    cursor.execute("SET LOCAL lock_timeout = '2s'")
    cursor.execute(f'DROP TABLE public."{name}"')


def _exists(cursor: Any, name: str) -> bool:
    cursor.execute("SELECT to_regclass(%s) IS NOT NULL", [f"public.{name}"])
    return bool(cursor.fetchone()[0])
