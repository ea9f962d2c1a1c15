"""Many rows in one statement: what an evaluation finds at once is written at once.

Rows go along as one JSON text, which PostgreSQL turns into records: one parameter to encode
instead of one for each value, and one statement for any number of rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from django.db import models

from sentinel_site.kit.tenancy import connection


def take_ids(model: type[models.Model], count: int) -> list[int]:
    """Primary keys for rows that are about to be inserted, in order."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT nextval(pg_get_serial_sequence(%s, 'id')) FROM generate_series(1, %s)",
            [model._meta.db_table, count],
        )
        return [row[0] for row in cursor.fetchall()]


def insert(
    model: type[models.Model], rows: Sequence[Mapping[str, Any]], otherwise: str = ""
) -> list[int]:
    """Insert rows, which are values by column name, all with the same columns; their ids.

    `otherwise` is an ON CONFLICT clause; a row that it keeps out is not among the ids.
    """
    if not rows:
        return []
    columns = _columns(model, rows[0])
    names = ", ".join(f'"{name}"' for name in columns)
    with connection.cursor() as cursor:
        cursor.execute(
            f'INSERT INTO "{model._meta.db_table}" ({names}) SELECT {names}'  # noqa: S608  names of our own models
            f" FROM json_to_recordset(%s) AS given({_record(columns)}) {otherwise}"
            f' RETURNING "{model._meta.pk.column}"',
            [encode(rows)],
        )
        return [row[0] for row in cursor.fetchall()]


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
    columns = _columns(model, rows[0])
    answer = ", ".join(f"row.{name}" for name in returning.split())
    with connection.cursor() as cursor:
        cursor.execute(
            f'UPDATE "{model._meta.db_table}" AS row SET {changes}'  # noqa: S608  SQL of our own verbs
            f" FROM json_to_recordset(%s) AS given({_record(columns)})"
            f" WHERE row.id = given.id AND ({where}) RETURNING {answer}",
            [encode(rows)],
        )
        return list(cursor.fetchall())


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


def _record(columns: Mapping[str, str]) -> str:
    return ", ".join(f'"{name}" {kind}' for name, kind in columns.items())
