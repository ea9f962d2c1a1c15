"""What an evaluation writes costs less: each row has the indexes it is found by, and no more.

Open alerts are updated by every evaluation. Half of each page is left free, so that the new version
of a row stays on its page and no index is touched.
"""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("alerts", "0010_rule_terms"),
        ("clouds", "0008_fill_history"),
    ]

    operations = [
        migrations.AlterField(
            model_name="alert",
            name="server",
            field=models.ForeignKey(
                blank=True,
                db_index=False,
                null=True,
                on_delete=django.db.models.deletion.CASCADE,
                to="clouds.server",
            ),
        ),
        migrations.AlterField(
            model_name="judgement",
            name="rule",
            field=models.ForeignKey(
                db_index=False,
                null=True,
                on_delete=django.db.models.deletion.SET_NULL,
                to="alerts.rule",
            ),
        ),
        migrations.AlterField(
            model_name="notification",
            name="channel",
            field=models.ForeignKey(
                db_index=False,
                on_delete=django.db.models.deletion.CASCADE,
                to="alerts.notificationchannel",
            ),
        ),
        migrations.AlterField(
            model_name="notification",
            name="incident",
            field=models.ForeignKey(
                db_index=False, on_delete=django.db.models.deletion.CASCADE, to="alerts.incident"
            ),
        ),
        migrations.AlterField(
            model_name="pending",
            name="fingerprint",
            field=models.CharField(max_length=64),
        ),
        migrations.AlterField(
            model_name="pending",
            name="rule",
            field=models.ForeignKey(
                db_index=False, on_delete=django.db.models.deletion.CASCADE, to="alerts.rule"
            ),
        ),
        migrations.AlterField(
            model_name="pending",
            name="server",
            field=models.ForeignKey(
                db_index=False, on_delete=django.db.models.deletion.CASCADE, to="clouds.server"
            ),
        ),
        migrations.AddConstraint(
            model_name="pending",
            constraint=models.UniqueConstraint(fields=("fingerprint",), name="one_pending"),
        ),
        migrations.RunSQL(
            "ALTER TABLE alerts_alert SET (fillfactor = 50)",
            "ALTER TABLE alerts_alert RESET (fillfactor)",
        ),
    ]
