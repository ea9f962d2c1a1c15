"""`manage.py up`: the whole product on one machine, under a small supervisor.

    manage.py up [--state-dir DIR] [--port PORT] [--no-agent]

Starts PostgreSQL, Valkey, web, worker, beat and an agent for this very machine, restarts what
dies, and stops all of it on Ctrl-C or SIGTERM. Children of a supervisor that was killed are ended
by the kernel, and what should survive even that by the next start. DATABASE_URL and REDIS_URL, if
set, name servers to use instead of the embedded ones.

This module is imported without Django's settings, which can't be read before the database runs.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import http.client
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import IO, Any
from urllib.parse import urlsplit

from sentinel_site import instance
from sentinel_site.embedded import EmbeddedError, EmbeddedPostgres, EmbeddedValkey
from sentinel_site.embedded.process import (
    LOOPBACK,
    adopt_orphans,
    bury_orphans,
    is_free,
    kill_children,
    processes,
    remembered,
    signal_group,
    spawn,
    start_time,
    wait_until,
    works_in,
    write_private,
)

REPOSITORY = Path(__file__).resolve().parent.parent
SLUG, NAME, EMAIL = "my-cloud", "My cloud", "owner@example.org"
RUN = "SENTINELLA_RUN"  # in the environment of every child: which run it belongs to
AGENT_INTERVAL = 10  # seconds
WEB_SECONDS = 60.0
STEADY_SECONDS = 10.0  # who ran this long is started again at once
LONGEST_PAUSE = 30.0
LOG_BYTES = 10 * 1024 * 1024
STOPPERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stop(BaseException):
    """Somebody asked us to end."""


@dataclass
class Progress:
    """Numbered steps on the terminal: `[3/8] Database … 1.2 s`."""

    total: int
    done: int = 0

    @contextlib.contextmanager
    def step(self, what: str) -> Iterator[Callable[[str], None]]:
        """Announce a step and then what it took. The callable adds a word on how far it is."""
        self.done += 1
        head = f"[{self.done}/{self.total}] {what} …"
        terminal = sys.stderr.isatty()
        end = "" if terminal else "\n"
        say(head, end=end)
        began = time.monotonic()
        yield lambda text: say(f" {text} …" if terminal else f"{head} {text} …", end=end)
        seconds = f"{time.monotonic() - began:.1f} s"
        say(f" {seconds}" if terminal else f"{head} {seconds}")


def say(text: str, end: str = "\n") -> None:
    print(text, end=end, file=sys.stderr, flush=True)


@dataclass
class Service:
    """A child to be kept alive."""

    name: str
    start: Callable[[int], subprocess.Popen[bytes]]
    patience: float  # seconds it may take to stop
    log: Log
    stop_signal: signal.Signals = signal.SIGTERM
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0  # monotonic, as due_at
    due_at: float | None = None
    failures: int = 0

    def run(self) -> None:
        self.due_at = None
        self.started_at = time.monotonic()
        with self.log.pipe() as output:
            self.process = self.start(output)

    def stop(self) -> None:
        """End it and all of its process group."""
        if self.process is None:
            return
        if self.process.poll() is None:
            self.process.send_signal(self.stop_signal)
            try:
                self.process.wait(self.patience)
            except subprocess.TimeoutExpired:
                say(f"{self.name} does not stop by itself and is killed")
        signal_group(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.process = None


@dataclass
class Log:
    """A child's output: all to a file of bounded size, errors and mails to the terminal as well."""

    path: Path
    lock: threading.Lock = field(default_factory=threading.Lock)

    _NOTABLE = re.compile(
        rb"\[(error|critical) *\]|^Traceback |\b(FATAL|PANIC): |^Content-Type: (text|multipart)/"
    )
    _ORDINARY = re.compile(rb"^\d{4}-\d\d-\d\d|^\d+:[A-Z] |^-{20}")
    _EXPECTED = re.compile(rb"FATAL: .*(terminating|shutting down|starting up|recovery)")
    _MOST_SHOWN = 200

    @contextlib.contextmanager
    def pipe(self) -> Iterator[int]:
        """The end that the child writes to; a thread reads the other one until the child ends."""
        ours, theirs = os.pipe()
        threading.Thread(target=self._copy, args=(os.fdopen(ours, "rb"),), daemon=True).start()
        try:
            yield theirs
        finally:
            os.close(theirs)

    def _copy(self, source: IO[bytes]) -> None:
        shown = 0
        with source:
            for line in source:
                self._write(line)
                if self._NOTABLE.search(line) and not self._EXPECTED.search(line):
                    shown = self._MOST_SHOWN
                elif self._ORDINARY.match(line):
                    shown = 0
                if shown:
                    shown -= 1
                    say(f"{self.path.stem} | {line.decode(errors='replace').rstrip()}")

    def _write(self, line: bytes) -> None:
        with self.lock:
            if self.path.exists() and self.path.stat().st_size + len(line) > LOG_BYTES:
                self.path.replace(self.path.with_suffix(".log.1"))
            with self.path.open("ab") as file:
                file.write(line)


