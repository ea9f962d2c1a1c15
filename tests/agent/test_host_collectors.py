"""Pressure, the system, the clock, guests and hardware, read from what a kernel writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agent_client.collector import Points
from agent_client.collectors.clock import Clock, tracked
from agent_client.collectors.guests import Guest, Guests, guest_of
from agent_client.collectors.pressure import Pressure
from agent_client.collectors.system import System
from agent_client.config import Config
from agent_client.hardware import hardware

QEMU = [
    "/usr/bin/qemu-system-x86_64", "-name", "guest=instance-00000004,debug-threads=on", "-S",
    "-m", "size=524288k", "-smp", "2,sockets=2,cores=1,threads=1",
    "-uuid", "7a1e3b1e-3f0e-4f0a-9d6d-0a1b2c3d4e5f",
]  # fmt: skip


def collected(collector: Any) -> Points:
    points = Points()
    collector.collect(points)
    return points


def test_pressure_is_percent_now_and_seconds_since_boot(tmp_path: Path) -> None:
    for name in ("cpu", "memory", "io"):
        (tmp_path / name).write_text(
            "some avg10=1.50 avg60=0.30 avg300=0.00 total=88000000\n"
            "full avg10=0.25 avg60=0.00 avg300=0.00 total=1500000\n"
        )
    points = collected(Pressure(Config(), str(tmp_path))).points
    assert [point.tags["resource"] for point in points] == ["cpu", "memory", "io"]
    assert points[0].fields == {
        "some_percent": 1.5, "some_seconds": 88, "full_percent": 0.25, "full_seconds": 1.5
    }  # fmt: skip


def test_a_kernel_without_pressure_information_has_none(tmp_path: Path) -> None:
    points = collected(Pressure(Config(), str(tmp_path / "pressure")))
    assert (points.points, points.warnings) == ([], [])


def test_the_system_tells_its_descriptors_against_their_limit(tmp_path: Path) -> None:
    (tmp_path / "sys/fs").mkdir(parents=True)
    (tmp_path / "stat").write_text("cpu 1 2 3\nctxt 99\nprocesses 7\nprocs_blocked 2\n")
    (tmp_path / "uptime").write_text("120.5 200.0\n")
    (tmp_path / "loadavg").write_text("0.1 0.2 0.3 1/294 4711\n")
    (tmp_path / "sys/fs/file-nr").write_text("250\t0\t1000\n")
    (point,) = collected(System(Config(), str(tmp_path))).points
    assert point.fields == {
        "uptime_seconds": 120.5, "tasks": 294, "blocked": 2, "context_switches": 99, "forks": 7,
        "descriptors": 250, "descriptors_limit": 1000, "descriptors_percent": 25,
    }  # fmt: skip
    (tmp_path / "sys/fs/file-nr").write_text(f"250\t0\t{2**63 - 1}\n")
    (point,) = collected(System(Config(), str(tmp_path))).points
    assert "descriptors_limit" not in point.fields


def test_the_kernel_says_whether_somebody_keeps_the_clock() -> None:
    (point,) = collected(Clock(Config())).points
    assert point.fields["synchronised"] in (0, 1)
    assert ("offset_seconds" in point.fields) >= (point.fields["synchronised"] == 1)


def test_chronys_own_words_are_finer() -> None:
    line = (
        "A29FC801,162.159.200.1,4,1700000000.5,-0.000012,0.00001,0.000045,-12.1,0.001,0.02,"
        "0.004,0.0005,64.2,Normal\n"
    )
    assert tracked(line) == {
        "offset_seconds": -0.000012, "error_seconds": 0.000045, "bound_seconds": 0.0025,
        "stratum": 4,
    }  # fmt: skip
    assert tracked(line.replace("Normal", "Not synchronised")) == {}
    assert tracked("506 Cannot talk to daemon\n") == {}


@pytest.mark.parametrize(
    ("argv", "guest"),
    [
        (QEMU, Guest("instance-00000004", "7a1e3b1e-3f0e-4f0a-9d6d-0a1b2c3d4e5f", 512 << 20, 2)),
        (["qemu-kvm", "-name", "web", "-m", "2G"], Guest("web", "", 2 << 30, 1)),
        (["qemu-kvm", "-name", "web", "-m", "64", "-smp", "cpus=4"], Guest("web", "", 64 << 20, 4)),
        (["qemu-system-x86_64", "-S", "-no-user-config", "-machine", "none"], None),
    ],
)
def test_a_guest_is_known_by_its_command_line(argv: list[str], guest: Guest | None) -> None:
    assert guest_of(argv) == guest


def process(proc: Path, pid: int, comm: str, argv: list[str], cpu: int, started: int = 5) -> None:
    folder = proc / str(pid)
    folder.mkdir(exist_ok=True)
    columns = ["S", *["0"] * 10, str(cpu), "0", *["0"] * 4, "9", "0", str(started), "0", "1000"]
    (folder / "stat").write_text(f"{pid} ({comm}) {' '.join(columns)} 0 0\n")
    (folder / "cmdline").write_bytes("\0".join(argv).encode() + b"\0")
    (folder / "io").write_text("rchar: 1\nread_bytes: 4096\nwrite_bytes: 8192\n")


def test_each_guest_has_its_processor_memory_and_traffic(tmp_path: Path) -> None:
    process(tmp_path, 10, "qemu-system-x86", QEMU, cpu=100)
    process(tmp_path, 11, "nginx", ["nginx", "-name", "no guest"], cpu=1)
    collector = Guests(Config(), str(tmp_path))
    first = {point.measurement: point.fields for point in collected(collector).points}
    assert "cpu_percent" not in first["guest"]
    process(tmp_path, 10, "qemu-system-x86", QEMU, cpu=150)
    points = {point.measurement: point for point in collected(collector).points}
    guest = points["guest"]
    assert guest.tags["guest"] == "instance-00000004"
    assert guest.fields["cpu_percent"] > 0
    assert guest.fields["threads"] == 9
    assert (guest.fields["read_bytes"], guest.fields["written_bytes"]) == (4096, 8192)
    assert points["guests"].fields == {"running": 1, "vcpus": 2, "memory": 512 << 20}


def test_hardware_leaves_out_what_nobody_filled_in_and_every_serial_number(tmp_path: Path) -> None:
    for name, text in (
        ("sys_vendor", "Dell Inc."),
        ("product_name", "PowerEdge R740"),
        ("board_name", "Default string"),
        ("product_serial", "ABC123"),
    ):
        (tmp_path / name).write_text(text + "\n")
    (tmp_path / "cpuinfo").write_text("processor : 0\nflags : fpu vmx hypervisor\n")
    assert hardware(str(tmp_path), str(tmp_path / "cpuinfo")) == {
        "vendor": "Dell Inc.", "product": "PowerEdge R740", "virtual": True,
        "virtualization": "vmx",
    }  # fmt: skip
