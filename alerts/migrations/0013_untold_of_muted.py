"""Open incidents whose alerts were kept back when this came are to be told when that is over."""

from typing import Any

from django.db import migrations


def note_untold(apps: Any, schema_editor: Any) -> None:
    muted = (
        apps.get_model("alerts", "Alert").objects.filter(resolved_at=None).exclude(suppressed="")
    )
    incidents = apps.get_model("alerts", "Incident").objects.filter(resolved_at=None)
    incidents.filter(pk__in=muted.values("incident"), notification=None).update(untold=True)


class Migration(migrations.Migration):
    dependencies = [("alerts", "0012_incident_untold")]

    operations = [migrations.RunPython(note_untold, migrations.RunPython.noop, elidable=True)]
