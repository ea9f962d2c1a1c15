"""What `alerts.lifecycle.correlation` judges, read from the database, and what follows there."""

from __future__ import annotations

import functools
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import NamedTuple

import structlog
from django.db.models import Q

from accounts.models import Tenant
from alerts import knowledge
from alerts.lifecycle import correlation, topology
from alerts.lifecycle.correlation import Accusation, Cause, Fleet, Kind, Place, Signal
from alerts.models import Alert, Incident, Rule, Severity
from clouds.models import CloudGroup, Server, Service
from metrics import events, queries
from metrics.events import Matcher
from sentinel_site.kit.tenancy import current_schema

log = structlog.get_logger(__name__)

#: Log lines are read from so long before the first alert on.
LINES_BEFORE = timedelta(minutes=3)
#: Sorts of log lines and open alerts that are looked at, at most.
MOST_LINES = 3000
MOST_ALERTS = 20_000
#: An alert without a cause is looked at again for so long: lines come after states.
UNSETTLED = timedelta(minutes=10)
#: What depends on others is told so much later, while it is not known whether one of them is it.
HOLD = timedelta(seconds=30)

#: Measurements of a component itself, and fields that tell a state.
_OF_COMPONENTS = {
    "rabbitmq": "rabbitmq",
    "mariadb": "mariadb",
    "memcached": "memcached",
    "haproxy": "haproxy",
}
_STATES = {"up", "down", "ports_silent"}


class Row(NamedTuple):
    """An alert as it is stored, or as it is about to be."""

    key: int
    incident: int
    server: int | None
    service: str
    subject: str
    severity: str
    at: datetime
    kind: str
    measurement: str
    field: str
    title: str
    #: What an incident of it would be called, and what is said of it; of new ones only.
    called: str = ""
    text: str = ""


@dataclass(frozen=True, slots=True)
class Saying:
    """Log lines of one sort that match the knowledge base."""

    entry: knowledge.Entry
    sort: events.Sort


@dataclass
class Cluster:
    """Alerts that belong together: where they are to go, and what is probably their cause."""

    cause: Cause | None
    rows: list[Row]
    label: str = ""
    incidents: list[int] = field(default_factory=list)
    #: The causes that those have.
    keys: dict[int, str] = field(default_factory=dict)
    #: Until when telling of it waits, for a cause may yet turn up; None: not at all.
    hold: timedelta | None = None

    @property
    def signals(self) -> frozenset[int]:
        return self.cause.signals if self.cause else frozenset()


@dataclass
class Picture:
    """All clusters of a tenant, with what they were judged by."""

    clusters: list[Cluster]
    hosts: Mapping[int, str]
    sayings: list[Saying]


def is_relevant(row: Row) -> bool:
    """Whether an alert can have a cause elsewhere, or be one."""
    return _kind(row) is not Kind.OTHER


def picture(fresh: Sequence[Row], at: datetime) -> Picture:
    """The clusters of what is open and what is new, by what is known at this time."""
    stored = _stored()
    rows = [*stored, *fresh]
    if not rows:
        return Picture([], {}, [])
    servers = _servers()
    hosts = {pk: server.host for pk, server in servers.items()}
    by_host = _by_host(hosts)
    signals = [_signal(row, by_host) for row in rows]
    tenant = Tenant.objects.get(schema_name=current_schema())
    fleet = _fleet(tenant.pk, servers, at)
    sayings = _sayings(tenant.pk, rows, at)
    accusations = [
        Accusation(
            saying.sort.server_id,
            saying.sort.service,
            saying.entry.about,
            saying.entry.id,
            saying.sort.first,
            saying.sort.count,
        )
        for saying in sayings
    ]
    by_key = {row.key: row for row in rows}
    by_signal = {signal.key: signal for signal in signals}
    groups = {0: "no cloud group", **dict(CloudGroup.objects.values_list("pk", "name"))}
    clusters = []
    for gathered in correlation.gather(signals, accusations, fleet):
        members = [by_key[key] for key in gathered.members]
        cause = gathered.cause
        if cause is not None and cause.kind == "disk" and len(members) == 1:
            cause = None  # a full disk that has done no harm yet
        cluster = Cluster(cause, members, _label(cause, hosts, groups))
        cluster.hold = _hold(cluster, [by_signal[key] for key in gathered.members], fleet, at)
        clusters.append(cluster)
    _find_homes(clusters)
    return Picture(clusters, hosts, sayings)


def _find_homes(clusters: Iterable[Cluster]) -> None:
    """Give each cluster its incidents; one with alerts in several clusters goes with the most."""
    shares: dict[int, Counter[int]] = defaultdict(Counter)
    known = list(clusters)
    for number, cluster in enumerate(known):
        for row in cluster.rows:
            if row.incident:
                weight = 1000 if row.key in cluster.signals else 1
                shares[row.incident][number] += weight
    keys = dict(Incident.objects.filter(pk__in=shares).values_list("pk", "cause_key"))
    for incident, votes in shares.items():
        for number in votes:
            cause = known[number].cause
            if cause is not None and cause.key == keys.get(incident):
                votes[number] += 1_000_000
        home = max(votes, key=lambda number: (votes[number], -number))
        known[home].incidents.append(incident)
        known[home].keys[incident] = keys.get(incident, "")


