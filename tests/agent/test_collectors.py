"""What is measured, and that one failing collector stops no other."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from agent_client.collector import Collector, Panel, Points
from agent_client.collectors import COLLECTORS
from agent_client.collectors.cpu import Cpu
from agent_client.collectors.disk import Disk, worth_watching
from agent_client.collectors.own import Own
from agent_client.config import Config
from agent_client.skew import Skew
from agent_client.specs import specs
from agent_client.spool import Spool

FIELDS = {
    "cpu": {"percent", "user", "system", "iowait", "idle", "steal"},
    "load": {"load1", "load5", "load15", "load_per_core"},
    "memory": {"total", "used", "available", "percent"},
    "swap": {"total", "used", "free", "percent"},
    "disk": {"total", "used", "free", "percent", "inodes_percent"},
    "disk_io": {"read_bytes", "write_bytes", "reads", "writes", "busy_ms"},
    "network": {
        f"{way}_{what}" for way in ("received", "sent")
        for what in ("bytes", "packets", "errors", "drops")
    },
}  # fmt: skip
TAGS = {"disk": {"device", "mount", "fstype"}, "disk_io": {"device"}, "network": {"interface"}}


class Steady(Collector):
    name = "steady"

    def collect(self, points: Points) -> None:
        points.add("steady", {"value": 1})


class Broken(Collector):
    name = "broken"

    def collect(self, points: Points) -> None:
        points.add("broken", {"before": 1})
        raise ValueError("no such sensor")


class Hanging(Collector):
    name = "hanging"
    budget = 0.2

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.release = threading.Event()
        self.started = 0

    def collect(self, points: Points) -> None:
        self.started += 1
        self.release.wait(30)
        points.add("hanging", {"value": 1})


def test_every_measurement_has_the_fields_and_tags_that_the_server_knows(
    make_config: Callable[..., Config],
) -> None:
    panel = Panel([kind(make_config()) for kind in COLLECTORS])
    burned = time.process_time() + 0.05
    while time.process_time() < burned:
        pass  # a tick of the clock for the processor's collector to see
    points = panel.collect(20).points
    assert {state.detail for state in panel.states.values()} == {""}
    seen = {point.measurement for point in points}
    assert {"cpu", "load", "memory", "swap", "system", "clock"} <= seen
    for point in points:
        if point.measurement not in FIELDS:
            continue  # with tests of its own
        if point.measurement == "disk":
            assert set(point.fields) | {"inodes_percent", "percent"} == FIELDS["disk"]
        elif point.measurement == "disk_io":
            assert set(point.fields) | {"busy_ms"} == FIELDS["disk_io"]
        else:
            assert set(point.fields) == FIELDS[point.measurement]
        assert set(point.tags) == TAGS.get(point.measurement, set())


def test_percent_of_the_processor_adds_up_to_a_hundred(make_config: Callable[..., Config]) -> None:
    cpu = Cpu(make_config())
    points = Points()
    while not points.points:
        cpu.collect(points)
    fields = points.points[0].fields
    modes = ("user", "system", "iowait", "idle", "steal")
    assert sum(fields[mode] for mode in modes) == pytest.approx(100, abs=0.01)
    assert 0 <= fields["percent"] <= 100


def test_one_broken_collector_stops_no_other(make_config: Callable[..., Config]) -> None:
    config = make_config()
    panel = Panel([Broken(config), Steady(config)])
    points = panel.collect(5).points
    assert [point.measurement for point in points] == ["broken", "steady"]
    assert not panel.states["broken"].ok
    assert "no such sensor" in panel.states["broken"].detail
    assert panel.states["steady"].ok


def test_where_no_thread_can_be_started_the_collector_fails_and_not_the_agent(
    make_config: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    panel = Panel([Steady(make_config())])

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        assert panel.collect(10.0).points == []
    (state,) = panel.states.values()
    assert (state.ok, state.detail) == (False, "can't start new thread")
    assert panel.collect(10.0).points
    assert state.ok


def test_the_agent_tells_how_its_collectors_fare(make_config: Callable[..., Config]) -> None:
    class Broken(Collector):
        name = "broken"
        works = False

        def collect(self, points: Points) -> None:
            if not self.works:
                raise RuntimeError("no such device")
            points.add("broken", {"value": 1})

    config = make_config()
    with contextlib.closing(Spool(config.state_dir, 10**6, 3600)) as spool:
        own, broken = Own(config, spool, Skew()), Broken(config)
        panel = Panel([broken, own])
        own.collectors = panel.states
        told = [p for p in panel.collect(5).points if p.measurement == "agent_collector"]
        assert [(p.tags, p.fields["ok"], p.fields["failures"]) for p in told] == [
            ({"collector": "broken"}, 0, 1)
        ]
        failed = ("warning", "collector broken: RuntimeError: no such device")
        assert panel.take_news() == [failed]
        panel.collect(5)
        assert panel.take_news() == [], "the same failure is told once"
        broken.works = True
        (told,) = [p for p in panel.collect(5).points if p.measurement == "agent_collector"]
        assert told.fields["ok"] == 1
        assert panel.take_news() == [("info", "collector broken works again")]


def test_a_hanging_collector_costs_its_budget_once_and_returns_when_it_can(
    make_config: Callable[..., Config],
) -> None:
    config = make_config()
    hanging = Hanging(config)
    panel = Panel([hanging, Steady(config)])
    assert [point.measurement for point in panel.collect(5).points] == ["steady"]
    began = time.monotonic()
    assert [point.measurement for point in panel.collect(5).points] == ["steady"]
    assert time.monotonic() - began < 0.15, "it is not waited for again"
    assert hanging.started == 1
    assert "busy" in panel.states["hanging"].detail
    hanging.release.set()
    panel._threads["hanging"].join(5)
    found = {point.measurement for point in panel.collect(5).points}
    assert found == {"hanging", "steady"}
    assert panel.states["hanging"].ok


def test_values_that_are_no_numbers_are_left_out() -> None:
    points = Points()
    points.add("a", {"good": 1.5, "nan": float("nan"), "infinite": float("inf"), "none": None})
    points.add("b", {"nan": float("nan")})
    assert [(point.measurement, dict(point.fields)) for point in points.points] == [
        ("a", {"good": 1.5})
    ]


def test_each_filesystem_counts_once_and_pseudo_ones_never() -> None:
    table = """\
