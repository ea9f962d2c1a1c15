"""Who you are, and whose data you may see. All of it lives in the public schema."""

from __future__ import annotations

import secrets
from typing import Any, ClassVar

from django.contrib.auth.models import AbstractUser, BaseUserManager
from django.core.validators import RegexValidator
from django.db import models
from django.db.models import Q
from django.db.models.functions import Lower
from django.utils import timezone
from django_tenants.models import DomainMixin, TenantMixin

from accounts import wording

RESERVED_SLUGS = frozenset(
    {
        "admin",
        "api",
        "app",
        "assets",
        "auth",
        "docs",
        "help",
        "home",
        "install",
        "login",
        "logout",
        "metrics",
        "logs",
        "new",
        "o",
        "organization",
        "plugins",
        "public",
        "root",
        "signup",
        "static",
        "media",
        "status",
        "support",
        "system",
        "www",
    }
)

slug_validator = RegexValidator(
    r"^[a-z0-9](?:[a-z0-9-]{0,46}[a-z0-9])?$",
    "Use 1 to 48 lower-case letters, digits and hyphens, with no hyphen at either end.",
)


def new_schema_name() -> str:
    """Never the slug: an organization may change its name, its schema stays."""
    return "t_" + secrets.token_hex(8)


class Role(models.TextChoices):
    """What a member may do; each role may all that the ones before it may."""

    VIEWER = "viewer", "Viewer"
    MEMBER = "member", "Member"
    ADMIN = "admin", "Admin"
    OWNER = "owner", "Owner"

    @property
    def rank(self) -> int:
        return list(Role).index(self)

    def may(self, least: Role) -> bool:
        return self.rank >= least.rank


class Tenant(TenantMixin):
    """An organization: its members, keys and one schema. Shown to people as "organization"."""

    auto_create_schema = False

    schema_name = models.CharField(max_length=63, unique=True, default=new_schema_name)
    slug = models.CharField(max_length=48, unique=True, validators=[slug_validator])
    name = models.CharField(max_length=120)
    created_at = models.DateTimeField(default=timezone.now)
    evaluated_at = models.DateTimeField(
        null=True, editable=False, help_text="The last slot at which its rules were judged."
    )
    evaluated_in = models.DurationField(
        null=True, editable=False, help_text="From that slot to when what it found was stored."
    )
    timer_at = models.DateTimeField(
        null=True,
        blank=True,
        db_index=True,
        help_text="When its rules or notifications must be looked at though no data arrives.",
    )
    claimed_until = models.DateTimeField(
        null=True, editable=False, help_text="Somebody is looking at it, or is lost then."
    )
    provisioned_at = models.DateTimeField(
        null=True, blank=True, help_text="When its schema was ready; without it nothing is served."
    )

    class Meta:
        ordering = ["name", "pk"]

    def __str__(self) -> str:
        return self.name


class Timer(models.Model):
    """Something happened by which a tenant must be looked at, now or later.

    Rows are only added, so that nobody who adds one waits for another; whoever has looked at the
    tenant drops those that it saw before.
    """

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE)
    at = models.DateTimeField()

    class Meta:
        indexes = [models.Index(fields=["at", "tenant"], name="timer_rings")]

    def __str__(self) -> str:
        return f"{self.tenant} at {self.at}"


class Domain(DomainMixin):
    """A host name of a tenant's own. The mount point `/o/<slug>/` needs none."""


class UserManager(BaseUserManager["User"]):
    def create_user(self, email: str, password: str | None = None, **fields: Any) -> User:
        user = self.model(email=self.normalize_email(email).lower(), **fields)
        user.set_password(password)
        user.save(using=self._db)
        return user

    def create_superuser(self, email: str, password: str | None = None, **fields: Any) -> User:
        return self.create_user(email, password, is_staff=True, is_superuser=True, **fields)


