"""Reports into the store by group commit, beside the plain way: a transaction a report, a row a
point. Both are acknowledged after an `fsync`; 8 clients at once, reports of 20 and of 100 points.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from uuid import UUID, uuid4

import psycopg2
from django.conf import settings
from django.db import connection as django_connection
from django.utils import timezone

from accounts.models import Tenant
from benchmarks import measuring
from metrics import ingest
from metrics.batch import Batch, Point, Report

CLIENTS = 8
SERVERS = 64
SECONDS = 6.0

_PLAIN = """
CREATE TABLE IF NOT EXISTS plain_points (
  server uuid, at timestamptz, measurement text, field text, value float8,
  PRIMARY KEY (server, measurement, field, at)
)"""


def run() -> None:
    settings.COMMIT_INLINE = False
    tenant = measuring.tenant("ingest")
    with psycopg2.connect(**measuring.parameters()) as database, database.cursor() as cursor:
        cursor.execute(_PLAIN)
    for points in (20, 100):
        agents = [uuid4() for _ in range(SERVERS)]
        ours = _rate(_accept(tenant, agents, points))
        plain = _rate(_insert(agents, points))
        print(f"ingest    {points:3} points  group commit         {ours:8.0f} reports/s")
        print(f"ingest    {points:3} points  a row a point        {plain:8.0f} reports/s")
        print(f"ingest    {points:3} points  ratio                {ours / plain:8.1f} x")


def _accept(tenant: Tenant, agents: list[UUID], points: int) -> Callable[[int], None]:
    numbers = iter(range(10**9))
    lock = threading.Lock()

    def send(_: int) -> None:
        with lock:
            number = next(numbers)
        report = Report(
            number=0,
            host=f"host-{number % SERVERS}",
            agent=agents[number % SERVERS],
            at=timezone.now(),
            interval=timedelta(seconds=10),
            epoch="bench",
            sequence=number // SERVERS,
            points=[
                Point("bench", (("device", f"d{n}"),), {"value": random.random()})
                for n in range(points)
            ],
        )
        answer = ingest.accept(tenant, Batch(reports=[report], received_at=timezone.now()))
        assert answer.accepted == 1, answer

    return send


def _insert(agents: list[UUID], points: int) -> Callable[[int], None]:
    local = threading.local()

    def send(number: int) -> None:
        if not hasattr(local, "database"):
            local.database = psycopg2.connect(**measuring.parameters())
        at = timezone.now()
        with local.database, local.database.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO plain_points VALUES (%s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
                [
                    (str(agents[number % SERVERS]), at, f"bench-d{n}", "value", random.random())
                    for n in range(points)
                ],
            )

    return send


def _rate(send: Callable[[int], None]) -> float:
    """Reports a second of all clients together."""
    done = [0] * CLIENTS
    until = time.perf_counter() + SECONDS

    def client(number: int) -> None:
        while time.perf_counter() < until:
            send(number + CLIENTS * done[number])
            done[number] += 1
        django_connection.close()

    with ThreadPoolExecutor(CLIENTS) as pool:
        for future in [pool.submit(client, number) for number in range(CLIENTS)]:
            future.result()
    return sum(done) / SECONDS
