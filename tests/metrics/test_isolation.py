"""The wall between tenants: no query without its tenant, and the database stops one that tries."""

from __future__ import annotations

import inspect
import json
from typing import Any

import pytest
from django.db import connection, transaction
from django.db.backends.utils import CursorWrapper
from django.db.utils import ProgrammingError

from metrics import checks, events, ingest, isolation, queries
from metrics.events import Matcher
from metrics.stores.base import Store
from metrics.stores.postgres import PostgresStore
from tests.metrics.builders import HOUR, event, now, point, post, report
from tests.metrics.test_ingest import send

TABLES = [
    "metrics_set",
    "metrics_points",
    "metrics_latest",
    "metrics_source",
    "metrics_event",
    "metrics_knock",
]


@pytest.fixture
def both(acme: Any, globex: Any, ingest_key: str) -> tuple[Any, Any]:
    """Acme and Globex, each with one server, points, an event and a knock."""
    at = now()
    for tenant in (acme, globex):
        send(tenant, report(at, points=[point(percent=tenant.pk)], events=[event(at)]))
        with isolation.only(tenant.pk) as cursor:
            cursor.execute(
                "INSERT INTO metrics_knock (tenant_id, kind, digest, hint, host, first_at, last_at,"
                " count, sample) VALUES (%s, 'plugin', 'x', 'x', 'x', now(), now(), 1, '{}')",
                [tenant.pk],
            )
    return acme, globex


def tenants_in(table: str) -> set[int]:
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT DISTINCT tenant_id FROM public.{table}")  # noqa: S608
        return {row[0] for row in cursor.fetchall()}


@pytest.mark.parametrize("table", TABLES)
def test_a_query_that_names_no_tenant_sees_nothing(both, table):
    assert tenants_in(table) == set()


@pytest.mark.parametrize("table", TABLES)
def test_a_query_sees_the_tenants_it_names_and_no_other(both, table):
    acme, globex = both
    with isolation.only(acme.pk):
        assert tenants_in(table) == {acme.pk}
    with isolation.only(acme.pk, globex.pk):
        assert tenants_in(table) == {acme.pk, globex.pk}
    assert tenants_in(table) == set()


def test_the_partitions_themselves_are_walled_too(both):
    _, globex = both
    with connection.cursor() as cursor:
        cursor.execute("SELECT relname FROM pg_class WHERE relispartition AND relkind = 'r'")
        names = [row[0] for row in cursor.fetchall()]
    assert names
    for name in names:
        assert tenants_in(name) == set()
        with isolation.only(globex.pk):
            assert tenants_in(name) <= {globex.pk}


@pytest.mark.parametrize("table", TABLES)
def test_the_tables_owner_is_held_by_the_wall(db, table):
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT relrowsecurity AND relforcerowsecurity,"
            " pg_get_userbyid(relowner) = current_user, rolsuper OR rolbypassrls"
            " FROM pg_class, pg_roles WHERE pg_class.oid = %s::regclass AND rolname = current_user",
            [f"public.{table}"],
        )
        assert cursor.fetchone() == (True, True, False)


def test_every_table_with_a_tenant_in_it_is_walled(db):
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT c.relname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid"
            " WHERE c.relname LIKE 'metrics\\_%%' AND a.attname = 'tenant_id'"
            " AND c.relkind IN ('r', 'p') AND NOT c.relispartition"
        )
        assert {row[0] for row in cursor.fetchall()} == set(TABLES)


WRITES = {
    "metrics_points": "(tenant_id, server_id, set_id, ts, values)"
    " SELECT %(other)s, server_id, set_id, ts + 1, values FROM metrics_points LIMIT 1",
    "metrics_latest": "(tenant_id, server_id, set_id, ts, since, values)"
    " SELECT %(other)s, server_id + 99, set_id, ts, since, values FROM metrics_latest LIMIT 1",
    "metrics_set": "(tenant_id, id, measurements, columns) VALUES (%(other)s, 1, '{}', '[]')",
}


@pytest.mark.parametrize("table", WRITES)
def test_a_write_for_a_tenant_that_is_not_named_fails(both, table):
    acme, globex = both
    with (
        pytest.raises(ProgrammingError, match="row-level security"),
        isolation.only(acme.pk) as cursor,
    ):
        cursor.execute(f"INSERT INTO public.{table} {WRITES[table]}", {"other": globex.pk})


