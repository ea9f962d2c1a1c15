import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("accounts", "0002_evaluated_slots"),
    ]

    operations = [
        migrations.AddField(
            model_name="tenant",
            name="claimed_until",
            field=models.DateTimeField(
                editable=False, help_text="Somebody is looking at it, or is lost then.", null=True
            ),
        ),
        migrations.CreateModel(
            name="Timer",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("at", models.DateTimeField()),
                (
                    "tenant",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, to="accounts.tenant"
                    ),
                ),
            ],
            options={
                "indexes": [models.Index(fields=["at", "tenant"], name="timer_rings")],
            },
        ),
    ]
