"""What becomes of services: found, restarted, gone, removed; and what is kept of it."""

from __future__ import annotations

import dataclasses
import glob
import os
import re
import socket
import threading
from pathlib import Path

import pytest

from agent_client.config import Config, LogSource, Service
from agent_client.discovery.evidence import how, uncertain
from agent_client.discovery.host import Container, Host, container_id, unit_of
from agent_client.discovery.logs import log_file_of
from agent_client.discovery.look import Discovery, Found
from agent_client.discovery.nova_manage import NovaManage
from agent_client.discovery.report import discover, forget

from .recorded import RecordedHost

NOVA = "/usr/bin/python3 /usr/bin/nova-compute --config-file=/etc/nova/nova.conf"
UNIT = "/system.slice/nova-compute.service"


class Watched:
    """A host on which nova-compute was installed, and an agent that looks at it."""

    def __init__(self, tmp_path: Path) -> None:
        self.host = RecordedHost(tmp_path / "r")
        self.host.process(1, "/lib/systemd/systemd")
        self.host.file("/usr/bin/nova-compute")
        self.host.unit("nova-compute.service")
        self.config = Config(state_dir=str(tmp_path / "state"), interval=10)
        self.now = 1_790_100_000.0
        self.pauses = 0
        self.discovery = self.agent()

    def agent(self) -> Discovery:
        """An agent as after its start."""
        self.discovery = Discovery(
            self.config, Host(str(self.host.root)), lambda: self.now, self.paused
        )
        self.discovery.remember = True
        return self.discovery

    def paused(self, seconds: float) -> None:
        self.pauses += 1

    def start(self, pid: int = 500, started: float = 100.0, argv: str = NOVA) -> int:
        return self.host.process(pid, argv, cgroup=UNIT, started=started)

    def look(self, seconds: float = 10.0) -> dict[str, Found]:
        self.now += seconds
        self.host.tick(seconds)
        return {found.name: found for found in self.discovery.look()}

    def told(self) -> list[str]:
        changes = [f"{change.level}: {change.text}" for change in self.discovery.changes]
        self.discovery.told(len(changes))
        return changes


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    return Watched(tmp_path)


def test_a_service_that_never_ran_is_not_expected(watched: Watched) -> None:
    assert watched.look() == {}
    assert uncertain(watched.discovery) == [
        "nova-compute has not been seen running, but nova-compute.service is enabled"
    ]
    watched.host.file("/var/log/nova/nova-compute.log", "x")
    assert uncertain(watched.discovery)[0].endswith(
        "is enabled and /var/log/nova/nova-compute.log is there"
    )


def test_what_ran_and_is_gone_is_down_until_it_runs_again(watched: Watched) -> None:
    watched.start()
    assert watched.look()["nova-compute"].state == "up"
    assert watched.told() == ["info: found 1 services: nova-compute."]
    watched.host.kill(500)
    assert watched.look()["nova-compute"].state == "down"
    assert watched.told() == ["error: nova-compute is gone: no process of it runs"]
    assert watched.look()["nova-compute"].state == "down"
    assert watched.told() == []
    watched.start(501, started=100_015)
    again = watched.look()["nova-compute"]
    assert (again.state, again.restarts) == ("up", 1)
    assert watched.told() == ["info: nova-compute runs again after 20 s"]


def test_what_is_down_is_remembered_across_a_restart_of_the_agent(watched: Watched) -> None:
    watched.start()
    watched.look()
    watched.host.kill(500)
    watched.agent()
    found = watched.look()["nova-compute"]
    assert (found.state, found.project, found.unit) == ("down", "nova", "nova-compute.service")
    assert watched.told() == ["error: nova-compute is gone: no process of it runs"]


def test_a_restart_is_seen_also_while_the_agent_was_away(watched: Watched) -> None:
    watched.start()
    watched.look()
    watched.told()
    watched.host.kill(500)
    watched.start(600, started=100_005)
    assert watched.look()["nova-compute"].restarts == 1
    assert watched.told() == ["warning: nova-compute was restarted: its main process is 600 now"]
    watched.host.kill(600)
    watched.start(600, started=100_012)  # the same pid again
    watched.agent()
    assert watched.look()["nova-compute"].restarts == 2
    assert watched.told() == ["warning: nova-compute was restarted: its main process is 600 now"]
    assert watched.look()["nova-compute"].restarts == 2


