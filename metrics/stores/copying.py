"""Wide rows out of PostgreSQL by `COPY … (FORMAT BINARY)`, straight into arrays.

Making a Python list of floats of each row costs ten times as much as the query itself. A record
is an `int2`, server, set, time, and the row's values as one `float8[]`. The `int2` is there so that
every number begins at a multiple of four bytes, and all values wanted are gathered in one step.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metrics.batch import Tags
from metrics.stores.base import Column, Points

SELECT = """
COPY (SELECT 0::int2, server_id, set_id, ts, values FROM public.metrics_points
WHERE {where}) TO STDOUT (FORMAT BINARY)
"""

_SIGNATURE = b"PGCOPY\n\xff\r\n\0"
_HEADER = len(_SIGNATURE) + 8
_TRAILER = b"\xff\xff"
_BEFORE_VALUES = 68  # bytes of a record without its values
_A_VALUE = 12  # bytes, with the length in front
REMEMBERED = 1_000


@dataclass(frozen=True)
class Records:
    """Rows in the order of their times: where each begins, and of what server and set it is."""

    words: NDArray[np.uint32]  # all bytes, four and four
    starts: NDArray[np.int64]  # in words
    server_ids: NDArray[np.int64]  # each once
    servers: NDArray[np.intp]  # of each row, as an index of `server_ids`
    set_ids: NDArray[np.int64]  # each once
    sets: NDArray[np.intp]
    times: NDArray[np.int64]


@dataclass(frozen=True)
class _Plan:
    """Where in rows of each set the wanted field is; `first[s]:first[s + 1]` are those of set s."""

    first: NDArray[np.intp]
    places: NDArray[np.intp]
    series: NDArray[np.intp]
    tags: list[Tags]


class Sink:
    """A file for `copy_expert`: PostgreSQL sends one message a row."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []
        self.write = self.messages.append


def read(cursor: Any, where: str, arguments: Sequence[object]) -> Records:
    """The rows that fulfil the condition."""
    sink = Sink()
    query = cursor.mogrify(SELECT.format(where=where), arguments)
    cursor.copy_expert(query.decode(), sink)
    return parse(sink.messages)


def parse(messages: list[bytes]) -> Records:
    """The messages of one binary COPY: the header, one record each, the trailer."""
    if not messages or not messages[0].startswith(_SIGNATURE):
        raise ValueError("PostgreSQL sent no binary COPY")
    messages[0] = messages[0][_HEADER:]
    if messages[-1].endswith(_TRAILER) and (len(messages[-1]) - _BEFORE_VALUES) % _A_VALUE:
        messages[-1] = messages[-1][: -len(_TRAILER)]
    lengths = np.fromiter(map(len, messages), np.int64, len(messages))
    data = b"".join(messages)
    lengths = lengths[lengths > 0]
    if ((lengths < _BEFORE_VALUES) | ((lengths - _BEFORE_VALUES) % _A_VALUE != 0)).any():
        raise ValueError("a record of PostgreSQL's COPY is not of the expected length")
    words = np.frombuffer(data, ">u4")
    starts = np.concatenate([[0], np.cumsum(lengths[:-1])]).astype(np.int64) // 4
    if not len(lengths):
        starts = starts[:0]
    times = _numbers(words, starts + 9, ">i8")
    order = np.argsort(times, kind="stable")
    starts, times = starts[order], times[order].astype(np.int64)
    server_ids, servers = np.unique(_numbers(words, starts + 3, ">i8"), return_inverse=True)
    set_ids, sets = np.unique(_numbers(words, starts + 6, ">i8"), return_inverse=True)
    return Records(
        words,
        starts,
        server_ids.astype(np.int64),
        servers,
        set_ids.astype(np.int64),
        sets,
        times,
    )


def _numbers(words: NDArray[Any], at: NDArray[np.int64], kind: str) -> NDArray[Any]:
    """The eight bytes that begin at each of these words, in the machine's own order."""
    pairs = np.empty((len(at), 2), ">u4")
    pairs[:, 0] = words[at]
    pairs[:, 1] = words[at + 1]
    return pairs.view(kind).ravel().astype(kind[1:])


def points(
    records: Records,
    columns_of: Mapping[int, tuple[Column, ...]],
    wanted: Iterable[tuple[str, str]],
    tenant_id: int,
) -> list[Points]:
    """Each wanted (measurement, field) of the records, in order of time."""
    known = tuple(records.set_ids.tolist())
    found = []
    for measurement, field in wanted:
        plan = _plan(tenant_id, known, columns_of, measurement, field)
        count = np.diff(plan.first)
        if (count == 1).all() and len(count):  # no tags: every row has it once
            rows: Any = slice(None)
            place = plan.first[:-1][records.sets]
        else:
            each = count[records.sets]
            rows = np.repeat(np.arange(len(each)), each)
            ends = np.cumsum(each)
            within = np.arange(len(rows)) - np.repeat(ends - each, each)
            place = plan.first[:-1][records.sets[rows]] + within
        at = records.starts[rows] + _BEFORE_VALUES // 4 + 1 + 3 * plan.places[place]
        found.append(
            Points(
                records.server_ids,
                records.servers[rows],
                plan.tags,
                plan.series[place],
                records.times[rows],
                _numbers(records.words, at, ">f8"),
            )
        )
    return found


def _plan(
    tenant_id: int,
    set_ids: tuple[int, ...],
    columns_of: Mapping[int, tuple[Column, ...]],
    measurement: str,
    field: str,
) -> _Plan:
    """Kept from one evaluation to the next, for the sets of a tenant seldom change."""
    key = (tenant_id, measurement, field)
    known = _plans.get(key)
    if known is not None and known[0] == set_ids:
        return known[1]
    numbers: dict[Tags, int] = {}
    counts, places, series = [0], [], []
    for set_id in set_ids:
        found = _placed(set_id, columns_of.get(set_id, ())).get((measurement, field), ())
        for place, tags in found:
            places.append(place)
            series.append(numbers.setdefault(tags, len(numbers)))
        counts.append(len(found))
    plan = _Plan(
        np.cumsum(counts, dtype=np.intp),
        np.array(places, np.intp),
        np.array(series, np.intp),
        list(numbers),
    )
    if len(_plans) >= REMEMBERED:
        _plans.clear()
    _plans[key] = (set_ids, plan)
    return plan


def _placed(
    set_id: int, columns: tuple[Column, ...]
) -> dict[tuple[str, str], list[tuple[int, Tags]]]:
    known = _places.get(set_id)
    if known is None:
        known = {}
        for place, column in enumerate(columns):
            known.setdefault((column.measurement, column.field), []).append((place, column.tags))
        if columns:
            if len(_places) >= 20 * REMEMBERED:
                _places.clear()
            _places[set_id] = known
    return known


_plans: dict[tuple[int, str, str], tuple[tuple[int, ...], _Plan]] = {}
_places: dict[int, dict[tuple[str, str], list[tuple[int, Tags]]]] = {}
