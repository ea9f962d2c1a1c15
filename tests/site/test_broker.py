"""The same tasks over RabbitMQ as over Redis. Run by .ci/run, which brings the broker."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from django.conf import settings
from django.db import connection

from accounts.models import Tenant
from alerts.models import Alert, Rule
from sentinel_site import celery_app
from sentinel_site.kit.tenancy import in_schema
from tests.alerts.builders import make_rule
from tests.alerts.test_evaluation import NOW, cpu, send
from tests.site.test_up import REPOSITORY, eventually

pytestmark = pytest.mark.rabbitmq
TASK = "alerts.tasks.notify"


@pytest.fixture
def queue() -> Iterator[str]:
    name = f"test-{uuid.uuid4().hex}"
    yield name
    with celery_app.connection_for_write() as connection:
        connection.default_channel.queue_delete(name)


def test_a_task_waits_in_rabbitmq_until_a_worker_comes_and_is_run_once(queue):
    assert celery_app.conf.broker_url.startswith("amqp://")
    celery_app.send_task(TASK, args=[[]], queue=queue)
    worker = subprocess.Popen(
        [sys.executable, "-m", "celery", "-A", "sentinel_site", "worker", "-c", "1", "-Q", queue],
        cwd=REPOSITORY,
    )

    def runs() -> int:
        stats = celery_app.control.inspect(timeout=1.0).stats() or {}
        return sum(said["total"].get(TASK, 0) for said in stats.values())

    try:
        assert eventually(runs, 30)
        assert runs() == 1
        assert left_in(queue) == 0
    finally:
        worker.terminate()
        assert worker.wait(15) == 0


@pytest.mark.django_db(transaction=True)
def test_an_evaluation_that_came_over_rabbitmq_opens_its_alert(queue):
    acme = Tenant.objects.get(slug="acme")
    with in_schema(acme.schema_name):
        Rule.objects.all().delete()
        make_rule()
        send(acme, NOW, cpu(95))
    database = urlsplit(settings.ENV.database_url)
    name = connection.settings_dict["NAME"]
    worker = subprocess.Popen(
        [sys.executable, "-m", "celery", "-A", "sentinel_site", "worker", "-c", "1", "-Q", queue],
        cwd=REPOSITORY,
        env={**os.environ, "DATABASE_URL": database._replace(path=f"/{name}").geturl()},
    )
    try:
        celery_app.send_task(
            "alerts.tasks.evaluate", args=[[acme.schema_name], NOW.isoformat()], queue=queue
        )

        def opened() -> bool:
            with in_schema(acme.schema_name):
                return Alert.objects.exists()

        assert eventually(opened, 60)
    finally:
        worker.terminate()
        assert worker.wait(15) == 0


def test_a_task_whose_worker_is_killed_goes_back_to_the_queue(queue):
    """Late acknowledgement: what a worker had only fetched is another one's afterwards."""
    celery_app.send_task(TASK, args=[[]], queue=queue)
    with celery_app.connection_for_read() as connection:
        message = connection.default_channel.basic_get(queue)
        assert message is not None
        assert left_in(queue) == 0
    assert eventually(lambda: left_in(queue) == 1)


def left_in(queue: str) -> int:
    with celery_app.connection_for_read() as connection:
        return connection.default_channel.queue_declare(queue, passive=True).message_count