class Supervisor:
    """One instance of the product below `state_dir`. Raises EmbeddedError when it can't start."""

    def __init__(self, state_dir: Path, host: str, port: int, *, with_agent: bool) -> None:
        self.state_dir = state_dir
        self.host = host
        self.wanted_port = port
        self.with_agent = with_agent
        self.run_id = uuid.uuid4().hex
        self.services: list[Service] = []
        self.environment: dict[str, str] = {}  # what a second shell needs, too
        self.progress = Progress(total=9 if with_agent else 8)

    def run(self) -> None:
        """Start everything, then keep it running until Stop is raised."""
        with self._only_one(), self._signals() as wake:
            adopt_orphans()
            try:
                self._clear_leftovers()
                self._start()
                self._supervise(wake)
            except Stop:
                say("\nStopping …")
            finally:
                self._stop()

    # -- starting -------------------------------------------------------------

    def _start(self) -> None:
        began = time.monotonic()
        secrets = remembered(self.state_dir / "secrets.json", ["SECRET_KEY", "KEY_PEPPER"])
        port = self._free_port()
        address = LOOPBACK if self.host == LOOPBACK else socket.getfqdn()
        self.environment = {
            name: os.environ.get(name) or value
            for name, value in {**secrets, "PUBLIC_URL": f"http://{address}:{port}"}.items()
        }
        if self.host != LOOPBACK and "ALLOWED_HOSTS" not in os.environ:
            named = urlsplit(self.environment["PUBLIC_URL"]).hostname
            self.environment["ALLOWED_HOSTS"] = f"{named},{self.host},{LOOPBACK},localhost"
        self.environment["STATE_DIR"] = str(self.state_dir)
        if packages := os.environ.get("AGENT_PACKAGES"):  # for the install line
            self.environment["AGENT_PACKAGES"] = str(Path(packages).resolve())
        self._start_postgres()
        self._start_valkey()
        self._describe()
        prepared = self._prepare()
        with self.progress.step("Web"):
            web = self._add("web", self._web_command(port), patience=5)
            assert web.process is not None  # noqa: S101  just started
            wait_until(lambda: answers(port), web.process, WEB_SECONDS, f"Web ({web.log.path})")
        with self.progress.step("Worker and beat"):
            celery = [sys.executable, "-m", "celery", "--quiet", "-A", "sentinel_site"]
            work = [*celery, "worker", "-l", "INFO"]
            self._add("worker", [*work, "-c", "2", "-Q", "celery", "-n", "work@%h"], patience=4)
            tell = [*work, "-P", "threads", "-c", "16", "-Q", "notify", "-n", "tell@%h"]
            self._add("notifier", tell, patience=4)
            self._add("beat", [*celery, "beat", "-l", "INFO"], patience=2)
        if self.with_agent:
            with self.progress.step("Agent of this machine"):
                self._start_agent(port, prepared["keys"]["ingest"])
        self._describe()
        say(
            f"Sentinella is live at {self.environment['PUBLIC_URL']} "
            f"({time.monotonic() - began:.0f} s). Sign in, once: {prepared['signin']}"
        )

    def _free_port(self) -> int:
        for port in range(self.wanted_port, min(self.wanted_port + 100, 65536)):
            if is_free(port):
                if port != self.wanted_port:
                    say(f"Port {self.wanted_port} is taken; using {port}.")
                return port
        raise EmbeddedError(f"No port from {self.wanted_port} on is free; set PORT.")

    def _start_postgres(self) -> None:
        if url := os.environ.get("DATABASE_URL"):
            self.environment["DATABASE_URL"] = url
            with self.progress.step("Database as DATABASE_URL says"):
                return
        postgres = EmbeddedPostgres(self.state_dir)

        def start(output: int) -> subprocess.Popen[bytes]:
            postgres.prepare()
            return postgres.spawn(output)

        what = "Database, made for the first time" if postgres.is_new else "Database"
        with self.progress.step(what):
            self._keep("postgres", start, patience=10, stop_signal=signal.SIGINT)
            postgres.wait()
        self.environment["DATABASE_URL"] = postgres.url

    def _start_valkey(self) -> None:
        if url := os.environ.get("REDIS_URL"):
            self.environment["REDIS_URL"] = url
            with self.progress.step("Redis as REDIS_URL says"):
                return
        valkey = EmbeddedValkey(self.state_dir)
        with self.progress.step("Valkey"):
            self._keep("valkey", valkey.spawn, patience=2)
            valkey.wait()
        self.environment["REDIS_URL"] = valkey.url

    def _prepare(self) -> dict[str, Any]:
        """Steps 3 to 6 in one process, since each would spend seconds on importing Django."""
        command = [
            *(sys.executable, "manage.py", "prepare"),
            *("--slug", SLUG, "--name", NAME, "--email", EMAIL),
            *("--step", str(self.progress.done), "--steps", str(self.progress.total)),
        ]
        process = spawn(
            command,
            env=self._child_environment(),
            cwd=REPOSITORY,
            output=subprocess.PIPE,
            errors=None,
        )
        said, _ = process.communicate()
        if process.returncode != 0:
            raise EmbeddedError(f"Setting up failed (status {process.returncode}); see above.")
        self.progress.done += 4
        prepared: dict[str, Any] = json.loads(said)
        return prepared

    def _web_command(self, port: int) -> list[str]:
        return [
            *(sys.executable, "-m", "uvicorn", "sentinel_site.asgi:application"),
            *("--host", self.host, "--port", str(port), "--workers", "1", "--lifespan", "on"),
            *("--no-access-log", "--ws", "websockets", "--timeout-graceful-shutdown", "3"),
        ]

    def _start_agent(self, port: int, key: str) -> None:
        config = self.state_dir / "agent" / "agent.toml"
        write_private(config, agent_config(f"http://{LOOPBACK}:{port}", key, self.state_dir))
        command = [sys.executable, "-m", "agent_client.cli", "run", "--config", str(config)]
        self._add("agent", command, patience=3)

    def _add(self, name: str, command: list[str], patience: float) -> Service:
        def start(output: int) -> subprocess.Popen[bytes]:
            return spawn(command, env=self._child_environment(), cwd=REPOSITORY, output=output)

        return self._keep(name, start, patience)

    def _keep(
        self,
        name: str,
        start: Callable[[int], subprocess.Popen[bytes]],
        patience: float,
        stop_signal: signal.Signals = signal.SIGTERM,
    ) -> Service:
        folder = self.state_dir / "log"
        folder.mkdir(mode=0o700, exist_ok=True)
        service = Service(name, start, patience, Log(folder / f"{name}.log"), stop_signal)
        self.services.append(service)
        service.run()
        return service

    def _child_environment(self) -> dict[str, str]:
        return {**os.environ, **self.environment, RUN: self.run_id, "PYTHONUNBUFFERED": "1"}

    def _describe(self) -> None:
        """Write the file by which a second shell, and the next start, find us."""
        instance.write(
            self.state_dir,
            {
                "pid": os.getpid(),
                "started": start_time(os.getpid()),
                "run": self.run_id,
                "url": self.environment["PUBLIC_URL"],
                "pids": {s.name: s.process.pid for s in self.services if s.process is not None},
                "environment": self.environment,
            },
        )

    # -- keeping it up --------------------------------------------------------

    def _supervise(self, wake: socket.socket) -> None:
        """Sleep until a child dies or one is due to be started again. Ends by Stop."""
        while True:
            now = time.monotonic()
            for service in self.services:
                if service.process is not None and service.process.poll() is not None:
                    self._note_death(service, now)
                if service.due_at is not None and service.due_at <= now:
                    self._restart(service)
            bury_orphans()
            due = [s.due_at for s in self.services if s.due_at is not None]
            pause = max(min(due) - time.monotonic(), 0) if due else None
            if select.select([wake], [], [], pause)[0]:
                wake.recv(4096)

    def _note_death(self, service: Service, now: float) -> None:
        process = service.process
        assert process is not None  # noqa: S101  the caller has looked
        signal_group(process.pid, signal.SIGKILL)  # what it leaves behind would do its work twice
        service.process = None
        steady = now - service.started_at >= STEADY_SECONDS
        service.failures = 1 if steady else service.failures + 1
        pause = 0.0 if service.failures == 1 else min(0.5 * 2**service.failures, LONGEST_PAUSE)
        service.due_at = now + pause
        how = (
            f"was killed by {signal.Signals(-process.returncode).name}"
            if process.returncode < 0
            else f"ended with status {process.returncode}"
        )
        when = f"in {pause:.0f} s" if pause else "at once"
        say(
            f"{service.name} (pid {process.pid}) {how}; it starts again {when} ({service.log.path})"
        )

    def _restart(self, service: Service) -> None:
        try:
            service.run()
        except (EmbeddedError, OSError) as error:
            service.failures += 1
            service.due_at = time.monotonic() + min(0.5 * 2**service.failures, LONGEST_PAUSE)
            say(f"{service.name} could not be started: {error}")
            return
        if service.process is not None:
            say(f"{service.name} runs again (pid {service.process.pid})")
        self._describe()

    def _stop(self) -> None:
        began = time.monotonic()
        for number in STOPPERS:
            signal.signal(number, lambda *_: None)  # stopping is not interrupted
        for service in reversed(self.services):
            service.stop()
        kill_children()
        instance.remove(self.state_dir)
        say(f"Stopped ({time.monotonic() - began:.1f} s).")

    @contextlib.contextmanager
    def _signals(self) -> Iterator[socket.socket]:
        """Turn requests to end into Stop, once; a child's end wakes whoever reads the socket."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)

        def stop(number: int, _: FrameType | None) -> None:
            for other in STOPPERS:
                signal.signal(other, lambda *_: None)  # asking once is enough
            raise Stop

        signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in STOPPERS:
            signal.signal(number, stop)
        with ours, theirs:
            yield ours
            signal.set_wakeup_fd(-1)

    # -- one at a time, and what a killed one left ----------------------------

    @contextlib.contextmanager
    def _only_one(self) -> Iterator[None]:
        self.state_dir.mkdir(parents=True, exist_ok=True)
        with (self.state_dir / "lock").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise EmbeddedError(self._who_runs()) from None
            yield

    def _who_runs(self) -> str:
        other = instance.running(self.state_dir)
        who = f"at {other['url']} (pid {other['pid']})" if other else "and about to start or stop"
        return (
            f"Sentinella is running on {self.state_dir} already, {who}. Stop that one, or choose "
            "another --state-dir."
        )

    def _clear_leftovers(self) -> None:
        """End what a killed supervisor's children left; we hold the lock, so nobody owns them."""
        before = instance.read(self.state_dir)
        run = None if before is None else before.get("run")
        folders = [self.state_dir / "postgres" / "data", self.state_dir / "valkey"]
        for number, seconds in ((signal.SIGQUIT, 3.0), (signal.SIGKILL, 10.0)):
            left = _left_over(run, folders)
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            deadline = time.monotonic() + seconds
            while left and time.monotonic() < deadline:
                time.sleep(0.02)
                left = _left_over(run, folders)
        instance.remove(self.state_dir)


