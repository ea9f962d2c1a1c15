"""What is answered to a key that a door should not take: each door of the URL configuration.

The doors are read from the URL configuration: a new one that takes a key needs a line in `DOORS`;
without it these tests fail.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from accounts import keys
from accounts.models import Key, Tenant
from alerts.models import Alert, Incident
from clouds.models import Lease, Server, Suppression
from metrics import isolation
from sentinel_site.kit.tenancy import in_schema
from tests.metrics.builders import AGENT, OTHER_AGENT, body, event, now, point, report, request
from tests.site.test_isolation import PUBLIC, TENANT_ROUTES, plain, routes, with_id

#: What is answered to a key, by who holds it; a door that answers otherwise says so.
USUAL: dict[str, tuple[int, str]] = {
    "nobody": (401, "key-missing"),
    "nonsense": (401, "unknown-key"),
    "guessed": (401, "unknown-key"),
    "another's secret": (401, "unknown-key"),
    "revoked": (401, "revoked-key"),
    "expired": (401, "revoked-key"),
    "reader": (403, "wrong-scope"),
    "administrator": (403, "wrong-scope"),
    "token": (401, "unknown-key"),
    "spent token": (401, "unknown-key"),
    "another server": (403, "wrong-agent"),
    "stranger": (200, ""),
    "stranger's server": (200, ""),
}
NOT_A_TOKEN = dict.fromkeys(set(USUAL) - {"nobody"}, (401, "unknown-key"))
SUPPRESSION: dict[str, tuple[int, str]] = {
    "nobody": (401, "not-authenticated"),
    "another server": (409, "not-reported"),
    "stranger": (403, "not-a-servers-key"),
    "stranger's server": (409, "not-reported"),
}
ACCOUNT: dict[str, tuple[int, str]] = {
    "nobody": (401, "unknown-key"),
    "stranger": (202, ""),
    "stranger's server": (403, "wrong-agent"),
}
#: Other people's alerting tools: what may ask, send and act there.
ASKS: dict[str, tuple[int, str]] = {
    "nobody": (401, "not-authenticated"),
    "reader": (200, ""),
    "administrator": (200, ""),
    **dict.fromkeys(("another server", "stranger", "stranger's server"), (403, "wrong-scope")),
}
SENDS: dict[str, tuple[int, str]] = {
    "nobody": (401, "not-authenticated"),
    "administrator": (200, ""),
    **dict.fromkeys(("another server", "stranger's server"), (403, "servers-key")),
}
ACTS = {**ASKS, "reader": (403, "wrong-scope"), "administrator": (404, "not-found")}
NO_ALERT = "0000002a-0000-8000-8000-000000000000"
OVER = {
    "labels": {"alertname": "Load"},
    "startsAt": "2026-01-01T00:00:00Z",
    "endsAt": "2026-01-01T00:01:00Z",
}


@dataclass(frozen=True)
class Door:
    """How a door is asked, always in the name of acme's server, and what it answers otherwise."""

    content: Any = field(default_factory=dict)
    otherwise: dict[str, tuple[int, str]] = field(default_factory=dict)
    method: str = "POST"
    path: str = ""
    #: The key stands in the body, as the original agents have it.
    in_body: bool = False
    #: Errors are in Alerta's form.
    is_alertas: bool = False

    def ask(self, route: str, key: str) -> Any:
        content = {**self.content, "account_key": key} if self.in_body else self.content
        if route == "api/v1/reports":
            content = json.loads(_said())
        headers = {"Authorization": f"Bearer {key}"} if key and not self.in_body else {}
        return request(
            self.method, f"/{self.path or route}", json.dumps(content).encode(), headers=headers
        )


def _said() -> bytes:
    at = now()
    return body(report(at, sequence=9, points=[point(percent=66)], events=[event(at, "9")]))


