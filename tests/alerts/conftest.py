"""Receivers on this machine, and leave to reach them."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from ipaddress import ip_network
from typing import Any

import pytest

from accounts import keys
from accounts.models import Key
from tests.alerts.receivers import Receiver, Resolver


@pytest.fixture
def loopback(settings: Any) -> None:
    """Channels may lead to 127.0.0.1, as an owner may allow it."""
    settings.OUTGOING_PRIVATE_NETWORKS = [ip_network("127.0.0.1/32")]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver().open() as it:
        yield it


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Resolver:
    found = Resolver(socket.getaddrinfo)
    monkeypatch.setattr(socket, "getaddrinfo", found)
    return found


@pytest.fixture
def admin(acme: Any) -> str:
    """A key that may everything."""
    return keys.issue(acme, Key.Scope.ADMIN)[1]


@pytest.fixture
def ingest(acme: Any) -> str:
    """A key that sends."""
    return keys.issue(acme, Key.Scope.INGEST)[1]
