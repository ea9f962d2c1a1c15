"""What the agent costs on a busy controller, beside four peers at the same time.

The host: 600 processes, of them 40 OpenStack services with their workers; they sleep. Every agent
reports or is asked each 10 s, for SECONDS (600). Peers are Debian's packages:
prometheus-node-exporter, collectd-core, zabbix-agent2, netdata-core. One that is not installed is
left out, and said.
"""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import http.server
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

SECONDS = float(os.environ.get("SECONDS", "600"))
INTERVAL = 10.0
PROCESSES = 600
SETTLE = 30.0  # seconds before the clock starts: start-up and first discovery are told apart
SERVICES = (
    *("nova-api", "nova-conductor", "nova-scheduler", "nova-compute", "nova-novncproxy"),
    *("neutron-server", "neutron-dhcp-agent", "neutron-l3-agent", "neutron-metadata-agent"),
    *("neutron-openvswitch-agent", "glance-api", "cinder-api", "cinder-scheduler"),
    *("cinder-volume", "cinder-backup", "heat-api", "heat-api-cfn", "heat-engine"),
    *("placement-api", "keystone-wsgi-public", "ceilometer-agent-notification"),
    *("ceilometer-polling", "aodh-evaluator", "aodh-listener", "aodh-notifier"),
    *("gnocchi-metricd", "ironic-api", "ironic-conductor", "octavia-worker", "octavia-api"),
    *("octavia-health-manager", "octavia-housekeeping", "barbican-api", "barbican-worker"),
    *("designate-central", "designate-worker", "designate-mdns", "magnum-api"),
    *("magnum-conductor", "manila-scheduler"),
)
WORKERS = 3

_SLEEPER = "import signal\nsignal.pause()\n"


class Program(subprocess.Popen[bytes]):
    """A started agent, and what it said."""

    def __init__(self, command: list[str], log: Path) -> None:
        self._log = log
        with log.open("wb") as file:
            super().__init__(
                command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True
            )

    def said(self) -> str:
        return self._log.read_text(errors="replace")[-2000:]


@dataclasses.dataclass
class Contender:
    """One agent under measurement: its processes, and how it is asked each interval."""

    name: str
    program: Program
    ask: Callable[[], None] | None = None
    cpu_before: float = 0.0
    resident: float = 0.0

    def processes(self) -> list[psutil.Process]:
        with contextlib.suppress(psutil.NoSuchProcess):
            own = psutil.Process(self.program.pid)
            return [own, *own.children(recursive=True)]
        return []

    def cpu(self) -> float:
        """Processor seconds of it and its children, ended ones too."""
        total = 0.0
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                total += times.user + times.system
                total += times.children_user + times.children_system
        return total

    def memory(self) -> float:
        """Resident bytes of it and its children."""
        total = 0
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                total += process.memory_info().rss
        return total


def run() -> None:
    with contextlib.ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sentinella-bench-")))
        stack.enter_context(_host(place))
        receiver = stack.enter_context(_receiver())
        contenders = [stack.enter_context(_ours(place, receiver))]
        for start in (_node_exporter, _collectd, _zabbix, _netdata):
            try:
                contenders.append(stack.enter_context(start(place)))
            except FileNotFoundError as missing:
                print(f"agent     left out: {missing.filename} is not installed")
        _measure(contenders, receiver)


def _measure(contenders: list[Contender], receiver: Receiver) -> None:
    _wait(contenders, SETTLE)
    for one in contenders:
        one.cpu_before = one.cpu()
    receiver.bytes = receiver.requests = 0
    began = time.monotonic()
    _wait(contenders, SECONDS)
    elapsed = time.monotonic() - began
    print(f"agent     {len(psutil.pids())} processes, each {INTERVAL:g} s, for {elapsed:.0f} s")
    ours = contenders[0].cpu() - contenders[0].cpu_before
    for one in contenders:
        spent = one.cpu() - one.cpu_before
        print(
            f"agent     {one.name:24s} {100 * spent / elapsed:6.2f} % of a core"
            f"  {one.resident / 2**20:6.1f} MiB  CPU / ours {spent / ours:5.2f}"
        )
    cycles = max(1, receiver.requests)
    print(f"agent     on the wire {receiver.bytes / cycles:8.0f} bytes a cycle, {cycles} requests")
    print(f"agent     services seen: {receiver.services}")