DOORS = {
    "api/v1/reports": Door(),
    "api/v1/enrol": Door(
        {"agent": str(AGENT), "host": "nova-1"},
        {**NOT_A_TOKEN, "token": (201, "")},
    ),
    "api/v1/servers/self": Door(
        method="GET",
        otherwise={
            "nobody": (401, "not-authenticated"),
            "another server": (200, ""),
            "stranger": (403, "not-a-servers-key"),
        },
    ),
    "api/v1/servers/self/suppression": Door(
        {"kind": "maintenance", "seconds": 60, "reason": "why"}, SUPPRESSION
    ),
    "api/v1/servers/self/suppression/end": Door({"kind": "maintenance"}, SUPPRESSION),
    "api/v1/lease": Door(
        {"cloud": "https://cloud.example.org:5000", "agent": str(AGENT), "seconds": 60},
        {"nobody": (401, "not-authenticated"), "stranger": (403, "unknown-agent")},
    ),
    "metrics": Door(
        {"server_name": "nova-1", "measurements": '[{"name": "cpu.percent", "value": 66}]'},
        ACCOUNT,
        in_body=True,
    ),
    "logs": Door(
        {"server_name": "nova-1", "level": "ERROR", "msg": "It broke"}, ACCOUNT, in_body=True
    ),
    # nothing is released yet, and nobody is asked for a key
    "plugins/download/<name>-<version>.zip": Door(
        method="GET",
        path="plugins/download/a-1.zip",
        otherwise=dict.fromkeys(USUAL, (404, "not-found")),
    ),
    "alerta/config": Door(method="GET", otherwise=dict.fromkeys(USUAL, (200, "")), is_alertas=True),
    "alerta/alert": Door(
        {"resource": "nova-1", "event": "Down", "severity": "ok"},
        {**SENDS, "administrator": (202, ""), "stranger": (202, "")},
        is_alertas=True,
    ),
    "alerta/alert/<str:identity>": Door(
        method="GET",
        path=f"alerta/alert/{NO_ALERT}",
        otherwise={**ASKS, **dict.fromkeys(("reader", "administrator"), (404, "not-found"))},
        is_alertas=True,
    ),
    "alerta/alert/<identity>/(?:action|status)": Door(
        {"action": "close"},
        ACTS,
        method="PUT",
        path=f"alerta/alert/{NO_ALERT}/action",
        is_alertas=True,
    ),
    "alerta/alert/<str:identity>/note": Door(
        {"text": "mine"}, ACTS, method="PUT", path=f"alerta/alert/{NO_ALERT}/note", is_alertas=True
    ),
    "alerta/heartbeat": Door(
        {"origin": ""},
        {**SENDS, **dict.fromkeys(("administrator", "stranger"), (400, "not-an-alert"))},
        is_alertas=True,
    ),
    "alerta/heartbeat/<str:identity>": Door(
        method="DELETE", path=f"alerta/heartbeat/{NO_ALERT}", otherwise=ACTS, is_alertas=True
    ),
    "alerta/<path>": Door(
        path="alerta/blackout", otherwise=dict.fromkeys(USUAL, (404, "not-found")), is_alertas=True
    ),
    **{
        f"alerta/{path}": Door(method="GET", otherwise=ASKS, is_alertas=True)
        for path in (
            *("alerts", "alerts/count", "alerts/history", "heartbeats"),
            *("userinfo", "management/status"),
        )
    },
    "alertmanager/api/v1/alerts": Door([OVER], SENDS),
    "alertmanager/api/v2/alerts": Door([OVER], SENDS),
    "alertmanager/webhook": Door({"alerts": [OVER]}, SENDS),
}


def doors() -> list[str]:
    """Every public route that is opened by a key or token of a program."""
    found = set()
    for route in routes("sentinel_site.urls_public"):
        path = plain(route)
        start = max((known for known in PUBLIC if path.startswith(known)), key=len)
        if PUBLIC[start].startswith("by "):
            found.add(path)
    return sorted(found)


