"""A database for each test process, copied from one template that is made once a run.

The template is migrated and holds the two tenants. Tests are rolled back; what a transactional
test has committed is undone by copying the template again, since a flush can neither tell the
tenants from the test's rows nor truncate what other schemas refer to.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import psycopg2
from django.conf import settings
from django.db import connection, connections
from psycopg2.extensions import ISOLATION_LEVEL_AUTOCOMMIT
from psycopg2.extensions import cursor as Cursor

RUN = os.environ.get("PYTEST_XDIST_TESTRUNUID", f"p{os.getpid()}")[:12]
WORKER = os.environ.get("PYTEST_XDIST_WORKER", "main")
_LOCK = 0x5E27_7E57

_origin = urlsplit(settings.ENV.database_url).path.lstrip("/")
TEMPLATE = f"test_{_origin}_{RUN}_template"
MINE = f"test_{_origin}_{RUN}_{WORKER}"


def make(populate: Callable[[], None]) -> None:
    """Give this process its database; the first one to come makes the template."""
    with _maintenance() as cursor:
        cursor.execute("SELECT pg_advisory_lock(%s)", [_LOCK])
        if not _exists(cursor, TEMPLATE):
            building = f"{TEMPLATE}_new"
            _drop(cursor, building)
            cursor.execute(f'CREATE DATABASE "{building}"')
            _use(building)
            populate()
            connections.close_all()
            cursor.execute(f'ALTER DATABASE "{building}" RENAME TO "{TEMPLATE}"')
        _copy(cursor)
    _use(MINE)


def restore() -> None:
    """Put this process's database back to what the template is."""
    connections.close_all()
    with _maintenance() as cursor:
        cursor.execute("SELECT pg_advisory_lock(%s)", [_LOCK])
        _copy(cursor)


def drop_mine() -> None:
    connections.close_all()
    with _maintenance() as cursor:
        _drop(cursor, MINE)
    _use(_origin)


def drop_template() -> None:
    with _maintenance() as cursor:
        _drop(cursor, TEMPLATE)
        _drop(cursor, f"{TEMPLATE}_new")


def _copy(cursor: Cursor) -> None:
    _drop(cursor, MINE)
    cursor.execute(f'CREATE DATABASE "{MINE}" TEMPLATE "{TEMPLATE}"')


def _use(name: str) -> None:
    connections.close_all()
    settings.DATABASES["default"]["NAME"] = name
    connection.settings_dict["NAME"] = name


def _drop(cursor: Cursor, name: str) -> None:
    """End our own sessions in it, then drop it.

    `WITH (FORCE)` would be refused while autovacuum, which is somebody else, is at work in it; the
    plain statement sends that away and waits for all others.
    """
    cursor.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = %s AND usename = current_user AND pid <> pg_backend_pid()",
        [name],
    )
    cursor.execute(f'DROP DATABASE IF EXISTS "{name}"')


def _exists(cursor: Cursor, name: str) -> bool:
    cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name])
    return cursor.fetchone() is not None


@contextmanager
def _maintenance() -> Iterator[Cursor]:
    """A cursor on the database we were told of; ending the connection frees the lock."""
    raw = psycopg2.connect(settings.ENV.database_url)
    raw.set_isolation_level(ISOLATION_LEVEL_AUTOCOMMIT)
    try:
        with raw.cursor() as cursor:
            yield cursor
    finally:
        raw.close()