proc /proc proc rw 0 0
tmpfs /run tmpfs rw 0 0
/dev/mapper/vg-root / ext4 rw 0 0
/dev/mapper/vg-root /var/lib/bind ext4 rw 0 0
/dev/loop3 /snap/core/1 squashfs ro 0 0
nas:/export /mnt/with\\040blank nfs4 rw 0 0
overlay /var/lib/docker/overlay2/x/merged overlay rw 0 0
"""
    assert [(mount.device, mount.mount, mount.fstype) for mount in worth_watching(table)] == [
        ("mapper/vg-root", "/", "ext4"),
        ("nas:/export", "/mnt/with blank", "nfs4"),
    ]


def test_a_dead_mount_hides_no_other(
    make_config: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dead NFS server cannot be had in a test; a system call that does not return stands in."""
    import os

    answer = threading.Event()
    really = os.statvfs

    def statvfs(path: str) -> os.statvfs_result:
        if path == "/mnt/dead":
            answer.wait(30)
            return really("/")
        return really(path)

    monkeypatch.setattr(os, "statvfs", statvfs)
    table = tmp_path / "mounts"
    table.write_text(f"nas:/x /mnt/dead nfs4 rw 0 0\n/dev/vda1 {tmp_path} ext4 rw 0 0\n")
    disk = Disk(make_config(), mounts=str(table))
    disk.seconds_per_mount = 0.2
    points = Points()
    disk.collect(points)
    assert [point.tags["mount"] for point in points.points] == [str(tmp_path)]
    assert points.warnings == ["/mnt/dead: nfs4 does not answer"]
    answer.set()
    disk._stuck["/mnt/dead"].thread.join(5)
    again = Points()
    disk.collect(again)
    assert len(again.points) == 2


def test_specs_say_what_this_host_is() -> None:
    facts = specs()
    assert facts["memory"]["total"] > 0
    assert facts["processor"]["threads"] >= facts["processor"]["cores"] >= 1
    assert facts["os"]["name"]
    assert facts["boot_at"] < time.time()


def test_a_collector_that_finds_nothing_says_why_until_it_finds_something(
    make_config: Callable[..., Config],
) -> None:
    class Fickle(Collector):
        name = "fickle"
        says: Callable[[Points], None] = staticmethod(lambda points: points.nothing("none is here"))

        def collect(self, points: Points) -> None:
            self.says(points)

    fickle = Fickle(make_config())
    panel = Panel([fickle])
    panel.collect(5)
    assert panel.idle() == {"fickle": "none is here"}
    fickle.says = lambda points: None
    panel.collect(5)
    assert panel.idle() == {"fickle": "none is here"}, "it did not look this time"
    fickle.says = lambda points: points.add("fickle", {"up": 1})
    panel.collect(5)
    assert panel.idle() == {}
    fickle.says = lambda points: points.nothing("none is here")
    panel.collect(5)
    fickle.says = lambda points: points.warn("broken")
    panel.collect(5)
    assert panel.idle() == {}, "what fails is not idle"
