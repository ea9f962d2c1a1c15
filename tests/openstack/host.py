"""The first process of the cloud's namespaces, and the services that it keeps.

It takes orders on a Unix socket, one JSON object a line: {"do": "stop", "service": "nova-api"}.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.openstack import layer, settings, unitfile

CONTROL = layer.RUN / "control.sock"
_STOP_SECONDS = 25.0
_READY_SECONDS = 120.0


@dataclass(frozen=True)
class Service:
    """One service: by default what its Debian unit of this name says."""

    name: str
    port: int | None = None
    command: list[str] = field(default_factory=list)
    user: str = "root"
    folders: list[str] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    #: One without a port is ready when it consumes this queue of RabbitMQ.
    queue: str = ""
    #: Whether the whole session is told to end, or its first process alone.
    whole_session: bool = False


SERVICES = (
    Service(
        "mariadb", 3306, ["/usr/sbin/mariadbd"], "mysql",
        ["/run/mysqld", "/var/log/mysql", "/var/lib/mysql"],
    ),
    Service(
        "rabbitmq-server", 5672, ["/usr/lib/rabbitmq/bin/rabbitmq-server"], "rabbitmq",
        ["/var/lib/rabbitmq", "/var/log/rabbitmq"], {"ERL_EPMD_ADDRESS": "127.0.0.1"},
        whole_session=True,
    ),
    Service(
        "memcached", 11211,
        ["/usr/bin/memcached", "-m", "64", "-p", "11211", "-u", "memcache", "-l", "127.0.0.1"],
    ),
    Service("keystone", 5000),
    Service(
        "haproxy", 15000,
        ["/usr/sbin/haproxy", "-Ws", "-f", "/etc/haproxy/haproxy.cfg", "-p", "/run/haproxy.pid"],
        folders=["/run/haproxy"],
    ),
    Service("glance-api", 9292),
    Service("placement-api", 8778),
    Service("nova-api", 8774),
    Service("nova-api-metadata", 8775),
    Service("nova-conductor", queue="conductor"),
    Service("nova-scheduler", queue="scheduler"),
    Service("nova-compute", queue="compute"),
    Service("neutron-api", 9696),
    Service("neutron-rpc-server", queue="q-plugin"),
    Service("neutron-linuxbridge-agent"),
    Service("neutron-dhcp-agent", queue="dhcp_agent"),
    Service("neutron-l3-agent", queue="l3_agent"),
    Service("neutron-metadata-agent"),
    Service("cinder-api", 8776),
    Service("cinder-scheduler", queue="cinder-scheduler"),
    Service("cinder-volume", queue="cinder-volume"),
    Service("heat-api", 8004),
    Service("heat-engine", queue="engine"),
)  # fmt: skip
BY_NAME = {service.name: service for service in SERVICES}


class Failed(Exception):
    """What went wrong with a service."""


class Services:
    """The services' processes."""

    def __init__(self) -> None:
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._lock = threading.RLock()

    def start(self, name: str, seconds: float = _READY_SECONDS) -> None:
        """Start a service and return when its port answers. Raises Failed."""
        self.spawn(name)
        self.wait_ready(name, seconds)

    def spawn(self, name: str) -> None:
        service = BY_NAME[name]
        with self._lock:
            if self.is_running(name):
                return
            if service.command:
                started = unitfile.spawn(
                    name, service.command, service.user,
                    folders=service.folders, environment=service.environment,
                )  # fmt: skip
            else:
                started = unitfile.spawn_unit(name, service.environment)
            self._running[name] = started

    def wait_ready(self, name: str, seconds: float = _READY_SECONDS) -> None:
        """Return when the service's port answers. Raises Failed."""
        service = BY_NAME[name]
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if not self.is_running(name):
                raise Failed(f"{name} ended by itself:\n{last_words(name)}")
            if (service.port is None or answers(service.port)) and (
                not service.queue or is_consumed(service.queue)
            ):
                return
            time.sleep(0.2)
        raise Failed(
            f"{name} does not answer ({service.port or service.queue}):\n{last_words(name)}"
        )

    def stop(self, name: str) -> None:
        """Ask it to end; after a while make it."""
        with self._lock:
            process = self._running.pop(name, None)
        if process is None or process.poll() is not None:
            return
        if BY_NAME[name].whole_session:
            os.killpg(process.pid, signal.SIGTERM)
        else:
            process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_SECONDS)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def is_running(self, name: str) -> bool:
        process = self._running.get(name)
        return process is not None and process.poll() is None

    def stop_all(self) -> None:
        for service in reversed(SERVICES):
            self.stop(service.name)


def answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False


