"""Looking: which services run here, since when, and what became of those that ran before."""

from __future__ import annotations

import dataclasses
import logging
import os
import time
from typing import TYPE_CHECKING, Any, Callable, Mapping, Sequence

from agent_client.config import LogSource
from agent_client.discovery import logs, release, role
from agent_client.discovery.catalogue import Catalogue, Kind, catalogue
from agent_client.discovery.host import Container, Host, container_id, unit_of
from agent_client.discovery.identify import identify, names
from agent_client.discovery.memory import Memory, Seen
from agent_client.discovery.nova_manage import NovaManage
from agent_client.discovery.processes import DEAD_STATES, Known, ProcessTable, Stat
from agent_client.discovery.traces import Installed
from agent_client.once import Once

if TYPE_CHECKING:
    from agent_client.config import Config, Service

log = logging.getLogger("sentinella.discovery")

#: Seconds between two looks at everything: units, containers, packages, log files.
EVERYTHING_EVERY = 300.0
#: Seconds between two looks at every process again; new ones are seen each time.
_ALL_PROCESSES_EVERY = 60.0
#: A service that nobody expects yet must have run so long: what only answers `--help` is none.
_RAN_FOR = 5.0
#: What vanished is looked for a second time after so many seconds before it is called down.
_SECOND_LOOK_AFTER = 1.0
#: A service that left no trace but its process is forgotten after so many seconds of being down.
_FORGET_UNTRACED_AFTER = 7 * 86_400.0
#: Where programs of the host itself are installed.
_SYSTEM_FOLDERS = ("/usr/", "/bin/", "/sbin/", "/opt/", "/snap/")
#: Changes that wait to be stored; if that fails for long, the oldest go.
_CHANGES_KEPT = 1000
#: Of one service so many changes are told in so many seconds: one that crashes in a loop is known.
_TOLD_AT_MOST, _TOLD_WITHIN = 12, 3600.0
#: So many programs are looked at for their versions; a command line may name thousands of words.
_PROGRAMS_LOOKED_AT = 500
#: After the host was started, its services are given so many seconds to come up.
_STARTS_WITHIN = 300.0


@dataclasses.dataclass(frozen=True)
class Label:
    """What a process was taken for, by the catalogue and by the configuration."""

    kind: Kind | None
    configured: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Found:
    """A service as it is at one look. `members` are alive, `mains` those nobody of them started."""

    name: str
    project: str
    state: str  # up, down
    kind: Kind | None = None
    mains: tuple[Stat, ...] = ()
    members: tuple[Stat, ...] = ()
    detail: str = ""
    restarts: int = 0
    unit: str = ""
    container: str = ""


@dataclasses.dataclass(frozen=True)
class Change:
    """Something that happened to a service, for the log of events."""

    level: str
    text: str
    service: str = "sentinella"