@pytest.fixture
def held(acme: Tenant, globex: Tenant) -> dict[str, str]:
    """A key for each holder; acme's server has reported, and has a key of its own."""
    keys.forget_cached()
    at = timezone.now()
    _, own = keys.issue(acme, Key.Scope.INGEST, agent_id=AGENT)
    first = request(
        "POST",
        "/api/v1/reports",
        body(report(host="nova-1", points=[point(percent=5)])),
        headers={"Authorization": f"Bearer {own}"},
    )
    assert first.json()["accepted"] == 1

    def key(tenant: Tenant, scope: str, **more: Any) -> str:
        return keys.issue(tenant, scope, **more)[1]

    revoked, text = keys.issue(acme, Key.Scope.INGEST)
    keys.revoke(revoked, at)
    spent = keys.issue_enrol_token(acme, None, at)[1]
    keys.enrol(spent, OTHER_AGENT, "elsewhere", at)
    return {
        "nobody": "",
        "nonsense": "Robert'); DROP TABLE keys;--",
        "guessed": f"snt_abcdefabcdef_{'x' * 40}",
        "another's secret": f"{own[:17]}{'x' * 40}",
        "revoked": text,
        "expired": key(acme, Key.Scope.INGEST, expires_at=at - timedelta(seconds=1)),
        "reader": key(acme, Key.Scope.READ),
        "administrator": key(acme, Key.Scope.ADMIN),
        "token": keys.issue_enrol_token(acme, None, at)[1],
        "spent token": spent,
        "another server": key(acme, Key.Scope.INGEST, agent_id=OTHER_AGENT),
        "stranger": key(globex, Key.Scope.INGEST),
        "stranger's server": key(globex, Key.Scope.INGEST, agent_id=AGENT),
    }


def state_of(tenant: Tenant) -> list[Any]:
    """All that a door could have changed of an organization."""
    with in_schema(tenant.schema_name):
        rows: list[Any] = [
            list(model.objects.order_by("pk").values())
            for model in (Server, Suppression, Lease, Alert, Incident)
        ]
    with isolation.only(tenant.pk) as cursor:
        for table in ("metrics_points", "metrics_event", "metrics_source", "metrics_knock"):
            cursor.execute(f"SELECT count(*) FROM public.{table}")  # noqa: S608
            rows.append(cursor.fetchone())
    return rows


def test_every_door_that_takes_a_key_is_attacked_here():
    assert {route for route in doors() if route not in DOORS} == set()


@pytest.mark.parametrize("holder", USUAL)
@pytest.mark.parametrize("route", doors())
def test_a_key_opens_what_it_is_for_and_nothing_of_others(acme, held, route, holder):
    door = DOORS[route]
    before = state_of(acme)
    answer = door.ask(route, held[holder])
    status, code = door.otherwise.get(holder, USUAL[holder])
    assert answer.status_code == status, answer.content
    assert state_of(acme) == before
    said = answer.content.decode()
    assert acme.schema_name not in said
    if holder not in ("token", "reader", "administrator"):  # who has one of acme's may know it
        assert acme.slug not in said
    if not code:
        return
    assert ("WWW-Authenticate" in answer) == (status == 401)
    assert held[holder] not in said or not held[holder]
    document = answer.json()
    if door.is_alertas:
        assert (document["status"], document["code"]) == ("error", status)
        return
    assert answer["Content-Type"] == "application/problem+json"
    assert document["type"] == f"/problems/{code}"
    assert document["detail"] != document["title"], "it says what is wrong and not what to do"


@pytest.mark.parametrize(
    ("holder", "status"),
    [
        ("nonsense", 401),
        ("guessed", 401),
        ("another's secret", 401),
        ("revoked", 401),
        ("expired", 401),
        ("token", 401),
        ("spent token", 401),
        ("another server", 403),
        ("stranger", 404),
    ],
)
def test_an_agents_key_opens_nothing_of_an_organizations_own_api(acme, held, holder, status):
    for route in TENANT_ROUTES:
        if route.startswith("api/"):
            path = f"/o/{acme.slug}/{with_id(route, 1)}"
            for method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
                bearer = {"Authorization": f"Bearer {held[holder]}"}
                answer = request(method, path, b"{}", headers=bearer)
                assert answer.status_code == status, (method, route, answer.content)
                assert answer["Content-Type"] == "application/problem+json"
