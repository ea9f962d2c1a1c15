"""What a request at a door does, whatever server speaks HTTP: find the key, parse, accept.

The DRF views call these; so can a smaller handler beside Django.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import UUID

from accounts import keys
from accounts.keys import KeyHolder, UnknownKey, WrongScope
from accounts.models import Key
from agent_client import wire
from clouds import agent_settings
from metrics import ingest, knocks
from metrics.batch import Batch, clean
from metrics.doors import body as body_of
from metrics.doors import legacy, native
from metrics.ingest import Holder, database_or_unavailable
from metrics.models import Knock
from sentinel_site.kit.problems import Problem

#: Bytes, where the body is parsed before it is known whose it is: parsed, JSON may take 27 times as
#: much memory. An original agent's largest push has some 20 KB.
MAX_UNKNOWN = 2 * 1024**2


class KeyMissing(Problem):
    status, code, title = 401, "key-missing", "A key is needed"
    headers = {"WWW-Authenticate": "Bearer"}


class WrongAgent(Problem):
    status, code, title = 403, "wrong-agent", "This key belongs to another agent"


class NotAnEnrolment(Problem):
    status, code, title = 422, "not-valid", "Some fields are not valid"


def reports(authorization: str, encoding: str, body: bytes, now: datetime) -> wire.Answer:
    """`POST /api/v1/reports`. Raises Problems; returns when all but the rejects is committed."""
    with database_or_unavailable():
        holder = keys.find(_key_in(authorization), Key.Scope.INGEST)
    batch = native.parse(body_of.decompress(body, encoding), now)
    if holder.agent_id is not None:
        _only_of(holder.agent_id, batch)
    answer = ingest.accept(Holder(holder.tenant_id, holder.schema_name), batch)
    with database_or_unavailable():
        keys.note_use(holder, now)
        agents = {report.agent for report in batch.reports}
        if len(agents) == 1 and (agent := agents.pop()) is not None:
            answer = replace(answer, settings=agent_settings.for_agent(holder.schema_name, agent))
    return answer


def metrics(encoding: str, body: bytes, now: datetime) -> None:
    """`POST /metrics` of an original agent: a system push, a plugin push, or both."""
    push = legacy.parse(body_of.decompress(body, encoding, MAX_UNKNOWN))
    holder = _account_of(push, now)
    batch, plugins = legacy.metrics(push, now)
    ingest.accept(Holder(holder.tenant_id, holder.schema_name), batch, legacy.ANSWER_WITHIN)
    for key, sample in plugins.samples.items():
        knocks.note(
            Knock.Kind.PLUGIN, key, push.host, now, tenant_id=holder.tenant_id, sample=sample
        )
    with database_or_unavailable():
        keys.note_use(holder, now)


def logs(encoding: str, body: bytes, now: datetime) -> None:
    """`POST /logs` of an original agent: one log line."""
    push = legacy.parse(body_of.decompress(body, encoding, MAX_UNKNOWN))
    holder = _account_of(push, now)
    tenant = Holder(holder.tenant_id, holder.schema_name)
    ingest.accept(tenant, legacy.log(push, now), legacy.ANSWER_WITHIN)
    with database_or_unavailable():
        keys.note_use(holder, now)


def enrol(authorization: str, body: bytes, now: datetime) -> dict[str, Any]:
    """`POST /api/v1/enrol`: spend a one-time token; the agent's own key is shown once, here."""
    given = body_of.parse(body_of.decompress(body, "", MAX_UNKNOWN))
    if not isinstance(given, dict):
        raise NotAnEnrolment("Send an object with agent and host.")
    token = keys.from_header(authorization) or given.get("token")
    if not isinstance(token, str) or not token:
        raise KeyMissing("Send the enrol token as “Authorization: Bearer …”.")
    errors: dict[str, Any] = {}
    agent = host = None
    try:
        agent = UUID(given.get("agent"))
    except (TypeError, ValueError, AttributeError):
        errors["agent"] = [{"message": "It must be a UUID.", "code": "invalid"}]
    host = given.get("host")
    if not isinstance(host, str) or not host.strip() or len(host) > native.MAX_HOST:
        errors["host"] = [{"message": "The host's name is needed.", "code": "invalid"}]
    if agent is None or errors:
        raise NotAnEnrolment("One or more fields are not valid; see errors.", errors=errors)
    with database_or_unavailable():
        key, text = keys.enrol(token, agent, clean(str(host)).strip(), now)
    return {"key": text, "agent": str(key.agent_id), "organization": key.tenant.slug}


def _key_in(authorization: str) -> str:
    text = keys.from_header(authorization)
    if not text:
        raise KeyMissing("Send it as “Authorization: Bearer snt_…”.")
    return text


def _only_of(agent: UUID, batch: Batch) -> None:
    """Refuse what a server's own key says in the name of another agent."""
    own = [report for report in batch.reports if report.agent == agent]
    if batch.reports and not own:
        raise WrongAgent("It may send reports of its own agent only.", agent=str(agent))
    for report in batch.reports:
        if report.agent != agent:
            batch.reject(report.number, "agent", "wrong-agent", f"The key belongs to {agent}.")
    batch.reports = own


def _account_of(push: legacy.Push, now: datetime) -> KeyHolder:
    """Whose account it is. One that nobody knows is counted; it will come every minute."""
    try:
        with database_or_unavailable():
            holder = keys.find(push.account_key, Key.Scope.INGEST)
    except (UnknownKey, WrongScope):
        if push.account_key:
            knocks.note(Knock.Kind.ACCOUNT, push.account_key, push.host, now)
        raise
    if holder.agent_id is not None:
        raise WrongAgent("A server's own key is no account key. Use an organization's ingest key.")
    return holder
