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
        migrations.AlterField(
            model_name="event",
            name="kind",
            field=models.CharField(
                choices=[
                    ("opened", "opened"),
                    ("raised", "became worse"),
                    ("lowered", "became less bad"),
                    ("acknowledged", "acknowledged"),
                    ("resolved", "resolved"),
                    ("reopened", "opened again"),
                    ("joined", "grew"),
                    ("cause", "has a probable cause"),
                    ("merged", "belongs to another"),
                    ("released", "was given back"),
                    ("assigned", "was assigned"),
                    ("commented", "commented"),
                    ("shelved", "was shelved"),
                    ("returned", "returned from the shelf"),
                    ("flapping", "comes and goes"),
                    ("calm", "is calm again"),
                    ("unmuted", "is no longer muted"),
                ],
                max_length=12,
            ),
        ),
    ]
