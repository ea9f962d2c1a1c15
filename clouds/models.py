"""What is watched. One set of these tables per tenant, in its own schema."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.db import models
from django.db.models import F, Func, Q, Value
from django.db.models.functions import Lower
from django.utils import timezone

#: A host's name without its domain, in lower case.
SHORT_NAME = Lower(
    Func(F("host"), Value("."), Value(1), function="split_part", output_field=models.CharField())
)


#: What agents say when they stop, and how long that takes at most.
UPDATE = "update"
FAREWELLS = ((UPDATE, timedelta(minutes=10)), ("the host shuts down", timedelta(minutes=15)))
#: Whoever else stops an agent starts it again by then, as `systemctl restart` does.
STOPPED = timedelta(minutes=2)


class CloudGroup(models.Model):
    """Servers that belong together, usually one OpenStack cloud at one place."""

    name = models.CharField(max_length=80, unique=True)
    location = models.CharField(max_length=120, blank=True)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class Server(models.Model):
    """A machine that reports. Known by its agent's id; without one, by its host name."""

    class Status(models.TextChoices):
        UP = "up", "Up"
        SILENT = "silent", "Silent"
        MAINTENANCE = "maintenance", "Maintenance"
        BLACKOUT = "blackout", "Blackout"
        RETIRED = "retired", "Retired"

    class Health(models.TextChoices):
        """The worst open alert."""

        OK = "ok", "Fine"
        INFO = "info", "Info"
        WARNING = "warning", "Warning"
        ERROR = "error", "Error"
        CRITICAL = "critical", "Critical"

    host = models.CharField(max_length=255)
    agent_id = models.UUIDField(null=True, blank=True)
    group = models.ForeignKey(CloudGroup, null=True, blank=True, on_delete=models.SET_NULL)
    role = models.CharField(max_length=40, blank=True)
    status = models.CharField(max_length=11, choices=Status.choices, default=Status.UP)
    health = models.CharField(max_length=8, choices=Health.choices, default=Health.OK)
    interval = models.DurationField(default=timedelta(seconds=60))
    agent_version = models.CharField(max_length=40, blank=True)
    openstack_release = models.CharField(max_length=60, blank=True)
    specs = models.JSONField(default=dict, blank=True)
    goodbye = models.CharField(max_length=200, blank=True, help_text="Why its agent stopped.")
    goodbye_at = models.DateTimeField(null=True, blank=True)
    registered_at = models.DateTimeField(default=timezone.now)
    status_since = models.DateTimeField(default=timezone.now)
    retired_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["host", "pk"]
        constraints = [  # what makes registering safe when two reports arrive at once
            models.UniqueConstraint(
                fields=["agent_id"], condition=Q(agent_id__isnull=False), name="one_per_agent"
            ),
            models.UniqueConstraint(
                fields=["host"], condition=Q(agent_id=None), name="one_per_host_without_agent"
            ),
        ]
        indexes = [models.Index(SHORT_NAME, name="server_by_short_name")]

    def __str__(self) -> str:
        return self.host

    @property
    def openstack_versions(self) -> dict[str, str]:
        """What its agent found installed of each OpenStack project: `{"nova": "26.1.0"}`."""
        said = self.specs.get("openstack")
        projects = said.get("projects") if isinstance(said, dict) else None
        if not isinstance(projects, dict):
            return {}
        return {str(name): str(version) for name, version in projects.items() if version}

    @property
    def silent_after(self) -> timedelta:
        """No report for this long means silent; an agent that said goodbye is given longer."""
        return self.patience + grace_after(self.goodbye)

    @property
    def patience(self) -> timedelta:
        """Three intervals and 30 s; the original agents are given three minutes and a half."""
        if self.agent_id is None:
            return timedelta(minutes=3, seconds=30)
        return 3 * self.interval + timedelta(seconds=30)


class Service(models.Model):
    """One process family on one server, as its agent last saw it."""

    class State(models.TextChoices):
        UP = "up", "Up"
        DOWN = "down", "Down"
        UNKNOWN = "unknown", "Unknown"

    server = models.ForeignKey(Server, on_delete=models.CASCADE)
    name = models.CharField(max_length=200)
    project = models.CharField(max_length=60, blank=True)
    state = models.CharField(max_length=7, choices=State.choices)
    since = models.DateTimeField(help_text="When it came into this state.")
    seen_at = models.DateTimeField(help_text="When the state was last reported.")
    seen_up_at = models.DateTimeField(null=True, help_text="One that never ran is not down.")
    workers = models.PositiveIntegerField(default=0)
    detail = models.CharField(max_length=400, blank=True)

    class Meta:
        ordering = ["project", "name"]
        constraints = [models.UniqueConstraint(fields=["server", "name"], name="one_per_server")]

    def __str__(self) -> str:
        return f"{self.name} on {self.server}"

    @property
    def is_down(self) -> bool:
        """Down counts only for what has been up: the original agent lists what never ran."""
        return self.state == self.State.DOWN and self.seen_up_at is not None


class SuppressionKind(models.TextChoices):
    MAINTENANCE = "maintenance", "Maintenance"
    BLACKOUT = "blackout", "Blackout"


