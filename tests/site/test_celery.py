"""A worker outlives its database."""

from __future__ import annotations

import pytest
from celery.signals import task_prerun
from django.db import OperationalError, connection

from sentinel_site import celery_app


@pytest.mark.django_db(transaction=True)
def test_a_connection_that_the_database_ended_is_replaced_before_the_next_task():
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        (pid,) = cursor.fetchone()
    with pytest.raises(OperationalError), connection.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(%s)", [pid])
    task_prerun.send(sender=celery_app)
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
        assert cursor.fetchone() == (1,)