class Discovery:
    """Follows what runs on a host. Not safe for use from several threads.

    `look` is called each cycle and costs little: a listing of the processes, and the figures of
    those that are services. Now and then it looks at everything.
    """

    def __init__(
        self,
        config: Config,
        host: Host | None = None,
        clock: Callable[[], float] = time.time,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._config = config
        self.host = host or Host()
        self._clock = clock
        self._pause = pause
        #: Whether what is seen is kept; only whoever holds the state directory may.
        self.remember = False
        self.catalogue: Catalogue = catalogue()
        self.table: ProcessTable[Label] = ProcessTable(self._classify, self.host.proc)
        self.memory = Memory(config.state_dir)
        self._keeping = Once(log)
        self.units: dict[str, str] = {}
        self.containers: dict[str, Container] = {}
        self.verdict = release.Verdict()
        self.found: list[Found] = []
        #: The logs of what was found, for the tailer; the configuration's own come first.
        self.sources: tuple[LogSource, ...] = config.logs
        self._source_names: tuple[str, ...] = ()
        self._changes: list[Change] = []
        self._everything_at: float | None = None
        self._processes_at: float | None = None
        self._versions: list[release.Version] = []
        self._nova_manage = NovaManage(self.host)
        self._installed = Installed(self.host, {}, {}, ())
        self._labelled: dict[int, Known[Label]] = {}
        self._boot_id = ""
        self._told_at: dict[str, list[float]] = {}

    # What the agent asks

    def look(self) -> list[Found]:
        """Every expected service as it is now. Raises OSError where no process can be listed."""
        now = self._clock()
        if self.memory.reload():
            self._everything_at = None
        all_processes = (
            self._processes_at is None or abs(now - self._processes_at) >= _ALL_PROCESSES_EVERY
        )
        self._boot_id = self.host.read("/proc/sys/kernel/random/boot_id").strip()
        found = self._group(self.table.refresh(full=all_processes))
        if self._vanished(found):
            # One listing may have missed it, or it is just being restarted.
            self._pause(min(_SECOND_LOOK_AFTER, 0.1 * self._config.interval))
            all_processes = True
            found = self._group(self.table.refresh(full=True))
        if all_processes:
            self._processes_at = now
        new = [name for name in found if name not in self.memory.services]
        if self._everything_is_due(now) or new:
            self._look_at_everything(now, found)
        if self._nova_manage.hear(now):
            self._judge()
        self.found = self._settle(found, now)
        here = tuple(one.name for one in self.found)
        if self._everything_at == now or here != self._source_names:
            self.sources, self._source_names = self._log_sources(), here
        try:
            if self.remember:
                self.memory.save()
            self._keeping.over()
        except OSError as error:
            self._keeping.trouble(f"what has run here cannot be kept: {error}")
        return self.found

    def reconfigure(self, config: Config) -> None:
        """Go on with this configuration; the next look is at everything."""
        self._config = config
        self.table = ProcessTable(self._classify, self.host.proc)
        self._processes_at = self._everything_at = None
        self.sources = self._log_sources()

    @property
    def changes(self) -> tuple[Change, ...]:
        """What happened and was not told yet, oldest first."""
        return tuple(self._changes)

    def told(self, count: int) -> None:
        """The first so many changes were stored as events."""
        del self._changes[:count]

    @property
    def role(self) -> str:
        """What the host is for; what is down counts too."""
        return role.role_of(found.kind for found in self.found if found.kind is not None)

    def facts(self) -> dict[str, Any]:
        """What the host's specs say of it: role, OpenStack's release, containers."""
        facts: dict[str, Any] = {"role": self.role}
        # Packages alone are no cloud: something of it must run, or have run.
        if self.has_openstack and (self.verdict.release or self.verdict.projects):
            facts["openstack"] = {
                "release": self.verdict.release,
                "version": self.verdict.version,
                "projects": dict(self.verdict.projects),
                "evidence": self.verdict.evidence,
                "doubts": list(self.verdict.doubts),
            }
        if self.containers:
            running = sum(one.running for one in self.containers.values())
            facts["containers"] = {"total": len(self.containers), "running": running}
        return facts

    def _log_sources(self) -> tuple[LogSource, ...]:
        named = {source.service for source in self._config.logs}
        writers = []
        for found in self.found:
            seen = self.memory.services.get(found.name)
            if found.kind is None or found.name in named:
                continue
            container = self.containers.get(seen.container_id) if seen else None
            writers.append(
                logs.Writer(
                    found.name,
                    found.kind,
                    found.unit,
                    container,
                    seen.log_file if seen else "",
                    seen.log_owner if seen else None,
                )
            )
        return self._config.logs + logs.sources(self.host, writers, self._config.levels)

    def process(self, pid: int) -> Known[Label] | None:
        """A process of a service, as it was read."""
        return self._labelled.get(pid)

    @property
    def has_openstack(self) -> bool:
        """Whether something of OpenStack's runs here, or ran."""
        return any(found.kind and found.kind.openstack for found in self.found)

    # Processes to services

    def _classify(self, comm: str, argv: Sequence[str]) -> Label | None:
        kind = identify(comm, argv, self.catalogue) if self._config.discovery else None
        configured: tuple[str, ...] = ()
        if self._config.services:
            line, known = " ".join(argv), names(comm, argv)
            configured = tuple(
                service.name for service in self._config.services if _is(service, line, known)
            )
        return Label(kind, configured) if kind is not None or configured else None

    def _group(self, labelled: Mapping[int, Known[Label]]) -> dict[str, Found]:
        """The services that these processes are; the configuration's word goes first."""
        self._labelled = dict(labelled)
        self._labelled.pop(os.getpid(), None)
        groups: dict[str, list[Known[Label]]] = {}
        named = {service.name: service for service in self._config.services}
        for pid, known in self._labelled.items():
            label = known.label
            if label is None:
                continue
            for name in label.configured:
                groups.setdefault(name, []).append(known)
            if label.configured or label.kind is None:
                continue
            name = self._of_parent(pid, label.kind).name
            if not label.kind.openstack and self._is_private(known):
                continue
            if name not in named and name not in self._config.unwatched:
                groups.setdefault(name, []).append(known)
        found = {}
        for name, group in groups.items():
            alive = [known for known in group if known.stat.state not in DEAD_STATES]
            if name in named or alive or name in self.memory.services:
                kind = _kind_of(alive or group) if name in named else self.catalogue.kinds[name]
                found[name] = self._found(name, kind, group, alive)
        return found

    def _of_parent(self, pid: int, kind: Kind) -> Kind:
        """A worker whose own title does not tell which of several services it is."""
        parent = self._labelled.get(self._labelled[pid].stat.parent)
        if parent is None or parent.label is None or parent.label.kind in (None, kind):
            return kind
        theirs = parent.label.kind
        same_program = theirs is not None and set(theirs.programs) & set(kind.programs)
        return theirs if same_program and theirs is not None and kind.argv is None else kind

    def _is_private(self, known: Known[Label]) -> bool:
        """Whether a database or the like is part of an application, not a service of the host.

        It was installed in a folder of its own, and neither a unit nor a container runs it.
        """
        kind = known.label.kind if known.label else None
        parent = self._labelled.get(known.stat.parent)
        while parent is not None and parent.label is not None and parent.label.kind is kind:
            known, parent = parent, self._labelled.get(parent.stat.parent)
        program = known.argv[0].split(" ")[0] if known.argv else ""
        if not program.startswith("/") or program.startswith(_SYSTEM_FOLDERS):
            return False
        return not (unit_of(known.cgroup) or container_id(known.cgroup))

    def _found(
        self,
        name: str,
        kind: Kind | None,
        group: Sequence[Known[Label]],
        alive: Sequence[Known[Label]],
    ) -> Found:
        pids = {known.stat.pid for known in alive}
        mains = [known for known in alive if known.stat.parent not in pids]
        project = self._project_of(name, kind)
        if not alive:
            return Found(name, project, "down", kind, detail=f"{len(group)} zombie")
        mains.sort(key=lambda known: (known.stat.started, known.stat.pid))
        first = mains[0] if mains else alive[0]
        container = self.containers.get(container_id(first.cgroup))
        unit = unit_of(first.cgroup)
        return Found(
            name, project, "up", kind,
            mains=tuple(known.stat for known in mains),
            members=tuple(known.stat for known in alive),
            unit=unit,
            container=container.name if container else "",
        )  # fmt: skip

    def _project_of(self, name: str, kind: Kind | None = None) -> str:
        service = next((one for one in self._config.services if one.name == name), None)
        if service is not None and service.project:
            return service.project
        kind = kind or self.catalogue.kinds.get(name)
        return kind.project if kind else ""

    def _vanished(self, found: Mapping[str, Found]) -> bool:
        """Whether something is missing that was there before, as far as all could be seen."""
        if self.table.incomplete:
            return False
        expected = [
            one.name
            for one in self.memory.services.values()
            if one.down_since is None and not self._may_still_start(one)
        ]
        return any(name not in found or found[name].state != "up" for name in expected)

    # What became of them

    def _settle(self, now_found: Mapping[str, Found], now: float) -> list[Found]:
        """Hold what was found against what is remembered; note what changed."""
        first_time = self.memory.is_new
        if self.memory.boot_id not in ("", self._boot_id):
            self._tell("info", "the host was restarted")
        self.memory.boot_id = self._boot_id
        settled: dict[str, Found] = {}
        arrived = []
        for name, found in now_found.items():
            seen = self.memory.services.get(name)
            if seen is None and not self._counts(found):
                continue
            if found.state != "up":
                settled[name] = found
                continue
            if seen is None:
                seen = Seen(name, found.project, now)
                self.memory.services[name] = seen
                arrived.append(found)
            self._compare(seen, found, now)
            settled[name] = dataclasses.replace(found, restarts=seen.restarts)
        for name, seen in list(self.memory.services.items()):
            if name in settled and settled[name].state == "up":
                continue
            if self._is_dropped(name):
                del self.memory.services[name]
                settled.pop(name, None)
                continue
            settled[name] = self._gone(seen, settled.get(name), now)
        for service in self._config.services:
            settled.setdefault(
                service.name,
                Found(service.name, self._project_of(service.name), "down", detail="no process"),
            )
        self._tell_of(arrived, first_time)
        return sorted(settled.values(), key=lambda one: (one.project, one.name))

    def _counts(self, found: Found) -> bool:
        """Whether a service that nobody expects yet is one: it must have run for a while."""
        if found.state != "up":
            return False
        if any(service.name == found.name for service in self._config.services):
            return True
        uptime = self.table.uptime()
        return any(uptime - main.started >= _RAN_FOR for main in found.mains)

    def _compare(self, seen: Seen, found: Found, now: float) -> None:
        rebooted = seen.boot_id not in ("", self._boot_id)
        mains = [[main.pid, main.started] for main in found.mains]
        if seen.down_since is not None:
            self._tell(
                "info", f"{seen.name} runs again after {_span(now - seen.down_since)}", seen.name
            )
            seen.restarts += 0 if rebooted else 1
        elif self._is_restarted(seen, found) and not rebooted:
            seen.restarts += 1
            self._tell(
                "warning",
                f"{seen.name} was restarted: its main process is {found.mains[0].pid} now",
                seen.name,
            )
        seen.down_since, seen.traceless, seen.project = None, 0, found.project
        seen.kind, seen.boot_id = found.kind.name if found.kind else "", self._boot_id
        seen.unit = found.unit or seen.unit
        seen.container = found.container or seen.container
        first = self._labelled.get(found.mains[0].pid) if found.mains else None
        if first is not None and (seen.mains != mains or self._everything_at == now):
            seen.container_id = container_id(first.cgroup)
            seen.log_file = logs.log_file_of(first.argv)
            seen.log_owner = self.table.owner(first.stat.pid) if seen.log_file else None
            project = found.kind.project if found.kind else ""
            seen.traces = self._installed.traces(seen, first.argv, project)
        seen.mains = mains

    def _is_restarted(self, seen: Seen, found: Found) -> bool:
        """Whether a main process was replaced. Those that Apache started come and go: all must."""
        before = {tuple(main) for main in seen.mains}
        after = {(float(main.pid), main.started) for main in found.mains}
        if not before or not after - before or not before - after:
            return False
        return not before & after or all(main.parent not in self._labelled for main in found.mains)

    def _gone(self, seen: Seen, found: Found | None, now: float) -> Found:
        if self.table.incomplete:
            return Found(
                seen.name, seen.project, "unknown", self.catalogue.kinds.get(seen.kind),
                detail=self.table.incomplete, unit=seen.unit, container=seen.container,
            )  # fmt: skip
        if seen.down_since is None and self._may_still_start(seen):
            return Found(
                seen.name, seen.project, "unknown", self.catalogue.kinds.get(seen.kind),
                detail="it has not come up yet since the host was started",
                restarts=seen.restarts, unit=seen.unit, container=seen.container,
            )  # fmt: skip
        if seen.down_since is None:
            seen.down_since = now
            seen.mains = []
            self._tell("error", f"{seen.name} is gone: no process of it runs", seen.name)
        detail = found.detail if found else "no process"
        unit_state = self.units.get(seen.unit, "")
        if unit_state == "masked":
            detail += f", {seen.unit} is masked"
        return Found(
            seen.name, seen.project, "down", self.catalogue.kinds.get(seen.kind), detail=detail,
            restarts=seen.restarts, unit=seen.unit, container=seen.container,
        )  # fmt: skip

    def _may_still_start(self, seen: Seen) -> bool:
        """Whether the host was started a moment ago, and the service not yet."""
        before = seen.boot_id not in ("", self._boot_id)
        return before and self.table.uptime() < _STARTS_WITHIN

    def _is_configured(self, name: str) -> bool:
        return any(service.name == name for service in self._config.services)

    def _is_dropped(self, name: str) -> bool:
        """Whether the configuration, or another name for the same processes, took it over."""
        if name in self._config.unwatched:
            return True
        if self._is_configured(name):
            return False
        kind = self.catalogue.kinds.get(name)
        if kind is None or not self._config.discovery:
            return True
        return any(
            known.label is not None and known.label.kind is kind and known.label.configured
            for known in self._labelled.values()
        )

    def _forget_removed(self, now: float) -> None:
        """What is down and was removed from the host is not expected any more."""
        for name, seen in list(self.memory.services.items()):
            if seen.down_since is None:
                continue
            if seen.traces:
                seen.traceless = 0 if self._installed.has(seen) else seen.traceless + 1
                removed = seen.traceless >= 2
            else:
                removed = now - seen.down_since > _FORGET_UNTRACED_AFTER
            if removed:
                self.memory.forget(name)
                text = f"{name} was removed from this host: it is not expected any more"
                self._tell("info", text, name)

    # Everything else

    def _everything_is_due(self, now: float) -> bool:
        return self._everything_at is None or abs(now - self._everything_at) >= EVERYTHING_EVERY

    def _look_at_everything(self, now: float, found: dict[str, Found]) -> None:
        if not self._config.discovery:
            return
        due = self._everything_is_due(now)
        self._everything_at = now
        self.units = self.host.units()
        self.containers = self.host.containers()
        self._versions = release.versions(
            self.host, self.catalogue, self.containers.values(), self._script_paths(), self._roots()
        )
        self._judge()
        projects = dict(self.verdict.projects)
        self._installed = Installed(self.host, self.units, self.containers, projects)
        has_openstack = any(one.kind and one.kind.openstack for one in found.values())
        if has_openstack and not release.judge(self._versions).release:
            self._nova_manage.ask(now)
        if due:
            self._forget_removed(now)
        # The containers' names were not known when the processes were grouped.
        found.update(self._group(self._labelled))

    def _judge(self) -> None:
        said = self._nova_manage.said
        self.verdict = release.judge([*self._versions, *([said] if said else [])])
        before, after = self.memory.release, self.verdict.release
        if before and after and before != after:
            self._tell("warning", f"OpenStack's release changed from {before} to {after}")
        self.memory.release = after or before

    def _script_paths(self) -> list[str]:
        words = (
            word.strip("()[]")
            for known in self._labelled.values()
            for part in known.argv[:6]
            for word in part.split()
        )
        found = {word for word in words if word.startswith("/") and "/bin/" in word}
        return sorted(found)[:_PROGRAMS_LOOKED_AT]

    def _roots(self) -> list[str]:
        """Where OpenStack's services see other files than we do, as far as we may look."""
        found: dict[tuple[int, int] | None, str] = {None: "", _place(self.host.path("/usr")): ""}
        for pid, known in sorted(self._labelled.items()):
            if known.label is not None and known.label.kind and known.label.kind.openstack:
                root = f"{self.host.proc}/{pid}/root"
                found.setdefault(_place(f"{root}/usr"), root)
        return [root for root in found.values() if root]

    # Telling

    def _tell(self, level: str, text: str, service: str = "sentinella") -> None:
        log.info("%s", text)
        now = self._clock()
        recent = [at for at in self._told_at.get(service, ()) if 0 <= now - at < _TOLD_WITHIN]
        self._told_at[service] = recent
        if len(recent) >= _TOLD_AT_MOST:
            return
        recent.append(now)
        if len(recent) == _TOLD_AT_MOST:
            text += "; it changes so often that no more of it is told for a while"
        del self._changes[:-_CHANGES_KEPT]
        self._changes.append(Change(level, text, service))

    def _tell_of(self, arrived: Sequence[Found], first_time: bool) -> None:
        if first_time and arrived:
            what = ", ".join(sorted(found.name for found in arrived))
            is_cloud = any(found.kind and found.kind.openstack for found in arrived)
            release = self.verdict.release if is_cloud else ""
            named = f" OpenStack {release}." if release else ""
            self._tell("info", f"found {len(arrived)} services: {what}.{named}")
            return
        for found in arrived:
            self._tell("info", f"{found.name} is new on this host", found.name)


def _place(path: str) -> tuple[int, int] | None:
    """What a folder is, by whatever way one came to it; None where one may not look."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return (status.st_dev, status.st_ino)


def _kind_of(group: Sequence[Known[Label]]) -> Kind | None:
    """What the catalogue takes processes for, whatever the configuration calls them."""
    kinds = (known.label.kind for known in group if known.label is not None)
    return next((kind for kind in kinds if kind is not None), None)


def _is(service: Service, line: str, known: set[str]) -> bool:
    if service.cmdline is not None:
        return service.cmdline.search(line) is not None
    return any(name in known for name in service.processes)


def _span(seconds: float) -> str:
    for size, unit in ((86_400.0, "d"), (3600.0, "h"), (60.0, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"