# -- what is open -----------------------------------------------------------------


def _stored() -> list[Row]:
    """Alerts that matter here: open ones, and causes that are over in incidents that are not."""
    ours = (
        Q(rule__kind__in=[Rule.Kind.SILENCE, Rule.Kind.EVENT, "service"])
        | Q(rule__measurement__in=["service", "disk", *_OF_COMPONENTS])
        | Q(rule__measurement__startswith="openstack_")
    )
    theirs = Q(rule=None) & Q(service__iregex=topology.services_pattern())
    open_ones = Q(resolved_at=None) | Q(part=Alert.Part.CAUSE, incident__resolved_at=None)
    columns = ("pk", "incident_id", "server_id", "service", "subject", "severity", "opened_at")
    of_rule = ("rule__kind", "rule__measurement", "rule__field")
    rows = []
    for could in (ours, theirs):  # what other tools send in masses hides nothing of ours
        found = Alert.objects.filter(could & open_ones).order_by("-pk")
        rows += [
            Row(*values[:7], *(value or "" for value in values[7:10]), values[10])  # type: ignore[call-arg]
            for values in found.values_list(*columns, *of_rule, "title")[:MOST_ALERTS]
        ]
    return [row for row in rows if is_relevant(row)]


def has_unsettled(at: datetime) -> bool:
    """Whether something is open whose cause could still turn up."""
    return Incident.objects.filter(
        resolved_at=None, cause_key="", opened_at__gt=at - UNSETTLED
    ).exists()


def _kind(row: Row) -> Kind:
    if row.kind == Rule.Kind.SILENCE:
        return Kind.SILENT
    if row.kind == Rule.Kind.EVENT:
        return Kind.LOG
    if row.measurement == "disk":
        return Kind.DISK
    tells_state = row.field in _STATES or row.kind in ("", "service")
    if _component(row) and (tells_state or row.measurement.startswith("openstack_")):
        return Kind.SERVICE
    return Kind.OTHER


def _component(row: Row) -> str:
    own = _OF_COMPONENTS.get(row.measurement)
    if own:
        return own
    found = topology.component_of(row.service)
    return found.name if found else ""


def _signal(row: Row, by_host: Mapping[str, int]) -> Signal:
    on = row.server
    if row.measurement.startswith("openstack_") or row.server is None:
        # the API of a project tells of a service that runs on another host
        named = (by_host.get(word) for word in row.subject.lower().split())
        on = next((pk for pk in named if pk is not None), row.server)
    return Signal(
        key=row.key,
        kind=_kind(row),
        server=row.server,
        on=on,
        component=_component(row),
        at=row.at,
        is_critical=Severity(row.severity).rank >= Severity.ERROR.rank,
    )


# -- what there is -----------------------------------------------------------------


def _servers() -> dict[int, Server]:
    kept = Server.objects.exclude(status=Server.Status.RETIRED)
    return {server.pk: server for server in kept.only("host", "group", "interval", "agent_id")}


def _by_host(hosts: Mapping[int, str]) -> dict[str, int]:
    """Servers by host name, whole and without its domain."""
    short = {host.lower().partition(".")[0]: pk for pk, host in hosts.items()}
    return short | {host.lower(): pk for pk, host in hosts.items()}


def _fleet(tenant_id: int, servers: Mapping[int, Server], at: datetime) -> Fleet:
    heard = queries.last_seen(tenant_id)
    places = {
        pk: Place(
            group=server.group_id or 0,
            quiet_for=at - heard[pk] if pk in heard else timedelta(),
            interval=server.interval,
        )
        for pk, server in servers.items()
    }
    runs: dict[str, set[int]] = defaultdict(set)
    lives: dict[str, set[int]] = defaultdict(set)
    for server, name, state in _providers():
        component = topology.component_of(name)
        place = places.get(server)
        if component is None or place is None:
            continue
        runs[component.name].add(server)
        if state == Service.State.UP and not place.is_quiet:
            lives[component.name].add(server)
    return Fleet(
        places,
        {name: frozenset(found) for name, found in runs.items()},
        {name: frozenset(found) for name, found in lives.items()},
    )


def _providers() -> Iterable[tuple[int, str, str]]:
    """The services that others depend on: where, and how they were last said to be."""
    wanted = Q(pk__in=[])
    for name in topology.needed_by_others():
        component = topology.BY_NAME[name]
        if component.is_local:
            continue
        for service in component.services:
            exact = not service.endswith("*")
            wanted |= Q(name=service) if exact else Q(name__startswith=service[:-1])
    found = Service.objects.filter(wanted, seen_up_at__isnull=False).order_by()
    return found.values_list("server_id", "name", "state")


