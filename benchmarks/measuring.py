"""What benchmarks share: an organization to work in, and the CPU that processes have taken."""

from __future__ import annotations

import contextlib
import resource
import time
from typing import Any

import psutil
from django.db import connection

from accounts.models import Membership, Role, Tenant, User
from accounts.provisioning import provision


def tenant(name: str) -> Tenant:
    """A new organization with its schema."""
    owner, _ = User.objects.get_or_create(email="bench@example.org")
    made: Tenant = Tenant.objects.create(slug=f"{name}-{time.time_ns()}", name=name.capitalize())
    Membership.objects.create(user=owner, tenant=made, role=Role.OWNER)
    provision(made)
    return made


def parameters() -> dict[str, Any]:
    """What psycopg2 connects to the benchmarks' PostgreSQL with."""
    database = connection.settings_dict
    return {
        "dbname": database["NAME"],
        "user": database["USER"],
        "password": database["PASSWORD"],
        "host": database["HOST"],
        "port": database["PORT"],
    }


def postgres() -> psutil.Process:
    """The PostgreSQL server; `cpu` counts its connections too."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        return psutil.Process(cursor.fetchone()[0]).parent() or psutil.Process()


def own_cpu() -> float:
    """User and system seconds of this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def cpu(root: psutil.Process) -> float:
    """User and system seconds of the process and all below it, those that ended included."""
    total = 0.0
    for process in [root, *root.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system
            if process == root:
                total += times.children_user + times.children_system
    return total
