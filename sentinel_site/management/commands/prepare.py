from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from django.conf import settings
from django.contrib.staticfiles.finders import get_finders
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandParser
from django.db import connection
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder
from django_tenants.utils import schema_context

from accounts.models import Tenant
from accounts.provisioning import prepare_template
from sentinel_site.up import Progress


class Command(BaseCommand):
    help = (
        "Bring database and static files up to date, make the first organization, and print "
        "its address, keys and a link that signs its owner in once, as JSON. What is done "
        "already is skipped."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--slug", required=True)
        parser.add_argument("--name", required=True)
        parser.add_argument("--email", required=True, help="the owner's")
        parser.add_argument("--step", type=int, default=0, help="how many steps came before")
        parser.add_argument("--steps", type=int, default=4, help="how many there are in all")

    def handle(self, *, slug: str, name: str, email: str, **options: Any) -> None:
        progress = Progress(options["steps"], options["step"])
        with progress.step("Tables") as tell:
            migrate(tell)
        with progress.step("Static files"):
            collect_static()
        with progress.step("Template for new organizations"):
            prepare_template()
        with progress.step(f"Organization “{name}”"):
            organization = _said("bootstrap", slug=slug, name=name, email=email)
            link = _said("signin_link", email=email)
        self.stdout.write(json.dumps({**json.loads(organization), "signin": link}))


def migrate(tell: Callable[[str], None]) -> None:
    """Migrate the public schema, then each organization's, where anything is missing.

    Looking costs a query a schema, while a migration without work costs seconds.
    """
    wanted = set(MigrationLoader(None).disk_migrations)

    def is_behind() -> bool:
        return not wanted <= set(MigrationRecorder(connection).applied_migrations())

    if is_behind():
        tell("public schema")
        call_command("migrate_schemas", shared=True, interactive=False, verbosity=0)
    tenants = list(Tenant.objects.exclude(provisioned_at=None).order_by("pk"))
    for number, tenant in enumerate(tenants, start=1):
        with schema_context(tenant.schema_name):
            if not is_behind():
                continue
        tell(f"organization {number} of {len(tenants)}: {tenant.slug}")
        call_command(
            "migrate_schemas", schema_name=tenant.schema_name, interactive=False, verbosity=0
        )
    connection.set_schema_to_public()  # type: ignore[attr-defined]


def collect_static() -> None:
    """Hash and compress the static files, unless none has changed since the last time."""
    stamp = Path(settings.STATE_DIR) / "static.sha256"
    digest = hashlib.sha256()
    for finder in get_finders():
        for path, storage in sorted(finder.list([]), key=lambda found: str(found[0])):
            file = Path(storage.path(path)).stat()
            digest.update(f"{path} {file.st_size} {file.st_mtime_ns}\n".encode())
    if stamp.exists() and stamp.read_text() == digest.hexdigest():
        return
    call_command("collectstatic", interactive=False, clear=True, verbosity=0)
    stamp.write_text(digest.hexdigest())


def _said(command: str, **options: Any) -> str:
    said = io.StringIO()
    call_command(command, stdout=said, **options)
    return said.getvalue().strip()
