"""What was measured and logged: shared tables with the tenant in every key.

All but `Knock` are plain tables made by the first migration and spoken to in SQL by the store and
`events`; Django's ORM has no partitions and no composite upserts. What one row is:

- `metrics_set`      the columns of wide rows: `[[measurement, field, tags], …]`; its id is a hash
                     of them, so every process finds the same one without asking
- `metrics_points`   one (server, set, time in ms): a `float8[]` in the order of the set's columns;
                     partitioned by day
- `metrics_latest`   the newest row of each (server, set), and since when the pair exists
- `metrics_source`   one epoch of one agent, or one host without an agent: which server it is, when
                     it was last heard, what it last said of itself, which sequences were stored
- `metrics_event`    one log event; partitioned by day

Row-level security is forced, for the owner too: a transaction sees and writes only the tenants
that it named in the setting `sentinella.tenants` (see `metrics.isolation`).
"""

from __future__ import annotations

from django.db import models


class Knock(models.Model):
    """Somebody sends with a key that stands for nothing: an account key or a plugin key.

    One row per key and host. `tenant_id` is 0 where no organization is known.
    """

    class Kind(models.TextChoices):
        ACCOUNT = "account", "Account key"
        PLUGIN = "plugin", "Plugin key"

    tenant_id = models.BigIntegerField()
    kind = models.CharField(max_length=7, choices=Kind.choices)
    digest = models.BinaryField(max_length=16, help_text="Of the key; account keys aren't kept.")
    hint = models.CharField(max_length=64, help_text="What may be shown of the key.")
    host = models.CharField(max_length=255)
    first_at = models.DateTimeField()
    last_at = models.DateTimeField()
    count = models.BigIntegerField(default=0)
    sample = models.JSONField(default=dict)

    class Meta:
        ordering = ["-last_at", "-pk"]
        constraints = [
            models.UniqueConstraint(
                fields=["tenant_id", "kind", "digest", "host"], name="one_knock_per_key_and_host"
            )
        ]

    def __str__(self) -> str:
        return f"{self.get_kind_display()} {self.hint} from {self.host}"


class Outage(models.Model):
    """A time in which nobody listened to the agents of any organization: an outage of ours."""

    since = models.DateTimeField()
    until = models.DateTimeField()

    class Meta:
        ordering = ["-since"]
        constraints = [
            models.CheckConstraint(
                condition=models.Q(until__gt=models.F("since")), name="outage_ends_after"
            ),
            models.UniqueConstraint(fields=["since"], name="one_outage_at_a_time"),
        ]

    def __str__(self) -> str:
        return f"from {self.since} to {self.until}"


class Alarm(models.Model):
    """Something of the installation itself that does not work: told once when it lasts, and once
    when it works again."""

    kind = models.CharField(max_length=20)
    since = models.DateTimeField()
    told_at = models.DateTimeField(null=True)
    until = models.DateTimeField(null=True)

    class Meta:
        ordering = ["-since"]
        constraints = [
            models.UniqueConstraint(
                fields=["kind"], condition=models.Q(until=None), name="one_alarm_of_a_kind"
            )
        ]

    def __str__(self) -> str:
        return f"{self.kind} since {self.since}"


class RoundTrip(models.Model):
    """The canary's flights; there is one row."""

    began_at = models.DateTimeField(help_text="When the first one set out.")
    set_out_at = models.DateTimeField()
    arrived_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [models.CheckConstraint(condition=models.Q(pk=1), name="one_round_trip")]

    def __str__(self) -> str:
        return f"set out {self.set_out_at}, arrived {self.arrived_at}"


class Listening(models.Model):
    """When a process last said that it listens, kept where a restart does not forget it."""

    said_at = models.DateTimeField()

    class Meta:
        constraints = [models.CheckConstraint(condition=models.Q(pk=1), name="one_listening")]

    def __str__(self) -> str:
        return f"said {self.said_at}"
