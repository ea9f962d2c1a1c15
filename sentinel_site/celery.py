"""The Celery application: `celery -A sentinel_site worker` and `... beat`."""

from __future__ import annotations

import os

from celery import Celery
from celery.signals import setup_logging, task_prerun

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "sentinel_site.settings")

app = Celery("sentinella")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()


@setup_logging.connect
def keep_our_logging(**_: object) -> None:
    """Django's settings have set logging up; without a receiver Celery would replace it."""


@task_prerun.connect
def drop_dead_connections(**_: object) -> None:
    """As before each request: a connection that the database ended is replaced, not kept."""
    from django.db import close_old_connections  # needs settings, which name this module

    close_old_connections()
