"""Credentials of programs: issue, find, spend, revoke."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import threading
import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Generic, TypeVar
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from accounts.models import Key, Tenant, User
from sentinel_site.kit.problems import Problem

ENROL_LIFETIME = timedelta(hours=1)
CACHE_SECONDS = 30.0
CACHE_SIZE = 100_000
#: A key that is not valid is not looked up again for so long: its sender goes on sending.
REFUSED_SECONDS = 5.0
REFUSED_SIZE = 10_000

T = TypeVar("T")

_FORM = re.compile(r"snt_([a-z0-9]{12})_([A-Za-z0-9]{40})")
_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


class UnknownKey(Problem):
    status, code, title = 401, "unknown-key", "This key is not known, or no longer valid"
    headers = {"WWW-Authenticate": "Bearer"}


class RevokedKey(UnknownKey):
    code, title = "revoked-key", "This key is no longer valid"


class WrongScope(Problem):
    status, code, title = 403, "wrong-scope", "This key is for something else"


class NotCached(LookupError):
    """The key was not asked for lately, so only the database knows."""


@dataclass(frozen=True)
class KeyHolder:
    """What a valid key stands for."""

    id: int
    tenant_id: int
    schema_name: str
    slug: str
    scope: str
    agent_id: UUID | None


def from_header(value: str) -> str | None:
    """The key in an `Authorization: Bearer …` header, if there is one."""
    scheme, _, text = value.partition(" ")
    return text.strip() if scheme.lower() == "bearer" else None


def issue(
    tenant: Tenant,
    scope: str,
    *,
    name: str = "",
    by: User | None = None,
    agent_id: UUID | None = None,
    expires_at: datetime | None = None,
    text: str = "",
) -> tuple[Key, str]:
    """A new key and its secret text, which is not kept and can't be shown again."""
    text = text or _random_text()
    prefix = text.split("_")[1]
    key = Key.objects.create(
        tenant=tenant,
        scope=scope,
        prefix=prefix,
        digest=_digest(text),
        name=name,
        created_by=by,
        agent_id=agent_id,
        expires_at=expires_at,
    )
    return key, text


def bootstrap_key(tenant: Tenant, scope: str) -> str:
    """The key that scripts of this installation use; the same text each time until it is revoked.

    It follows from the pepper and the schema's random name, so nothing more need be kept.
    """
    name = f"bootstrap {scope}"
    revoked = Key.objects.filter(tenant=tenant, name=name, revoked_at__isnull=False).count()
    seed = _digest(f"{tenant.schema_name} {name} {revoked}").hex()
    text = f"snt_{seed[:12]}_{seed[12:52]}"
    if not Key.objects.filter(prefix=seed[:12]).exists():
        issue(tenant, scope, name=name, text=text)
    return text


def issue_enrol_token(tenant: Tenant, by: User | None, at: datetime) -> tuple[Key, str]:
    """A one-time token that a new server's agent turns into its own key."""
    return issue(tenant, Key.Scope.ENROL, by=by, expires_at=at + ENROL_LIFETIME)


def find(text: str, *scopes: str) -> KeyHolder:
    """Whom this key stands for.

    Answers come from a cache of this process for 30 s, so a revocation takes effect within that;
    those that refuse for 5 s. Raises UnknownKey, or WrongScope if the key is valid but has none of
    the scopes.
    """
    digest = _digest(text)
    found = _cached(digest)
    if found is None:
        try:
            found = _look_up(text, digest)
        except UnknownKey as unknown:
            _refused.put(digest, type(unknown)(unknown.detail))
            raise
        _cache.put(digest, found)
    return _for(found, scopes)


def find_cached(text: str, *scopes: str) -> KeyHolder:
    """The same without asking the database. Raises NotCached too."""
    found = _cached(_digest(text))
    if found is None:
        raise NotCached
    return _for(found, scopes)


def _cached(digest: bytes) -> KeyHolder | None:
    """Raises UnknownKey where it was not valid just now."""
    unknown = _refused.get(digest)
    if unknown is not None:
        raise type(unknown)(unknown.detail)
    return _cache.get(digest)


def _for(holder: KeyHolder, scopes: tuple[str, ...]) -> KeyHolder:
    if scopes and holder.scope not in scopes:
        wanted = " or ".join(scopes)
        raise WrongScope(f"It has the scope {holder.scope}; this needs {wanted}.")
    return holder