def _wait(contenders: list[Contender], seconds: float) -> None:
    """Ask who has to be asked each interval, and note the most memory that each has held."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        for one in contenders:
            if one.program.poll() is not None:
                raise RuntimeError(f"{one.name} ended by itself: {one.program.said()}")
            if one.ask is not None:
                one.ask()
            one.resident = max(one.resident, one.memory())
        time.sleep(min(INTERVAL, left))


# -- the host -------------------------------------------------------------------


@contextlib.contextmanager
def _host(place: Path) -> Iterator[None]:
    """600 processes that sleep."""
    programs = place / "usr/bin"
    programs.mkdir(parents=True)
    running: list[subprocess.Popen[bytes]] = []
    try:
        for name in SERVICES:
            (programs / name).write_text(_SLEEPER)
            project = name.split("-")[0]
            command = [
                *(sys.executable, "-I", "-S", str(programs / name)),
                *("--config-file", f"/etc/{project}/{project}.conf"),
            ]
            running += [_sleeping(command) for _ in range(WORKERS)]
        while len(psutil.pids()) < PROCESSES:
            running.append(_sleeping([shutil.which("sleep") or "/bin/sleep", "infinity"]))
        yield
    finally:
        for process in running:
            process.kill()
        for process in running:
            process.wait()


def _sleeping(command: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, stdin=subprocess.DEVNULL)  # noqa: S603


# -- ours -----------------------------------------------------------------------


class Receiver:
    """Takes reports and counts their bytes as they came over the wire."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.bytes = 0
        self.requests = 0
        self.services = 0


