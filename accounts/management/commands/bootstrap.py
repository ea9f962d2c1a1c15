from __future__ import annotations

import json
import secrets
import sys
from typing import Any

from allauth.account.models import EmailAddress
from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import transaction

from accounts import keys
from accounts.models import RESERVED_SLUGS, Key, Membership, Role, Tenant, User, slug_validator
from accounts.provisioning import provision
from sentinel_site.kit.tenancy import tenant_link


class Command(BaseCommand):
    help = (
        "Make an organization and its owner, and print its address and keys as JSON. "
        "Run again, it changes nothing and prints the same."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--slug", required=True, help="its address: /o/<slug>/")
        parser.add_argument("--name", required=True)
        parser.add_argument("--email", required=True, help="the owner's")
        parser.add_argument(
            "--password-stdin",
            action="store_true",
            help="read a new owner's password from standard input instead of generating it",
        )

    def handle(self, *, slug: str, name: str, email: str, **options: Any) -> None:
        try:
            slug_validator(slug)
        except ValidationError as error:
            raise CommandError(f"--slug {slug}: {error.messages[0]}") from error
        if slug in RESERVED_SLUGS:
            raise CommandError(f"--slug {slug}: this address is reserved; choose another.")
        with transaction.atomic():
            owner, password = self._owner(email, options["password_stdin"])
            tenant, _ = Tenant.objects.get_or_create(slug=slug, defaults={"name": name})
            Membership.objects.get_or_create(
                user=owner, tenant=tenant, defaults={"role": Role.OWNER}
            )
        provision(tenant)
        result: dict[str, Any] = {
            "organization": slug,
            "url": tenant_link(tenant, "dashboard"),
            "keys": {
                "ingest": keys.bootstrap_key(tenant, Key.Scope.INGEST),
                "admin": keys.bootstrap_key(tenant, Key.Scope.ADMIN),
            },
        }
        if password:
            result["password"] = password
        self.stdout.write(json.dumps(result))

    def _owner(self, email: str, from_stdin: bool) -> tuple[User, str | None]:
        """The owner, made if need be, and the password if it was generated."""
        user = User.objects.filter(email__iexact=email).first()
        if user is not None:
            return user, None
        password = sys.stdin.readline().strip() if from_stdin else secrets.token_urlsafe(12)
        if not password:
            raise CommandError("Standard input held no password.")
        user = User.objects.create_user(email, password)
        EmailAddress.objects.create(user=user, email=user.email, verified=True, primary=True)
        return user, None if from_stdin else password
