"""What is kept of incidents that are muted, and of those that come and go."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("alerts", "0011_fewer_indexes")]

    operations = [
        migrations.AddField(
            model_name="incident",
            name="calm_after",
            field=models.DurationField(
                blank=True,
                help_text="How long it must be calm: longer than it ever was.",
                null=True,
            ),
        ),
        migrations.AddField(
            model_name="incident",
            name="untold",
            field=models.BooleanField(
                db_default=False,
                default=False,
                help_text="It opened, came back or got worse while nobody was to be told.",
            ),
        ),
    ]
