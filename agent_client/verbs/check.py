"""`sentinella check`: run collectors once and print what they measure."""

from __future__ import annotations

import dataclasses
import time
from typing import Sequence

import click

from agent_client.verbs.common import OK, PROBLEM, say, say_json, session, verb

#: Processor use and rates need something to compare with.
_BASELINE_SECONDS = 1.0
#: A round of questions to a cloud's APIs is waited for, for so long.
_LONGEST_SECONDS = 150.0


@verb("check", short_help="Run collectors once and print what they measure.")
@click.argument("collectors", nargs=-1, metavar="[COLLECTOR]...")
def check(collectors: Sequence[str], as_json: bool) -> int:
    """Run these collectors (or all) once, print what they measure and send nothing.

    Exit code 1 if one of them fails.
    """
    from agent_client.collector import Panel, kept
    from agent_client.collectors import COLLECTORS

    config = session().load()
    kinds = {kind.name: kind for kind in COLLECTORS}
    unknown = [name for name in collectors if name not in kinds]
    if unknown:
        raise click.UsageError(
            f"there is no collector {unknown[0]}; there are {', '.join(sorted(kinds))}"
        )
    wanted = collectors or [name for name in kinds if config.collectors.get(name, True)]
    panel = Panel([kinds[name](config) for name in wanted])
    panel.collect(60.0)
    time.sleep(_BASELINE_SECONDS)
    for collector in panel.collectors:
        collector.settle(_LONGEST_SECONDS)
    seen = panel.collect(60.0)
    points = kept(config.drops, seen.points)
    states = list(panel.states.values())
    if as_json:
        say_json(
            {
                "points": [dataclasses.asdict(point) for point in points],
                "services": [dataclasses.asdict(state) for state in seen.services],
                "collectors": [dataclasses.asdict(state) for state in states],
            }
        )
    else:
        for point in points:
            tags = "".join(f" {name}={value}" for name, value in point.tags.items())
            fields = "  ".join(f"{name} {value:g}" for name, value in point.fields.items())
            say(f"{point.measurement}{tags}: {fields}")
        for service in seen.services:
            detail = f"  {service.detail}" if service.detail else ""
            say(f"service {service.name}: {service.state}, {service.workers} workers{detail}")
        for state in states:
            outcome = "ok" if state.ok else f"FAILS: {state.detail}"
            if state.idle:
                outcome = f"nothing to report: {state.idle}"
            say(f"collector {state.name}: {outcome} ({state.seconds * 1000:.1f} ms)")
    return OK if all(state.ok for state in states) else PROBLEM
