"""What opens at once is written once: the alert tells since when it holds, and no Pending does.

Which rule a judgement is of its fingerprint's alerts tell; nobody asked the column, nor the index of
what was sent. Incidents that flap, are shelved, merged or untold are few: each has a small index.
"""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("alerts", "0016_fill_by_heartbeats"),
    ]

    operations = [
        migrations.RemoveIndex(
            model_name="notification",
            name="notification_sent",
        ),
        migrations.RemoveField(
            model_name="judgement",
            name="rule",
        ),
        migrations.AddField(
            model_name="alert",
            name="held_since",
            field=models.DateTimeField(
                help_text="When its rule began to hold; empty: its Pending tells, or a tool.",
                null=True,
            ),
        ),
        migrations.AlterField(
            model_name="incident",
            name="merged_into",
            field=models.ForeignKey(
                blank=True,
                db_index=False,
                help_text="The incident that its alerts turned out to belong to.",
                null=True,
                on_delete=django.db.models.deletion.SET_NULL,
                to="alerts.incident",
            ),
        ),
        migrations.AddIndex(
            model_name="incident",
            index=models.Index(
                condition=models.Q(("merged_into__isnull", False)),
                fields=["merged_into"],
                name="incident_merged",
            ),
        ),
        migrations.AddIndex(
            model_name="incident",
            index=models.Index(
                condition=models.Q(("flapping_until__isnull", False)),
                fields=["flapping_until"],
                name="incident_flapping",
            ),
        ),
        migrations.AddIndex(
            model_name="incident",
            index=models.Index(
                condition=models.Q(("shelved_until__isnull", False)),
                fields=["shelved_until"],
                name="incident_shelved",
            ),
        ),
        migrations.AddIndex(
            model_name="incident",
            index=models.Index(
                condition=models.Q(("untold", True)), fields=["id"], name="incident_untold"
            ),
        ),
    ]
