"""Keys of both organizations, and a client for each door."""

from __future__ import annotations

from typing import Any

import pytest

from accounts import keys
from accounts.models import Key
from tests.metrics.builders import AGENT


@pytest.fixture(autouse=True)
def _no_cached_keys() -> None:
    keys.forget_cached()


@pytest.fixture
def ingest_key(acme: Any) -> str:
    """An organization key of acme: it may write as any server."""
    return keys.issue(acme, Key.Scope.INGEST)[1]


@pytest.fixture
def server_key(acme: Any) -> str:
    """The key of one agent of acme."""
    return keys.issue(acme, Key.Scope.INGEST, agent_id=AGENT)[1]


@pytest.fixture
def read_key(acme: Any) -> str:
    return keys.issue(acme, Key.Scope.READ)[1]


@pytest.fixture
def globex_key(globex: Any) -> str:
    return keys.issue(globex, Key.Scope.INGEST)[1]
