"""The spool: bounded, and nothing lost by a crash."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from agent_client.spool import Spool, SpoolUnusable, peek

Build = Callable[[int], tuple[Mapping[str, Any], int, int]]


def report(size: int = 10, points: int = 3, events: int = 2) -> Build:
    noise = base64.b64encode(os.urandom(size))[:size].decode()  # it must not compress away

    def build(sequence: int) -> tuple[Mapping[str, Any], int, int]:
        return {"sequence": sequence, "noise": noise}, points, events

    return build


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


def test_a_full_spool_drops_the_oldest_and_counts_them(tmp_path: Path) -> None:
    spool = spool_at(tmp_path, max_bytes=50_000)
    for at in range(30):
        spool.append(float(at), report(size=5000), {})
    waiting = spool.waiting()
    assert waiting.bytes <= 50_000
    lost = spool.losses()
    assert lost.reports == 30 - waiting.reports > 0
    assert (lost.points, lost.events) == (3 * lost.reports, 2 * lost.reports)
    assert sequences(spool)[-1] == 30
    assert sequences(spool)[0] == lost.reports + 1


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


def test_drops_are_told_once(tmp_path: Path) -> None:
    spool = spool_at(tmp_path, max_bytes=10_000)
    for at in range(5):
        spool.append(100.0 + at, report(size=4000), {})
    untold = spool.untold_losses()
    assert untold is not None
    lost, since, until = untold
    assert (since, until) == (100.0, 100.0 + lost.reports - 1)
    spool.append(200.0, report(size=1), {}, told=lost)
    told_again = spool.untold_losses()
    assert told_again is None or told_again[1] > until
    assert spool.losses().reports >= lost.reports


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
    assert again.append(1.0, report(), {}) == 1
    assert len(list(tmp_path.glob("spool.db.damaged-*"))) == 1


def test_a_directory_that_cannot_be_used_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SpoolUnusable, match=r"Not a directory|File exists"):
        Spool(str(tmp_path / "file" / "state"))


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
