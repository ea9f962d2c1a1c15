"""Wide rows: which columns a report's points make, and under what id a set of them is known."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable

from metrics.batch import Point, Tags
from metrics.stores.base import Column

#: A tagged measurement with more columns than this has rows of its own, so that interfaces which
#: come and go with instances don't change the shape of everything else.
OWN_ROW_ABOVE = 64
REMEMBERED = 50_000

Columns = tuple[Column, ...]


def widen(points: Iterable[Point]) -> list[tuple[Columns, list[float]]]:
    """The fewest wide rows for the points; of one series given twice the last value stays."""
    cells: dict[str, dict[tuple[Tags, str], float]] = {}
    for point in points:
        of_measurement = cells.setdefault(point.measurement, {})
        for name, value in point.fields.items():
            of_measurement[point.tags, name] = value
    together: list[tuple[Column, float]] = []
    rows = []
    for measurement in sorted(cells):
        row = [
            (Column(measurement, name, tags), value)
            for (tags, name), value in sorted(cells[measurement].items())
        ]
        if len(row) > OWN_ROW_ABOVE and row[-1][0].tags:
            rows.append(row)
        else:
            together.extend(row)
    if together:
        rows.append(together)
    return [(tuple(column for column, _ in row), [value for _, value in row]) for row in rows]


def set_id(columns: Columns) -> int:
    """A hash of the columns, signed 64 bits: every process finds the same id without asking."""
    known = _ids.get(columns)
    if known is None:
        digest = hashlib.blake2b(encode(columns).encode(), digest_size=8).digest()
        known = int.from_bytes(digest, "big", signed=True)
        if len(_ids) >= REMEMBERED:
            _ids.clear()
        _ids[columns] = known
    return known


def encode(columns: Columns) -> str:
    return json.dumps(
        [[column.measurement, column.field, dict(column.tags)] for column in columns],
        separators=(",", ":"),
    )


def decode(rows: Iterable[tuple[str, str, dict[str, str]]]) -> Columns:
    return tuple(
        Column(measurement, field, tuple(sorted(tags.items()))) for measurement, field, tags in rows
    )


_ids: dict[Columns, int] = {}
