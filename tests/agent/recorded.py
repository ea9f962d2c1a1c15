"""Hosts as they were recorded, laid out below a folder as the agent would meet them at `/`.

A recording is a folder of `hosts/`: `processes.txt` (`pid ppid comm | cgroup | command line`),
`units.txt` (`NAME.service enabled|disabled|masked`), `files.txt` (paths; `dpkg NAME VERSION` is an
installed package), `containers.json` (what Docker answers to `GET /containers/json`) and
`expected.json`.
"""

from __future__ import annotations

import http.server
import json
import os
import socketserver
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

HOSTS = Path(__file__).parent / "hosts"
BOOTED_AT = 1_790_000_000
UPTIME = 100_000.0


class RecordedHost:
    """A host below `root` whose processes, units and files may be changed as one likes."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.uptime = UPTIME
        (root / "proc").mkdir(parents=True)
        self.tick(0)
        (root / "proc/stat").write_text(f"cpu  1 2 3\nbtime {BOOTED_AT}\n")
        self.boot("one")
        self.listens()

    def boot(self, name: str) -> None:
        path = self.root / "proc/sys/kernel/random/boot_id"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name + "\n")

    def tick(self, seconds: float) -> None:
        self.uptime += seconds
        (self.root / "proc/uptime").write_text(f"{self.uptime} 1.0\n")

    def process(
        self,
        pid: int,
        argv: str,
        *,
        ppid: int = 1,
        comm: str = "",
        cgroup: str = "/",
        started: float = 100.0,
        state: str = "S",
        user: int = 0,
    ) -> int:
        folder = self.root / f"proc/{pid}"
        folder.mkdir(exist_ok=True)
        comm = (comm or os.path.basename(argv.split(" ")[0]))[:15]
        ticks = int(started * os.sysconf("SC_CLK_TCK"))
        (folder / "stat").write_text(
            f"{pid} ({comm}) {state} {ppid} 1 1 0 -1 0 0 0 0 0 50 25 0 0 20 0 4 0 {ticks} 1000 "
            "2560 18446744073709551615 0 0\n"
        )
        (folder / "cmdline").write_bytes(argv.replace(" ", "\0").encode() + b"\0" * bool(argv))
        (folder / "status").write_text(f"Name:\t{comm}\nUid:\t{user}\t0\t{user}\t0\n")
        (folder / "cgroup").write_text(f"0::{cgroup}\n")
        (folder / "fd").mkdir(exist_ok=True)
        return pid

    def kill(self, pid: int) -> None:
        folder = self.root / f"proc/{pid}"
        for path in sorted(folder.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
        folder.rmdir()

    def pids(self, needle: str) -> list[int]:
        """The processes whose command line holds some words."""
        return sorted(
            int(path.parent.name)
            for path in (self.root / "proc").glob("*/cmdline")
            if needle.encode() in path.read_bytes().replace(b"\0", b" ")
        )

    def file(self, path: str, text: str = "") -> Path:
        real = self.root / path.lstrip("/")
        real.parent.mkdir(parents=True, exist_ok=True)
        if path.endswith(("-info", "/")):
            real.mkdir(exist_ok=True)
        else:
            real.write_text(text)
        return real

    def package(self, name: str, version: str) -> None:
        path = self.root / "var/lib/dpkg/status"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as file:
            file.write(
                f"Package: {name}\nStatus: install ok installed\nArchitecture: all\n"
                f"Version: {version}\nDescription: {name}\n\n"
            )

    def unit(self, name: str, state: str = "enabled") -> None:
        if state == "masked":
            masked = self.root / "etc/systemd/system" / name
            masked.parent.mkdir(parents=True, exist_ok=True)
            masked.unlink(missing_ok=True)
            masked.symlink_to("/dev/null")
            return
        self.file(f"/lib/systemd/system/{name}", "[Service]\n")
        if state == "enabled":
            wants = self.root / "etc/systemd/system/multi-user.target.wants"
            wants.mkdir(parents=True, exist_ok=True)
            (wants / name).symlink_to(f"/lib/systemd/system/{name}")

    def listens(self, *ports: tuple[int, int, int]) -> None:
        """(port on 127.0.0.1, inode, pid that holds it)"""
        folder = self.root / "proc/net"
        folder.mkdir(exist_ok=True)
        head = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid\n"
        lines = [
            f"   0: 0100007F:{port:04X} 00000000:0000 0A 00000000:00000000 00:00000000 00000000"
            f"     0        0 {inode} 1 0000000000000000 100 0 0 10 0\n"
            for port, inode, _ in ports
        ]
        (folder / "tcp").write_text(head + "".join(lines))
        for _, inode, pid in ports:
            link = self.root / f"proc/{pid}/fd/{inode % 1000}"
            if not link.is_symlink():
                link.symlink_to(f"socket:[{inode}]")


def load(name: str, root: Path) -> RecordedHost:
    """The recording of this name, below `root`."""
    host = RecordedHost(root)
    folder = HOSTS / name
    for line in (folder / "processes.txt").read_text().splitlines():
        if line.startswith("#"):
            continue
        ids, cgroup, *argv = line.split(" | ", 2)
        pid, ppid, comm = ids.split(" ", 2)
        host.process(
            int(pid), argv[0] if argv else "", ppid=int(ppid), comm=comm,
            cgroup=cgroup.removesuffix(" |"),
        )  # fmt: skip
    for line in (folder / "units.txt").read_text().splitlines():
        unit, state = line.split(" ")
        host.unit(unit, state)
    for line in (folder / "files.txt").read_text().splitlines():
        if line.startswith("dpkg "):
            host.package(*line.split(" ")[1:])
        else:
            host.file(line)
    return host


def expected(name: str) -> dict[str, Any]:
    said: dict[str, Any] = json.loads((HOSTS / name / "expected.json").read_text())
    return said


class Engine:
    """A container engine on a unix socket, which answers `GET /containers/json`."""

    def __init__(self, path: Path, containers: list[dict[str, Any]]) -> None:
        self.containers = containers
        self.asked: list[str] = []
        engine = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                engine.asked.append(self.path)
                body = json.dumps(engine.containers).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *arguments: object) -> None:
                return

            def address_string(self) -> str:
                return "unix"

        path.parent.mkdir(parents=True, exist_ok=True)
        self._server = socketserver.ThreadingUnixStreamServer(str(path), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def engine_of(name: str, path: Path) -> Engine | None:
    """The engine that answers as recorded; None where none was there."""
    recorded = HOSTS / name / "containers.json"
    return Engine(path, json.loads(recorded.read_text())) if recorded.exists() else None


Clock = Callable[[], float]
