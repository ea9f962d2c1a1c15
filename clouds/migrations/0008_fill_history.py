"""Uptime is counted from what is known at the time of the upgrade on."""

from django.db import migrations


def fill(apps, schema_editor):
    Server = apps.get_model("clouds", "Server")
    Service = apps.get_model("clouds", "Service")
    Silence = apps.get_model("clouds", "Silence")
    Span = apps.get_model("clouds", "ServiceSpan")
    Stay = apps.get_model("clouds", "Stay")
    Stay.objects.bulk_create(
        Stay(server=server, group_id=server.group_id, since=server.registered_at)
        for server in Server.objects.exclude(group=None)
    )
    Silence.objects.bulk_create(
        Silence(server=server, since=server.status_since)
        for server in Server.objects.filter(status="silent")
    )
    spans = []
    for row in Service.objects.all():
        spans.append(Span(server_id=row.server_id, name=row.name, state=row.state, since=row.since))
        if row.seen_up_at is not None and row.seen_up_at < row.since:
            spans.append(
                Span(
                    server_id=row.server_id,
                    name=row.name,
                    state="up",
                    since=row.seen_up_at,
                    until=row.since,
                )
            )
    Span.objects.bulk_create(spans)


class Migration(migrations.Migration):
    dependencies = [("clouds", "0007_suppress_groups_and_keep_history")]
    operations = [migrations.RunPython(fill, migrations.RunPython.noop, elidable=True)]