def test_a_reboot_is_one_event_and_no_restart_of_each_service(watched: Watched) -> None:
    watched.start()
    watched.look()
    watched.told()
    watched.host.kill(500)
    watched.start(77, started=20)
    watched.host.boot("two")
    watched.agent()
    assert watched.look()["nova-compute"].restarts == 0
    assert watched.told() == ["info: the host was restarted"]


def test_one_listing_that_misses_a_service_does_not_make_it_down(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched.start()
    watched.look()
    refresh, looks = watched.discovery.table.refresh, []

    def blind_once(full: bool = True):  # type: ignore[no-untyped-def]
        looks.append(full)
        return {} if len(looks) == 1 else refresh(full)

    monkeypatch.setattr(watched.discovery.table, "refresh", blind_once)
    assert watched.look()["nova-compute"].state == "up"
    assert (len(looks), watched.pauses) == (2, 1)
    assert [change.level for change in watched.discovery.changes] == ["info"]  # that it was found


def test_where_processes_are_hidden_nothing_is_called_down(watched: Watched) -> None:
    watched.start()
    watched.look()
    watched.host.kill(500)
    watched.host.kill(1)  # /proc mounted with hidepid: others' processes are not listed
    found = watched.look()["nova-compute"]
    assert (found.state, found.detail) == (
        "unknown", "processes of other users are hidden (hidepid)",
    )  # fmt: skip
    assert watched.pauses == 0, "a second look would see no more"


def test_a_process_that_ends_at_once_is_no_service(watched: Watched) -> None:
    watched.look()
    watched.host.process(700, "/usr/sbin/haproxy -f /etc/haproxy/haproxy.cfg", started=100_018)
    assert watched.look() == {}
    watched.host.kill(700)
    assert watched.look() == {}
    watched.host.process(701, "/usr/sbin/haproxy -f /etc/haproxy/haproxy.cfg", started=100_038)
    assert watched.look() == {}
    assert watched.look()["haproxy"].state == "up"


def test_a_zombie_is_down(watched: Watched) -> None:
    watched.start()
    watched.look()
    watched.host.process(500, "", comm="nova-compute", state="Z")
    found = watched.look()["nova-compute"]
    assert (found.state, found.detail) == ("down", "1 zombie")


def test_a_removed_package_is_forgotten(watched: Watched) -> None:
    watched.start()
    watched.look()
    watched.host.kill(500)
    watched.look()
    watched.told()
    for path in ("usr/bin/nova-compute", "lib/systemd/system/nova-compute.service",
                 "etc/systemd/system/multi-user.target.wants/nova-compute.service"):  # fmt: skip
        (watched.host.root / path).unlink()
    assert watched.look(400)["nova-compute"].state == "down"
    assert watched.look(400) == {}
    assert watched.told() == [
        "info: nova-compute was removed from this host: it is not expected any more"
    ]


def test_the_operator_may_forget_a_service_while_the_agent_runs(watched: Watched) -> None:
    watched.start()
    watched.look()
    watched.host.kill(500)
    watched.look()
    assert not forget(watched.config, "nova-api")
    assert forget(watched.config, "nova-compute")
    assert watched.look() == {}


def test_what_is_not_to_be_watched_is_not(watched: Watched) -> None:
    watched.start()
    watched.look()
    watched.config = dataclasses.replace(watched.config, unwatched=frozenset(["nova-compute"]))
    watched.agent()
    assert watched.look() == {}
    watched.config = dataclasses.replace(watched.config, unwatched=frozenset(), discovery=False)
    watched.agent()
    assert watched.look() == {}


def test_a_configured_service_takes_the_processes_that_discovery_found(watched: Watched) -> None:
    watched.host.process(800, "/usr/bin/valkey-server 127.0.0.1:6379")
    assert set(watched.look()) == {"valkey-server"}
    watched.config = dataclasses.replace(
        watched.config, services=(Service("cache", "ours", ("valkey-server",)),)
    )
    watched.agent()
    found = watched.look()
    assert {name: (one.state, one.project) for name, one in found.items()} == {
        "cache": ("up", "ours")
    }


def test_a_configured_service_that_never_ran_is_down(watched: Watched) -> None:
    watched.config = dataclasses.replace(
        watched.config, services=(Service("x", "", (), re.compile("never-there")),)
    )
    watched.agent()
    assert watched.look()["x"].state == "down"


def test_workers_that_apache_replaces_are_no_restart(watched: Watched) -> None:
    watched.host.process(900, "/usr/sbin/apache2 -k start")
    for pid in (901, 902):
        watched.host.process(pid, "(wsgi:keystone-pu -k start", ppid=900)
    assert len(watched.look()["keystone"].members) == 2
    watched.host.kill(901)
    watched.host.process(903, "(wsgi:keystone-pu -k start", ppid=900, started=100_011)
    assert watched.look()["keystone"].restarts == 0
    for pid in (902, 903):
        watched.host.kill(pid)
    for pid in (904, 905):
        watched.host.process(pid, "(wsgi:keystone-pu -k start", ppid=900, started=100_025)
    assert watched.look()["keystone"].restarts == 1


def test_one_of_two_main_processes_that_is_replaced_is_a_restart(watched: Watched) -> None:
    watched.start(500)
    watched.start(501, argv=NOVA + " --config-file=/etc/nova/second.conf")
    watched.look()
    watched.host.kill(501)
    watched.start(502, started=100_011, argv=NOVA + " --config-file=/etc/nova/second.conf")
    assert watched.look()["nova-compute"].restarts == 1


def test_a_change_of_the_release_is_an_event(watched: Watched) -> None:
    watched.start()
    old = watched.host.file("/usr/lib/python3/dist-packages/nova-25.2.1.dist-info")
    watched.look()
    assert watched.discovery.facts()["openstack"]["release"] == "Yoga"
    assert watched.told() == ["info: found 1 services: nova-compute. OpenStack Yoga."]
    old.rmdir()
    watched.host.file("/usr/lib/python3/dist-packages/nova-26.2.2.dist-info")
    watched.agent()
    watched.look()
    assert watched.told() == ["warning: OpenStack's release changed from Yoga to Zed"]
    facts = watched.discovery.facts()["openstack"]
    assert facts["projects"] == {"nova": "26.2.2"}
    assert facts["evidence"] == "/usr/lib/python3/dist-packages/nova-26.2.2.dist-info"


def test_a_damaged_memory_is_learnt_anew(watched: Watched) -> None:
    watched.start()
    watched.look()
    path = Path(watched.config.state_dir) / "discovery.json"
    assert path.stat().st_mode & 0o777 == 0o600
    path.write_text("{")
    watched.agent()
    assert watched.look()["nova-compute"].state == "up"


def test_discover_changes_nothing(watched: Watched) -> None:
    watched.start()
    said = discover(watched.config, Host(str(watched.host.root)))
    assert [service["name"] for service in said["services"]] == ["nova-compute"]
    assert said["services"][0]["how"] == [
        f"process 500: {NOVA}",
        "unit nova-compute.service (enabled)",
        "configuration /etc/nova/nova.conf",
    ]
    assert not Path(watched.config.state_dir).exists()


def test_a_log_comes_from_the_file_else_from_the_unit_s_journal(watched: Watched) -> None:
    watched.config = dataclasses.replace(watched.config, levels={"": "error", "nova-api": "info"})
    watched.agent()
    watched.start()
    watched.look()
    assert watched.discovery.sources == (
        LogSource("nova-compute.service", "nova-compute", "error", kind="journal"),
    )
    watched.host.file("/var/log/nova/nova-compute.log", "x")
    watched.host.file("/var/log/nova/nova-manage.log", "x")
    watched.look(400)
    assert watched.discovery.sources == (
        LogSource("/var/log/nova/nova-compute.log", "nova-compute", "error"),
        LogSource("/var/log/nova/*.log", "nova", "error"),
    )


def test_the_log_file_that_a_command_line_names_is_followed(watched: Watched) -> None:
    watched.host.file("/srv/logs/compute.log", "x")
    watched.start(argv=NOVA + " --log-file=/srv/logs/compute.log")
    watched.look()
    assert [source.pattern for source in watched.discovery.sources] == ["/srv/logs/compute.log"]


@pytest.mark.parametrize(
    "named", ["/etc/shadow", "/var/log/../../etc/shadow", "/home/alice/.ssh/id_ed25519", "nova.log"]
)
def test_what_looks_like_no_log_is_not_read_at_the_word_of_a_command_line(named: str) -> None:
    assert log_file_of(["/usr/bin/nova-compute", f"--log-file={named}"]) == ""


def test_a_pattern_in_a_command_line_is_a_name_and_finds_nothing_else(watched: Watched) -> None:
    for name in ("/srv/logs/one.log", "/srv/logs/two.log", "/srv/logs/[ot]*.log"):
        watched.host.file(name, "x")
    watched.start(argv=NOVA + " --log-file=/srv/logs/[ot]*.log")
    watched.look()
    (source,) = watched.discovery.sources
    assert glob.glob(str(watched.host.root) + source.pattern) == [
        f"{watched.host.root}/srv/logs/[ot]*.log"
    ]


def test_a_pattern_in_a_programs_path_is_no_search_of_the_disk(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched.host.file("/a/venv/lib/python3.11/site-packages/nova-26.2.2.dist-info")
    watched.start(argv="/usr/bin/python3 /*/*/bin/nova-compute")
    watched.look()
    assert "openstack" not in watched.discovery.facts()


def test_nova_manage_is_told_no_secret_and_a_wrapper_that_hangs_ends_with_its_children(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, told = tmp_path / "nova-manage", tmp_path / "told"
    program.write_text(f"#!/bin/sh\nenv > {told}\nsleep 3600 &\nwait\n")
    program.chmod(0o755)
    monkeypatch.setenv("SENTINELLA_KEY", "snt_abc_secret")
    monkeypatch.setattr("agent_client.discovery.nova_manage.PROGRAM", str(program))
    asked = NovaManage(Host("/"))
    asked.ask(1000.0)
    process = asked.process
    assert process is not None
    for now in (1010.0, 1031.0):
        assert not asked.hear(now)
    process.wait(20)
    hearing = threading.Thread(target=asked.hear, args=(1032.0,), daemon=True)
    hearing.start()
    hearing.join(20)
    assert not hearing.is_alive(), "the child of the wrapper holds the pipe open"
    assert asked.process is None
    assert not told.exists() or "snt_" not in told.read_text()


def test_the_configuration_s_own_logs_come_first(watched: Watched) -> None:
    own = LogSource("/srv/ours.log", "nova-compute", "debug")
    watched.config = dataclasses.replace(watched.config, logs=(own,))
    watched.agent()
    watched.host.file("/var/log/nova/nova-compute.log", "x")
    watched.start()
    watched.look()
    assert watched.discovery.sources[0] is own
    assert "/var/log/nova/nova-compute.log" not in [
        source.pattern for source in watched.discovery.sources
    ]


@pytest.mark.parametrize(
    ("cgroup", "unit", "container"),
    [
        ("/system.slice/nova-compute.service", "nova-compute.service", ""),
        ("/system.slice/system-ceph\\x2dosd.slice/ceph-osd@3.service", "ceph-osd@3.service", ""),
        ("/user.slice/user-1000.slice/user@1000.service/app.slice/x.service", "", ""),
        ("/user.slice/user-0.slice/session-3.scope", "", ""),
        (f"/system.slice/docker-{'ab' * 32}.scope", "", "ab" * 32),
        (f"/docker/{'ab' * 32}", "", "ab" * 32),
        (f"/machine.slice/libpod-{'cd' * 32}.scope/container", "", "cd" * 32),
        (f"/kubepods/besteffort/pod1f2e/{'ef' * 32}", "", "ef" * 32),
        (f"/kubepods.slice/kubepods-pod1f.slice/cri-containerd-{'ef' * 32}.scope", "", "ef" * 32),
        ("/lxc.payload.aio1_nova_api/system.slice/nova-api-os-compute.service", "", ""),
        ("/machine.slice/machine-web.scope/payload/system.slice/nginx.service", "", ""),
        ("/", "", ""),
    ],
)
def test_a_control_group_names_unit_and_container(cgroup: str, unit: str, container: str) -> None:
    assert (unit_of(cgroup), container_id(cgroup)) == (unit, container)


def test_a_stopped_container_keeps_its_service_expected(watched: Watched) -> None:
    identity = "ab" * 32
    host = watched.discovery.host
    known = {identity: Container(identity, "nova_compute", "kolla/nova-compute:zed")}

    def containers() -> dict[str, Container]:
        host.sees_containers = True
        return dict(known)

    host.containers = containers  # type: ignore[method-assign]
    (watched.host.root / "usr/bin/nova-compute").unlink()
    venv = "/var/lib/kolla/venv/bin"
    watched.host.process(
        500, f"{venv}/python3 {venv}/nova-compute", cgroup=f"/system.slice/docker-{identity}.scope"
    )
    found = watched.look()["nova-compute"]
    assert found.container == "nova_compute"
    watched.host.kill(500)
    assert watched.look()["nova-compute"].state == "down"
    assert watched.look(400)["nova-compute"].state == "down"
    known.clear()
    watched.look(400)
    assert watched.look(400) == {}


def test_a_configured_service_counts_for_the_role_and_has_its_log_found(watched: Watched) -> None:
    watched.config = dataclasses.replace(
        watched.config,
        services=(
            Service("our-compute", "", ("nova-compute",)),
            Service("nova-cert", "", ("nova-cert",)),
        ),
    )
    watched.agent()
    watched.host.file("/var/log/nova/nova-compute.log", "x")
    watched.start()
    found = watched.look()
    assert {name: (one.state, one.project) for name, one in found.items()} == {
        "our-compute": ("up", "nova"), "nova-cert": ("down", "nova"),
    }  # fmt: skip
    assert watched.discovery.role == "compute", "nova-cert never ran here"
    assert watched.discovery.sources[0] == LogSource(
        "/var/log/nova/nova-compute.log", "our-compute"
    )


def test_packages_alone_are_no_cloud(watched: Watched) -> None:
    watched.host.file("/usr/lib/python3/dist-packages/nova-26.2.2.dist-info")
    watched.host.process(800, "/usr/sbin/nginx -g daemon off;")
    assert set(watched.look()) == {"nginx"}
    assert watched.discovery.facts() == {"role": ""}
    assert watched.told() == ["info: found 1 services: nginx."]


def test_nova_manage_is_the_last_resort_and_nobody_waits_for_it(
    watched: Watched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "nova-manage"
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    program.write_text(f"#!/bin/sh\nread word < {gate}\n[ $1 = --version ] && echo 26.2.2\n")
    program.chmod(0o755)
    monkeypatch.setattr("agent_client.discovery.nova_manage.PROGRAM", str(program))
    proc = str(watched.host.root / "proc")
    watched.discovery = Discovery(
        watched.config, Host("/", proc), lambda: watched.now, watched.paused
    )
    watched.discovery.host.names = lambda folder: []  # type: ignore[method-assign]
    monkeypatch.setattr("agent_client.discovery.release._DPKG_STATUS", "/nowhere")
    watched.start()
    watched.look()
    asked = watched.discovery._nova_manage.process
    assert asked is not None
    assert "openstack" not in watched.discovery.facts()
    gate.write_text("go\n")
    asked.wait(30)
    watched.look()
    facts = watched.discovery.facts()["openstack"]
    assert (facts["release"], facts["evidence"]) == ("Zed", f"{program} --version")
    watched.look(400)
    assert watched.discovery._nova_manage.process is None, "once a day is enough"
    assert watched.discovery.facts()["openstack"]["release"] == "Zed"


def test_a_private_database_of_an_application_is_no_service_of_the_host(watched: Watched) -> None:
    private = "/srv/shop/lib/pg/bin/postgres -D /srv/shop/data"
    watched.host.process(800, private)
    watched.host.process(801, "postgres: walwriter", ppid=800)
    assert watched.look() == {}
    watched.host.process(900, private, cgroup="/system.slice/shop-db.service")
    assert {name: len(one.members) for name, one in watched.look().items()} == {"postgresql": 1}
    watched.host.process(950, "/usr/lib/postgresql/15/bin/postgres -D /var/lib/postgresql/15/main")
    watched.host.process(951, "postgres: walwriter", ppid=950)
    assert len(watched.look()["postgresql"].members) == 3


def test_after_a_reboot_services_are_given_time_to_come_up(watched: Watched) -> None:
    watched.start()
    watched.host.process(600, "/usr/sbin/mariadbd")
    watched.look()
    watched.told()
    watched.host.kill(500)
    watched.host.kill(600)
    watched.host.boot("two")
    watched.host.tick(-watched.host.uptime + 20)  # and the agent is among the first to start
    watched.agent()
    assert {found.state for found in watched.look().values()} == {"unknown"}
    assert watched.told() == ["info: the host was restarted"]
    watched.start(700, started=31)
    watched.look()
    found = watched.look()
    assert (found["nova-compute"].state, found["nova-compute"].restarts) == ("up", 0)
    assert found["mariadb"].state == "unknown"
    assert (watched.told(), watched.pauses) == ([], 0)
    assert watched.look(300)["mariadb"].state == "down"
    assert watched.told() == ["error: mariadb is gone: no process of it runs"]


def test_a_service_that_crashes_in_a_loop_is_not_told_of_for_ever(watched: Watched) -> None:
    watched.start()
    watched.look()
    told = watched.told()
    for number in range(1, 40):
        watched.host.kill(499 + number)
        watched.start(500 + number, started=100_010 + 10 * number)
        assert watched.look()["nova-compute"].restarts == number
        told += watched.told()
    assert len(told) == 13
    assert told[-1].endswith("it changes so often that no more of it is told for a while")
    watched.host.kill(539)
    watched.look(3600)
    assert watched.told() == ["error: nova-compute is gone: no process of it runs"]


def test_an_engine_that_hangs_is_asked_once_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with socket.socket(socket.AF_UNIX) as engine:
        engine.bind(str(tmp_path / "run/docker.sock"))
        engine.listen()
        host = Host(str(tmp_path))
        assert host.containers() == {}
        assert any("does not answer" in text for text in host.blind.values())
        engine.accept()[0].close()
        assert host.containers() == {}
        engine.setblocking(False)
        with pytest.raises(BlockingIOError):
            engine.accept()


def test_it_is_said_until_when_a_service_ran(watched: Watched) -> None:
    watched.config = dataclasses.replace(
        watched.config, services=(Service("never", "", ("never",)),)
    )
    watched.agent()
    watched.start()
    watched.look()
    watched.host.kill(500)
    found = watched.look()
    assert how(watched.discovery, found["nova-compute"]) == ["ran here until 2026-09-22 18:00:20Z"]
    assert how(watched.discovery, found["never"]) == ["the configuration names it"]


def test_a_configuration_that_outlives_its_package_keeps_nothing_expected(watched: Watched) -> None:
    watched.host.file("/etc/heat/heat-api-uwsgi.ini")
    watched.host.unit("heat-api.service")
    watched.host.file("/usr/bin/uwsgi_python311")
    watched.host.process(
        500,
        "/usr/bin/uwsgi_python311 --ini /etc/heat/heat-api-uwsgi.ini",
        cgroup="/system.slice/heat-api.service",
    )
    watched.look()
    watched.host.kill(500)
    watched.look()
    (watched.host.root / "lib/systemd/system/heat-api.service").unlink()
    (watched.host.root / "etc/systemd/system/multi-user.target.wants/heat-api.service").unlink()
    watched.look(400)
    assert watched.look(400) == {}


def test_the_release_of_a_service_in_a_root_of_its_own_is_read_there(watched: Watched) -> None:
    inside = watched.host.root / "var/tmp/other"
    (inside / "usr/lib/python3/dist-packages/nova-29.0.2.dist-info").mkdir(parents=True)
    (watched.host.root / "usr").mkdir(exist_ok=True)
    watched.start()
    (watched.host.root / "proc/500/root").symlink_to(inside)
    watched.host.process(600, "/usr/bin/python3 /usr/bin/nova-conductor")
    (watched.host.root / "proc/600/root").symlink_to(watched.host.root)  # sees what we see
    watched.look()
    facts = watched.discovery.facts()["openstack"]
    assert (facts["release"], facts["projects"]) == ("2024.1 Caracal", {"nova": "29.0.2"})
    assert "/proc/500/root/usr/lib/python3/" in facts["evidence"]
    assert watched.discovery._roots() == [str(watched.host.root / "proc/500/root")]
