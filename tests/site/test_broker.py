"""The same tasks over RabbitMQ as over Redis. Run by .ci/run, which brings the broker."""

from __future__ import annotations

import subprocess
import sys
import uuid
from collections.abc import Iterator

import pytest

from sentinel_site import celery_app
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
