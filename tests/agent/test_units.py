"""One table says what every number is counted in."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from agent_client import units
from agent_client.collector import Panel
from agent_client.collectors import COLLECTORS
from agent_client.config import Config


def test_every_field_that_a_collector_sends_has_its_unit_in_the_table(
    make_config: Callable[..., Config],
) -> None:
    panel = Panel([kind(make_config()) for kind in COLLECTORS])
    burned = time.process_time() + 0.05
    while time.process_time() < burned:
        pass  # a tick of the clock for the processor's collector to see
    points = panel.collect(20).points
    missing = {
        (point.measurement, name)
        for point in points
        for name in point.fields
        if name not in units.FIELDS.get(point.measurement, {})
    }
    assert points
    assert not missing


def test_the_table_knows_only_units_that_pages_can_write() -> None:
    said = {unit for fields in units.FIELDS.values() for unit in fields.values()}
    assert said <= set(units.UNITS)


def test_every_counter_is_a_field_of_the_table() -> None:
    unknown = {
        (measurement, name)
        for measurement, name in units.COUNTERS
        if name not in units.FIELDS.get(measurement, {})
    }
    assert not unknown


@pytest.mark.parametrize(
    ("name", "unit"),
    [
        ("value", "count"),
        ("used_percent", "percent"),
        ("percent", "percent"),
        ("bytes_recv", "bytes"),
        ("spool_bytes", "bytes"),
        ("latency_seconds", "seconds"),
        ("wait_ms", "milliseconds"),
    ],
)
def test_a_field_of_a_plugin_is_told_by_its_name(name: str, unit: str) -> None:
    assert units.unit_of("my.plugin", name) == unit