class Scoped(models.Model):
    """What is suppressed: one server, a cloud group, or, with neither, the whole organization."""

    server = models.ForeignKey(Server, null=True, blank=True, on_delete=models.CASCADE)
    group = models.ForeignKey(CloudGroup, null=True, blank=True, on_delete=models.CASCADE)
    kind = models.CharField(max_length=11, choices=SuppressionKind.choices)
    reason = models.CharField(max_length=300)
    by = models.BigIntegerField(null=True, blank=True, help_text="The person; empty: a key.")
    by_key = models.BigIntegerField(null=True, blank=True, help_text="The key; empty: a person.")

    class Meta:
        abstract = True

    @property
    def where(self) -> str:
        """What is suppressed, in words."""
        if self.server is not None:
            return self.server.host
        return f"group {self.group.name}" if self.group is not None else "all servers"


class Recurrence(Scoped):
    """A suppression that comes again, by an RRULE (RFC 5545) in the clocks of a time zone.

    Its occurrences are rows of `Suppression`: those that have begun, and the next. What is
    changed here changes nothing that has begun.
    """

    zone = models.CharField(max_length=64, help_text="Its name: Europe/Berlin.")
    begins = models.DateTimeField(help_text="When the first one begins.")
    rule = models.CharField(max_length=200, help_text="FREQ=WEEKLY;BYDAY=SU")
    lasts = models.DurationField(help_text="How long each lasts.")
    made_until = models.DateTimeField(
        null=True, blank=True, help_text="When the last one that was made begins."
    )
    ended_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-pk"]
        constraints = [
            models.CheckConstraint(
                condition=Q(server=None) | Q(group=None), name="recurrence_of_one_thing"
            ),
            models.CheckConstraint(condition=Q(lasts__gt=timedelta()), name="recurrence_lasts"),
        ]

    def __str__(self) -> str:
        return f"{self.kind} of {self.where}, again and again"


class Suppression(Scoped):
    """A time in which nobody is told of alerts: of what, who said so, why, since, until.

    In *maintenance* (planned work) alerts are recorded as suppressed; in a *blackout* (someone is
    at it) they open and show as usual. It ends at `until`, or before it at `ended_at`.
    """

    Kind = SuppressionKind

    since = models.DateTimeField()
    until = models.DateTimeField(null=True, blank=True, help_text="Empty: until it is ended.")
    ended_at = models.DateTimeField(null=True, blank=True)
    recurrence = models.ForeignKey(
        Recurrence, null=True, blank=True, on_delete=models.SET_NULL, help_text="What it is of."
    )
    settled = models.BooleanField(
        default=True, help_text="Whether its beginning was given to the servers' status."
    )

    class Meta:
        ordering = ["-since", "-pk"]
        indexes = [
            models.Index(fields=["since"], condition=Q(ended_at=None), name="suppression_open")
        ]
        constraints = [
            models.CheckConstraint(
                condition=Q(until=None) | Q(until__gt=F("since")), name="ends_after_it_begins"
            ),
            models.CheckConstraint(
                condition=Q(ended_at=None) | Q(ended_at__gte=F("since")),
                name="ended_after_it_began",
            ),
            models.CheckConstraint(
                condition=Q(server=None) | Q(group=None), name="suppression_of_one_thing"
            ),
            models.UniqueConstraint(  # what makes two evaluations at once make it once
                fields=["recurrence", "since"], name="one_of_an_occurrence"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} of {self.where}"


class Lease(models.Model):
    """The right of one agent to ask one cloud's APIs, until it ends."""

    cloud = models.CharField(max_length=300, unique=True, help_text="The identity URL.")
    holder = models.UUIDField(help_text="The agent's id; its server may not have reported yet.")
    until = models.DateTimeField()

    class Meta:
        ordering = ["cloud"]

    def __str__(self) -> str:
        return self.cloud


class AgentSettings(models.Model):
    """What a server's agent is asked to do otherwise than its own configuration says.

    It does so only where that configuration consents; what it applied, it says in its specs.
    """

    server = models.OneToOneField(Server, on_delete=models.CASCADE, related_name="agent_settings")
    version = models.PositiveIntegerField(default=1, help_text="One more with each change.")
    interval = models.PositiveIntegerField(
        null=True, blank=True, help_text="Seconds between reports; empty: as configured."
    )
    levels = models.JSONField(
        default=dict, blank=True, help_text="Least level sent by service; `default`: all others."
    )
    levels_until = models.DateTimeField(
        null=True, blank=True, help_text="Afterwards levels are as configured; empty: for good."
    )
    collectors = models.JSONField(
        default=dict, blank=True, help_text="Collectors switched off (false) or on (true)."
    )
    changed_at = models.DateTimeField(default=timezone.now)

    def __str__(self) -> str:
        return f"settings {self.version} of {self.server}"


from clouds.timeline import LateReports, ServiceSpan, Silence, Stay  # noqa: E402  their FKs are here

__all__ = [
    "FAREWELLS",
    "STOPPED",
    "UPDATE",
    "AgentSettings",
    "CloudGroup",
    "LateReports",
    "Lease",
    "Recurrence",
    "Scoped",
    "Server",
    "Service",
    "ServiceSpan",
    "Silence",
    "Stay",
    "Suppression",
    "SuppressionKind",
    "grace_after",
    "seen_long_ago",
]


def grace_after(goodbye: str) -> timedelta:
    """How much longer a server may be silent whose agent said why it stops.

    It comes back within that time, or somebody is told after all.
    """
    if not goodbye:
        return timedelta()
    told = (grace for words, grace in FAREWELLS if goodbye.startswith(words))
    return next(told, STOPPED)


def seen_long_ago(server: Server, received_at: datetime | None, now: datetime) -> bool:
    """Whether the server has been quiet for longer than its interval allows."""
    return received_at is None or now - received_at > server.silent_after