class User(AbstractUser):
    """A person. Retired, never deleted: tenants' rows elsewhere point here."""

    username = None  # type: ignore[assignment]
    first_name = None  # type: ignore[assignment]
    last_name = None  # type: ignore[assignment]
    email = models.EmailField(unique=True)
    name = models.CharField(max_length=120, blank=True)
    theme = models.CharField(
        max_length=6,
        default="system",
        choices=[("system", "System"), ("light", "Light"), ("dark", "Dark")],
    )
    retired_at = models.DateTimeField(null=True, blank=True)

    USERNAME_FIELD = "email"
    REQUIRED_FIELDS = []
    objects: ClassVar[UserManager] = UserManager()  # type: ignore[assignment]

    class Meta:
        constraints = [models.UniqueConstraint(Lower("email"), name="one_user_per_email")]

    def __str__(self) -> str:
        return self.name or self.email

    @property
    def initials(self) -> str:
        words = (self.name or self.email.split("@")[0]).replace(".", " ").split()
        return "".join(word[0] for word in words[:2]).upper()


class Membership(models.Model):
    """A person's role in one organization."""

    user = models.ForeignKey(User, on_delete=models.PROTECT)
    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE)
    role = models.CharField(max_length=6, choices=Role.choices)
    joined_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["user", "tenant"], name="one_membership"),
            models.CheckConstraint(condition=Q(role__in=Role.values), name="membership_role"),
        ]

    def __str__(self) -> str:
        return f"{self.user}, {self.role} of {self.tenant}"


class Invitation(models.Model):
    """An offer of a role to an e-mail address; its token is mailed and only its hash kept."""

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE)
    email = models.EmailField()
    role = models.CharField(max_length=6, choices=Role.choices)
    token_hash = models.BinaryField(max_length=32, unique=True)
    invited_by = models.ForeignKey(User, on_delete=models.PROTECT)
    created_at = models.DateTimeField(default=timezone.now)
    expires_at = models.DateTimeField()
    accepted_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                Lower("email"),
                "tenant",
                condition=Q(accepted_at=None),
                name="one_open_invitation",
            )
        ]

    def __str__(self) -> str:
        return f"{self.email} to {self.tenant}"


class Key(models.Model):
    """A credential of a program: `snt_<prefix>_<secret>`, shown once, kept as an HMAC."""

    class Scope(models.TextChoices):
        ENROL = "enrol", "Enrol one server"
        INGEST = "ingest", "Send reports"
        READ = "read", "Read"
        ADMIN = "admin", "Administer"

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE)
    scope = models.CharField(max_length=6, choices=Scope.choices)
    prefix = models.CharField(max_length=12, unique=True)
    digest = models.BinaryField(max_length=32)
    name = models.CharField(max_length=120, blank=True)
    agent_id = models.UUIDField(
        null=True,
        blank=True,
        help_text="The one agent that may use it; of a token, the one that spent it.",
    )
    created_at = models.DateTimeField(default=timezone.now)
    created_by = models.ForeignKey(User, null=True, blank=True, on_delete=models.PROTECT)
    expires_at = models.DateTimeField(null=True, blank=True)
    used_at = models.DateTimeField(
        null=True, blank=True, help_text="Last use to the minute; for a token, when it was spent."
    )
    revoked_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-created_at", "-pk"]
        constraints = [
            models.CheckConstraint(
                condition=Q(scope__in=["enrol", "ingest", "read", "admin"]), name="key_scope"
            ),
            models.CheckConstraint(
                condition=Q(agent_id=None) | Q(scope__in=["enrol", "ingest"]),
                name="only_agents_keys_are_bound",
            ),
        ]

    def __str__(self) -> str:
        return f"snt_{self.prefix}_…"


class AuditEntry(models.Model):
    """One thing that a person or key changed in an organization. Never edited."""

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE)
    at = models.DateTimeField(default=timezone.now)
    user = models.ForeignKey(User, null=True, on_delete=models.PROTECT)
    key = models.ForeignKey(Key, null=True, on_delete=models.SET_NULL)
    verb = models.CharField(max_length=60)
    subject = models.CharField(max_length=200)
    data = models.JSONField(default=dict)

    class Meta:
        ordering = ["-at", "-pk"]
        indexes = [models.Index(fields=["tenant", "-at"], name="audit_newest")]

    def __str__(self) -> str:
        return f"{self.verb} {self.subject}"

    @property
    def done(self) -> str:
        """What was done, in words."""
        return wording.done(self.verb)

    @property
    def details(self) -> str:
        return wording.details(self.verb, self.data)
