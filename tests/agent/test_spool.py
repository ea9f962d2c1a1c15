"""The spool: bounded, and nothing lost by a crash."""

from __future__ import annotations

import base64
import dataclasses
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from agent_client.spool import Losses, Spool, SpoolUnusable, peek

Build = Callable[[int], tuple[Mapping[str, Any], int, int]]


def noise(size: int) -> str:
    """Text that does not compress away."""
    return base64.b64encode(os.urandom(size))[:size].decode()


def report(size: int = 10, points: int = 3, events: Sequence[str] = ("info", "error")) -> Build:
    """A report of about so many bytes, with so many points and events of these levels."""
    share = max(1, size // (points + len(events) or 1))

    def build(sequence: int) -> tuple[Mapping[str, Any], int, int]:
        said: dict[str, Any] = {"sequence": sequence}
        said["points"] = [{"measurement": noise(share)} for _ in range(points)]
        said["events"] = [{"level": level, "message": noise(share)} for level in events]
        return said, points, len(events)

    return build


def contents(spool: Spool) -> list[dict[str, Any]]:
    return [json.loads(stored.json()) for stored in spool.oldest(10_000, 10**9)]


def size_on_disk(path: Path) -> int:
    return sum(file.stat().st_size for file in path.glob("spool.db*") if "shm" not in file.name)


def spool_at(path: Path, **bounds: Any) -> Spool:
    """A spool on the morning of 1970, where these tests live."""
    return Spool(str(path), clock=lambda: 100.0, **bounds)


def sequences(spool: Spool) -> list[int]:
    return [stored.sequence for stored in spool.oldest(10_000, 10**9)]


def test_what_is_stored_is_there_after_reopening(tmp_path: Path) -> None:
    spool = spool_at(tmp_path)
    spool.append(1.0, report(), {"file:a": "10"})
    spool.close()
    again = spool_at(tmp_path)
    assert sequences(again) == [1]
    assert again.positions() == {"file:a": "10"}
    assert again.epoch == spool.epoch


def test_a_sequence_is_never_given_twice(tmp_path: Path) -> None:
    spool = spool_at(tmp_path)
    first = spool.append(1.0, report(), {})
    spool.acknowledge([first])
    spool.close()
    assert spool_at(tmp_path).append(2.0, report(), {}) == first + 1


def test_a_report_that_cannot_be_built_moves_no_position(tmp_path: Path) -> None:
    spool = spool_at(tmp_path)

    def broken(sequence: int) -> tuple[Mapping[str, Any], int, int]:
        return {"value": float("nan")}, 1, 0

    with pytest.raises(ValueError, match="not JSON compliant"):
        spool.append(1.0, broken, {"file:a": "10"})
    assert spool.positions() == {}
    assert spool.append(2.0, report(), {}) == 1


def test_a_full_spool_drops_the_oldest_points_first_and_counts_them(tmp_path: Path) -> None:
    spool = spool_at(tmp_path, max_bytes=60_000)
    for at in range(30):
        spool.append(float(at), report(size=5000, points=4, events=["warning"]), {})
    lost = spool.losses()
    assert 0 < lost.points < 120
    assert (lost.reports, lost.events) == (0, 0), "there were points enough"
    said = contents(spool)
    without = lost.points // 4
    assert [report["sequence"] for report in said] == list(range(1, 31))
    assert all("points" not in report for report in said[:without])
    assert all(len(report["points"]) == 4 for report in said[without:])
    assert all(len(report["events"]) == 1 for report in said)


def test_events_go_by_level_and_critical_ones_last(tmp_path: Path) -> None:
    spool = spool_at(tmp_path, max_bytes=60_000)
    levels = ["critical", "error", "warning", "info", "debug"]
    for at in range(60):
        spool.append(float(at), report(size=5000, points=1, events=levels), {})
    lost = spool.losses()
    kept = [event["level"] for report in contents(spool) for event in report["events"]]
    assert lost.points >= 59, "all but what came last"
    assert lost.debug >= lost.info >= lost.warning >= lost.error > lost.critical
    assert lost.debug >= 59
    assert lost.events == sum(getattr(lost, level) for level in levels)
    for level in levels:
        assert kept.count(level) == 60 - getattr(lost, level)
    assert f"{lost.debug} debug" in lost.told()


def test_a_report_of_which_nothing_is_left_is_gone(tmp_path: Path) -> None:
    spool = spool_at(tmp_path, max_bytes=60_000)
    for at in range(60):
        spool.append(float(at), report(size=5000, points=3, events=[]), {})
    lost = spool.losses()
    assert lost.points == 3 * lost.reports > 0
    assert sequences(spool) == list(range(lost.reports + 1, 61))


def test_what_is_left_between_dropped_reports_stays_within_what_the_server_remembers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent_client.spool._MOST_GAPS", 5)
    spool = spool_at(tmp_path, max_bytes=260_000)
    for at in range(100):
        events = ["critical"] if at % 2 else []
        spool.append(float(at), report(size=4000 if at % 2 else 2000, points=2, events=events), {})
    kept = sequences(spool)
    gaps = sum(after - before > 1 for before, after in itertools.pairwise(kept))
    lost, said = spool.losses(), contents(spool)
    assert 0 < gaps <= 5
    assert lost.points + sum(len(one.get("points", [])) for one in said) == 200
    assert lost.events + sum(len(one.get("events", [])) for one in said) == 50
    assert lost.reports == 100 - len(kept)
    assert spool.waiting().reports == len(kept)


def test_the_bound_holds_for_what_is_on_the_disk(tmp_path: Path) -> None:
    bound = 400_000
    spool = spool_at(tmp_path, max_bytes=bound)
    largest = 0
    for at in range(400):
        spool.append(float(at), report(size=4000 + 37 * (at % 50)), {})
        largest = max(largest, size_on_disk(tmp_path))
    assert bound * 0.7 < largest <= bound


def test_what_is_under_way_is_left_alone(tmp_path: Path) -> None:
    spool = spool_at(tmp_path, max_bytes=60_000)
    for at in range(6):
        spool.append(float(at), report(size=5000), {})
    under_way = spool.oldest(2, 10**6)
    for at in range(6, 40):
        spool.append(float(at), report(size=5000), {})
    assert [stored.json() for stored in spool.oldest(2, 10**6)] == [
        stored.json() for stored in under_way
    ]
    spool.acknowledge([stored.sequence for stored in under_way])
    spool.release()
    lost, said = spool.losses(), contents(spool)
    assert lost.points + sum(len(report.get("points", [])) for report in said) == 3 * 38


def test_specs_that_are_dropped_are_asked_for_again(tmp_path: Path) -> None:
    spool = spool_at(tmp_path, max_bytes=60_000)
    spool.append(0.0, lambda sequence: ({"specs": {"kernel": noise(3000)}, "points": []}, 1, 0), {})
    assert not spool.specs_lost
    for at in range(40):
        spool.append(float(at), report(size=5000), {})
    assert spool.specs_lost


def test_the_counted_size_is_the_stored_size(tmp_path: Path) -> None:
    spool = spool_at(tmp_path, max_bytes=30_000)
    for at in range(20):
        spool.append(float(at), report(size=3000), {})
    spool.acknowledge(sequences(spool)[:2])
    spool.refuse(sequences(spool)[0])
    counted = spool.waiting()
    spool.close()
    assert spool_at(tmp_path, max_bytes=30_000).waiting() == counted


def test_what_is_too_old_is_dropped(tmp_path: Path) -> None:
    now = 1_000_000.0
    spool = Spool(str(tmp_path), max_age=3600.0, clock=lambda: now)
    spool.append(now - 5000, report(), {})
    spool.append(now - 10, report(), {})
    spool.append(now, report(), {})
    assert sequences(spool) == [2, 3]


def test_drops_are_told_once_and_exactly(tmp_path: Path) -> None:
    spool = spool_at(tmp_path, max_bytes=30_000)
    told = Losses()
    for at in range(40):
        untold = spool.untold_losses()
        if untold is not None:
            lost, since, until = untold
            assert 100.0 <= since <= until < 100.0 + at
            told = Losses(
                **{
                    name: number + getattr(told, name)
                    for name, number in dataclasses.asdict(lost).items()
                }
            )
        spool.append(100.0 + at, report(size=4000), {}, told=untold[0] if untold else None)
    last = spool.untold_losses()
    assert spool.losses().points > told.points > 0
    assert last is not None
    assert told.points + last[0].points == spool.losses().points
    assert told.events + last[0].events == spool.losses().events


@pytest.mark.parametrize("damage", ["not a database", "torn"])
def test_a_damaged_file_is_set_aside_and_a_new_epoch_begins(tmp_path: Path, damage: str) -> None:
    spool = spool_at(tmp_path)
    for at in range(200):
        spool.append(float(at), report(size=3000), {})
    spool.close()
    path = tmp_path / "spool.db"
    if damage == "torn":
        with path.open("r+b") as file:
            file.seek(4096)
            file.write(os.urandom(200_000))
    else:
        path.write_bytes(b"rubbish" * 1000)
    again = spool_at(tmp_path)
    assert again.began_anew
    assert again.epoch != spool.epoch
    assert again.append(1.0, report(), {}) not in range(1, 1 + again.saved)
    assert len(list(tmp_path.glob("spool.db.damaged-*"))) == 1


def test_what_a_damaged_file_still_holds_is_saved(tmp_path: Path) -> None:
    spool = spool_at(tmp_path)
    for at in range(200):
        spool.append(float(at), report(size=3000), {f"file:{at}": "10"})
    spool.acknowledge([1, 2, 3])
    before = {stored.sequence: stored.json() for stored in spool.oldest(1000, 10**9)}
    positions = spool.positions()
    spool.close()
    with (tmp_path / "spool.db").open("r+b") as file:
        file.seek(300_000)
        file.write(os.urandom(50_000))
    again = spool_at(tmp_path)
    assert again.began_anew
    after = {stored.sequence: stored.json() for stored in again.oldest(1000, 10**9)}
    assert again.saved == len(after)
    assert 150 < len(after) < 197
    assert all(before[sequence] == text for sequence, text in after.items())
    assert again.positions().items() <= positions.items()
    assert again.sent() == 3
    assert again.append(1.0, report(), {}) == 201


def test_a_directory_that_cannot_be_used_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SpoolUnusable, match=r"Not a directory|File exists"):
        Spool(str(tmp_path / "file" / "state"))