@transaction.atomic
def enrol(text: str, agent_id: UUID, host: str, at: datetime) -> tuple[Key, str]:
    """Spend a one-time token and give the agent the key of its server.

    Raises UnknownKey when the token is spent, expired, revoked or was never one.
    """
    match = _FORM.fullmatch(text)
    row = (
        Key.objects.select_for_update()
        .select_related("tenant")
        .filter(prefix=match[1] if match else "", scope=Key.Scope.ENROL)
        .first()
    )
    if row is None or not hmac.compare_digest(bytes(row.digest), _digest(text)):
        raise UnknownKey("The enrol token is not known. Take a new one from “Add a server”.")
    if row.used_at or row.revoked_at or (row.expires_at and row.expires_at <= at):
        raise UnknownKey("The enrol token is spent or expired. Take a new one from “Add a server”.")
    row.used_at, row.agent_id = at, agent_id
    row.save(update_fields=["used_at", "agent_id"])
    return issue(row.tenant, Key.Scope.INGEST, name=host[:120], agent_id=agent_id)


def revoke(key: Key, at: datetime) -> None:
    """End a key for good. Other processes follow within 30 s."""
    Key.objects.filter(pk=key.pk, revoked_at=None).update(revoked_at=at)
    transaction.on_commit(_cache.clear)


def note_use(holder: KeyHolder, at: datetime) -> None:
    """Remember the minute of the last use; writes at most once a minute and key."""
    minute = at.replace(second=0, microsecond=0)
    if _used.get(holder.id) == minute:
        return
    _used[holder.id] = minute
    Key.objects.filter(pk=holder.id).filter(Q(used_at=None) | Q(used_at__lt=minute)).update(
        used_at=minute
    )


def forget_cached() -> None:
    """Start with an empty cache; what tests and a revocation do."""
    _cache.clear()
    _refused.clear()
    _used.clear()


def _look_up(text: str, digest: bytes) -> KeyHolder:
    match = _FORM.fullmatch(text)
    row = (
        Key.objects.filter(prefix=match[1], tenant__provisioned_at__isnull=False)
        .exclude(scope=Key.Scope.ENROL)
        .select_related("tenant")
        .first()
        if match
        else None
    )
    if row is None or not hmac.compare_digest(bytes(row.digest), digest):
        raise UnknownKey("Check the key, or issue a new one under Settings, Keys.")
    over = row.revoked_at or row.expires_at  # whoever has the whole key may know what became of it
    if over is not None and (row.revoked_at or over <= timezone.now()):
        word = "revoked" if row.revoked_at else "good until"
        raise RevokedKey(f"It was {word} {over:%Y-%m-%d %H:%M} UTC. Issue a new one.")
    return KeyHolder(
        row.pk, row.tenant_id, row.tenant.schema_name, row.tenant.slug, row.scope, row.agent_id
    )


def _random_text() -> str:
    secret = "".join(secrets.choice(_ALPHABET) for _ in range(40))
    return f"snt_{secrets.token_hex(6)}_{secret}"


def _digest(text: str) -> bytes:
    return hmac.new(settings.KEY_PEPPER.encode(), text.encode(), hashlib.sha256).digest()


class _Cache(Generic[T]):
    """Answers by digest for a short time, at most so many."""

    def __init__(self, seconds: float, size: int) -> None:
        self._rows: dict[bytes, tuple[float, T]] = {}
        self._lock = threading.Lock()
        self._seconds, self._size = seconds, size

    def get(self, digest: bytes) -> T | None:
        row = self._rows.get(digest)
        return row[1] if row and row[0] > time.monotonic() else None

    def put(self, digest: bytes, answer: T) -> None:
        with self._lock:
            if len(self._rows) >= self._size:
                self._rows.clear()
            self._rows[digest] = (time.monotonic() + self._seconds, answer)

    def clear(self) -> None:
        with self._lock:
            self._rows.clear()


_cache: _Cache[KeyHolder] = _Cache(CACHE_SECONDS, CACHE_SIZE)
_refused: _Cache[UnknownKey] = _Cache(REFUSED_SECONDS, REFUSED_SIZE)
_used: dict[int, datetime] = {}
