"""Who sends with a key that stands for nothing. Cheap: it may come every minute for years."""

from __future__ import annotations

import hashlib
import threading
import time
from datetime import datetime
from typing import Any

import structlog
from django.conf import settings
from django.db import DatabaseError, transaction

from metrics import isolation
from metrics.models import Knock

log = structlog.get_logger(__name__)

NOBODY = 0
WRITE_EVERY = 60.0
MOST = 10_000
HINT = 8

_NOTE = """
INSERT INTO public.metrics_knock AS known
  (tenant_id, kind, digest, hint, host, first_at, last_at, count, sample)
SELECT %(tenant)s, %(kind)s, %(digest)s, %(hint)s, %(host)s, %(at)s, %(at)s, %(count)s,
       %(sample)s::jsonb
WHERE EXISTS (SELECT FROM public.metrics_knock WHERE tenant_id = %(tenant)s AND kind = %(kind)s
              AND digest = %(digest)s AND host = %(host)s)
   OR (SELECT count(*) FROM public.metrics_knock WHERE tenant_id = %(tenant)s) < %(most)s
ON CONFLICT (tenant_id, kind, digest, host) DO UPDATE SET
  last_at = greatest(known.last_at, excluded.last_at), count = known.count + excluded.count,
  sample = excluded.sample
"""

_Key = tuple[int, str, bytes, str]


def note(
    kind: Knock.Kind,
    key: str,
    host: str,
    at: datetime,
    *,
    tenant_id: int = NOBODY,
    sample: Any = (),
) -> None:
    """Count one knock; the row is written at most once a minute and key.

    Never fails for want of a database: a knock is worth counting, not an error.
    """
    digest = hashlib.blake2b(key.encode("utf-8", "replace"), digest_size=16).digest()
    where = (tenant_id, kind.value, digest, host)
    count = _due(where)
    if not count:
        return
    shown = key[:64] if kind is Knock.Kind.PLUGIN else key[:HINT] + "…" * (len(key) > HINT)
    try:
        _write(where, shown, at, count, sample)
    except DatabaseError:
        log.warning("a knock was not written down", kind=kind.value, host=host)


def of_tenant(tenant_id: int, limit: int = 100) -> list[Knock]:
    """What knocks at an organization with unknown plugin keys, latest first."""
    with isolation.only(tenant_id):
        return list(Knock.objects.filter(tenant_id=tenant_id)[:limit])


def _write(where: _Key, shown: str, at: datetime, count: int, sample: Any) -> None:
    from psycopg2.extras import Json

    tenant_id, kind, digest, host = where
    with transaction.atomic(), isolation.only(tenant_id) as cursor:
        cursor.execute(
            _NOTE,
            {
                "tenant": tenant_id,
                "kind": kind,
                "digest": digest,
                "hint": shown,
                "host": host,
                "at": at,
                "count": count,
                "sample": Json(sample or {}),
                "most": MOST,
            },
        )


def _due(where: _Key) -> int:
    """How many knocks are to be written now; 0 while the last writing is fresh."""
    if settings.COMMIT_INLINE:
        return 1
    with _lock:
        if where not in _waiting and len(_waiting) >= MOST:
            _waiting.clear()
        written, count = _waiting.get(where, (-WRITE_EVERY, 0))
        if time.monotonic() - written < WRITE_EVERY:
            _waiting[where] = (written, count + 1)
            return 0
        _waiting[where] = (time.monotonic(), 0)
        return count + 1


_lock = threading.Lock()
_waiting: dict[_Key, tuple[float, int]] = {}
