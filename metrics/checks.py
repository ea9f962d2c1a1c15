"""Whether the wall between tenants holds in this database."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.core.checks import CheckMessage, Tags, Warning, register
from django.db import connections


@register(Tags.database)
def role_is_held_by_row_level_security(
    databases: Sequence[str] | None = None, **_: Any
) -> list[CheckMessage]:
    """A superuser, or a role with BYPASSRLS, walks through every policy."""
    if not databases or "default" not in databases:
        return []
    with connections["default"].cursor() as cursor:
        cursor.execute(
            "SELECT rolname FROM pg_roles"
            " WHERE rolname = current_user AND (rolsuper OR rolbypassrls)"
        )
        found = cursor.fetchone()
    if found is None:
        return []
    return [
        Warning(
            f"The database role “{found[0]}” is not held by row-level security.",
            hint="Use a role without SUPERUSER and BYPASSRLS in DATABASE_URL; it needs to own"
            " the database, and nothing more.",
            id="metrics.W001",
        )
    ]
