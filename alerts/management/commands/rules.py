from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from accounts.access import Access
from accounts.models import Role, Tenant
from alerts.models import Rule
from alerts.rulebook import rulefiles, rules
from sentinel_site.kit.tenancy import in_schema


class Command(BaseCommand):
    help = "Write an organization's rules as YAML, compare a file with them, or apply it."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("verb", choices=["export", "diff", "apply"])
        parser.add_argument("file", nargs="?", default="-", help="The file; - is standard input.")
        parser.add_argument("--tenant", required=True, help="The organization's short name.")
        parser.add_argument(
            "--prune", action="store_true", help="Also remove rules that the file does not name."
        )

    def handle(self, *, verb: str, file: str, tenant: str, prune: bool, **_: Any) -> None:
        row = Tenant.objects.filter(slug=tenant, provisioned_at__isnull=False).first()
        if row is None:
            raise CommandError(f"There is no organization {tenant!r}.")
        with in_schema(row.schema_name):
            if verb == "export":
                every = Rule.objects.select_related("group", "server")
                self.stdout.write(rulefiles.write(every), ending="")
                return
            try:
                wanted = rulefiles.read(_text(file))
                if verb == "diff":
                    done = rulefiles.diff(wanted, prune)
                else:
                    access = Access(row, Role.OWNER)
                    done = rules.apply_rules(access, wanted, timezone.now(), prune)
            except rulefiles.BadRules as bad:
                raise CommandError(f"{file}: nothing was changed.\n{bad.detail}") from bad
        for change in done:
            self.stdout.write(str(change))
        if not done:
            self.stderr.write("Nothing to change.")


def _text(file: str) -> str:
    try:
        return sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"{file} can't be read: {error}.") from error
