"""A tenant's schema: made by replaying a dump, and the same as a migrated one."""

from __future__ import annotations

import pytest
from django.core.management import call_command
from django.db import connection

from accounts import provisioning
from accounts.models import Membership, Role, Tenant
from accounts.signup import found

pytestmark = pytest.mark.django_db

_OBJECTS = {
    "columns": """
        SELECT table_name, column_name, data_type, is_nullable, column_default,
               character_maximum_length, is_identity, identity_generation, ordinal_position
        FROM information_schema.columns WHERE table_schema = %s ORDER BY 1, 9""",
    "constraints": """
        SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid)
        FROM pg_constraint WHERE connamespace = %s::regnamespace ORDER BY 1, 2""",
    "indexes": """
        SELECT tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = %s
        ORDER BY 1, 2""",
    "sequences": """
        SELECT sequencename, data_type, start_value, min_value, max_value, increment_by, last_value
        FROM pg_sequences WHERE schemaname = %s AND sequencename NOT LIKE 'django_migrations%%'
        ORDER BY 1""",
    "relations": """
        SELECT relname, relkind, relrowsecurity, relforcerowsecurity, pg_get_userbyid(relowner)
        FROM pg_class WHERE relnamespace = %s::regnamespace ORDER BY 1""",
    "triggers": """
        SELECT tgrelid::regclass::text, tgname FROM pg_trigger JOIN pg_class c ON c.oid = tgrelid
        WHERE NOT tgisinternal AND c.relnamespace = %s::regnamespace ORDER BY 1, 2""",
}


def objects(schema):
    found = {}
    with connection.cursor() as cursor:
        for kind, query in _OBJECTS.items():
            cursor.execute(query, [schema])
            found[kind] = [
                tuple(str(value).replace(f"{schema}.", "") for value in row)
                for row in cursor.fetchall()
            ]
        cursor.execute(f'SELECT app, name FROM "{schema}".django_migrations ORDER BY 1, 2')  # noqa: S608
        found["migrations"] = cursor.fetchall()
    return found


def test_a_replayed_schema_equals_a_migrated_one_object_for_object(alice):
    replayed = found("Replayed", alice)
    provisioning.provision(replayed)
    with connection.cursor() as cursor:
        cursor.execute("CREATE SCHEMA t_migrated")
    call_command("migrate_schemas", schema_name="t_migrated", interactive=False, verbosity=0)
    connection.set_schema_to_public()
    ours, theirs = objects(replayed.schema_name), objects("t_migrated")
    defaults = {  # filled at provisioning
        "alerts_rule_id_seq",
        "alerts_ruleversion_id_seq",
        "alerts_notificationchannel_id_seq",
    }
    for found_objects in (ours, theirs):
        found_objects["sequences"] = [
            row[:-1] if row[0] in defaults else row for row in found_objects["sequences"]
        ]
    assert ours == theirs
    assert len(ours["relations"]) > 10


def test_provisioning_twice_has_one_effect(alice):
    tenant = found("Twice", alice)
    assert provisioning.provision(tenant) is True
    assert provisioning.provision(tenant) is False


def test_without_a_fitting_pg_dump_a_schema_is_migrated(alice, monkeypatch, tmp_path, settings):
    settings.STATE_DIR = tmp_path
    monkeypatch.setattr(provisioning, "_pg_dump", lambda: None)
    tenant = found("Migrated", alice)
    provisioning.provision(tenant)
    assert objects(tenant.schema_name)["relations"]


def test_the_search_path_is_left_as_it_was(alice):
    provisioning.provision(found("Path", alice))
    assert connection.schema_name == "public"
    assert Tenant.objects.filter(slug="path").exists()


def test_a_schema_is_never_named_after_the_slug(alice):
    tenant = found("Sluggish", alice)
    assert tenant.schema_name.startswith("t_")
    assert "sluggish" not in tenant.schema_name


@pytest.mark.django_db(transaction=True)
def test_two_hundred_tenants_live_side_by_side(alice):
    for number in range(200):
        tenant = Tenant.objects.create(slug=f"many-{number}", name=f"Many {number}")
        Membership.objects.create(user=alice, tenant=tenant, role=Role.OWNER)
        provisioning.provision(tenant)
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_class WHERE relname = 'alerts_rule' AND relkind = 'r'"
        )
        assert cursor.fetchone()[0] >= 202
