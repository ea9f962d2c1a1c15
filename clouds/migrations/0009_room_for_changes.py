"""Servers are updated in place: room on each page keeps a change of one from touching its indexes."""

from __future__ import annotations

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("clouds", "0008_fill_history")]

    operations = [
        migrations.RunSQL(
            "ALTER TABLE clouds_server SET (fillfactor = 50)",
            "ALTER TABLE clouds_server RESET (fillfactor)",
        )
    ]
