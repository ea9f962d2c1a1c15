"""What tests of metrics are made of."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from django.db import connection
from django.test import Client
from django.utils import timezone

FIXTURES = Path(__file__).parent / "fixtures"
AGENT = UUID("0b7f5a52-54a1-4a6e-9c60-5a2f1f9f3c11")
OTHER_AGENT = UUID("7d1b8c7e-0f0c-4cc4-8b8a-8f3a54ef9a22")
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)


def now() -> datetime:
    """The present, to the millisecond: what is sent and what is read compare equal."""
    at = timezone.now()
    return at.replace(microsecond=at.microsecond // 1000 * 1000)


def report(at: datetime | None = None, **values: Any) -> dict[str, Any]:
    """One native report as JSON values."""
    at = at or now()
    return {
        "agent": str(AGENT),
        "epoch": "e1",
        "sequence": 1,
        "host": "nova-1",
        "at": at.timestamp(),
        "interval": 10,
        "version": "2.0.0",
        **values,
    }


def point(measurement: str = "cpu", tags: dict[str, str] | None = None, **fields: Any) -> Any:
    return {"measurement": measurement, "fields": fields, **({"tags": tags} if tags else {})}


def event(at: datetime, id: str = "1", **values: Any) -> dict[str, Any]:
    return {"id": id, "at": at.timestamp(), "level": "error", "message": "It broke", **values}


def recorded(name: str) -> Any:
    """A recorded request of an original agent, or several."""
    return json.loads((FIXTURES / name).read_text())


def body(*reports: dict[str, Any]) -> bytes:
    return json.dumps({"reports": list(reports)}).encode()


def utc(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)


def post(path: str, content: bytes, **headers: str) -> Any:
    """An HTTP request; the test goes on in the schema where it was."""
    return request("POST", path, content, headers=headers)


def request(method: str, path: str, content: bytes = b"", **more: Any) -> Any:
    client, tenant = more.pop("client", None) or Client(), connection.tenant
    if path.startswith("//"):  # the client takes what follows for a host
        more["PATH_INFO"], path = path, path.lstrip("/")
    try:
        return client.generic(method, path, content, "application/json", **more)
    finally:
        connection.set_tenant(tenant)
