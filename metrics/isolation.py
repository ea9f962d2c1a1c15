"""The second wall between tenants: which of them a transaction may see and write.

Every shared table filters its rows by the setting `sentinella.tenants`. It is set for one
transaction only, so nothing is left on a pooled connection for the next user of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from django.db import connection, transaction

NAME = "SELECT set_config('sentinella.tenants', %s, true)"


@contextmanager
def only(*tenant_ids: int) -> Iterator[Any]:
    """A cursor in a transaction that sees these tenants' rows and no others.

    Leaves the outer transaction, if there is one, with what it named before.
    """
    inside = connection.in_atomic_block
    with transaction.atomic(), connection.cursor() as cursor:
        before = _named(cursor) if inside else ""
        name(cursor, tenant_ids)
        yield cursor
        if inside:
            name(cursor, before)


def name(cursor: Any, tenant_ids: Iterable[int] | str) -> None:
    """Name the tenants of this cursor's transaction, instead of those it named before."""
    value = tenant_ids if isinstance(tenant_ids, str) else ",".join(str(int(i)) for i in tenant_ids)
    cursor.execute(NAME, [value])


def _named(cursor: Any) -> str:
    cursor.execute("SELECT current_setting('sentinella.tenants', true)")
    return cursor.fetchone()[0] or ""
