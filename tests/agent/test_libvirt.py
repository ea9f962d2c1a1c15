"""Guests as libvirt knows them; what `virsh` printed was recorded from libvirt 9.0 and QEMU 7.2."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import pytest

from agent_client import libvirt
from agent_client.collector import Panel, Points
from agent_client.collectors.guests import MOST_GUESTS, Guests
from agent_client.config import Config
from agent_client.doctor import host
from agent_client.libvirt import CRASHED, OFF, PAUSED, RUNNING, Answer, Domain, Unreachable
from agent_client.libvirt import Watch as RealWatch

from .conftest import until
from .test_host_collectors import QEMU, process

RECORDED = Path(__file__).parent / "libvirt"
UUID = "7a1e3b1e-3f0e-4f0a-9d6d-0a1b2c3d4e5f"  # as in QEMU

Virsh = Callable[[str], None]


class Watch:
    """libvirt as a test has it answer."""

    def __init__(self) -> None:
        self.latest: Answer | None = None
        self.problem = ""
        self._came: Answer | None = None

    def says(self, *domains: Domain, at: float | None = None) -> None:
        self._came = Answer(domains, time.monotonic() if at is None else at)
        self.problem = ""

    def poll(self, now: float) -> Answer | None:
        came, self._came = self._came, None
        self.latest = came or self.latest
        return came

    def settle(self, seconds: float) -> None:
        """Nothing is under way."""


@pytest.fixture
def socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "libvirt-sock-ro"
    path.touch()
    monkeypatch.setattr(libvirt, "_SOCKETS", (str(path),))
    return path


@pytest.fixture
def virsh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, socket: Path) -> Virsh:
    """Puts a program in virsh's place."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")

    def write(script: str) -> None:
        (folder / "virsh").write_text(f"#!/bin/sh\n{script}\n")
        (folder / "virsh").chmod(0o755)

    write("exit 0")
    return write


@pytest.fixture
def watch() -> Watch:
    return Watch()


@pytest.fixture
def guests(tmp_path: Path, watch: Watch, virsh: Virsh) -> Guests:
    (tmp_path / "proc").mkdir()
    return Guests(Config(), str(tmp_path / "proc"), watch)  # type: ignore[arg-type]


def collected(collector: Guests) -> Points:
    points = Points()
    collector.collect(points)
    return points


