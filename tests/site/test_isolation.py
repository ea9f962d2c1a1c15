"""No tenant sees another: for each route of the URL configuration, each way to ask and each id.

The routes are read from the URL configuration. A new one with an id needs a line in `EXISTING`,
a new public one a line in `PUBLIC`; without it these tests fail.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from asgiref.sync import sync_to_async
from asgiref.testing import ApplicationCommunicator
from django.contrib.sessions.models import Session
from django.db import OperationalError, connection
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver

from accounts import keys, middleware, signup
from accounts.access import Access
from accounts.models import Key, Membership, Role, Tenant, User
from alerts.models import (
    Alert,
    Attempt,
    CheckIn,
    Incident,
    Notification,
    NotificationChannel,
    Route,
    Rule,
)
from alerts.push import consumers, live
from clouds.models import CloudGroup, Recurrence, Server, Suppression
from sentinel_site.kit.problems import NotFound
from sentinel_site.kit.tenancy import in_schema
from tests.alerts.builders import NOON, make_rule, make_server
from tests.alerts.test_breaches import read

MODELS = (
    CloudGroup, Alert, Incident, Rule, Server, NotificationChannel, Suppression, Recurrence,
    Route, Notification, Attempt,
    CheckIn,
)  # fmt: skip
METHODS = ("get", "post", "put", "patch", "delete")
NO_SUCH_ID = 987_654_321

#: How a route with an id finds one that exists in the current schema, by the start of its path.
EXISTING = {
    "servers/": lambda tenant: Server.objects.first().pk,
    "groups/": lambda tenant: CloudGroup.objects.first().pk,
    "incidents/": lambda tenant: Incident.objects.first().pk,
    "rules/": lambda tenant: Rule.objects.first().pk,
    "rules/alerts/": lambda tenant: Alert.objects.first().pk,
    "channels/new/": lambda tenant: "slack",
    "channels/": lambda tenant: NotificationChannel.objects.first().pk,
    "deliveries/": lambda tenant: Notification.objects.first().pk,
    "routes/": lambda tenant: Route.objects.first().pk,
    "api/v1/deliveries/": lambda tenant: Attempt.objects.first().pk,
    "api/v1/notifications/": lambda tenant: Notification.objects.first().pk,
    "api/v1/routes/": lambda tenant: Route.objects.first().pk,
    "check-ins/": lambda tenant: CheckIn.objects.first().pk,
    "api/v1/check-ins/": lambda tenant: CheckIn.objects.first().pk,
    "maintenance/again/": lambda tenant: Recurrence.objects.first().pk,
    "maintenance/": lambda tenant: Suppression.objects.first().pk,
    "api/v1/suppressions/": lambda tenant: Suppression.objects.first().pk,
    "api/v1/recurrences/": lambda tenant: Recurrence.objects.first().pk,
    "settings/members/": lambda tenant: Membership.objects.filter(tenant=tenant).first().pk,
    "settings/invitations/": lambda tenant: tenant.invitation_set.first().pk,
    "settings/keys/": lambda tenant: Key.objects.filter(tenant=tenant).first().pk,
    "api/v1/servers/": lambda tenant: Server.objects.first().pk,
    "api/v1/cloud-groups/": lambda tenant: CloudGroup.objects.first().pk,
    "api/v1/rules/": lambda tenant: Rule.objects.first().pk,
    "api/v1/alerts/": lambda tenant: Alert.objects.first().pk,
    "api/v1/incidents/": lambda tenant: Incident.objects.first().pk,
    "api/v1/channels/": lambda tenant: NotificationChannel.objects.first().pk,
    "api/v1/keys/": lambda tenant: Key.objects.filter(tenant=tenant).first().pk,
    "api/v1/members/": lambda tenant: Membership.objects.filter(tenant=tenant).first().pk,
}

#: Public routes, by the first part of their path: what each one shows is nobody's or one's own.
PUBLIC = {
    "": "landing",
    "home/": "one's own organizations",
    "theme/": "one's own",
    "signin/": "whose link it is",
    "invitations/": "whom the token was sent to",
    "signup/": "",
    "login/": "",
    "logout/": "",
    "inactive/": "",
    "reauthenticate/": "one's own",
    "email/": "one's own",
    "confirm-email/": "whom the key was sent to",
    "password/": "one's own",
    "2fa/": "one's own",
    "install": "the agent",
    "favicon.ico": "",
    "healthz": "",
    "readyz": "",
    "status/": "of the installation, not of any organization",
    "api/schema/": "",
    "api/docs/": "",
    "ping/": "whose check-in the secret in the path is",
    "unsubscribe/": "whose mail the token in the path was sent with",
    "api/v1/reports": "by key",
    "api/v1/enrol": "by token",
    "api/v1/servers/self": "by the key of that very server",
    "api/v1/lease": "by key",
    "alerta/": "by key; its configuration is everybody's",
    "alertmanager/": "by key",
    "metrics": "by key",
    "logs": "by key",
    "plugins/download/": "by key",
    "staff/": "our staff with a second factor",
}


def routes(urlconf: str) -> Iterator[str]:
    """Every path of a URL configuration, with its converters as they are written."""

    def walk(patterns: list[URLPattern | URLResolver], before: str) -> Iterator[str]:
        for pattern in patterns:
            path = before + str(pattern.pattern)
            if isinstance(pattern, URLResolver):
                yield from walk(pattern.url_patterns, path)
            else:
                yield path

    return walk(get_resolver(urlconf).url_patterns, "")


def plain(route: str) -> str:
    """A route without the marks of a regular expression: `^api/(?P<pk>[^/.]+)/$` as `api/<pk>/`."""
    route = re.sub(r"\(\?P<(\w+)>[^)]*\)", r"<\1>", route)
    return re.sub(r"[\^$]|/\*|\\", "", route).replace(r"\Z", "").replace("Z", "")


TENANT_ROUTES = sorted(plain(route) for route in routes("sentinel_site.urls"))


def with_id(route: str, number: object) -> str:
    return re.sub(r"<[^>]*>", str(number), route)


def existing(route: str, tenant: Tenant) -> object:
    found = [start for start in EXISTING if route.startswith(start)]
    assert found, f"{route} has an id: say in EXISTING how to find one that exists"
    return EXISTING[max(found, key=len)](tenant)


@pytest.fixture
def two(db, alice, mallory) -> tuple[Tenant, Tenant]:
    """Acme and Globex, each with one row of everything; ids of Globex are other ones."""
    tenants = []
    for number, (slug, owner) in enumerate((("acme", alice), ("globex", mallory))):
        tenant = Tenant.objects.get(slug=slug)
        keys.issue(tenant, Key.Scope.READ, name="a key")
        signup.invite(
            Access(tenant, Role.OWNER, owner), "x@example.org", Role.VIEWER, datetime.now(UTC)
        )
        with in_schema(tenant.schema_name):
            if slug == "globex":
                _number_from(1_000_000)
            for extra in range(1 + 3 * number):
                group = CloudGroup.objects.create(name=f"{slug}-secret-{extra}")
                CheckIn.objects.create(
                    name=f"{slug} secret {extra}", period=timedelta(hours=1), server=None
                )
                weekly = Recurrence.objects.create(
                    group=group, kind="blackout", reason=f"{slug} secret", zone="UTC",
                    begins=NOON, rule="FREQ=WEEKLY", lasts=timedelta(hours=1), ended_at=NOON,
                )  # fmt: skip
                Suppression.objects.create(
                    group=group, kind="blackout", reason=f"{slug} secret", since=NOON,
                    until=NOON + timedelta(hours=1), recurrence=weekly,
                )  # fmt: skip
                read(make_rule(f"{slug} rule {extra}"), make_server(f"{slug}-{extra}"), 90, NOON)
                Route.objects.create(name=f"{slug} secret {extra}", enabled=False)
                _tell()
            if slug == "globex":
                NotificationChannel.objects.create(name="other", kind="email")
                _tell()
                for model in MODELS:
                    model.objects.exclude(pk=model.objects.latest("pk").pk).delete()
        tenants.append(tenant)
    return tenants[0], tenants[1]


def _tell() -> None:
    """The newest channel is told of the newest incident, and the log has it."""
    channel = NotificationChannel.objects.latest("pk")
    row, _ = Notification.objects.get_or_create(
        incident=Incident.objects.latest("pk"),
        channel=channel,
        transition="opened:secret",
        severity="error",
    )
    Attempt.objects.create(
        channel=channel, notification=row, key=row.key, title="secret", transition="opened:secret",
        at=NOON, took=timedelta(), is_delivered=True,
    )  # fmt: skip


def _number_from(start: int) -> None:
    """Give the next rows of this schema ids that no other schema has got to."""
    with connection.cursor() as cursor:
        for model in MODELS:
            cursor.execute(
                "SELECT setval(pg_get_serial_sequence(%s, 'id'), %s)", [model._meta.db_table, start]
            )


def ask(client: Client, method: str, path: str, headers: dict[str, str]) -> tuple[int, bytes]:
    """Status and body, without the time of day that pages carry."""
    body = {} if method == "get" else {"data": "{}", "content_type": "application/json"}
    answer = getattr(client, method)(path, headers=headers, **body)
    return answer.status_code, re.sub(rb'data-now="\d+"', b"", answer.content)


def answers(client: Client, path: str, **headers: str) -> set[tuple[int, bytes]]:
    return {ask(client, method, path, headers) for method in METHODS}


def leaks(client: Client, acme: Tenant, **headers: str) -> list[str]:
    """The routes below /o/acme/ that answer this outsider by anything but the one 404."""
    with in_schema(acme.schema_name):
        ids = {route: existing(route, acme) if "<" in route else None for route in TENANT_ROUTES}
    found = []
    pages = answers(client, "/o/no-such-organization/", **headers)
    documents = answers(client, "/o/no-such-organization/api/v1/x/", **headers)
    assert {status for status, _ in pages | documents} == {404}
    for route, number in ids.items():
        same = documents if route.startswith("api/") else pages
        for path in {with_id(route, number), with_id(route, NO_SUCH_ID)}:
            if answers(client, f"/o/acme/{path}", **headers) != same:
                found.append(path)
    return found


def test_every_public_route_is_known_to_show_nothing_of_a_tenant():
    for route in routes("sentinel_site.urls_public"):
        path = plain(route)
        start = max((known for known in PUBLIC if path.startswith(known)), key=len)
        assert start or not path, f"{path} is public and new: say in PUBLIC whose it is"


def test_another_tenants_owner_gets_the_same_404_everywhere(two, client, mallory):
    client.force_login(mallory)
    assert leaks(client, two[0]) == []


def test_another_tenants_keys_get_the_same_404_everywhere(two, client):
    acme, globex = two
    for scope in (Key.Scope.READ, Key.Scope.ADMIN):
        _, text = keys.issue(globex, scope)
        with in_schema(acme.schema_name):
            ids = {
                route: existing(route, acme) if "<" in route else ""
                for route in TENANT_ROUTES
                if route.startswith("api/")
            }
        bearer = f"Bearer {text}"
        same = answers(client, "/o/no-such-organization/api/v1/x/", Authorization=bearer)
        assert {status for status, _ in same} == {404}
        for route, number in ids.items():
            for path in {with_id(route, number), with_id(route, NO_SUCH_ID)}:
                assert answers(client, f"/o/acme/{path}", Authorization=bearer) == same, path


def test_without_a_key_the_api_answers_401_and_pages_lead_to_the_login(two, client):
    acme, _ = two
    with in_schema(acme.schema_name):
        ids = {route: existing(route, acme) if "<" in route else "" for route in TENANT_ROUTES}
    for route, number in ids.items():
        for path in {with_id(route, number), with_id(route, NO_SUCH_ID)}:
            statuses = {status for status, _ in answers(client, f"/o/acme/{path}")}
            assert statuses == {401 if route.startswith("api/") else 302}, path


def test_ids_of_another_tenant_do_not_exist_in_ones_own(two, client, mallory):
    """Keys, members and invitations share tables; servers and alerts share only numbers."""
    acme, globex = two
    client.force_login(mallory)
    _, admin = keys.issue(globex, Key.Scope.ADMIN)
    bearer = {"Authorization": f"Bearer {admin}"}
    with in_schema(acme.schema_name):
        ids = {
            route: existing(route, acme)
            for route in TENANT_ROUTES
            if "<" in route and "<slug:kind>" not in route
        }
    with in_schema(globex.schema_name):
        own = {route: existing(route, globex) for route in ids}
    for route, number in ids.items():
        assert number != own[route], f"the test needs ids that differ: {route}"
        headers = bearer if route.startswith("api/") else {}
        for method in METHODS:
            theirs = ask(client, method, f"/o/globex/{with_id(route, number)}", headers)
            assert theirs[0] in (404, 405), (method, route)
            nobodys = ask(client, method, f"/o/globex/{with_id(route, NO_SUCH_ID)}", headers)
            assert theirs == nobodys, (method, route)


def test_lists_hold_nothing_of_another_tenant(two, client, mallory):
    client.force_login(mallory)
    for route in TENANT_ROUTES:
        if "<" not in route:
            answer = client.get(f"/o/globex/{route}")
            text = answer.content.decode()
            assert "acme" not in text.lower(), route


def test_ids_in_queries_and_bodies_of_another_tenant_do_not_exist(two, client, mallory):
    acme, _ = two
    client.force_login(mallory)
    with in_schema(acme.schema_name):
        server = Server.objects.first().pk
        group = CloudGroup.objects.first().pk
    for path in (
        f"charts/?measurement=cpu&field=percent&server={server}",
        f"charts/events/?server={server}",
        f"servers/add/?fragment=waiting&key={Key.objects.filter(tenant=acme).first().pk}",
    ):
        assert client.get(f"/o/globex/{path}").status_code == 404, path
    refused = client.post(
        "/o/globex/api/v1/rules/",
        json.dumps(
            {
                "name": "x",
                "measurement": "cpu",
                "field": "percent",
                "thresholds": {"warning": 1},
                "server": server,
                "group": group,
            }
        ),
        content_type="application/json",
    )
    assert set(refused.json()["errors"]) == {"server", "group"}


def test_the_check_for_leaks_sees_it_when_membership_is_not_asked_for(
    two, client, mallory, monkeypatch
):
    """A mutation: without the tenant check nearly every route must be reported."""

    def anybody(request, slug):
        tenant = Tenant.objects.filter(slug=slug).first()
        if tenant is None:
            raise NotFound
        return Access(tenant, Role.OWNER, user=request.user)

    monkeypatch.setattr(middleware, "_access_by_session", anybody)
    client.force_login(mallory)
    found = leaks(client, two[0])
    assert len(found) >= len(TENANT_ROUTES) - 2


# -- websockets ---------------------------------------------------------------


class Socket(ApplicationCommunicator):
    """A browser's websocket, with the session of one person."""

    def __init__(self, slug: str, user: User, path: str = "") -> None:
        from sentinel_site.asgi import application

        client = Client()
        client.force_login(user)
        path = path or f"/o/{slug}/ws/live"
        scope = {
            "type": "websocket",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "subprotocols": [],
            "headers": [
                (b"cookie", f"sessionid={client.cookies['sessionid'].value}".encode()),
                (b"origin", b"http://localhost"),
                (b"host", b"localhost"),
            ],
        }
        super().__init__(application, scope)

    async def connect(self) -> str | int:
        """`accepted`, or the code with which it was closed."""
        await self.send_input({"type": "websocket.connect"})
        answer = await self.receive_output(10)
        return answer.get("code", "accepted")

    async def hints(self, kind: str, last: str) -> list[int]:
        """The ids of all hints of a kind, until one of another kind comes.

        Hints of other tests, also of those that run at the same time, may come in between.
        """
        heard = []
        while True:
            hint = json.loads((await self.receive_output(10))["text"])
            if hint["type"] == f"{last}.changed":
                return heard
            if hint["type"] == f"{kind}.changed":
                heard.append(hint["id"])

    async def leave(self) -> None:
        await self.send_input({"type": "websocket.disconnect", "code": 1000})
        await self.wait()