def test_nobody_else_reads_what_waits(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        spool = spool_at(tmp_path)
        spool.append(1.0, report(), {})
        files = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.glob("spool.db*")}
    finally:
        os.umask(before)
    assert files == dict.fromkeys(("spool.db", "spool.db-wal", "spool.db-shm"), 0o600)
    spool.close()


def test_a_spool_in_the_making_holds_nothing_yet(tmp_path: Path) -> None:
    (tmp_path / "spool.db").touch()
    assert peek(str(tmp_path)) is None


def test_the_spool_can_be_read_beside_a_running_agent(tmp_path: Path) -> None:
    assert peek(str(tmp_path)) is None
    spool = spool_at(tmp_path)
    spool.append(7.0, report(), {})
    seen = peek(str(tmp_path))
    assert seen is not None
    assert (seen[0].reports, seen[0].oldest_at, seen[2]) == (1, 7.0, 0)


_WRITER = """
import sys
import time
from agent_client.spool import Spool
spool = Spool(sys.argv[1])
while True:
    build = lambda n: ({"n": n, "pad": "x" * 5000}, 1, 1)
    sequence = spool.append(time.time(), build, {"file:a": "?"})
    spool.store_positions({"file:a": str(sequence)})
    print(sequence, flush=True)
"""


def test_what_was_stored_before_a_kill_is_there_afterwards(tmp_path: Path) -> None:
    """kill -9 at many moments: all that was said to be stored is there, in an unbroken order."""
    stored = 0
    for turn in range(4):
        writer = subprocess.Popen(
            [sys.executable, "-c", _WRITER, str(tmp_path)],
            stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2],
        )  # fmt: skip
        assert writer.stdout is not None
        for _ in range(5 + 7 * turn):
            stored = int(writer.stdout.readline())
        writer.kill()
        said = writer.stdout.read().split()
        writer.wait()
        stored = int(said[-1]) if said else stored
        spool = spool_at(tmp_path)
        assert not spool.began_anew
        found = sequences(spool)
        assert found == list(range(1, found[-1] + 1))
        assert found[-1] >= stored
        assert int(spool.positions()["file:a"].replace("?", str(stored))) >= stored
        texts = [json.loads(item.json())["n"] for item in spool.oldest(10, 10**6)]
        assert texts == found[: len(texts)]
        spool.close()
