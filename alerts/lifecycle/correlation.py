"""Which alerts belong together, and what is their probable cause. Pure: no ORM, no clock.

Every alert is a `Signal`, every log line that matches the knowledge base an `Accusation`. From both
come hypotheses: a cloud group cut off, a host gone, a disk full, a component down or accused. A
hypothesis that another one explains hands its signals on to that one (Keystone is down because
MariaDB is), so each signal ends at a root: the probable cause. What nothing explains stays alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum
from functools import cached_property

from alerts.lifecycle import topology

#: A symptom may be seen this long before its cause: reports come late, and each at its own time.
EARLY = timedelta(minutes=2)
#: A host's services are missed by others long before its own silence is certain.
HOST_EARLY = timedelta(minutes=4)
#: Without a line that says so, what begins later than this is not put down to the cause.
LATE = timedelta(minutes=15)
#: As many servers with the same failure so shortly after each other have a cause in common.
COMMON = 3
COMMON_WITHIN = timedelta(seconds=60)
#: Fewer servers than this are no cloud group that could be cut off.
CUT_OFF = 3
#: A line that could mean several things accuses the first of them most.
FIRST_OF_SEVERAL = 0.6
#: As much accusation as one line makes that can mean one thing only.
CERTAIN = 1.0


class Kind(Enum):
    """What an alert is about."""

    SERVICE = "service"
    SILENT = "silent"
    DISK = "disk"
    LOG = "log"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Signal:
    """An alert, as far as it matters here.

    `on` is the server that it is about, which may be another than the one that reports it.
    """

    key: int
    kind: Kind
    server: int | None
    on: int | None
    component: str
    at: datetime
    is_critical: bool = False


@dataclass(frozen=True, slots=True)
class Accusation:
    """Log lines of one server and service that accuse components, and how often within the time."""

    server: int
    service: str
    about: tuple[str, ...]
    entry: str
    first: datetime
    count: int = 1


@dataclass(frozen=True, slots=True)
class Place:
    """A server: its cloud group (0: none), and since when it has not been heard."""

    group: int
    quiet_for: timedelta = timedelta()
    interval: timedelta = timedelta(seconds=60)

    @property
    def is_quiet(self) -> bool:
        """Whether it has missed at least one report, so that it may be as silent as others are."""
        return self.quiet_for > 1.5 * self.interval + timedelta(seconds=15)


@dataclass(frozen=True, slots=True)
class Fleet:
    """What runs where. `runs` has the servers of each component, `lives` those where it is up."""

    places: Mapping[int, Place]
    runs: Mapping[str, frozenset[int]] = field(default_factory=dict)
    lives: Mapping[str, frozenset[int]] = field(default_factory=dict)

    def group(self, server: int | None) -> int:
        place = self.places.get(server) if server is not None else None
        return place.group if place else 0

    def provider_group(self, component: str, group: int) -> int | None:
        """Where a group's servers find a component: in the group, or (None) anywhere."""
        inside = any(self.group(server) == group for server in self.runs.get(component, ()))
        return group if inside else None


@dataclass(frozen=True, slots=True)
class Cause:
    """What is probably wrong.

    `key` stays the same for as long as it is; `what` is a component's name, empty for places;
    `signals` are the alerts that are the cause itself.
    """

    key: str
    kind: str
    what: str
    place: int | None
    signals: frozenset[int]


@dataclass(frozen=True, slots=True)
class Gathered:
    """Alerts that belong together, by key; without a cause it is one that stands alone."""

    cause: Cause | None
    members: tuple[int, ...]


def gather(
    signals: Sequence[Signal], accusations: Sequence[Accusation], fleet: Fleet
) -> list[Gathered]:
    """All signals, each in one group."""
    return _Correlation(signals, accusations, fleet).groups()


@dataclass(eq=False)
class _Hypothesis:
    """A possible cause, with what speaks for it.

    What is derived from that is asked once it is complete, by thousands of signals: it is kept.
    """

    key: str
    kind: str
    what: str = ""
    #: A server for hosts, disks and local components; a group (None: all) for the others.
    place: int | None = None
    own: list[Signal] = field(default_factory=list)
    weight: float = 0.0
    accusers: set[tuple[int, str]] = field(default_factory=set)
    accused_at: datetime | None = None
    servers: frozenset[int] = frozenset()
    #: Some of its providers are well: it may be the cause of those only who accuse it.
    is_partial: bool = False

    @cached_property
    def since(self) -> datetime | None:
        times = [signal.at for signal in self.own]
        if self.accused_at is not None and not times:
            times.append(self.accused_at)
        return min(times, default=None)

    @property
    def is_likely(self) -> bool:
        return bool(self.own) or self.weight >= CERTAIN

    @cached_property
    def voices(self) -> frozenset[int]:
        """The servers that accuse it."""
        return frozenset(server for server, _ in self.accusers)

    @cached_property
    def accusing(self) -> frozenset[str]:
        """The components that accuse it."""
        return frozenset(component for _, component in self.accusers)

    @property
    def order(self) -> tuple[bool, float, int]:
        """Sorts the most probable last."""
        places = {"group": 3, "host": 2, "disk": 1}
        rank = places.get(self.kind, 0) * 1000 - topology.RANK.get(self.what, 999)
        return (bool(self.own), self.weight, rank)


