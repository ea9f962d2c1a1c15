"""Whether the wall between tenants holds in this database."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.core.checks import CheckMessage, Error, Tags, register
from django.db import Error as DatabaseError
from django.db import connections


@register(Tags.database)
def role_is_held_by_row_level_security(
    databases: Sequence[str] | None = None, **_: Any
) -> list[CheckMessage]:
    """A superuser, or a role with BYPASSRLS, walks through every policy, forced or not.

    https://www.postgresql.org/docs/current/ddl-rowsecurity.html
    """
    if not databases or "default" not in databases:
        return []
    try:
        with connections["default"].cursor() as cursor:
            cursor.execute(
                "SELECT rolname FROM pg_roles"
                " WHERE rolname = current_user AND (rolsuper OR rolbypassrls)"
            )
            found = cursor.fetchone()
    except DatabaseError:  # sentinella.E006 says so
        return []
    if found is None:
        return []
    return [
        Error(
            f"The database role “{found[0]}” is not held by row-level security.",
            hint="Use a role without SUPERUSER and BYPASSRLS in DATABASE_URL; it needs to own"
            " the database, and nothing more.",
            id="metrics.E001",
        )
    ]
