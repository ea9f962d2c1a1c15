"""Who has read what stands behind the bell."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("alerts", "0013_untold_of_muted")]

    operations = [
        migrations.CreateModel(
            name="Reader",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("user", models.BigIntegerField(unique=True)),
                ("event", models.BigIntegerField(help_text="The newest event that they saw.")),
            ],
            options={
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(("event__gte", 0)), name="reads_upwards"
                    )
                ]
            },
        ),
    ]