class _Correlation:
    """One run over one tenant's signals."""

    def __init__(
        self, signals: Sequence[Signal], accusations: Sequence[Accusation], fleet: Fleet
    ) -> None:
        self.signals = signals
        self.fleet = fleet
        self.hypotheses: dict[str, _Hypothesis] = {}
        self.of_component: dict[str, list[_Hypothesis]] = defaultdict(list)
        self.of_server: dict[int, list[_Hypothesis]] = defaultdict(list)
        self.owner: dict[int, _Hypothesis] = {}
        self._places()
        self._components()
        self._accuse(accusations)
        self._judge_partial()
        self.roots: dict[str, _Hypothesis] = {}

    # -- hypotheses -----------------------------------------------------------

    def _places(self) -> None:
        silent = [one for one in self.signals if one.kind is Kind.SILENT and one.on is not None]
        for signal in silent:
            host = self._one(f"host:{signal.on}", "host", place=signal.on)
            self._own(host, signal)
            host.servers = frozenset({signal.on or 0})
        for signal in self.signals:
            self._maybe_gone(signal)
        by_group: dict[int, list[Signal]] = defaultdict(list)
        for signal in silent:
            by_group[self.fleet.group(signal.on)].append(signal)
        members: dict[int, set[int]] = defaultdict(set)
        for pk, place in self.fleet.places.items():
            members[place.group].add(pk)
        for group, gone in by_group.items():
            self._maybe_cut_off(group, gone, members[group])
        for signal in self.signals:
            if signal.kind is Kind.DISK and signal.is_critical and signal.on is not None:
                disk = self._one(f"disk:{signal.on}", "disk", place=signal.on)
                self._own(disk, signal)
                disk.servers = frozenset({signal.on})

    def _maybe_gone(self, signal: Signal) -> None:
        """Others miss a service of a host that is not heard either: soon it will be silent."""
        if signal.kind is not Kind.SERVICE or signal.on in (None, signal.server):
            return
        place = self.fleet.places.get(signal.on or 0)
        if place is None or not place.is_quiet:
            return
        host = self._one(f"host:{signal.on}", "host", place=signal.on)
        host.servers = frozenset({signal.on or 0})
        host.accused_at = min(host.accused_at or signal.at, signal.at)

    def _maybe_cut_off(self, group: int, silent: list[Signal], members: set[int]) -> None:
        """Most of a group's servers gone within a short time: it is not the servers."""
        alerted = {signal.on for signal in silent}
        quiet = {pk for pk in members if pk in alerted or self.fleet.places[pk].is_quiet}
        if len(quiet) < CUT_OFF or len(quiet) * 2 < len(members):
            return
        whole = self._one(f"group:{group}", "group", place=group)
        whole.servers = frozenset(quiet)
        for signal in silent:
            whole.own.append(signal)

    def _components(self) -> None:
        causes = topology.needed_by_others()
        for signal in self.signals:
            if signal.kind is Kind.SERVICE and signal.component in causes:
                self._own(self._component(signal.component, signal.on), signal)

    def _accuse(self, accusations: Sequence[Accusation]) -> None:
        for line in accusations:
            accuser = topology.component_of(line.service)
            for rank, word in enumerate(line.about):
                name = self._known_as(topology.accused(word))
                if name is None or (accuser is not None and name == accuser.name):
                    continue
                if name not in topology.needed_by_others():
                    continue
                share = (
                    CERTAIN
                    if len(line.about) == 1
                    else FIRST_OF_SEVERAL
                    if rank == 0
                    else (1 - FIRST_OF_SEVERAL) / (len(line.about) - 1)
                )
                found = self._component(name, line.server)
                if rank == 0:
                    found.weight += share
                    earlier = found.accused_at
                    found.accused_at = min(earlier, line.first) if earlier else line.first
                found.accusers.add((line.server, accuser.name if accuser else ""))

    def _known_as(self, name: str | None) -> str | None:
        """Lines say MariaDB of any database."""
        if name == "mariadb" and not self.fleet.runs.get(name):
            return "postgresql" if self.fleet.runs.get("postgresql") else name
        return name

    def _component(self, name: str, server: int | None) -> _Hypothesis:
        if topology.BY_NAME[name].is_local:
            return self._one(f"{name}:on:{server}", "component", name, server)
        place = self.fleet.provider_group(name, self.fleet.group(server))
        return self._one(f"{name}:{'all' if place is None else place}", "component", name, place)

    def _one(self, key: str, kind: str, what: str = "", place: int | None = None) -> _Hypothesis:
        known = self.hypotheses.get(key)
        if known is None:
            known = self.hypotheses[key] = _Hypothesis(key, kind, what, place)
            if what:
                self.of_component[what].append(known)
            if kind in ("host", "disk") and place is not None:
                self.of_server[place].append(known)
        return known

    def _own(self, hypothesis: _Hypothesis, signal: Signal) -> None:
        hypothesis.own.append(signal)
        self.owner[signal.key] = hypothesis

    def _judge_partial(self) -> None:
        gone = {pk for one in self.hypotheses.values() if one.kind == "host" for pk in one.servers}
        for one in self.hypotheses.values():
            if one.kind != "component" or topology.BY_NAME[one.what].is_local:
                continue
            bad = gone | {signal.on for signal in one.own}
            well = {
                pk
                for pk in self.fleet.lives.get(one.what, ())
                if pk not in bad and one.place in (None, self.fleet.group(pk))
            }
            one.is_partial = bool(one.own) and bool(well)

    # -- who explains what ------------------------------------------------------

    def _explains(self, one: _Hypothesis, signal: Signal) -> float:
        """How well a hypothesis explains a signal that is not its own; 0: not at all."""
        if one.kind in ("host", "group"):
            inside = signal.on in one.servers
            return 4.0 if inside and self._in_time(one, signal, HOST_EARLY) else 0.0
        if one.kind == "disk":
            fails = signal.kind in (Kind.SERVICE, Kind.LOG) and signal.on in one.servers
            return 3.0 if fails and self._in_time(one, signal, HOST_EARLY) else 0.0
        return self._component_explains(one, signal)

    def _component_explains(self, one: _Hypothesis, signal: Signal) -> float:
        if signal.kind not in (Kind.SERVICE, Kind.LOG) or not one.is_likely:
            return 0.0
        if topology.BY_NAME[one.what].is_local:
            if signal.on != one.place:
                return 0.0
        elif one.place not in (None, self.fleet.group(signal.on)):
            return 0.0
        says_so = signal.on in one.voices or signal.server in one.voices
        if signal.component:
            if one.what not in topology.needs(signal.component):
                return 0.0
        elif signal.kind is not Kind.LOG or not says_so:
            return 0.0
        if not says_so and (one.is_partial or (not one.own and len(one.voices) < COMMON)):
            return 0.0
        if not self._in_time(one, signal, EARLY, None if says_so else LATE):
            return 0.0
        return 1.0 + says_so + bool(one.own)

    @staticmethod
    def _in_time(
        one: _Hypothesis, signal: Signal, early: timedelta, late: timedelta | None = LATE
    ) -> bool:
        if one.since is None or signal.at < one.since - early:
            return False
        return late is None or signal.at <= one.since + late

    def _candidates(self, signal: Signal) -> Iterable[_Hypothesis]:
        """The hypotheses that could explain a signal: of its place, of what it needs."""
        if signal.on is not None:
            yield from self.of_server.get(signal.on, ())
            whole = self.hypotheses.get(f"group:{self.fleet.group(signal.on)}")
            if whole is not None:
                yield whole
        wanted = topology.needs(signal.component) if signal.component else self.of_component
        for name in wanted:
            if topology.BY_NAME[name].is_local:  # of a thousand of them the one beside it
                beside = self.hypotheses.get(f"{name}:on:{signal.on}")
                if beside is not None:
                    yield beside
            else:
                yield from self.of_component.get(name, ())

    def _best(self, signal: Signal, but: _Hypothesis | None = None) -> _Hypothesis | None:
        found = [
            (self._explains(one, signal), one) for one in self._candidates(signal) if one is not but
        ]
        likely = [(strength, one) for strength, one in found if strength]
        if not likely:
            return None
        return max(likely, key=lambda pair: (bool(pair[1].own), pair[0], *pair[1].order[1:]))[1]

    def _root(self, one: _Hypothesis, seen: frozenset[str] = frozenset()) -> _Hypothesis:
        known = self.roots.get(one.key)
        if known is not None:
            return known
        above = self._above(one)
        root = one
        if above is not None and above.key not in seen:
            root = self._root(above, seen | {one.key})
        self.roots[one.key] = root
        return root

    def _above(self, one: _Hypothesis) -> _Hypothesis | None:
        """What explains this hypothesis itself."""
        if one.kind == "group":
            return None
        if one.kind == "host" and not one.own:
            whole = self.hypotheses.get(f"group:{self.fleet.group(one.place)}")
            return whole if whole and one.servers <= whole.servers else None
        if one.own:
            better = (self._best(signal, but=one) for signal in one.own)
            found = [above for above in better if above and self._may_be_above(above, one)]
        else:
            found = [above for above in self._around(one) if self._lacks(one, above)]
        return max(found, key=lambda above: above.order, default=None)

    def _homes(self, one: _Hypothesis) -> frozenset[int]:
        """Where a component runs: all of it, or what serves its group."""
        homes = self.fleet.runs.get(one.what, frozenset())
        if one.place is not None and not topology.BY_NAME[one.what].is_local:
            homes = frozenset(pk for pk in homes if self.fleet.group(pk) == one.place)
        return homes

    def _around(self, one: _Hypothesis) -> Iterable[_Hypothesis]:
        """The hypotheses that could explain why what is only accused fails."""
        for home in self._homes(one):  # all must be gone, so any of them will do
            yield from self.of_server.get(home, ())
            whole = self.hypotheses.get(f"group:{self.fleet.group(home)}")
            if whole is not None:
                yield whole
            break
        for name in topology.needs(one.what) if one.what else ():
            yield from self.of_component.get(name, ())

    @staticmethod
    def _may_be_above(above: _Hypothesis, one: _Hypothesis) -> bool:
        """Who is down for itself is explained by what is accused only where it says so itself."""
        if above.own or one.kind != "component":
            return True
        return one.what in above.accusing

    def _lacks(self, one: _Hypothesis, above: _Hypothesis) -> bool:
        """Whether what is only accused fails because of the other."""
        if above.kind in ("host", "group", "disk"):
            homes = self._homes(one)
            if not homes or not homes <= above.servers:
                return False
            first, since = one.accused_at, above.since
            return first is not None and since is not None and abs(first - since) <= LATE
        return (
            above.what in topology.needs(one.what)
            and above.is_likely
            and (above.place is None or one.place in (None, above.place))
        )

    # -- the result -------------------------------------------------------------

    def groups(self) -> list[Gathered]:
        members: dict[str, list[int]] = defaultdict(list)
        alone: list[Signal] = []
        for signal in self.signals:
            owner = self.owner.get(signal.key)
            found = owner or self._best(signal)
            if found is None:
                alone.append(signal)
            else:
                members[self._root(found).key].append(signal.key)
        gathered = [
            Gathered(self._cause(self.hypotheses[key]), tuple(keys))
            for key, keys in members.items()
        ]
        return gathered + self._in_common(alone)

    @staticmethod
    def _cause(root: _Hypothesis) -> Cause:
        own = frozenset() if root.kind == "group" else frozenset(one.key for one in root.own)
        return Cause(root.key, root.kind, root.what, root.place, own)

    def _in_common(self, alone: list[Signal]) -> list[Gathered]:
        """The same service failing on many servers at once, though nothing says why."""
        alike: dict[tuple[str, int], list[Signal]] = defaultdict(list)
        gathered = []
        for signal in alone:
            if signal.kind is Kind.SERVICE and signal.component:
                alike[signal.component, self.fleet.group(signal.on)].append(signal)
            else:
                gathered.append(Gathered(None, (signal.key,)))
        for (component, group), found in alike.items():
            for run in _runs(sorted(found, key=lambda one: (one.at, one.key))):
                keys = tuple(signal.key for signal in run)
                if len({signal.on for signal in run}) < COMMON:
                    gathered += [Gathered(None, (key,)) for key in keys]
                    continue
                key = f"common:{component}:{group}:{int(run[0].at.timestamp())}"
                gathered.append(Gathered(Cause(key, "common", component, group, frozenset()), keys))
        return gathered


def _runs(ordered: list[Signal]) -> list[list[Signal]]:
    """Signals in order of time, parted where the next comes much later."""
    runs: list[list[Signal]] = []
    for signal in ordered:
        if runs and signal.at - runs[-1][-1].at <= COMMON_WITHIN:
            runs[-1].append(signal)
        else:
            runs.append([signal])
    return runs