def _sayings(tenant_id: int, rows: Sequence[Row], at: datetime) -> list[Saying]:
    """Log lines around the alerts that could be a symptom, as far as they are known."""
    recent = [
        row.at
        for row in rows
        if row.at > at - UNSETTLED and _kind(row) in (Kind.SERVICE, Kind.LOG, Kind.DISK)
    ]
    if not recent:
        return []
    matcher = Matcher(
        levels=events.levels_from("warning"), start=min(recent) - LINES_BEFORE, end=at + HOLD
    )
    try:
        sorts = events.sorts(tenant_id, matcher, MOST_LINES)
    except events.TooMuchToSearch:  # the cause is looked for again with the next lines
        log.warning("too much was logged to be looked through for a cause")
        return []
    found = []
    for sort in sorts:
        entry = _explain(sort.service, sort.message)
        if entry is not None:
            found.append(Saying(entry, sort))
    return found


#: A failing cloud says the same over and over, and is asked about in every slot.
_explain = functools.lru_cache(maxsize=4096)(knowledge.explain)


# -- in words -----------------------------------------------------------------------


def _label(cause: Cause | None, hosts: Mapping[int, str], groups: Mapping[int, str]) -> str:
    if cause is None:
        return ""
    place = cause.place or 0
    if cause.kind == "group":
        return f"Cloud group {groups[place]}" if place else "Network of the servers"
    if cause.kind == "host":
        return f"Server {hosts.get(place, '')}"
    if cause.kind == "disk":
        return f"Full disk of {hosts.get(place, '')}"
    label = topology.BY_NAME[cause.what].label
    if cause.kind == "common":
        return f"Something that {label} depends on"
    if topology.BY_NAME[cause.what].is_local:
        return f"{label} on {hosts.get(place, '')}"
    return label


def title(cluster: Cluster, hosts: Mapping[int, str]) -> str:
    """What an incident of this cause is called; empty: as its first alert is."""
    cause = cluster.cause
    if cause is None:
        return ""
    affected = {row.server for row in cluster.rows}
    if cause.kind == "group":
        return f"{cluster.label} is cut off: {len(affected)} servers are silent"
    if cause.kind == "common":
        label = topology.BY_NAME[cause.what].label
        return f"{label} is down on {len(affected)} servers"
    if len(cluster.rows) == 1:
        return ""
    if cause.kind == "component" and cause.signals:
        return f"{cluster.label} is down"
    if cause.kind == "component" and len(affected) >= correlation.COMMON:
        return f"{cluster.label} cannot be reached"
    if cause.kind == "disk":
        return f"The disk of {hosts.get(cause.place or 0, '')} is full"
    return ""


# -- when it is told -----------------------------------------------------------------


def _hold(
    cluster: Cluster, signals: Sequence[Signal], fleet: Fleet, at: datetime
) -> timedelta | None:
    """How long to wait with telling: only while something it depends on may be the cause."""
    if cluster.cause is not None and cluster.cause.kind != "common":
        return None
    asked: set[str] = set()
    since = min(row.at for row in cluster.rows)
    for signal in signals:
        if signal.kind is Kind.SERVICE and signal.component:
            asked |= topology.needs(signal.component)
        elsewhere = fleet.places.get(signal.on or 0) if signal.on != signal.server else None
        if elsewhere is not None and at - elsewhere.quiet_for <= since:
            return HOLD
    if not asked:
        return None
    for name in asked:
        for server in fleet.runs.get(name, ()):
            heard_at = at - fleet.places[server].quiet_for
            if server not in fleet.lives.get(name, ()) or heard_at <= since:
                return HOLD
    return None if any(name in fleet.runs for name in asked) else HOLD


def severity_of(rows: Iterable[Row]) -> Severity:
    return max(map(Severity, {row.severity for row in rows}), key=lambda one: one.rank)


def brief(sayings: Iterable[Saying], cause: Cause | None) -> list[tuple[Saying, set[int], int]]:
    """Sayings of a cause, those of one entry and service together: one of them, servers, count."""
    together: dict[tuple[str, str], list[Saying]] = defaultdict(list)
    for saying in sayings:
        together[saying.entry.id, saying.sort.service].append(saying)
    found = [
        (
            min(those, key=lambda one: one.sort.first),
            {one.sort.server_id for one in those},
            sum(one.sort.count for one in those),
        )
        for those in together.values()
    ]

    def rank(saying: Saying) -> int:
        about = saying.entry.about
        ranks = [rank for rank, word in enumerate(about) if word in _words(cause)]
        return min(ranks) * 2 + (len(about) > 1) if ranks else len(about) + 10

    return sorted(found, key=lambda one: (rank(one[0]), -len(one[1]), -one[2], one[0].entry.id))


def accuses(entry: knowledge.Entry, cause: Cause | None) -> bool:
    """Whether lines of an entry speak of this cause."""
    return not _words(cause).isdisjoint(entry.about)


def _words(cause: Cause | None) -> set[str]:
    """What the knowledge base calls a cause."""
    if cause is None:
        return set()
    places = {"disk": {"disk"}, "host": {"host", "network", "memory"}, "group": {"network"}}
    known = {word for word, name in topology.ACCUSED.items() if name == cause.what}
    return places.get(cause.kind, {cause.what, *known})
