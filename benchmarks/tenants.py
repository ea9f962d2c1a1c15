"""A new organization's schema: the dump replayed, beside migrating an empty schema."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial

from accounts import provisioning
from accounts.models import Membership, Role, Tenant, User
from sentinel_site.kit.tenancy import connection

ROUNDS = 7


def run() -> None:
    owner, _ = User.objects.get_or_create(email="bench@example.org")
    provisioning.prepare_template()
    replayed, migrated = [], []
    for number in range(ROUNDS):  # in turns, so that both see the same machine
        tenant = Tenant.objects.create(slug=f"bench-{time.time_ns()}", name=f"Bench {number}")
        Membership.objects.create(user=owner, tenant=tenant, role=Role.OWNER)
        replayed.append(_timed(partial(provisioning.provision, tenant)))
        schema = f"t_bench_{time.time_ns()}"
        migrated.append(_timed(partial(provisioning._migrate, schema)))
        connection.set_schema_to_public()
    ours, theirs = statistics.median(replayed), statistics.median(migrated)
    print(f"tenants   replayed, with rules and channel  {ours * 1000:8.0f} ms")
    print(f"tenants   migrated, empty                   {theirs * 1000:8.0f} ms")
    print(f"tenants   ratio                             {theirs / ours:8.1f} x")


def _timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
