from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from accounts import keys
from accounts.models import Tenant
from clouds import install


class Command(BaseCommand):
    help = "Print a line that installs the agent on a server and enrols it; it works once."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--organization", required=True, metavar="SLUG")

    def handle(self, *, organization: str, **_: Any) -> None:
        tenant = Tenant.objects.filter(slug=organization).exclude(provisioned_at=None).first()
        if tenant is None:
            raise CommandError(f"There is no organization {organization}.")
        token = keys.issue_enrol_token(tenant, None, timezone.now())[1]
        self.stdout.write(install.line(token))
