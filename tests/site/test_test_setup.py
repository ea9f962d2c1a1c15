"""What every other test stands on: own database, both tenants, no network."""

from __future__ import annotations

import socket

import pytest
from django.core.cache import cache
from django.db import connection

from accounts.models import Membership, Tenant, User
from tests.conftest import NetworkIsClosed


def test_alice_owns_acme_and_works_in_its_schema(acme, alice):
    assert connection.schema_name == acme.schema_name
    assert acme.provisioned_at is not None
    assert Membership.objects.get(user=alice).role == "owner"


def test_mallory_has_no_part_in_acme(acme, globex, mallory):
    assert list(Membership.objects.filter(user=mallory).values_list("tenant", flat=True)) == [
        globex.pk
    ]


@pytest.mark.parametrize("time", [1, 2])
def test_what_a_test_writes_is_gone_in_the_next(db, time):
    assert not User.objects.filter(email="gone@acme.example").exists()
    User.objects.create_user("gone@acme.example")


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("time", [1, 2])
def test_what_a_transactional_test_commits_is_gone_in_the_next(time):
    assert Tenant.objects.filter(slug="acme").exists()
    assert not User.objects.filter(email="gone@acme.example").exists()
    User.objects.create_user("gone@acme.example")


@pytest.mark.parametrize("time", [1, 2])
def test_what_a_test_caches_is_gone_in_the_next(time):
    assert cache.get("left") is None
    cache.set("left", "over")


def test_no_test_reaches_another_machine():
    with pytest.raises(NetworkIsClosed):
        socket.create_connection(("192.0.2.1", 443), timeout=1)
    with pytest.raises(NetworkIsClosed):
        socket.getaddrinfo("example.org", 443)