def _left_over(run: str | None, folders: list[Path]) -> list[int]:
    """Processes that say in their environment or by where they work that they are that run's."""
    mark = f"{RUN}={run}".encode()

    def is_marked(pid: int) -> bool:
        try:
            return mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        except OSError:
            return False

    def is_server(pid: int) -> bool:  # both overwrite their environment with their title
        name = Path(f"/proc/{pid}/comm").read_text().strip()
        return name in ("postgres", "valkey-server") and any(works_in(pid, f) for f in folders)

    found = []
    for pid in processes():
        with contextlib.suppress(OSError):
            if (
                pid != os.getpid()
                and start_time(pid)
                and ((run is not None and is_marked(pid)) or is_server(pid))
            ):
                found.append(pid)
    return found


def answers(port: int) -> bool:
    """Whether the product's own health page is served there."""
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=5)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status < 500
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def agent_config(url: str, key: str, state_dir: Path) -> str:
    """What the agent of this machine is told: watch the machine, and us on it."""
    log = state_dir / "log"
    sections: dict[str, dict[str, object]] = {
        "agent": {
            "server": url,
            "key": key,
            "state_dir": str(state_dir / "agent"),
            "interval": AGENT_INTERVAL,
        },
        "services.postgresql": {"project": "postgresql", "process": ["postgres"]},
        "services.valkey": {"process": ["valkey-server"]},
        "services.sentinella-web": {"cmdline": "uvicorn sentinel_site"},
        "services.sentinella-worker": {"cmdline": "celery .*worker .*-Q celery"},
        "services.sentinella-notifier": {"cmdline": "celery .*worker .*-Q notify"},
        "services.sentinella-beat": {"cmdline": "celery .*sentinel_site beat"},
        "logs.syslog": {"path": ["/var/log/syslog", "/var/log/messages"], "level": "info"},
        "logs.postgresql": {"path": [str(log / "postgres.log")], "level": "info"},
        "logs.valkey": {"path": [str(log / "valkey.log")], "level": "info"},
        # each page view is a line in web's log, and each line would refresh open pages
        **{
            f"logs.sentinella-{name}": {"path": [str(log / f"{name}.log")]}
            for name in ("web", "worker", "notifier")
        },
    }
    return "\n".join(
        f"[{title}]\n"
        + "".join(
            # JSON's numbers, texts and lists of texts are TOML's too
            f"{name} = {json.dumps(value, ensure_ascii=False)}\n"
            for name, value in options.items()
        )
        for title, options in sections.items()
    )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="manage.py up", description="Start everything on this machine and keep it running."
    )
    parser.add_argument(
        "--state-dir",
        type=Path,
        default=os.environ.get("STATE_DIR") or REPOSITORY / "var",
        help="where data, logs and secrets live (STATE_DIR; default: var)",
    )
    parser.add_argument(
        "--port",
        type=int,
        default=os.environ.get("PORT") or 8000,
        help="of the web server; if taken, the next free one (PORT; default: 8000)",
    )
    parser.add_argument(
        "--host",
        default=os.environ.get("HOST") or LOOPBACK,
        help="address to listen on; 0.0.0.0 for all, then set PUBLIC_URL to what other servers "
        "reach, if it is not this machine's name (HOST; default: 127.0.0.1)",
    )
    parser.add_argument("--no-agent", action="store_true", help="do not watch this machine")
    options = parser.parse_args(arguments)
    try:
        Supervisor(
            options.state_dir.resolve(), options.host, options.port, with_agent=not options.no_agent
        ).run()
    except EmbeddedError as error:
        say(f"error: {error}")
        return 1
    except PermissionError as error:
        say(f"error: {error}. Does {options.state_dir} belong to another user?")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