def running(word: str) -> list[Path]:
    """Processes that have this word on their command line and did not end."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # ended this instant
            if word.encode() in path.read_bytes().split(b"\0"):
                found.append(path)
    return found


def of(points: Points, name: str) -> dict[str, float]:
    (found,) = (p for p in points.points if p.tags.get("guest") == name)
    return dict(found.fields)


def totals(points: Points) -> dict[str, float]:
    (found,) = (p for p in points.points if p.measurement == "guests")
    return dict(found.fields)


def replaying(name: str) -> str:
    return f"cat {RECORDED / name}"


def test_what_is_asked_is_one_command_that_only_reads(virsh: Virsh, tmp_path: Path) -> None:
    virsh(f'for word; do echo "$word" >> {tmp_path}/asked; done')
    assert libvirt.ask() == []
    assert (tmp_path / "asked").read_text().splitlines() == [
        "--readonly",
        "--connect",
        "qemu:///system",
        "list --all --uuid --name; "
        "domstats --raw --nowait --state --cpu-total --balloon --interface --block",
    ]


def test_what_virsh_prints_is_understood(virsh: Virsh) -> None:
    """One runs, one is paused, the process of one was killed, one was never started."""
    virsh(replaying("states.txt"))
    found = {domain.name: domain for domain in libvirt.ask()}
    assert {name: domain.kind for name, domain in found.items()} == {
        "instance-00000004": RUNNING,
        "instance-00000005": PAUSED,
        "instance-00000006": CRASHED,
        "instance-00000007": OFF,
    }
    assert found["instance-00000004"] == Domain(
        "instance-00000004", UUID, 1, 1, 0.46, 45980 * 1024, 48 * 1024**2, 512, 0, 90, 0
    )
    assert found["instance-00000006"].uuid == "21111111-2222-4333-8444-555555555555"
    assert found["instance-00000006"].trouble == "crashed: its process ended by itself"
    assert found["instance-00000005"].received_bytes is None


def test_ids_come_padded_from_before_libvirt_7_and_names_may_hold_anything() -> None:
    said = f"{UUID} it's a 'name'            \n\nDomain: 'it's a 'name''\n  state.state=1\n\n"
    assert libvirt.domains_of(said) == [Domain("it's a 'name'", UUID, 1)]
    assert libvirt.domains_of("\n\n") == []


def test_a_libvirt_of_before_nowait_is_asked_without_it(virsh: Virsh) -> None:
    virsh(
        'case "$4" in *--nowait*)'
        " echo \"error: command 'domstats' doesn't support option --nowait\" >&2; exit 1;; esac\n"
        + replaying("states.txt")
    )
    assert len(libvirt.ask()) > 3


@pytest.mark.parametrize(
    ("complaint", "what", "mend"),
    [
        (
            "error: failed to connect to the hypervisor\n"
            "error: Failed to connect socket to '/var/run/libvirt/libvirt-sock-ro':"
            " Permission denied",
            "does not let",
            "usermod -aG libvirt",
        ),
        (
            "error: authentication unavailable: no polkit agent available to authenticate",
            "does not let",
            "usermod -aG libvirt",
        ),
        (
            "error: failed to connect to the hypervisor\n"
            "error: Failed to connect socket to '/var/run/libvirt/libvirt-sock-ro':"
            " Connection refused",
            "does not run",
            "systemctl start libvirtd",
        ),
        ("error: internal error: out of sorts", "out of sorts", "virsh -r -c qemu:///system list"),
        ("", "without a word", "virsh -r"),
    ],
)
def test_what_libvirt_refuses_is_told_with_its_mend(
    virsh: Virsh, complaint: str, what: str, mend: str
) -> None:
    virsh(f'printf "%s\\n" "{complaint}" >&2; exit 1')
    with pytest.raises(Unreachable) as refused:
        libvirt.ask()
    assert what in refused.value.what
    assert mend in refused.value.mend


def test_a_libvirt_that_hangs_is_left_at_the_deadline_with_all_that_was_started(
    virsh: Virsh, tmp_path: Path
) -> None:
    # the child of the child keeps the pipe open, as one that asks for a password would
    virsh(f"sh -c 'sleep 600; :' {tmp_path} & wait")
    with pytest.raises(Unreachable, match="no answer in 1 s"):
        libvirt.ask(1.0)
    until(lambda: not running(str(tmp_path)))


def test_an_answer_without_end_is_not_kept(virsh: Virsh) -> None:
    virsh("exec yes")
    with pytest.raises(Unreachable, match="more than 4 MiB"):
        libvirt.ask()


def test_while_libvirt_hangs_the_cycles_go_on_and_it_is_asked_less_and_less_often() -> None:
    asked: list[float] = []

    def ask() -> list[Domain]:
        asked.append(now)
        if len(asked) < 8:
            raise Unreachable("libvirt gave no answer in 10 s", "restart what hangs")
        return [Domain("a", UUID, 1)]

    watch, now = RealWatch(ask), 0.0
    answers = []
    while now < 7200:
        answers.append(watch.poll(now))
        watch.settle(20)
        if now == 10:
            assert watch.problem == "libvirt gave no answer in 10 s: restart what hangs"
        now += 10
    waits = [late - early for early, late in pairwise(asked)]
    assert waits[:7] == [60, 120, 240, 480, 600, 600, 600]
    assert set(waits[7:]) == {30}
    assert not watch.problem
    assert watch.latest is not None
    assert sum(answer is not None for answer in answers) > 50


def test_a_fault_of_ours_is_a_problem_that_is_said(caplog: pytest.LogCaptureFixture) -> None:
    def ask() -> list[Domain]:
        raise KeyError("state")

    watch = RealWatch(ask)
    watch.poll(0.0)
    watch.settle(20)
    watch.poll(10.0)
    assert "KeyError" in watch.problem


def test_processes_and_libvirt_make_one_point_of_a_guest(
    guests: Guests, watch: Watch, tmp_path: Path
) -> None:
    process(tmp_path / "proc", 10, "qemu-system-x86", QEMU, cpu=100)
    collected(guests)
    watch.says(
        Domain(
            "instance-00000004", UUID, 1, 1, 12.0, 999, 888,
            read_bytes=1, written_bytes=2, received_bytes=3, sent_bytes=4,
        ),
        Domain("instance-00000005", "0" * 36, 5, 1, memory_limit=5),
    )  # fmt: skip
    process(tmp_path / "proc", 10, "qemu-system-x86", QEMU, cpu=150)
    points = collected(guests)
    guest = of(points, "instance-00000004")
    assert (guest["state"], guest["threads"], guest["vcpus"]) == (RUNNING, 9, 2)
    assert guest["cpu_percent"] > 0
    assert guest["memory_limit"] == 512 << 20  # the process' own word counts each cycle
    traffic = ("read_bytes", "written_bytes", "received_bytes", "sent_bytes")
    assert [guest[name] for name in traffic] == [1, 2, 3, 4]
    assert of(points, "instance-00000005") == {"state": OFF}
    said = totals(points)
    assert (said["running"], said["off"], said["defined"], said["libvirt"]) == (1, 1, 2, 1)
    # until libvirt answers again, and from another source no total comes in between
    between = of(collected(guests), "instance-00000004")
    assert "memory" in between
    assert not {"state", *traffic} & set(between)


def test_a_guest_without_a_visible_process_has_libvirts_numbers(
    guests: Guests, watch: Watch
) -> None:
    watch.says(Domain("a", UUID, 1, cpu_seconds=100.0, memory=7, memory_limit=9), at=1000.0)
    assert "cpu_percent" not in of(collected(guests), "a")
    watch.says(Domain("a", UUID, 1, cpu_seconds=115.0, memory=7, memory_limit=9), at=1030.0)
    said = of(collected(guests), "a")
    assert said == {"state": RUNNING, "cpu_percent": 50.0, "memory": 7, "memory_limit": 9}


@pytest.mark.parametrize(
    ("state", "reason", "kind", "words"),
    [
        (6, 1, CRASHED, "crashed: its kernel panicked"),
        (5, 3, CRASHED, "its process ended by itself"),
        (5, 6, CRASHED, "failed to start"),
        (3, 5, PAUSED, "one of its disks failed"),
        (3, 6, PAUSED, "watchdog"),
    ],
)
def test_a_guest_in_trouble_is_an_event_once_and_so_is_its_recovery(
    guests: Guests, watch: Watch, state: int, reason: int, kind: int, words: str
) -> None:
    name = {CRASHED: "crashed", PAUSED: "paused"}[kind]
    watch.says(Domain("a", UUID, 1, 1))
    assert not collected(guests).news
    watch.says(Domain("a", UUID, state, reason))
    points = collected(guests)
    assert of(points, "a")["state"] == kind
    assert totals(points)[name] == 1
    (news,) = points.news
    assert news.level == "error"
    assert words in news.text
    assert UUID in news.text
    watch.says(Domain("a", UUID, state, reason))
    assert not collected(guests).news
    watch.says(Domain("a", UUID, 1, 1))
    (news,) = collected(guests).news
    assert (news.level, news.text) == ("info", f"guest a ({UUID}) runs again")


@pytest.mark.parametrize(("state", "reason"), [(5, 1), (5, 2), (5, 4), (3, 1), (3, 2), (7, 0)])
def test_what_somebody_wanted_is_no_event(
    guests: Guests, watch: Watch, state: int, reason: int
) -> None:
    watch.says(Domain("a", UUID, 1, 1))
    collected(guests)
    watch.says(Domain("a", UUID, state, reason))
    points = collected(guests)
    assert not points.news
    assert totals(points)["crashed"] == 0


def test_what_crashed_before_the_agent_came_is_counted_and_no_event(
    guests: Guests, watch: Watch
) -> None:
    watch.says(Domain("a", UUID, 6, 1))
    points = collected(guests)
    assert not points.news
    assert totals(points)["crashed"] == 1


def test_of_many_guests_those_in_trouble_come_first_and_the_rest_is_counted(
    guests: Guests, watch: Watch
) -> None:
    domains = [Domain(f"g{n}", f"{n:036d}", 5, 1) for n in range(MOST_GUESTS)]
    domains += [Domain(f"up{n}", f"{900 + n:036d}", 1) for n in range(10)]
    domains += [Domain("broken", "f" * 36, 6, 1)]
    watch.says(*domains)
    points = collected(guests)
    named = [p.tags["guest"] for p in points.points if p.measurement == "guest"]
    assert len(named) == MOST_GUESTS
    assert named[:11] == ["broken", *(f"up{n}" for n in range(10))]
    said = totals(points)
    assert (said["defined"], said["left_out"]) == (MOST_GUESTS + 11, 11)
    watch.says(*(Domain(one.name, one.uuid, 5, 3) for one in domains))
    news = collected(guests).news
    assert len(news) == 21
    assert news[-1].text == f"and {MOST_GUESTS + 11 - 20} further guests changed so"
    assert news[-1].level == "error"
    watch.says(*(Domain(one.name, one.uuid, 1, 1) for one in domains))
    assert {one.level for one in collected(guests).news} == {"info"}, "good news is no error"


def test_a_libvirt_that_fails_is_said_once_and_processes_are_seen_all_the_same(
    guests: Guests, watch: Watch, tmp_path: Path
) -> None:
    process(tmp_path / "proc", 10, "qemu-system-x86", QEMU, cpu=100)
    panel = Panel([guests])
    watch.problem = "libvirt gave no answer in 10 s: restart what hangs"
    seen = [panel.collect(20) for _ in range(3)]
    assert all(totals(points)["libvirt"] == 0 for points in seen)
    assert all("memory" in of(points, "instance-00000004") for points in seen)
    assert panel.take_news() == [("warning", f"collector guests: {watch.problem}")]
    watch.says(Domain("instance-00000004", UUID, 1))
    assert totals(panel.collect(20))["libvirt"] == 1
    assert panel.take_news() == [("info", "collector guests works again")]


def test_what_libvirt_said_long_ago_is_told_no_more(guests: Guests, watch: Watch) -> None:
    watch.says(Domain("a", UUID, 6, 1), at=time.monotonic() - 301)
    said = totals(collected(guests))
    assert said["age_seconds"] > 300
    assert "crashed" not in said


def test_without_libvirt_there_is_nothing_of_it(
    tmp_path: Path, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(libvirt, "_SOCKETS", (str(tmp_path / "none"),))
    (tmp_path / "proc").mkdir()
    assert not collected(Guests(Config(), str(tmp_path / "proc"), watch)).points  # type: ignore[arg-type]
    assert list(host.guests(Config())) == []


def test_doctor_says_who_may_not_ask_libvirt_and_what_is_missing(
    virsh: Virsh, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    virsh(replaying("states.txt"))
    (found,) = host.guests(Config())
    assert found.state == "ok"
    assert found.detail.endswith(" guests")
    virsh('echo "error: Failed to connect socket: Permission denied" >&2; exit 1')
    (found,) = host.guests(Config())
    assert found.state == "warning"
    assert "usermod -aG libvirt" in found.mend
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    (found,) = host.guests(Config())
    assert "virsh is missing" in found.detail
    assert list(host.guests(Config(collectors={"guests": False}))) == []
