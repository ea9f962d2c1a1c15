"""Check-ins that look just as heartbeats make them were made by them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.db import migrations


def fill(apps: Any, schema_editor: Any) -> None:
    made = apps.get_model("alerts", "CheckIn").objects.filter(
        period__isnull=False, grace=timedelta(minutes=1), server=None, advice=""
    )
    made.update(by_heartbeats=True)


class Migration(migrations.Migration):
    dependencies = [("alerts", "0015_told_apart_from_missing")]

    operations = [migrations.RunPython(fill, migrations.RunPython.noop, elidable=True)]
