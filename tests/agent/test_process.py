"""Which process is which service, and what it uses."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from agent_client.collector import Points
from agent_client.collectors.process import Process, names
from agent_client.config import Config, Service


@pytest.mark.parametrize(
    ("comm", "cmdline", "service"),
    [
        ("nova-compute", "/usr/bin/python3 /usr/bin/nova-compute --config-file=/etc/nova/nova.conf",
         "nova-compute"),
        ("cinder-schedule", "/usr/bin/python3 /usr/bin/cinder-scheduler --config-file=/etc/x",
         "cinder-scheduler"),
        ("uwsgi_python311", "/usr/bin/uwsgi_python311 --http-socket :8774 --ini "
         "/etc/nova/nova-api-uwsgi.ini", "nova-api"),
        ("uwsgi", "uwsgi /etc/heat/heat-api-uwsgi.ini", "heat-api"),
        ("neutron-linuxbr", "neutron-linuxbridge-agent (/usr/bin/python3 "
         "/usr/bin/neutron-linuxbridge-agent --config-file=/etc/neutron/neutron.conf)",
         "neutron-linuxbridge-agent"),
        ("neutron-server:", "neutron-server: rpc worker (/usr/bin/python3 "
         "/usr/bin/neutron-rpc-server --config-file=/etc/x)", "neutron-rpc-server"),
        ("/usr/bin/python", "/usr/bin/python3 /usr/bin/neutron-rpc-server --config-file=/etc/x",
         "neutron-rpc-server"),
        ("ceilometer-poll", "ceilometer-polling: master process [/usr/bin/ceilometer-polling "
         "--polling-namespaces central]", "ceilometer-polling"),
        ("python3", "/var/lib/kolla/venv/bin/python3 /var/lib/kolla/venv/bin/nova-conductor",
         "nova-conductor"),
        ("apache2", "(wsgi:keystone-public) -k start", "keystone-public"),
        ("beam.smp", "/usr/lib/erlang/erts-13.1.5/bin/beam.smp -W w -sname rabbit@x", "beam.smp"),
        ("mariadbd", "/usr/sbin/mariadbd", "mariadbd"),
        ("postgres", "postgres: walwriter", "postgres"),
        ("python", "python -m agent_client.cli run --config /x", "agent_client.cli"),
    ],
)  # fmt: skip
def test_a_service_is_found_behind_interpreters_titles_and_cut_names(
    comm: str, cmdline: str, service: str
) -> None:
    assert service in names(comm, cmdline.split(" "))


@pytest.mark.parametrize(
    "cmdline",
    [
        "tail -f /var/log/nova/nova-compute.log",
        "grep nova-compute /etc/services",
        "vim nova-compute",
        "/usr/bin/python3 /bin/privsep-helper --config-file /etc/nova/nova-compute.conf",
        "sudo nova-rootwrap /etc/nova/rootwrap.conf nova-compute",
        "ssh nova-compute",
        "/usr/bin/python3 /usr/bin/nova-manage nova-compute",
    ],
)
def test_what_only_mentions_a_service_is_not_it(cmdline: str) -> None:
    argv = cmdline.split(" ")
    assert "nova-compute" not in names(os.path.basename(argv[0])[:15], argv)


class Watching:
    def __init__(self, config: Config, **services: Service) -> None:
        self.collector = Process(dataclasses.replace(config, services=tuple(services.values())))

    def look(self) -> Points:
        points = Points()
        self.collector.collect(points)
        return points


def test_a_service_with_a_long_name_is_up_with_all_its_workers_and_then_down(
    make_config: Callable[..., Config], tmp_path: Path
) -> None:
    script = tmp_path / "neutron-openvswitch-agent"
    script.write_text("import sys\nprint('ready', flush=True)\nsys.stdin.read()\n")
    workers = [
        subprocess.Popen(
            [sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        for _ in range(2)
    ]
    watching = Watching(
        make_config(),
        a=Service("ovs-agent", "neutron", ("neutron-openvswitch-agent",)),
        b=Service("by-line", "", (), re.compile(re.escape(str(script)))),
        c=Service("nova-api", "nova", ("nova-api-that-never-was",)),
    )
    try:
        for worker in workers:
            assert worker.stdout is not None
            worker.stdout.readline()
        first, second = watching.look(), watching.look()
    finally:
        for worker in workers:
            worker.communicate()
    states = {state.name: state for state in second.services}
    assert states["ovs-agent"].state == "up"
    assert states["ovs-agent"].workers == 2
    assert states["ovs-agent"].project == "neutron"
    assert states["by-line"].state == "up"
    assert states["nova-api"].state == "down"
    assert "cpu_percent" not in first.points[0].fields, "there is nothing to compare with yet"
    fields = second.points[0].fields
    assert set(fields) == {"cpu_percent", "memory", "threads", "workers", "descriptors"}
    assert fields["memory"] > 1_000_000
    assert fields["threads"] == 2
    after = {state.name: state.state for state in watching.look().services}
    assert after["ovs-agent"] == "down"


def test_a_zombie_is_down(make_config: Callable[..., Config], tmp_path: Path) -> None:
    program = tmp_path / "zombie-svc"
    shutil.copy("/bin/true", program)
    child = subprocess.Popen([str(program)])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # ended, and not yet collected
    watching = Watching(make_config(), a=Service("svc", "", ("zombie-svc",)))
    state = watching.look().services[0]
    child.wait()
    assert (state.state, state.detail) == ("down", "1 zombie")


def test_an_unreadable_process_table_makes_services_unknown(
    make_config: Callable[..., Config], tmp_path: Path
) -> None:
    watching = Watching(make_config(), a=Service("nova-api", "nova", ("nova-api",)))
    watching.collector._table._proc = str(tmp_path / "nothing")
    points = Points()
    with pytest.raises(OSError, match="No such file"):
        watching.collector.collect(points)
    assert [state.state for state in points.services] == ["unknown"]
