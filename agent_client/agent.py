"""The loop: collect, read logs, store; sending goes on beside it and never holds it up."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import json
import logging
import os
import random
import signal
import threading
import time
from typing import Any, Callable, Iterator, Mapping, Sequence

from agent_client import remote
from agent_client.bell import Bell
from agent_client.collector import Collector, CollectorState, Panel, Points, kept
from agent_client.collectors import COLLECTORS
from agent_client.collectors.own import Own, resident_bytes
from agent_client.collectors.service import Service
from agent_client.config import Config, ConfigError
from agent_client.farewell import reason_for
from agent_client.identity import agent_id
from agent_client.inbox import Inbox
from agent_client.logfiles import user_name
from agent_client.logreader import Entry
from agent_client.masking import Masker, mask_own_by, masker_of
from agent_client.once import Once
from agent_client.plugins.supervisor import PluginState, Supervisor
from agent_client.skew import Skew
from agent_client.specs import specs
from agent_client.spool import Losses, Spool, SpoolCorrupt, SpoolUnusable
from agent_client.tailer import Tailer
from agent_client.transport import Sender
from agent_client.wire import MAX_GOODBYE, MAX_MESSAGE, VERSION, LogEvent, Point, Report

log = logging.getLogger("sentinella.agent")

#: Log events in one report; a flood goes on in further reports of the same cycle.
EVENTS_PER_REPORT = 1000
_READ_PER_REPORT = 2 * 1024 * 1024
#: Part of the interval that collecting, and then reading logs, may take.
_SHARE_COLLECTING = 0.4
_SHARE_READING = 0.3
#: Processor use and rates need something to compare with before the first report.
_BASELINE_SECONDS = 1.0
_SPECS_EVERY = 3600.0
#: Events of its own that wait to be stored; if that fails for long, the oldest go.
_NEWS_KEPT = 1000
#: How long the last report may take before the agent ends without an answer.
_GOODBYE_SECONDS = 0.7


class AlreadyRunning(Exception):
    """Another agent works with this state directory."""


@contextlib.contextmanager
def sole_use(state_dir: str) -> Iterator[None]:
    """Hold the state directory for this process alone. Raises AlreadyRunning or OSError.

    Root leaves no file in another user's directory, which that user's agent could not write to.
    """
    os.makedirs(state_dir, mode=0o700, exist_ok=True)
    owner = os.stat(state_dir).st_uid
    if os.geteuid() == 0 and owner != 0:
        who = user_name(owner)
        raise PermissionError(
            errno.EPERM, f"belongs to user {who}; do this as that user: sudo -u {who}", state_dir
        )
    descriptor = os.open(
        os.path.join(state_dir, "lock"), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600
    )
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AlreadyRunning(f"another agent already uses {state_dir}") from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


class Agent:
    """One agent at work. Raises SpoolUnusable, OSError or ConfigError if it cannot begin."""

    def __init__(self, config: Config, clock: Callable[[], float] = time.time) -> None:
        #: As it is configured here, before the server's settings.
        self._configured = config
        self.settings = remote.load(config.state_dir) if config.remote else None
        self.config = config = remote.applied(config, self.settings, clock())
        self._clock = clock
        self.id = agent_id(config.state_dir)
        self.spool = Spool(config.state_dir, config.spool_max_bytes, config.spool_max_age)
        self.skew = Skew(clock)
        self._own = Own(config, self.spool, self.skew)
        self.panel = Panel(
            [kind(config) for kind in COLLECTORS if config.collectors.get(kind.name, True)]
            + [self._own]
        )
        self._own.collectors = self.panel.states
        self._find_discovery()
        self._followed = config.logs
        self.tailer = Tailer(config.logs, self.spool.positions())
        self.sender = Sender(config, self.spool, skew=self.skew)
        self.sender.on_settings = self._hear_settings
        self._mask = masker_of(config)
        self._specs: dict[str, Any] | None = None
        self._host_facts: dict[str, Any] = {}
        self._host_facts_at = 0.0
        self._began_at = clock()
        self._cycles = 0
        self._last_points = 0
        self._last_cycle_at: float | None = None
        self._problem = ""
        self._storing = Once(log, logging.ERROR)
        self._letting_go = Once(log, logging.ERROR)
        self._telling = Once(log)
        #: Cycles whose points could not be stored, since the time of the first.
        self._unstored, self._unstored_since = 0, 0.0
        self._config_problem = ""
        self._settings_problem = ""
        #: Settings that the sender brought and the loop has not looked at yet.
        self._asked_for: object = None
        self._news: list[Entry] = []
        #: The sender's thread met what `sentinella status` is to show before the next cycle.
        self._status_due = False
        self._bell = Bell()
        self.plugins: Supervisor | None = None
        #: No Event: a signal handler may not take a lock that its own thread holds just then.
        self._stop = False
        self._stop_signal: int | None = None
        self._wake = threading.Event()
        self._current: int | None = None

    # The loop

    def run(self, load: Callable[[], Config] | None = None) -> None:
        """Work until SIGTERM or SIGINT; what was seen until then is in the spool.

        On SIGHUP `load` is asked for the configuration anew.
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._asked_to_stop)
        if load is not None:
            signal.signal(signal.SIGHUP, self._bell.ring_for_reload)
        sending = threading.Thread(target=self._keep_sending, name="send", daemon=True)
        sending.start()
        log.info(
            "agent %s of %s reports to %s every %g s",
            self.id, self.config.hostname, self.config.server, self.config.interval,
        )  # fmt: skip
        self._bell.wait(_BASELINE_SECONDS)
        inbox = self._listen()
        self.plugins = Supervisor(self.config, self._store_handed, self._tell_of_plugin)
        self.plugins.use(self.config)
        interval = self.config.interval
        # The first report goes at once, the second somewhere in the interval: agents that were
        # started together do not report together. From then on the schedule is fixed.
        due = time.monotonic() + random.uniform(interval / 2, interval)  # noqa: S311
        while not self._stop:
            self.cycle()
            self._wake.set()
            due = self._sleep_until(due, load)
        self.plugins.close()
        if inbox is not None:
            inbox.close()
        self.close(sending, reason_for(self.config.state_dir, self._stop_signal))

    def _sleep_until(self, due: float, load: Callable[[], Config] | None) -> float:
        """Sleep until the cycle that is due; returns when the one after it is.

        What is configured or asked for meanwhile counts at once; a shorter interval does, too.
        """
        now = time.monotonic()
        if now > due:
            missed = int((now - due) // self.config.interval) + 1
            log.warning("a cycle took too long: %d left out", missed)
            due += missed * self.config.interval
        while not self._stop:
            if load is not None and self._bell.reload_wanted():
                self._reload(load)
            self._settle_settings()
            if self._status_due:
                self._status_due = False
                self.write_status(running=True)
            due = min(due, time.monotonic() + self.config.interval)
            left = due - time.monotonic()
            if left <= 0:
                break
            self._bell.wait(left)
        return due + self.config.interval

    # Configuration while it runs

    def _reload(self, load: Callable[[], Config]) -> None:
        """Read the configuration again; one that cannot be used leaves the old one at work."""
        try:
            config = load()
            if os.path.abspath(config.state_dir) != os.path.abspath(self.config.state_dir):
                raise ConfigError("state_dir cannot change while the agent runs: restart it")
            if not config.server or not config.key:
                raise ConfigError("no server or no key is configured")
        except ConfigError as error:
            self._config_problem = f"the configuration is not used, the old one goes on: {error}"
            log.error("%s", self._config_problem)
            self._tell("warning", self._config_problem)
            return
        self._config_problem = ""
        if config.remote and not self._configured.remote:
            self.settings = remote.load(config.state_dir)
        self._configured = config
        for warning in config.warnings:
            log.warning("%s", warning)
        self._use(remote.applied(config, self.settings, self._clock()))
        log.info("the configuration was read again")
        self._tell("info", "the configuration was read again")

    def _hear_settings(self, said: object) -> None:
        """The sender's thread brings what the server asks for; the loop looks at it."""
        if self._configured.remote:
            self._asked_for = said
            self._bell.ring()

    def _settle_settings(self) -> None:
        """Take up what the server asks for, and end what it asked for until now."""
        asked, self._asked_for = self._asked_for, None
        if asked is not None and self._configured.remote:
            try:
                settings = remote.parse(asked)
                if settings != self.settings:
                    remote.store(self.config.state_dir, settings)
                    self.settings = settings
                    log.info("settings %d of the server are taken up", settings.version)
                    self._tell("info", f"settings {settings.version} of the server are taken up")
                self._settings_problem = ""
            except (ValueError, OSError) as error:
                if str(error) != self._settings_problem:
                    log.warning("settings of the server are not taken: %s", error)
                self._settings_problem = str(error)
        config = remote.applied(self._configured, self.settings, self._clock())
        if config != self.config:
            self._use(config)

    def _use(self, config: Config) -> None:
        """Work with this configuration from now on; no baseline, position or report is lost."""
        self.config = config
        self.spool.max_bytes, self.spool.max_age = config.spool_max_bytes, config.spool_max_age
        running = {one.name: one for one in self.panel.collectors}
        wanted: list[Collector] = []
        for kind in COLLECTORS:
            if config.collectors.get(kind.name, True):
                known = running.get(kind.name)
                if known is None:
                    known = kind(config)
                else:
                    known.reconfigure(config)
                wanted.append(known)
        self._own.reconfigure(config)
        self.panel.replace([*wanted, self._own])
        self._find_discovery()
        if self.discovery is None:
            self._followed = config.logs
            self.tailer.follow(config.logs)
        self.sender.use(config)
        if self.plugins is not None:
            self.plugins.use(config)
        self._wake.set()
        self._mask = masker_of(config)
        mask_own_by(self._mask)
        logging.getLogger().setLevel(config.log_level)

    def _find_discovery(self) -> None:
        """Have the discovery of the collector of services, if that is on."""
        self.discovery = next(
            (one.discovery for one in self.panel.collectors if isinstance(one, Service)), None
        )
        if self.discovery is not None:
            self.discovery.remember = True

    def _tell(self, level: str, text: str) -> None:
        """Have the next report say it as an event."""
        self._news.append(Entry(self._clock(), level, text, "sentinella", "sentinella.config"))

    def _listen(self) -> Inbox | None:
        """Take what scripts send; without it the agent goes on all the same."""
        try:
            return Inbox(self.config.state_dir, self._store_handed)
        except OSError as error:
            log.warning("`sentinella send` cannot reach this agent: %s", error)
            return None

    def close(self, sending: threading.Thread | None = None, goodbye: str = "") -> None:
        """End: the sender is broken off, for everything unsent is in the spool.

        With a `goodbye` the server is told why, if it answers at once.
        """
        self.sender.stop.set()
        self._wake.set()
        if sending is not None:
            sending.join(0.3)
            if sending.is_alive():
                self.sender.abort()
                sending.join(0.7)
            elif goodbye:
                self._say_goodbye(goodbye)
        self.write_status(running=False)
        self.tailer.close()
        if sending is None or not sending.is_alive():
            self.sender.close()
            self.spool.close()
        self._bell.close()
        log.info("stopped")

    def _say_goodbye(self, reason: str) -> None:
        try:
            sequence = self._append(self._clock(), Points(), (), None, {}, None, reason)
            if self.sender.delivers:
                self.sender.farewell(sequence, _GOODBYE_SECONDS)
        except (SpoolCorrupt, SpoolUnusable) as problem:
            log.warning("no goodbye: %s", problem)

    def once(self) -> bool:
        """One cycle, sent before returning; True if nothing waits afterwards."""
        time.sleep(_BASELINE_SECONDS)
        self.cycle()
        self.sender.work(self._current, seconds=30.0)
        nothing_waits = self.spool.waiting().reports == 0
        self.close()
        return nothing_waits

    def _asked_to_stop(self, number: int, frame: object) -> None:
        self._stop_signal, self._stop = number, True
        self._bell.ring()

    def _keep_sending(self) -> None:
        while not self.sender.stop.is_set():
            # Woken by each cycle; in between, only a retry may fall due.
            self._wake.wait(self.sender.seconds_to_retry())
            self._wake.clear()
            if self.sender.stop.is_set():
                return
            current, self._current = self._current, None
            before = self.sender.state.trouble
            try:
                self.sender.work(current, seconds=self.config.interval * 0.5)
                self._letting_go.over()
            except SpoolCorrupt as damage:
                self._begin_anew(damage)
            except SpoolUnusable as problem:
                self._letting_go.trouble(f"what is sent cannot be let go of: {problem}")
            except Exception:
                # The data is safe in the spool; a fault in sending must not end sending.
                log.exception("sending failed")
            if self.sender.state.trouble != before:
                self._status_due = True
                self._bell.ring()

    # One cycle

    def cycle(self) -> None:
        """Collect, read logs, and store both; failures are logged and shown in the status."""
        began = time.monotonic()
        at = self._clock()
        self._settle_settings()
        points = self.panel.collect(self.config.interval * _SHARE_COLLECTING)
        for plugin in self.plugins.states if self.plugins is not None else ():
            points.add("agent_plugin", plugin.fields(), {"plugin": plugin.name})
        points.points = kept(self.config.drops, points.points)
        if self.discovery is not None and self.discovery.sources != self._followed:
            self._followed = self.discovery.sources
            self.tailer.follow(self._followed)
        try:
            self._store(at, points, began)
            self._stored(at)
        except SpoolCorrupt as damage:
            self._begin_anew(damage)
        except SpoolUnusable as problem:
            # Positions stand where they were, so no log line is lost; these points are.
            self._problem = f"nothing can be stored, points are lost: {problem}"
            self._storing.trouble(self._problem)
            self._unstored_since = self._unstored_since if self._unstored else at
            self._unstored += 1
            self._specs = None  # they were to go with these points
            del self._news[:-_NEWS_KEPT]
        self._own.cycle_seconds = time.monotonic() - began
        self._last_points = len(points.points)
        self._last_cycle_at = at
        self._cycles += 1
        self.write_status(running=True)

    def _stored(self, at: float) -> None:
        """What was said not to work works; the next report tells what it cost."""
        why, self._problem = self._problem.rpartition("points are lost: ")[2], ""
        self._storing.over("storing works again")
        if self._unstored:
            self._tell(
                "error",
                f"the points of {self._unstored} cycles, of {_utc(self._unstored_since)} to "
                f"{_utc(at)}, could not be stored and are lost; log lines are not: {why}",
            )
            self._unstored = 0

    def _store(self, at: float, points: Points, began: float) -> None:
        deadline = began + self.config.interval * (_SHARE_COLLECTING + _SHARE_READING)
        facts = self._changed_specs(at)
        poll = self.tailer.poll(at, EVENTS_PER_REPORT, _READ_PER_REPORT)
        # While the server is away more may follow, and what tells of it would wait with the rest.
        untold = self.spool.untold_losses() if self.sender.delivers else None
        changes = self.discovery.changes if self.discovery is not None else ()
        own_events = self._own_events(at, untold)
        own_events += [
            Entry(at, change.level, change.text, change.service, "sentinella.discovery")
            for change in changes
        ]
        own_events += [
            Entry(at, news.level, news.text, news.service, news.topic) for news in points.news
        ]
        told = len(self._news)
        own_events += self._news[:told]
        entries = own_events + poll.entries
        self._current = self._append(
            at, points, entries, facts, poll.changes, untold[0] if untold else None
        )
        self.spool.began_anew = False
        del self._news[:told]
        if self.discovery is not None:
            self.discovery.told(len(changes))
        self.tailer.accept(poll)
        while poll.more and time.monotonic() < deadline and not self._stop:
            poll = self.tailer.poll(at, EVENTS_PER_REPORT, _READ_PER_REPORT)
            if not poll.entries and not poll.changes:
                return
            if poll.entries:
                self._append(at, Points(), poll.entries, None, poll.changes, None)
                self.tailer.accept(poll)
            else:
                # Only lines below the wanted level: no report to go with.
                self.spool.store_positions(poll.changes)
                self.tailer.accept(poll)

    def _append(
        self,
        at: float,
        points: Points,
        entries: Sequence[Entry],
        facts: dict[str, Any] | None,
        positions: Mapping[str, str | None],
        told: Losses | None,
        goodbye: str = "",
    ) -> int:
        shift = self.skew.correction

        def build(sequence: int) -> tuple[Mapping[str, Any], int, int]:
            report = Report(
                agent=self.id,
                epoch=self.spool.epoch,
                sequence=sequence,
                host=self.config.hostname,
                at=round(at + shift, 3),
                interval=self.config.interval,
                points=points.points,
                events=[
                    _event(sequence, number, entry, self._mask, shift)
                    for number, entry in enumerate(entries)
                ],
                services=points.services,
                specs=facts,
                goodbye=goodbye[:MAX_GOODBYE],
            )
            return report.to_json(), len(points.points), len(entries)

        return self.spool.append(at, build, positions, told)

    def take(self, points: Sequence[Point], entries: Sequence[Entry]) -> int:
        """Store what came from elsewhere on this host, as a report of its own; its sequence.

        May be called from any thread. Raises SpoolCorrupt or SpoolUnusable.
        """
        given = Points()
        given.points = kept(self.config.drops, points)
        sequence = self._append(self._clock(), given, entries, None, {}, None)
        self._wake.set()
        return sequence

    def _store_handed(self, points: Sequence[Point], entries: Sequence[Entry]) -> None:
        self.take(points, entries)

    def _tell_of_plugin(self, level: str, text: str) -> None:
        self._news.append(Entry(self._clock(), level, text, "sentinella", "sentinella.plugin"))

    def _own_events(self, at: float, untold: tuple[Losses, float, float] | None) -> list[Entry]:
        events = []
        if untold is not None:
            lost, since, until = untold
            text = (
                f"the spool was full or too old: of {_utc(since)} to {_utc(until)}, {lost.told()}"
            )
            events.append(Entry(at, "warning", text, "sentinella", "sentinella.spool"))
        if self.spool.began_anew:
            text = (
                f"the spool was damaged and began anew: {self.spool.saved} unsent reports of it "
                "could be saved, what else it held is lost"
            )
            events.append(Entry(at, "error", text, "sentinella", "sentinella.spool"))
        clock = self.skew.news()
        if clock:
            events.append(Entry(at, "warning", clock, "sentinella", "sentinella.clock"))
        for level, text in self.panel.take_news():
            events.append(Entry(at, level, text, "sentinella", "sentinella.collector"))
        return events

    def _changed_specs(self, at: float) -> dict[str, Any] | None:
        """The specs with the first report and whenever they changed, else None."""
        if self.spool.specs_lost:
            self._specs, self.spool.specs_lost = None, False
        if not self._host_facts or abs(at - self._host_facts_at) >= _SPECS_EVERY:
            try:
                self._host_facts, self._host_facts_at = specs(), at
            except (OSError, ValueError) as error:
                log.warning("specs: %s", error)
        found = self.discovery.facts() if self.discovery is not None else {}
        now = {**self._host_facts, **found}
        now["collectors"] = self.panel.idle()
        now["settings"] = remote.described(self.config, self.settings, self._settings_problem)
        if now == self._specs:
            return None
        self._specs = now
        return now

    def _begin_anew(self, damage: Exception) -> None:
        try:
            self.spool.begin_anew(damage)
        except (SpoolCorrupt, SpoolUnusable, OSError) as problem:
            self._problem = f"the spool cannot be made anew: {problem}"
            log.error("%s", self._problem)
            return
        self._specs = None
        self.tailer.store_all()

    # Status

    def write_status(self, running: bool) -> None:
        """Leave for `sentinella status` what only this process knows."""
        sent = self.sender.state
        status = {
            "running": running,
            "pid": os.getpid(),
            "agent": self.id,
            "host": self.config.hostname,
            "server": self.config.server,
            "config": self.config.path,
            "version": VERSION,
            "interval": self.config.interval,
            "began_at": round(self._began_at, 3),
            "last_cycle_at": self._last_cycle_at,
            "cycles": self._cycles,
            "cycle_seconds": round(self._own.cycle_seconds, 4),
            "points": self._last_points,
            "memory": resident_bytes(),
            "problem": self._mask(self._problem or self._config_problem),
            "settings": self.settings.version if self.settings and self.config.remote else None,
            "warnings": list(self.config.warnings),
            "collectors": [self._shown(state) for state in self.panel.states.values()],
            "logs": [dataclasses.asdict(state) for state in self.tailer.states.values()],
            "plugins": [
                self._shown(state)
                for state in (self.plugins.states if self.plugins is not None else ())
            ],
            "log_gaps": self.tailer.gaps,
            "sending": {**dataclasses.asdict(sent), "last_error": self._mask(sent.last_error)},
        }
        path = os.path.join(self.config.state_dir, "status.json")
        try:
            with open(path + ".new", "w", encoding="utf-8") as file:
                json.dump(status, file)
            os.chmod(path + ".new", 0o600)
            os.replace(path + ".new", path)
            self._telling.over()
        except OSError as error:
            self._telling.trouble(f"`sentinella status` cannot be told: {error}")

    def _shown(self, state: CollectorState | PluginState) -> dict[str, Any]:
        """How one fares; what it failed with may name an address with its password."""
        return {**dataclasses.asdict(state), "detail": self._mask(state.detail)}


def _event(sequence: int, number: int, entry: Entry, mask: Masker, shift: float) -> LogEvent:
    """A log event with its id: the place in the report that carries it, so it never changes.

    Whatever it came from, this is where secrets end: before the spool. `shift` sets a clock right
    that is off, in seconds.
    """
    return LogEvent(
        id=f"{sequence}.{number}",
        at=round(entry.at + shift, 3),
        level=entry.level,
        message=mask(entry.message)[:MAX_MESSAGE],
        service=entry.service,
        component=entry.component,
        request_id=entry.request_id,
        pid=entry.pid,
        path=entry.path,
    )


def _utc(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(at))
