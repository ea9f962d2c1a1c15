"""The real group committer: threads, transactions of its own, a queue that may be full."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg2
import pytest
from django.conf import settings as django_settings
from django.db import connection, connections

from accounts import keys
from accounts.models import Key
from metrics import committer, events, ingest, isolation, queries
from metrics.committer import Busy, Committer, Unavailable
from metrics.doors import native
from metrics.events import Matcher
from metrics.stores.postgres import PostgresStore
from sentinel_site.kit.tenancy import in_schema
from tests.metrics.builders import AGENT, HOUR, SECOND, body, event, now, point, post, report

pytestmark = [pytest.mark.committer, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def real(monkeypatch: Any, settings: Any) -> Iterator[Committer]:
    """A committer of this test's own, in place of committing inline."""
    settings.COMMIT_INLINE = False
    own = Committer(django_settings.COMMIT_QUEUE)
    monkeypatch.setattr(committer, "_committer", own)
    yield own
    own.stop()


def send(tenant: Any, *reports: dict[str, Any]) -> Any:
    return ingest.accept(tenant, native.parse(body(*reports), now()))


def in_threads(work: Callable[[int], Any], count: int) -> list[Any]:
    def one(number: int) -> Any:
        try:
            return work(number)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, range(count)))


class Held:
    """Holds the committer before it writes, and remembers the size of each batch."""

    def __init__(self, monkeypatch: Any, real: Committer) -> None:
        self.sizes: list[int] = []
        self.reached = threading.Semaphore(0)
        self.queued = threading.Semaphore(0)
        self.go = threading.Event()
        write, put = real._write, real._queue.put_nowait

        def held(reports: Any) -> None:
            self.sizes.append(len(reports))
            self.reached.release()
            assert self.go.wait(30)
            write(reports)

        def counted(work: Any) -> None:
            put(work)
            self.queued.release()

        monkeypatch.setattr(real, "_write", held)
        monkeypatch.setattr(real._queue, "put_nowait", counted)

    def wait_for_queued(self, count: int) -> None:
        for _ in range(count):
            assert self.queued.acquire(timeout=10)


def test_an_answer_comes_after_the_commit(acme, real):
    at = now()
    assert send(acme, report(at, points=[point(percent=1)], events=[event(at)])).accepted == 1
    other = psycopg2.connect(**committer._parameters())
    try:
        with other.cursor() as cursor:
            isolation.name(cursor, [acme.pk])
            cursor.execute("SELECT count(*) FROM public.metrics_points")
            assert cursor.fetchone()[0] == 1
    finally:
        other.close()
    assert len(events.search(acme.pk, Matcher()).events) == 1


def test_reports_that_arrive_together_share_a_transaction(acme, globex, real, monkeypatch):
    held = Held(monkeypatch, real)
    at = now()
    with ThreadPoolExecutor(1) as first:
        waiting = first.submit(_send_and_close, acme, report(at, points=[point(percent=0)]))
        assert held.reached.acquire(timeout=10)
        with ThreadPoolExecutor(10) as pool:
            rest = [
                pool.submit(
                    _send_and_close,
                    (acme, globex)[number % 2],
                    report(at + SECOND, sequence=100 + number, points=[point(percent=number)]),
                )
                for number in range(10)
            ]
            held.wait_for_queued(1 + 10)
            held.go.set()
        assert waiting.result().accepted == 1
        assert [one.result().accepted for one in rest] == [1] * 10
    assert held.sizes == [1, 10]
    assert len(queries.last_seen(acme.pk)) == len(queries.last_seen(globex.pk)) == 1


def _send_and_close(tenant: Any, *reports: dict[str, Any]) -> Any:
    try:
        return send(tenant, *reports)
    finally:
        connections.close_all()


def test_the_same_report_from_many_threads_is_stored_once(acme, real):
    at = now()
    given = report(at, points=[point(percent=1)], events=[event(at)])
    answers = in_threads(lambda number: send(acme, given), 12)
    assert sum(answer.accepted for answer in answers) >= 1
    assert sum(answer.accepted + answer.duplicates for answer in answers) == 12
    assert len(queries.last_seen(acme.pk)) == 1
    assert len(events.search(acme.pk, Matcher()).events) == 1
    with isolation.only(acme.pk) as cursor:
        cursor.execute("SELECT count(*), max(stored::text) FROM public.metrics_source")
        assert cursor.fetchone() == (1, "{[1,2)}")


def test_a_full_queue_is_busy_and_says_when_to_come_again(acme, monkeypatch, settings):
    settings.COMMIT_INLINE = False
    real = Committer(2)
    monkeypatch.setattr(committer, "_committer", real)
    held = Held(monkeypatch, real)
    key = keys.issue(acme, Key.Scope.INGEST)[1]
    at = now()

    def send_one(n: int) -> Any:
        given = report(at + n * SECOND, sequence=n, points=[point(percent=n)])
        return _send_and_close(acme, given)

    with ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(send_one, 1)]
        assert held.reached.acquire(timeout=10)
        waiting += [pool.submit(send_one, n) for n in (2, 3)]
        held.wait_for_queued(1 + 2)
        refused = post(
            "/api/v1/reports",
            body(report(at, sequence=4, points=[point(percent=4)])),
            Authorization=f"Bearer {key}",
        )
        held.go.set()
        assert [one.result().accepted for one in waiting] == [1, 1, 1]
    assert refused.status_code == 503
    assert refused["Content-Type"] == "application/problem+json"
    assert refused.json()["type"] == "/problems/busy"
    assert int(refused["Retry-After"]) > 0
    real.stop()
    [server_id] = queries.last_seen(acme.pk)
    assert queries.latest(acme.pk, [server_id])[server_id]["cpu", ()]["percent"].value == 3