@pytest.mark.parametrize("table", TABLES)
def test_nothing_of_another_tenant_can_be_changed_or_deleted(both, table):
    acme, globex = both
    with isolation.only(acme.pk) as cursor:
        cursor.execute(f"DELETE FROM public.{table} WHERE tenant_id = %s", [globex.pk])  # noqa: S608
        assert cursor.rowcount == 0
    with isolation.only(globex.pk):
        assert tenants_in(table) == {globex.pk}


def test_what_was_named_is_forgotten_after_the_transaction(both):
    acme, _ = both
    with transaction.atomic():
        with isolation.only(acme.pk):
            pass
        assert tenants_in("metrics_points") == set()
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_setting('sentinella.tenants', true)")
        assert not cursor.fetchone()[0]


def test_an_inner_naming_gives_way_to_the_outer_one(both):
    acme, globex = both
    with isolation.only(acme.pk):
        with isolation.only(globex.pk):
            assert tenants_in("metrics_points") == {globex.pk}
        assert tenants_in("metrics_points") == {acme.pk}


def test_the_store_cannot_be_asked_without_a_tenant():
    asked = [name for name in vars(Store) if not name.startswith("_") and name != "write"]
    assert sorted(asked) == ["forget", "labels", "latest", "points", "range", "window"]
    for name in asked:
        first = list(inspect.signature(getattr(PostgresStore, name)).parameters.values())[1]
        assert first.name == "tenant_id"
        assert first.default is inspect.Parameter.empty
        with pytest.raises(TypeError):
            getattr(PostgresStore(), name)()


def test_reads_of_one_tenant_never_bring_the_others_rows(both):
    acme, globex = both
    at = now()
    for mine, theirs in ((acme, globex), (globex, acme)):
        [server_id], [another] = queries.last_seen(mine.pk), queries.last_seen(theirs.pk)
        values = queries.latest(mine.pk, [server_id, another])
        assert values.keys() == {server_id}
        assert values[server_id]["cpu", ()]["percent"].value == mine.pk != theirs.pk
        window = queries.window(
            mine.pk, "cpu", "percent", since=at - HOUR, until=at + HOUR, agg="sum"
        )
        assert [one.value for one in window] == [mine.pk]
        assert len(events.search(mine.pk, Matcher()).events) == 1
        hours = events.per_hour(mine.pk, at - HOUR, at + HOUR)
        assert sum(sum(hour.counts.values()) for hour in hours) == 1


def test_forgetting_one_tenant_leaves_the_other(both):
    acme, globex = both
    ingest.forget(acme.pk)
    with isolation.only(acme.pk, globex.pk):
        for table in TABLES[:-1]:
            assert tenants_in(table) == {globex.pk}


def test_without_the_wall_the_tests_above_would_see_other_tenants(both):
    """The mutation: taking the policy away must show, or the tests above prove nothing."""
    acme, globex = both
    with transaction.atomic():
        mark = transaction.savepoint()
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE public.metrics_latest NO FORCE ROW LEVEL SECURITY")
        assert tenants_in("metrics_latest") == {acme.pk, globex.pk}
        transaction.savepoint_rollback(mark)
    assert tenants_in("metrics_latest") == set()


def test_a_key_of_one_organization_never_writes_into_another(acme, globex, globex_key):
    post(
        "/api/v1/reports",
        json.dumps(report(points=[point(percent=1)])).encode(),
        Authorization=f"Bearer {globex_key}",
    )
    assert queries.last_seen(acme.pk) == {}
    assert len(queries.last_seen(globex.pk)) == 1


@pytest.mark.parametrize(("mighty", "ids"), [(False, []), (True, ["metrics.E001"])])
def test_a_role_that_walks_through_the_wall_is_warned_of(db, monkeypatch, mighty, ids):
    if mighty:
        execute = CursorWrapper.execute

        def as_superuser(self: Any, sql: str, params: Any = None) -> Any:
            return execute(self, sql.replace("(rolsuper OR rolbypassrls)", "true"), params)

        monkeypatch.setattr(CursorWrapper, "execute", as_superuser)
    found = checks.role_is_held_by_row_level_security(databases=["default"])
    assert [one.id for one in found] == ids
    assert checks.role_is_held_by_row_level_security(databases=None) == []
