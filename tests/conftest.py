"""Alice owns acme, Bob is a member, Mallory of globex tries to get in; the network is closed."""

from __future__ import annotations

import ipaddress
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.conf import settings
from django.core.cache import cache
from django.test import TransactionTestCase

from tests import databases

PASSWORD = "a long walk along the shore"


def pytest_configure(config: pytest.Config) -> None:
    if settings.ENV.environment != "test":
        pytest.exit(
            "Tests run with `make test`, or with `python -m sentinel_site.embedded run --fast -- "
            "pytest …`. On servers of your own: set ENVIRONMENT=test, DATABASE_URL and REDIS_URL.",
            returncode=4,
        )
    if "STATE_DIR" not in os.environ:
        settings.STATE_DIR = Path(tempfile.gettempdir()) / f"sentinella-tests-{databases.RUN}"
    if databases.WORKER != "main":
        _use_own_redis_database(int(databases.WORKER.removeprefix("gw")) + 1)


def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workerinput"):
        return  # the process that started the workers tidies up after them
    databases.drop_template()
    if "STATE_DIR" not in os.environ:
        shutil.rmtree(settings.STATE_DIR, ignore_errors=True)


def _use_own_redis_database(number: int) -> None:
    """Keep processes that test at the same time out of each other's cache, queue and groups."""
    url = urlsplit(settings.REDIS_URL)._replace(path=f"/{number}").geturl()
    os.environ["REDIS_URL"] = url
    settings.REDIS_URL = url
    settings.CACHES["default"]["LOCATION"] = url
    settings.CHANNEL_LAYERS["default"]["CONFIG"]["hosts"] = [url]
    if not settings.ENV.celery_broker_url:
        settings.CELERY_BROKER_URL = url


@pytest.fixture(scope="session")
def django_db_setup(django_test_environment: None, django_db_blocker: Any) -> Iterator[None]:
    """Instead of pytest-django's: a copy of a migrated template with both tenants in it."""
    before = TransactionTestCase._fixture_teardown
    TransactionTestCase._fixture_teardown = lambda self: databases.restore()  # type: ignore[method-assign]
    with django_db_blocker.unblock():
        databases.make(_populate)
    yield
    TransactionTestCase._fixture_teardown = before  # type: ignore[method-assign]
    with django_db_blocker.unblock():
        databases.drop_mine()


def _populate() -> None:
    from allauth.account.models import EmailAddress
    from django.core.management import call_command

    from accounts.models import Membership, Role, User
    from accounts.provisioning import provision
    from accounts.signup import found

    call_command("migrate_schemas", shared=True, interactive=False, verbosity=0)

    def person(email: str, name: str) -> User:
        user = User.objects.create_user(email, PASSWORD, name=name)
        EmailAddress.objects.create(user=user, email=email, verified=True, primary=True)
        return user

    alice = person("alice@acme.example", "Alice")
    bob = person("bob@acme.example", "Bob")
    mallory = person("mallory@globex.example", "Mallory")
    acme = found("Acme", alice)
    Membership.objects.create(user=bob, tenant=acme, role=Role.MEMBER)
    for tenant in (acme, found("Globex", mallory)):
        provision(tenant)


@pytest.fixture
def acme(db: None) -> Iterator[Any]:
    """The organization of Alice and Bob; the test works inside its schema."""
    yield from _inside("acme")


@pytest.fixture
def globex(db: None) -> Any:
    """Mallory's organization; enter its schema with `in_schema(globex.schema_name)`."""
    from accounts.models import Tenant

    return Tenant.objects.get(slug="globex")


def _inside(slug: str) -> Iterator[Any]:
    from django_tenants.utils import schema_context

    from accounts.models import Tenant

    tenant = Tenant.objects.get(slug=slug)
    with schema_context(tenant.schema_name):
        yield tenant


@pytest.fixture
def alice(db: None) -> Any:
    """Owner of acme."""
    return _user("alice@acme.example")


@pytest.fixture
def bob(db: None) -> Any:
    """Member of acme."""
    return _user("bob@acme.example")


@pytest.fixture
def mallory(db: None) -> Any:
    """Owner of globex; nothing of acme is hers to see."""
    return _user("mallory@globex.example")


def _user(email: str) -> Any:
    from accounts.models import User

    return User.objects.get(email=email)


@pytest.fixture(autouse=True)
def _forget() -> None:
    """No test finds what another one cached."""
    cache.clear()


@pytest.fixture(autouse=True, scope="session")
def _closed_network() -> Iterator[None]:
    """Whoever would talk to another machine fails, at once and by name."""
    patch = pytest.MonkeyPatch()
    connect, connect_ex, look_up = (
        socket.socket.connect,
        socket.socket.connect_ex,
        socket.getaddrinfo,
    )

    def guarded_connect(self: socket.socket, address: Any) -> None:
        _refuse_others(address)
        connect(self, address)

    def guarded_connect_ex(self: socket.socket, address: Any) -> int:
        _refuse_others(address)
        return connect_ex(self, address)

    def guarded_look_up(host: Any, *args: Any, **kwargs: Any) -> Any:
        _refuse_others((host,))
        return look_up(host, *args, **kwargs)

    patch.setattr(socket.socket, "connect", guarded_connect)
    patch.setattr(socket.socket, "connect_ex", guarded_connect_ex)
    patch.setattr(socket, "getaddrinfo", guarded_look_up)
    yield
    patch.undo()


class NetworkIsClosed(Exception):
    """A test reached out of this machine."""


def _refuse_others(address: Any) -> None:
    if not isinstance(address, tuple):
        return  # a path of a Unix socket
    host = address[0]
    if isinstance(host, bytes):
        host = host.decode()
    if host in (None, "", "localhost"):
        return
    try:
        here = ipaddress.ip_address(host)
    except ValueError:
        raise NetworkIsClosed(f"A test looked up {host!r}.") from None
    if not (here.is_loopback or here.is_unspecified):
        raise NetworkIsClosed(f"A test connected to {host}.")