def test_a_bad_report_cannot_sink_the_others(acme, real, monkeypatch):
    """One of 40 makes the database fail; the other 39 are stored, and it is named."""
    write = PostgresStore.write

    def poisoned(self: Any, rows: Any, cursor: Any) -> None:
        write(self, rows, cursor)
        if any(row.values == [13.0] for row in rows):
            cursor.execute("SELECT 1 / 0")

    monkeypatch.setattr(PostgresStore, "write", poisoned)
    at = now()
    many = [
        report(at - n * SECOND, sequence=n, points=[point(percent=n)], events=[event(at, str(n))])
        for n in range(40)
    ]
    answer = send(acme, *many)
    assert answer.accepted == 39
    assert [(r.report, r.item, r.code) for r in answer.rejected] == [(13, "report", "not-stored")]
    assert len(events.search(acme.pk, Matcher()).events) == 39
    [server_id] = queries.last_seen(acme.pk)
    [window] = queries.window(
        acme.pk, "cpu", "percent", since=at - HOUR, until=at + HOUR, agg="count"
    )
    assert (window.server_id, window.value) == (server_id, 39)


def test_a_database_that_is_away_is_never_acknowledged_and_comes_back(acme, real, monkeypatch):
    send(acme, report(sequence=1, points=[point(percent=1)]))
    parameters = committer._parameters
    monkeypatch.setattr(
        committer, "_parameters", lambda: {**parameters(), "port": 1, "connect_timeout": 1}
    )
    with real._connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        backend = cursor.fetchone()[0]
    real._connection.rollback()
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(%s, 5000)", [backend])
    at = now()
    later = report(at, sequence=2, points=[point(percent=2)])
    for _ in range(2):  # the broken connection, then none
        with pytest.raises(Unavailable) as refused:
            send(acme, later)
        assert refused.value.status == 503
        assert int(refused.value.headers["Retry-After"]) > 0
    monkeypatch.setattr(committer, "_parameters", parameters)
    assert send(acme, later).accepted == 1


def test_a_database_that_restarted_during_a_pause_costs_no_report(acme, real, monkeypatch):
    send(acme, report(sequence=1, points=[point(percent=1)]))
    monkeypatch.setattr(committer, "TRY_AFTER", 0.0)
    with real._connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        backend = cursor.fetchone()[0]
    real._connection.rollback()
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(%s, 5000)", [backend])
    assert send(acme, report(sequence=2, points=[point(percent=2)])).accepted == 1


def test_whoever_waits_too_long_is_told_to_come_again(acme, real, monkeypatch):
    held = Held(monkeypatch, real)
    prepared = _prepared(acme, now())
    with pytest.raises(Busy):
        real.commit([prepared], within=0.05)
    held.go.set()


def test_an_original_agent_is_answered_within_about_a_second_whatever_the_load(
    acme, real, monkeypatch
):
    key = keys.issue(acme, Key.Scope.INGEST)[1]
    held = Held(monkeypatch, real)
    line = {"account_key": key, "server_name": "c1", "level": "ERROR", "description": "x"}
    began = time.monotonic()
    answer = post("/logs", json.dumps(line).encode())
    assert time.monotonic() - began < 5  # 1 s, and what a busy test machine adds
    assert answer.status_code == 503
    held.go.set()
    real.stop()
    assert [one.message for one in events.search(acme.pk, Matcher()).events] == ["x"]


def _prepared(tenant: Any, at: Any) -> Any:
    [parsed] = native.parse(body(report(at, points=[point(percent=1)])), at).reports
    return ingest._prepare(tenant.pk, parsed, 1, at)


def test_stopping_writes_what_is_queued(acme, real):
    prepared = [_prepared(acme, now()) for _ in range(3)]
    for number, one in enumerate(prepared):
        one.sequence = number
        real._queue.put(committer._Work([one]))
    real.start()
    real.stop()
    assert [one.outcome for one in prepared] == ["stored"] * 3


def test_two_processes_committing_the_same_servers_do_not_deadlock(acme, real, monkeypatch):
    second = Committer(100)
    at = now()
    with in_schema(acme.schema_name):
        send(acme, report(at, points=[point(percent=1)]))

    def storm(number: int) -> int:
        own = (real, second)[number % 2]
        reports = []
        for n in range(30):
            one = _prepared(acme, at + n * SECOND)
            one.source, one.epoch, one.sequence = str(AGENT), f"s{n % 3}", number * 1000 + n
            reports.append(one)
        order = reports if number % 4 < 2 else reports[::-1]
        own.commit(order)
        return sum(one.outcome == "stored" for one in order)

    assert in_threads(storm, 8) == [30] * 8
    second.stop()


@pytest.mark.parametrize(
    "error", [psycopg2.errors.ReadOnlySqlTransaction, psycopg2.errors.UndefinedTable]
)
def test_what_is_no_reports_fault_is_never_a_reject(acme, real, monkeypatch, error):
    """After a failover to a standby, agents keep what they have and send it again."""

    def fails(self, rows, cursor):
        raise error("cannot execute INSERT in a read-only transaction")

    monkeypatch.setattr(PostgresStore, "write", fails)
    with pytest.raises(Unavailable):
        send(acme, report(points=[point(percent=1)]))
