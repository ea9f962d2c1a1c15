"""What is measured of each service, and whether its ports answer."""

from __future__ import annotations

import dataclasses
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent_client.collector import Points
from agent_client.collectors.service import Service as ServiceCollector
from agent_client.config import Config, Service
from agent_client.discovery import ports
from agent_client.discovery.host import Host
from agent_client.discovery.look import Discovery

from .recorded import BOOTED_AT, RecordedHost, engine_of, load


def look(collector: ServiceCollector) -> Points:
    points = Points()
    collector.collect(points)
    return points


def collector_of(root: Path, config: Config | None = None) -> ServiceCollector:
    config = config or Config(state_dir=str(root.parent / "state"))
    return ServiceCollector(config, Discovery(config, Host(str(root)), pause=lambda seconds: None))


def test_a_service_with_a_long_name_is_up_with_all_its_workers_and_then_down(
    make_config: Callable[..., Config], tmp_path: Path
) -> None:
    name = f"neutron-openvswitch-agent-{tmp_path.parent.name}-{tmp_path.name}"
    script = tmp_path / name  # nothing else on this machine is called so
    script.write_text("import sys\nprint('ready', flush=True)\nsys.stdin.read()\n")
    workers = [
        subprocess.Popen(
            [sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        for _ in range(2)
    ]
    services = (
        Service("ovs-agent", "neutron", (name,)),
        Service("by-line", "", (), re.compile(re.escape(str(script)))),
        Service("nova-api", "nova", ("nova-api-that-never-was",)),
    )
    config = dataclasses.replace(make_config(), services=services)
    collector = ServiceCollector(config)
    try:
        for worker in workers:
            assert worker.stdout is not None
            worker.stdout.readline()
        first, second = look(collector), look(collector)
    finally:
        for worker in workers:
            worker.communicate()
    states = {state.name: state for state in second.services}
    assert (states["ovs-agent"].state, states["ovs-agent"].workers) == ("up", 2)
    assert states["ovs-agent"].project == "neutron"
    assert states["by-line"].state == "up"
    assert states["nova-api"].state == "down"
    of_first = {point.tags["service"]: point for point in first.points}
    assert "cpu_percent" not in of_first["ovs-agent"].fields, "nothing to compare with yet"
    point = next(point for point in second.points if point.tags["service"] == "ovs-agent")
    assert point.measurement == "service"
    assert point.tags == {"service": "ovs-agent", "project": "neutron"}
    assert set(point.fields) == {
        "up", "down", "workers", "cpu_percent", "memory", "threads", "descriptors", "restarts",
        "uptime", "ports_listening", "ports_answering", "ports_silent",
    }  # fmt: skip
    assert point.fields["memory"] > 1_000_000
    assert point.fields["threads"] == 2
    assert point.fields["up"] == 1
    assert 0 <= point.fields["uptime"] < 60
    after = look(collector)
    assert {state.name: state.state for state in after.services}["ovs-agent"] == "down"
    gone = next(point for point in after.points if point.tags["service"] == "ovs-agent")
    assert (gone.fields["up"], gone.fields["workers"]) == (0, 0)


def test_an_unreadable_process_table_makes_services_unknown(
    make_config: Callable[..., Config], tmp_path: Path
) -> None:
    host = RecordedHost(tmp_path / "r")
    host.process(1, "/sbin/init")
    host.process(500, "/usr/bin/python3 /usr/bin/nova-compute")
    config = dataclasses.replace(
        make_config(), discovery=True, services=(Service("x", "", ("nowhere",)),)
    )
    collector = collector_of(host.root, config)
    look(collector)
    (host.root / "proc/uptime").unlink()
    points = Points()
    with pytest.raises(OSError, match="No such file"):
        collector.collect(points)
    assert {state.name: state.state for state in points.services} == {
        "nova-compute": "unknown", "x": "unknown",
    }  # fmt: skip


def test_a_controller_is_one_point_a_service(tmp_path: Path) -> None:
    host = load("kolla-controller", tmp_path / "r")
    engine = engine_of("kolla-controller", host.root / "run/docker.sock")
    assert engine is not None
    try:
        points = look(collector_of(host.root))
    finally:
        engine.close()
    assert len(points.points) == len(points.services) >= 35
    assert {state.state for state in points.services} == {"up"}
    conductor = next(one for one in points.services if one.name == "nova-conductor")
    assert (conductor.workers, conductor.started_at) == (12, BOOTED_AT + 100.0)


def test_ports_are_told_by_the_sockets_that_a_service_holds(tmp_path: Path) -> None:
    host = RecordedHost(tmp_path / "r")
    host.process(1, "/sbin/init")
    host.process(500, "/usr/sbin/mariadbd")
    host.process(501, "/usr/sbin/haproxy -Ws -f /etc/haproxy/haproxy.cfg")
    host.listens((3306, 70001, 500), (8774, 70002, 501), (5000, 70003, 501), (22, 70004, 1))
    found = {point.tags["service"]: point.fields for point in look(collector_of(host.root)).points}
    assert found["mariadb"]["ports_listening"] == 1
    assert found["haproxy"]["ports_listening"] == 2
    assert found["haproxy"]["ports_answering"] == 2


def test_without_the_right_to_see_sockets_the_usual_ports_are_taken(tmp_path: Path) -> None:
    host = RecordedHost(tmp_path / "r")
    host.process(1, "/sbin/init")
    host.process(500, "/usr/sbin/mariadbd")
    host.process(502, "/usr/bin/python3 /usr/bin/nova-compute")
    for pid in (500, 502):
        (host.root / f"proc/{pid}/fd").rmdir()
    host.listens((3306, 70001, 1), (9999, 70002, 1))
    found = {point.tags["service"]: point.fields for point in look(collector_of(host.root)).points}
    assert found["mariadb"]["ports_listening"] == 1
    assert "ports_listening" not in found["nova-compute"]
    assert "descriptors" not in found["mariadb"]


def test_a_service_in_a_network_of_its_own_listens_there_and_is_not_asked(tmp_path: Path) -> None:
    host = RecordedHost(tmp_path / "r")
    host.process(1, "/sbin/init")
    host.process(500, "/usr/bin/uwsgi --ini /etc/heat/heat-api-uwsgi.ini")
    host.listens((22, 70001, 1))
    (host.root / "proc/500/net").mkdir()
    (host.root / "proc/500/ns").mkdir()
    (host.root / "proc/500/ns/net").symlink_to("net:[4026532281]")
    (host.root / "proc/500/net/tcp").write_text(
        "  sl  local_address\n   0: 00000000:1F44 00000000:0000 0A 00000000:00000000 00:00000000 "
        "00000000     0        0 81 1 0000000000000000 100 0 0 10 0\n"
    )
    fields = look(collector_of(host.root)).points[0].fields
    assert [fields[name] for name in ("ports_listening", "ports_answering", "ports_silent")] == [
        1, 1, 0,
    ]  # fmt: skip


def test_a_service_whose_api_hangs_is_up_and_says_so(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as hanging:
        port = hanging.getsockname()[1]
        host = RecordedHost(tmp_path / "r")
        host.process(1, "/sbin/init")
        host.process(500, "/usr/bin/etcd")
        host.listens((port, 70001, 500))
        points = look(collector_of(host.root))
    (state,) = points.services
    assert (state.state, state.detail) == ("up", f"port {port} does not answer")
    fields = points.points[0].fields
    assert [fields[name] for name in ("ports_listening", "ports_answering", "ports_silent")] == [
        1, 0, 1,
    ]  # fmt: skip


def test_only_a_service_s_usual_port_is_spoken_to(tmp_path: Path) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as bus,
        socket.create_server(("127.0.0.1", 0)) as own,
    ):
        host = RecordedHost(tmp_path / "r")
        host.process(1, "/sbin/init")
        host.process(500, "/usr/bin/redis-server 127.0.0.1:7000 [cluster]")
        ours = [one.getsockname()[1] for one in (bus, own)]
        host.listens((ours[0], 70001, 500), (ours[1], 70002, 500))
        points = look(collector_of(host.root))
    assert points.points[0].fields["ports_silent"] == 0
    assert points.points[0].fields["ports_listening"] == 2


def test_what_ran_and_is_gone_is_a_number_that_rules_can_watch(
    make_config: Callable[..., Config], tmp_path: Path
) -> None:
    host = RecordedHost(tmp_path / "r")
    host.process(1, "/sbin/init")
    host.process(500, "/usr/bin/python3 /usr/bin/nova-compute")
    never = Service("nova-cert", "nova", ("nova-cert",))
    config = dataclasses.replace(make_config(), discovery=True, services=(never,))
    collector = collector_of(host.root, config)

    def down() -> dict[str, float | None]:
        points = look(collector).points
        return {point.tags["service"]: point.fields.get("down") for point in points}

    assert down() == {"nova-compute": 0, "nova-cert": None}
    host.kill(500)
    assert down() == {"nova-compute": 1, "nova-cert": None}


@pytest.fixture
def answering() -> Iterator[tuple[ports.Listener, list[bytes]]]:
    """A listener that says something to whatever it is asked."""
    asked: list[bytes] = []
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection:
                asked.append(connection.recv(200))
                connection.sendall(b"HTTP/1.0 400 Bad Request\r\n\r\n")

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield ports.Listener("0.0.0.0", server.getsockname()[1], 1), asked  # noqa: S104
    server.shutdown(socket.SHUT_RDWR)
    server.close()
    thread.join(5)


def test_only_what_says_something_answers(
    answering: tuple[ports.Listener, list[bytes]],
) -> None:
    alive, asked = answering
    with socket.create_server(("127.0.0.1", 0)) as hanging, socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        mute = ports.Listener("127.0.0.1", hanging.getsockname()[1], 2)
        shut = ports.Listener("127.0.0.1", closed.getsockname()[1], 3)
        quiet = ports.silent([(alive, "http"), (mute, "http"), (shut, "redis")], seconds=1.0)
    assert quiet == {mute, shut}
    assert asked[0].startswith(b"GET / HTTP/1.0\r\n")
    assert b"sentinella-agent" in asked[0]


def test_the_kernel_s_own_table_of_sockets_is_understood() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_INET6) as six:
        try:
            six.bind(("::1", 0))
        except OSError:
            pytest.skip("no IPv6 here")
        six.listen()
        found = {(one.address, one.port): one for one in ports.listeners("/proc")}
        mine = found["127.0.0.1", server.getsockname()[1]]
        assert ("::1", six.getsockname()[1]) in found
        assert mine.inode in (ports.owned("/proc", os.getpid(), {mine.inode: mine}) or set())
