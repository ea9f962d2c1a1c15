"""Many rows in one statement: what an evaluation finds at once is written at once.

Rows go along as JSON text, which PostgreSQL turns into records: one parameter to encode instead of
one for each value, and one statement for any number of rows. Columns in which all rows are alike,
as most are in an evaluation, go along once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import repeat
from operator import itemgetter, ne
from typing import Any

import msgspec
from django.db import models

from sentinel_site.kit.tenancy import connection


def take_ids(model: type[models.Model], count: int) -> list[int]:
    """Primary keys for rows that are about to be inserted, in order."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT nextval(ids.seq) FROM"
            " (SELECT pg_get_serial_sequence(%s, 'id')::regclass AS seq OFFSET 0) AS ids,"
            " generate_series(1, %s)",
            [model._meta.db_table, count],
        )
        return [row[0] for row in cursor.fetchall()]


def insert(
    model: type[models.Model], rows: Sequence[Mapping[str, Any]], otherwise: str = ""
) -> int | None:
    """Insert rows, which are values by column name, all with the same columns; the least id.

    `otherwise` is an ON CONFLICT clause; where it keeps all of them out there is no id.
    """
    if not rows:
        return None
    columns = _columns(model, rows[0])
    names = ", ".join(f'"{name}"' for name in columns)
    given, parameters = _given(columns, rows)
    with connection.cursor() as cursor:
        cursor.execute(
            f'WITH made AS (INSERT INTO "{model._meta.db_table}" ({names}) SELECT {names}'  # noqa: S608  names of our own models
            f' FROM {given} {otherwise} RETURNING "{model._meta.pk.column}" AS id)'
            " SELECT min(id) FROM made",
            parameters,
        )
        first: int | None = cursor.fetchone()[0]
    return first


def update(
    model: type[models.Model],
    rows: Sequence[Mapping[str, Any]],
    changes: str,
    where: str = "TRUE",
    returning: str = "id",
) -> list[tuple[Any, ...]]:
    """Change rows by their `id`; `changes` and `where` are SQL about `row` and what is `given`."""
    if not rows:
        return []
    answer = ", ".join(f"row.{name}" for name in returning.split())
    given, parameters = _given(_columns(model, rows[0]), rows)
    with connection.cursor() as cursor:
        cursor.execute(
            f'UPDATE "{model._meta.db_table}" AS row SET {changes} FROM {given}'  # noqa: S608  SQL of our own verbs
            f" WHERE row.id = given.id AND ({where}) RETURNING {answer}",
            parameters,
        )
        return list(cursor.fetchall())


def _given(columns: Mapping[str, str], rows: Sequence[Mapping[str, Any]]) -> tuple[str, list[str]]:
    """The rows as a table in SQL called `given`, and its parameters."""
    first = rows[0]
    differ = [
        name for name in columns if any(map(ne, map(itemgetter(name), rows), repeat(first[name])))
    ]
    alike = [name for name in columns if name not in differ]
    if not differ or not alike:
        return f"json_to_recordset(%s) AS given({_record(columns, columns)})", [encode(rows)]
    return (
        f"(SELECT * FROM json_to_recordset(%s) AS each({_record(columns, differ)}),"  # noqa: S608
        f" json_to_record(%s) AS all_of_them({_record(columns, alike)})) AS given",
        [
            encode([{name: row[name] for name in differ} for row in rows]),
            msgspec.json.encode({name: first[name] for name in alike}).decode(),
        ],
    )


def encode(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as JSON; what is no number becomes null."""
    return msgspec.json.encode(rows).decode()


def fit(text: str, length: int) -> str:
    """Text as a column of this length takes it; PostgreSQL stores no NUL."""
    return text.replace("\0", "�")[:length]


def _columns(model: type[models.Model], row: Mapping[str, Any]) -> dict[str, str]:
    """The row's columns with their types."""
    types = {field.column: field for field in model._meta.concrete_fields}
    found = {}
    for name in row:
        field: Any = types[name]
        if isinstance(field, models.ForeignKey):
            field = field.target_field
        kind = field.rel_db_type(connection) if field.primary_key else field.db_type(connection)
        found[name] = kind
    return found


def _record(columns: Mapping[str, str], names: Iterable[str]) -> str:
    return ", ".join(f'"{name}" {columns[name]}' for name in names)