def is_consumed(queue: str) -> bool:
    """Whether somebody takes messages from a queue, by RabbitMQ's management API."""
    login = base64.b64encode(f"openstack:{settings.PASSWORD}".encode()).decode()
    request = urllib.request.Request(
        f"http://127.0.0.1:15672/api/queues/%2F/{queue}",
        headers={"Authorization": f"Basic {login}"},
    )
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return bool(json.load(answer).get("consumers"))
    except OSError:
        return False  # no such queue yet


def last_words(name: str) -> str:
    """The end of what a service printed and logged."""
    project = name.split("-")[0]
    told = []
    for path in (unitfile.OUTPUT / f"{name}.out", Path(f"/var/log/{project}/{name}.log")):
        if path.exists():
            told += [f"-- {path}", *path.read_text(errors="replace").splitlines()[-25:]]
    return "\n".join(told)


# -- the namespaces' first process ---------------------------------------------


def main(job: str, upper: Path) -> int:
    """Build the host around this process, then do `job`: "prepare", or "serve" until told."""
    _build(upper)
    child = os.fork()
    if child == 0:
        os._exit(_work(job))
    while True:  # the first process inherits every orphan
        pid, status = os.wait()
        if pid == child:
            return os.waitstatus_to_exitcode(status)


def _build(upper: Path) -> None:
    # The old /proc still shows this process by its number outside.
    (layer.RUN / "pid").write_text(os.readlink("/proc/self"))
    layer.mount("--make-rprivate", "/")
    base = layer.RUN / "base"
    root = layer.ROOT
    layer.mount_base(base, layer.PACKAGES_LAYER / "files", layer.PACKAGES_LAYER / "work")
    layer.mount_over(root, base, upper, upper.with_name(f"{upper.name}-work"))
    layer.mount("-t", "proc", "proc", root / "proc")
    layer.mount("-t", "sysfs", "sysfs", root / "sys")
    layer.mount("--rbind", "/dev", root / "dev")
    layer.mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", root / "run")
    layer.mount("-t", "tmpfs", "-o", "mode=1777", "tmpfs", root / "tmp")
    # What changes outside while the cloud runs is shown as it is: sources, interpreter.
    shown = {layer.REPOSITORY, layer.RUN, Path(sys.prefix).resolve()}
    for place in sorted(shown):
        inside = root / place.relative_to("/")
        inside.mkdir(parents=True, exist_ok=True)
        layer.mount("--bind", place, inside)
    socket.sethostname(settings.HOST)
    os.chroot(root)
    os.chdir(layer.REPOSITORY)
    for folder in ("/run/lock", "/run/netns"):
        Path(folder).mkdir(exist_ok=True)
    Path("/run/lock").chmod(0o1777)
    for words in (
        "link set lo up",
        "link add ext0 type veth peer name ext1",
        "link set ext0 up",
        "link set ext1 up",
    ):
        subprocess.run(["ip", *words.split()], check=True)


def _work(job: str) -> int:
    services = Services()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        if job == "prepare":
            from tests.openstack import prepare

            prepare.prepare(services)
        else:
            _serve(services)
    except Failed as failure:
        sys.stderr.write(f"{failure}\n")
        return 1
    finally:
        services.stop_all()
    return 0


def _serve(services: Services) -> None:
    ended = threading.Event()
    verbs: dict[str, Callable[[str], Any]] = {
        "start": services.start,
        "spawn": services.spawn,
        "ready": services.wait_ready,
        "stop": services.stop,
        "status": lambda _: {one.name: services.is_running(one.name) for one in SERVICES},
        "end": lambda _: ended.set(),
    }

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            order = json.loads(self.rfile.readline())
            try:
                answer = {"answer": verbs[order["do"]](order.get("service", ""))}
            except Exception as error:
                answer = {"error": f"{type(error).__name__}: {error}"}
            self.wfile.write(json.dumps(answer).encode() + b"\n")

    class Server(socketserver.ThreadingUnixStreamServer):
        daemon_threads = True

    CONTROL.unlink(missing_ok=True)
    with Server(str(CONTROL), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        ended.wait()
        server.shutdown()


def order(do: str, service: str = "", seconds: float = 180.0) -> Any:
    """Have the running cloud do something. Raises Failed."""
    if service and service not in BY_NAME:
        raise Failed(f"there is no service {service}; there are {', '.join(BY_NAME)}")
    with socket.socket(socket.AF_UNIX) as link:
        link.settimeout(seconds)
        try:
            link.connect(str(CONTROL))
        except OSError:
            raise Failed("the cloud is not up: python -m tests.openstack up") from None
        link.sendall(json.dumps({"do": do, "service": service}).encode() + b"\n")
        answer = json.loads(link.makefile("rb").readline() or b'{"error": "it ended"}')
    if "error" in answer:
        raise Failed(re.sub(r"^Failed: ", "", answer["error"]))
    return answer["answer"]
