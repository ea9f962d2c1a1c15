"""What a request at these doors does, whatever server speaks HTTP: find the key, parse, accept.

The DRF views call these, and so does the smaller handler beside Django.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, NamedTuple
from urllib.parse import parse_qs

import msgspec
import structlog
from django.db import InterfaceError, OperationalError, transaction
from psycopg2.errors import LockNotAvailable

from accounts import keys
from accounts.keys import KeyHolder
from accounts.models import Key, Tenant
from alerts.doors import alerta
from alerts.lifecycle import external
from alerts.lifecycle.external import Statement, TooManyOpen
from alerts.models import Alert
from sentinel_site.kit.problems import DatabaseAway, Failure, NotAuthenticated, Problem, TooLarge
from sentinel_site.kit.tenancy import connection, in_schema, tenant_link

log = structlog.get_logger(__name__)

MAX_BODY = 16 * 2**20
#: Seconds to wait for who is at the alerts of the same organization.
LOCK_WITHIN = 2


class NotJson(Problem):
    status, code, title = 400, "not-json", "The body is not JSON"


class ServersKey(Problem):
    status, code, title = 403, "servers-key", "A server's own key speaks for that server alone"


class Busy(Problem):
    status, code, title = 503, "busy", "Too many alerts are waiting to be stored"
    headers = {"Retry-After": "5"}


class Held(Busy):
    """Another transaction is at the alerts of the organization."""

    title = "The alerts of the organization are being judged"


class Answer(NamedTuple):
    """What is answered, as JSON."""

    status: int
    body: dict[str, Any]
    headers: Mapping[str, str] = {}

    def to_json(self) -> bytes:
        return msgspec.json.encode(self.body)


Find = Callable[..., KeyHolder]


def holder(
    headers: Mapping[str, str], query: str, *scopes: str, find: Find = keys.find
) -> KeyHolder:
    """Whose key a request brings; header names are in lower case.

    Raises NotAuthenticated, UnknownKey, WrongScope, ServersKey.
    """
    found = find(_key_in(headers, query), *scopes)
    if found.agent_id is not None:
        raise ServersKey("Use a key of the organization; Settings, Keys makes one.")
    return found


def sender(headers: Mapping[str, str], query: str, find: Find = keys.find) -> KeyHolder:
    """Who may send alerts; raises as `holder` does."""
    return holder(headers, query, Key.Scope.INGEST, Key.Scope.ADMIN, find=find)


def parsed(body: bytes) -> Any:
    """Raises NotJson, TooLarge."""
    if len(body) > MAX_BODY:
        raise TooLarge(f"At most {MAX_BODY // 2**20} MiB.")
    try:
        return msgspec.json.decode(body)
    except (ValueError, RecursionError) as error:
        raise NotJson(f"It must be one JSON value in UTF-8: {error}") from error


@contextmanager
def briefly() -> Iterator[None]:
    """A transaction that does not wait long for others who are at the same alerts. Raises Held."""
    try:
        with transaction.atomic():
            with connection.cursor() as cursor:
                cursor.execute("SELECT set_config('lock_timeout', %s, TRUE)", [f"{LOCK_WITHIN}s"])
            yield
    except OperationalError as error:
        if isinstance(error.__cause__, LockNotAvailable):
            raise Held("Nothing of it was kept; send it again.") from error
        raise


def take_alertas(schema: str, statements: Sequence[Statement], now: datetime) -> list[Answer]:
    """Store these alerts of one organization and answer each as Alerta does; 201 means committed.

    They are taken together. Where one can't be, it sinks no other: those for which there is no room
    are left out, and of what fails for another reason each half is tried alone. Raises Held, and
    what Django raises where the database is away; then nothing was kept.
    """
    try:
        with in_schema(schema), briefly():
            tenant = Tenant.objects.get(schema_name=schema)
            found = external.accept(statements, now)
            return [_taken(found.get(one.fingerprint), tenant) for one in statements]
    except TooManyOpen as full:
        fits = [one for one in statements if one.fingerprint not in full.refused]
        answers = iter(take_alertas(schema, fits, now) if fits else ())
        said = refusal(full)
        return [said if one.fingerprint in full.refused else next(answers) for one in statements]
    except (Held, InterfaceError, OperationalError):
        raise
    except Exception as error:
        if len(statements) == 1:
            log.exception("an alert could not be stored")
            return [refusal(Failure("Nothing of it was kept."))]
        log.warning("alerts could not be stored together", error=str(error), count=len(statements))
    half = len(statements) // 2
    parts = statements[:half], statements[half:]
    return [answer for part in parts for answer in _take_part(schema, part, now)]


def _take_part(schema: str, statements: Sequence[Statement], now: datetime) -> list[Answer]:
    """The same; a database that goes away now leaves what was committed before as it is."""
    try:
        return take_alertas(schema, statements, now)
    except Problem as problem:
        return [refusal(problem)] * len(statements)
    except (InterfaceError, OperationalError):
        return [refusal(DatabaseAway("Nothing of it was kept; send it again."))] * len(statements)


def refusal(problem: Problem) -> Answer:
    """A problem in Alerta's form, as its clients show it."""
    return alertas_error(problem.status, problem.detail or problem.title, problem.headers)


def alertas_error(status: int, message: str, headers: Mapping[str, str]) -> Answer:
    body = {"status": "error", "message": message, "code": status, "errors": []}
    return Answer(status, body, headers)


def _taken(alert: Alert | None, tenant: Tenant) -> Answer:
    if alert is None:
        return Answer(202, {"status": "ok", "message": "nothing of it is open"})
    shown = alerta.document(alert, tenant_link(tenant, "alerts:incident", alert.incident_id))
    return Answer(201, {"status": "ok", "id": shown["id"], "alert": shown})


def _key_in(headers: Mapping[str, str], query: str) -> str:
    """`Bearer`, Alerta's `Key`, the password of `Basic`, `X-API-Key` or `?api-key=`."""
    scheme, _, text = headers.get("authorization", "").partition(" ")
    if scheme.lower() in ("bearer", "key") and text.strip():
        return text.strip()
    if scheme.lower() == "basic":
        return _password(text.strip())
    found = headers.get("x-api-key") or parse_qs(query).get("api-key", [""])[0]
    if not found:
        raise NotAuthenticated("Send a key of your organization: “Authorization: Bearer snt_…”.")
    return found


def _password(text: str) -> str:
    try:
        return base64.b64decode(text, validate=True).decode().partition(":")[2]
    except ValueError as error:
        raise NotAuthenticated("Basic authentication takes the key as its password.") from error
