"""A series that waits names its server; where that is not known any more, it waits anew."""

import django.db.models.deletion
from django.db import migrations, models

FILL = """
UPDATE alerts_pending AS p SET server_id = a.server_id FROM alerts_alert AS a
WHERE a.fingerprint = p.fingerprint AND a.server_id IS NOT NULL;
DELETE FROM alerts_pending WHERE server_id IS NULL;
"""


class Migration(migrations.Migration):
    dependencies = [("alerts", "0003_alert_of_other_tools")]

    operations = [
        migrations.AddField(
            model_name="pending",
            name="server",
            field=models.ForeignKey(
                null=True, on_delete=django.db.models.deletion.CASCADE, to="clouds.server"
            ),
        ),
        migrations.AddField(
            model_name="pending",
            name="recovering",
            field=models.DateTimeField(
                help_text="Its alert is open and it holds no longer, since then.", null=True
            ),
        ),
        migrations.RunSQL(
            FILL + "SET CONSTRAINTS ALL IMMEDIATE;", migrations.RunSQL.noop, elidable=True
        ),
        migrations.AlterField(
            model_name="pending",
            name="server",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.CASCADE, to="clouds.server"
            ),
        ),
    ]
