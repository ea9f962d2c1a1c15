"""The tables of the metric store and of log events, and the wall between tenants."""

from django.db import migrations, models

POLICY = """
ALTER TABLE public.{table} ENABLE ROW LEVEL SECURITY;
ALTER TABLE public.{table} FORCE ROW LEVEL SECURITY;
CREATE POLICY named_tenants ON public.{table} USING (
  tenant_id = ANY ((SELECT string_to_array(
    nullif(current_setting('sentinella.tenants', true), ''), ',')::bigint[])::bigint[])
);
"""

TABLES = """
CREATE TABLE public.metrics_set (
  tenant_id bigint NOT NULL,
  id bigint NOT NULL,
  measurements text[] NOT NULL,
  columns jsonb NOT NULL,
  PRIMARY KEY (tenant_id, id)
);

CREATE TABLE public.metrics_points (
  tenant_id bigint NOT NULL,
  server_id bigint NOT NULL,
  set_id bigint NOT NULL,
  ts bigint NOT NULL,
  values float8[] NOT NULL,
  PRIMARY KEY (tenant_id, server_id, set_id, ts)
) PARTITION BY RANGE (ts);
CREATE INDEX metrics_points_ts ON public.metrics_points
  USING brin (ts) WITH (pages_per_range = 16, autosummarize = on);

CREATE TABLE public.metrics_latest (
  tenant_id bigint NOT NULL,
  server_id bigint NOT NULL,
  set_id bigint NOT NULL,
  ts bigint NOT NULL,
  since bigint NOT NULL,
  values float8[] NOT NULL,
  PRIMARY KEY (tenant_id, server_id, set_id)
) WITH (fillfactor = 50);

CREATE TABLE public.metrics_source (
  tenant_id bigint NOT NULL,
  source text NOT NULL,
  epoch text NOT NULL,
  server_id bigint NOT NULL,
  received_at timestamptz NOT NULL,
  at timestamptz NOT NULL,
  facts bytea NOT NULL,
  specs_at timestamptz,
  stored int8multirange NOT NULL DEFAULT '{}',
  PRIMARY KEY (tenant_id, source, epoch)
) WITH (fillfactor = 50);

CREATE SEQUENCE public.metrics_event_id;
CREATE TABLE public.metrics_event (
  tenant_id bigint NOT NULL,
  at timestamptz NOT NULL,
  id bigint NOT NULL DEFAULT nextval('public.metrics_event_id'),
  server_id bigint NOT NULL,
  received_at timestamptz NOT NULL,
  level smallint NOT NULL,
  service text NOT NULL,
  component text NOT NULL,
  request_id text NOT NULL,
  pid bigint,
  path text NOT NULL,
  written text NOT NULL,
  message text NOT NULL,
  fingerprint bigint NOT NULL,
  key bytea NOT NULL,
  PRIMARY KEY (tenant_id, at, id)
) PARTITION BY RANGE (at);
CREATE UNIQUE INDEX metrics_event_key ON public.metrics_event (tenant_id, server_id, key, at);
CREATE INDEX metrics_event_server ON public.metrics_event (tenant_id, server_id, at, id);
"""

DROP = """
DROP TABLE public.metrics_event, public.metrics_points, public.metrics_latest,
  public.metrics_source, public.metrics_set;
DROP SEQUENCE public.metrics_event_id;
"""


class Migration(migrations.Migration):
    initial = True

    operations = [
        migrations.RunSQL(TABLES, DROP),
        migrations.CreateModel(
            name="Knock",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("tenant_id", models.BigIntegerField()),
                (
                    "kind",
                    models.CharField(
                        choices=[("account", "Account key"), ("plugin", "Plugin key")],
                        max_length=7,
                    ),
                ),
                (
                    "digest",
                    models.BinaryField(
                        help_text="Of the key; account keys aren't kept.", max_length=16
                    ),
                ),
                (
                    "hint",
                    models.CharField(help_text="What may be shown of the key.", max_length=64),
                ),
                ("host", models.CharField(max_length=255)),
                ("first_at", models.DateTimeField()),
                ("last_at", models.DateTimeField()),
                ("count", models.BigIntegerField(default=0)),
                ("sample", models.JSONField(default=dict)),
            ],
            options={"ordering": ["-last_at", "-pk"]},
        ),
        migrations.AddConstraint(
            model_name="knock",
            constraint=models.UniqueConstraint(
                fields=("tenant_id", "kind", "digest", "host"), name="one_knock_per_key_and_host"
            ),
        ),
        *(
            migrations.RunSQL(POLICY.format(table=table), migrations.RunSQL.noop)
            for table in (
                "metrics_set",
                "metrics_points",
                "metrics_latest",
                "metrics_source",
                "metrics_event",
                "metrics_knock",
            )
        ),
    ]
