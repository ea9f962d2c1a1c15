"""PostgreSQL is killed under load: what was acknowledged is there afterwards, once.

The real server, a PostgreSQL of its own with fsync on, and 100 clients over HTTP.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any
from uuid import UUID, uuid5

import psycopg2
import pytest
from django.conf import settings

from sentinel_site.embedded.postgres import EmbeddedPostgres
from sentinel_site.embedded.process import free_port
from tests.metrics.builders import AGENT, SECOND, body, event, now, point, report

pytestmark = pytest.mark.committer

CLIENTS = 100
BEFORE, AFTER = 3, 3
PATIENCE = 60.0


@dataclass
class Client:
    """One agent: it counts on only after a 2xx, and otherwise sends the same report again."""

    number: int
    address: tuple[str, int]
    key: str
    acknowledged: list[int] = field(default_factory=list)
    refused: list[str | None] = field(default_factory=list)
    others: list[Any] = field(default_factory=list)

    @property
    def agent(self) -> UUID:
        return uuid5(AGENT, str(self.number))

    def run(self, at: Any, news: threading.Condition, stop: threading.Event) -> None:
        connection = HTTPConnection(*self.address, timeout=PATIENCE)
        headers = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}
        sequence = 1
        while not stop.is_set():
            time = at + sequence * SECOND
            given = report(
                time,
                agent=str(self.agent),
                host=f"host-{self.number}",
                sequence=sequence,
                points=[point(percent=sequence)],
                events=[event(time, str(sequence), message=f"{self.number} {sequence}")],
            )
            try:
                connection.request("POST", "/api/v1/reports", body(given), headers)
                answer = connection.getresponse()
                said = answer.read()
            except (OSError, HTTPException) as error:
                self.others.append(repr(error))
                return
            with news:
                if answer.status == 200:
                    self.acknowledged.append(sequence)
                    sequence += 1
                elif answer.status == 503:
                    self.refused.append(answer.headers["Retry-After"])
                else:
                    self.others.append((answer.status, said))
                    return
                news.notify_all()
            if answer.status == 503:
                stop.wait(0.2)


@pytest.fixture(scope="module")
def database(tmp_path_factory: Any) -> Iterator[EmbeddedPostgres]:
    if os.geteuid() == 0:  # PostgreSQL may run as another user, who must reach its data
        directory = Path(os.environ.get("STATE_DIR", "/var/tmp")) / f"chaos-{os.getpid()}"  # noqa: S108
        directory.mkdir(parents=True)
    else:
        directory = tmp_path_factory.mktemp("chaos")
    server = EmbeddedPostgres(directory)
    server.start()
    yield server
    server.stop("immediate")
    subprocess.run(["rm", "-rf", str(directory)], check=True)


@pytest.fixture(scope="module")
def environment(database: EmbeddedPostgres, tmp_path_factory: Any) -> dict[str, str]:
    return {
        **os.environ,
        "ENVIRONMENT": "local",
        "DATABASE_URL": database.url,
        "REDIS_URL": settings.REDIS_URL,
        "STATE_DIR": str(tmp_path_factory.mktemp("state")),
        "LOG_LEVEL": "ERROR",
    }


def manage(environment: dict[str, str], *arguments: str) -> str:
    return subprocess.run(
        [sys.executable, "manage.py", *arguments],
        env=environment,
        cwd=settings.BASE_DIR,
        capture_output=True,
        text=True,
        check=True,
    ).stdout


@pytest.fixture(scope="module")
def key(environment: dict[str, str]) -> str:
    manage(environment, "migrate_schemas", "--shared")
    made = manage(
        environment, "bootstrap", "--slug", "acme", "--name", "Acme", "--email", "a@example.org"
    )
    text: str = json.loads(made)["keys"]["ingest"]
    return text


@pytest.fixture(scope="module")
def web(environment: dict[str, str], key: str, tmp_path_factory: Any) -> Iterator[tuple[str, int]]:
    port = free_port()
    log = (tmp_path_factory.mktemp("web") / "web.log").open("w+")
    command = [sys.executable, "-m", "uvicorn", "sentinel_site.asgi:application"]
    process = subprocess.Popen(
        [*command, "--host", "127.0.0.1", "--port", str(port), "--log-level", "warning"],
        env=environment,
        cwd=settings.BASE_DIR,
        stdout=log,
        stderr=log,
    )
    try:
        for _ in range(300):
            if _answers(port):
                break
            assert process.poll() is None, Path(log.name).read_text()
            threading.Event().wait(0.1)
        yield "127.0.0.1", port
    finally:
        process.terminate()
        process.wait(30)
        log.close()


def _answers(port: int) -> bool:
    try:
        connection = HTTPConnection("127.0.0.1", port, timeout=5)
        connection.request("GET", "/healthz")
        return connection.getresponse().status == 200
    except OSError:
        return False


def test_what_is_acknowledged_survives_a_crash_of_the_database_once(database, key, web):
    at = now()
    news, stop = threading.Condition(), threading.Event()
    clients = [Client(number, web, key) for number in range(CLIENTS)]
    threads = [threading.Thread(target=client.run, args=(at, news, stop)) for client in clients]
    for thread in threads:
        thread.start()

    def wait_for(holds: Any) -> None:
        with news:
            assert news.wait_for(
                lambda: all(map(holds, clients)) or any(client.others for client in clients),
                PATIENCE,
            )

    try:
        wait_for(lambda client: len(client.acknowledged) >= BEFORE)
        database.stop("immediate")
        wait_for(lambda client: client.refused)
        before = {client.number: len(client.acknowledged) for client in clients}
        database.start()
        wait_for(lambda client: len(client.acknowledged) >= before[client.number] + AFTER)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert [client.others for client in clients if client.others] == []
    retries = {retry for client in clients for retry in client.refused}
    assert all(retry is not None and int(retry) > 0 for retry in retries)
    points, events, stored = _stored(database)
    for client in clients:
        host = stored[str(client.agent)]
        acknowledged = client.acknowledged
        assert acknowledged == list(range(1, len(acknowledged) + 1))
        # what the server stored without being able to say so was sent again, and is there once
        for found in (points[host], events[host]):
            assert found[: len(acknowledged)] == acknowledged
            assert len(found) <= len(acknowledged) + 1


def _stored(database: EmbeddedPostgres) -> tuple[Any, Any, dict[str, int]]:
    """Sequences of the points and of the events of each server, in order, and the servers."""
    with psycopg2.connect(database.url) as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT set_config('sentinella.tenants', (SELECT id::text FROM accounts_tenant), true)"
        )
        cursor.execute(
            "SELECT server_id, array_agg(values[1]::int ORDER BY ts) FROM metrics_points GROUP BY 1"
        )
        points = dict(cursor.fetchall())
        cursor.execute(
            "SELECT server_id, array_agg(split_part(message, ' ', 2)::int ORDER BY at)"
            " FROM metrics_event GROUP BY 1"
        )
        events = dict(cursor.fetchall())
        cursor.execute("SELECT source, server_id FROM metrics_source")
        return points, events, dict(cursor.fetchall())