@contextlib.contextmanager
def _receiver() -> Iterator[Receiver]:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            length = int(self.headers["Content-Length"])
            body = self.rfile.read(length)
            it.bytes += length
            it.requests += 1
            reports = json.loads(_plain(body, self.headers.get("Content-Encoding", "")))
            many = len(reports["reports"])
            it.services = len(reports["reports"][-1].get("services", []))
            answer = json.dumps({"accepted": many, "duplicates": 0, "rejected": []}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: what is measured is the agent."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    it = Receiver(f"http://127.0.0.1:{server.server_port}")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield it
    finally:
        server.shutdown()
        server.server_close()


def _plain(body: bytes, encoding: str) -> bytes:
    if encoding == "gzip":
        import gzip

        return gzip.decompress(body)
    return body


@contextlib.contextmanager
def _ours(place: Path, receiver: Receiver) -> Iterator[Contender]:
    config = place / "agent.toml"
    config.write_text(
        f'[agent]\nserver = "{receiver.url}"\nkey = "snt_bench_key"\n'
        f'state_dir = "{place / "state"}"\ninterval = {INTERVAL:g}\n'
    )
    config.chmod(0o600)
    with _started(
        place, [sys.executable, "-m", "agent_client.cli", "--config", str(config), "run"]
    ) as program:
        yield Contender("sentinella", program)


@contextlib.contextmanager
def _started(place: Path, command: list[str]) -> Iterator[Program]:
    program = Program(command, place / f"{Path(command[0]).name}.log")
    try:
        yield program
    finally:
        program.terminate()
        try:
            program.wait(20)
        except subprocess.TimeoutExpired:
            program.kill()
            program.wait()


_ports = iter(range(21_000, 32_000))


# -- peers ----------------------------------------------------------------------


def _free_port() -> int:
    """A free port below 32,768, for Zabbix takes no other; each one once."""
    for port in _ports:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise RuntimeError("no port is free")


@contextlib.contextmanager
def _node_exporter(place: Path) -> Iterator[Contender]:
    """As Debian ships it, with processes and systemd left at their defaults; scraped each 10 s."""
    port = _free_port()
    with _started(
        place, ["/usr/bin/prometheus-node-exporter", f"--web.listen-address=127.0.0.1:{port}"]
    ) as program:
        yield Contender("prometheus-node-exporter", program, lambda: _get(port, "/metrics"))


@contextlib.contextmanager
def _collectd(place: Path) -> Iterator[Contender]:
    """The host's plugins and `processes` for each of the 40 services, written to CSV files."""
    watched = "\n".join(f'  ProcessMatch "{name}" "{name}"' for name in SERVICES)
    plugins = "cpu load memory swap df disk interface processes csv"
    config = place / "collectd.conf"
    config.write_text(
        f'Hostname "bench"\nInterval {INTERVAL:g}\nBaseDir "{place}"\n'
        f'PIDFile "{place / "collectd.pid"}"\n'
        + "".join(f"LoadPlugin {plugin}\n" for plugin in plugins.split())
        + f"<Plugin processes>\n{watched}\n</Plugin>\n"
        + f'<Plugin csv>\n  DataDir "{place / "csv"}"\n</Plugin>\n'
    )
    with _started(place, ["/usr/sbin/collectd", "-f", "-C", str(config)]) as program:
        yield Contender("collectd", program)


@contextlib.contextmanager
def _zabbix(place: Path) -> Iterator[Contender]:
    """Asked each 10 s for the host's items, and number, CPU and memory of the 40 services."""
    port = _free_port()
    config = place / "zabbix.conf"
    config.write_text(
        f"LogType=console\nPidFile={place / 'zabbix.pid'}\nServer=127.0.0.1\nListenIP=127.0.0.1\n"
        f"ListenPort={port}\nHostname=bench\nControlSocket={place / 'zabbix.sock'}\n"
        f"PluginSocket={place / 'plugins.sock'}\n"
    )
    items = [
        *("system.cpu.util", "system.cpu.load[all,avg1]", "vm.memory.size[available]"),
        *("system.swap.size[,pfree]", "vfs.fs.size[/,pused]", "vfs.fs.inode[/,pfree]"),
        *("net.if.in[lo]", "net.if.out[lo]", "proc.num[]", "system.uptime"),
        *(
            f"{what}[,,,{name}{more}]"
            for name in SERVICES
            for what, more in (("proc.num", ""), ("proc.cpu.util", ""), ("proc.mem", ",rss"))
        ),
    ]
    items = [item.replace("proc.mem[,,,", "proc.mem[,,sum,") for item in items]

    def ask() -> None:
        for item in items:
            _zabbix_get(port, item)

    with _started(
        place, ["/usr/sbin/zabbix_agent2", "--foreground", "--config", str(config)]
    ) as program:
        yield Contender("zabbix-agent2", program, ask)


def _zabbix_get(port: int, key: str) -> None:
    """One passive check. Protocol: Zabbix 6.0 manual, appendix "Header"."""
    with contextlib.suppress(ConnectionRefusedError):  # while it starts
        connection = socket.create_connection(("127.0.0.1", port), 10)
        with connection:
            data = key.encode()
            connection.sendall(b"ZBXD\x01" + struct.pack("<II", len(data), 0) + data)
            while connection.recv(65_536):
                pass


@contextlib.contextmanager
def _netdata(place: Path) -> Iterator[Contender]:
    """As Debian ships it, apps.plugin included, but each 10 s and with its database in memory."""
    port = _free_port()
    for name in ("cache", "lib", "log"):
        (place / name).mkdir(exist_ok=True)
    config = place / "netdata.conf"
    config.write_text(
        f"[directories]\ncache = {place / 'cache'}\nlib = {place / 'lib'}\nlog = {place / 'log'}\n"
        f"[db]\nupdate every = {INTERVAL:g}\nmode = ram\n"
        f"[web]\nbind to = 127.0.0.1:{port}\n[cloud]\nenabled = no\n[global]\nrun as user = root\n"
    )
    with _started(place, ["/usr/sbin/netdata", "-D", "-c", str(config)]) as program:
        yield Contender("netdata", program)


def _get(port: int, path: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    with contextlib.suppress(ConnectionRefusedError), contextlib.closing(connection):
        connection.request("GET", path)
        connection.getresponse().read()