socket = sync_to_async(Socket)


@pytest.mark.django_db(transaction=True)
async def test_hints_reach_members_only(alice, mallory):
    for slug in ("acme", "no-such-organization"):
        assert await (await socket(slug, mallory)).connect() == 4404
    assert await (await socket("acme", alice, "/o/acme/ws/other")).connect() == 4404
    hers, other = await socket("acme", alice), await socket("globex", mallory)
    assert await hers.connect() == await other.connect() == "accepted"
    kind, last = uuid4().hex, uuid4().hex
    schemas = {
        slug: (await Tenant.objects.aget(slug=slug)).schema_name for slug in ("acme", "globex")
    }
    for slug, number in (("acme", 7), ("globex", 8)):
        live.announce(schemas[slug], kind, number)
    for schema in schemas.values():
        live.announce(schema, last)
    assert await hers.hints(kind, last) == [7]
    assert await other.hints(kind, last) == [8]
    await hers.leave()
    await other.leave()


@pytest.mark.django_db(transaction=True)
async def test_a_socket_ends_when_its_member_is_removed(bob, monkeypatch):
    monkeypatch.setattr(consumers, "RECHECK_SECONDS", 0.1)
    his = await socket("acme", bob)
    assert await his.connect() == "accepted"
    await Membership.objects.filter(user=bob).adelete()
    closed = await his.receive_output(10)
    assert (closed["type"], closed["code"]) == ("websocket.close", 4404)
    await his.leave()


@pytest.mark.django_db(transaction=True)
async def test_a_socket_ends_with_its_session(bob, monkeypatch):
    monkeypatch.setattr(consumers, "RECHECK_SECONDS", 0.1)
    his = await socket("acme", bob)
    assert await his.connect() == "accepted"
    await Session.objects.all().adelete()
    assert (await his.receive_output(10))["code"] == 4404
    await his.leave()


@pytest.mark.django_db(transaction=True)
async def test_a_socket_that_cannot_be_checked_ends_so_that_its_page_comes_again(bob, monkeypatch):
    monkeypatch.setattr(consumers, "RECHECK_SECONDS", 0.1)
    his = await socket("acme", bob)
    assert await his.connect() == "accepted"

    async def away(*_):
        raise OperationalError("the database system is shutting down")

    monkeypatch.setattr(consumers, "membership_schema", away)
    assert (await his.receive_output(10))["code"] == consumers.GOING_AWAY
    await his.leave()
