"""What is compared when causes are looked for: all that could be one, and no more than that."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta

import pytest

from alerts.lifecycle import correlation, external, gathering, topology
from alerts.lifecycle.correlation import Accusation, Kind, Place, Signal
from alerts.models import Alert, Severity
from metrics.events import TooMuchToSearch
from tests.alerts.builders import MINUTE, NOON, make_rule, make_server
from tests.alerts.test_breaches import read


def foreign(number: int, service: str) -> external.Statement:
    return external.Statement(
        origin="alertmanager", names={"n": number}, severity=Severity.ERROR, resource="web-1",
        service=service, subject=f"{number}", title="Slow", text="It is slow.",
    )  # fmt: skip


def test_what_other_tools_send_in_masses_hides_nothing_of_ours(acme, monkeypatch):
    monkeypatch.setattr(gathering, "MOST_ALERTS", 5)
    read(make_rule(measurement="rabbitmq", field="up"), make_server("ctl-1"), 90, NOON)
    mine = Alert.objects.get()
    external.accept([foreign(number, "shop") for number in range(20)], NOON + MINUTE)
    external.accept([foreign(20, "Openstack/rabbitmq-server")], NOON + MINUTE)
    external.accept([foreign(number, "shop") for number in range(30, 50)], NOON + MINUTE)
    rows = gathering._stored()
    assert mine.pk in {row.key for row in rows}
    assert [row.service for row in rows if row.key != mine.pk] == ["Openstack/rabbitmq-server"]


def names():
    for component in topology.COMPONENTS:
        for given in component.services:
            yield given.removesuffix("*").removesuffix("-")
            if given.endswith("*"):
                yield given.removesuffix("*").removesuffix("-") + "-x"


@pytest.mark.parametrize("prefix", ["", "host/"])
def test_no_name_of_a_component_is_left_out(acme, prefix):
    wanted = {prefix + one for one in names() if topology.component_of(prefix + one)}
    assert len(wanted) > 60
    external.accept([foreign(n, name) for n, name in enumerate(sorted(wanted))], NOON)
    assert {row.service for row in gathering._stored()} == wanted


def test_a_symptom_is_compared_with_what_is_on_its_own_host_and_not_with_a_thousand_others(
    monkeypatch,
):
    many = 200
    places = {pk: Place(0, timedelta(), timedelta(seconds=10)) for pk in range(many)}
    fleet = correlation.Fleet(places, {"libvirt": frozenset(places)}, {})
    signals = [
        Signal(offset + pk, Kind.SERVICE, pk, pk, component, NOON, is_critical=True)
        for offset, component in ((0, "libvirt"), (many, "nova-compute"))
        for pk in range(many)
    ]
    accused = [Accusation(pk, "nova-compute", ("libvirt",), "entry", NOON, 1) for pk in range(many)]
    asked: Counter[int] = Counter()
    explains = correlation._Correlation._explains

    def counted(self, one, signal):
        asked[signal.key] += 1
        return explains(self, one, signal)

    monkeypatch.setattr(correlation._Correlation, "_explains", counted)
    gathered = correlation.gather(signals, accused, fleet)
    assert sum(len(one.members) for one in gathered) == 2 * many
    assert max(asked.values()) <= 12


def test_a_log_that_takes_too_long_to_look_through_keeps_no_alert_back(acme, monkeypatch):
    asked = []

    def slow(*given):
        asked.append(given)
        raise TooMuchToSearch

    monkeypatch.setattr(gathering.events, "sorts", slow)
    read(make_rule(measurement="rabbitmq", field="up"), make_server("ctl-1"), 90, NOON)
    assert asked
    assert Alert.objects.get().incident.resolved_at is None


def test_what_is_only_accused_is_not_compared_with_all_the_others(monkeypatch):
    many = 300
    places = {pk: Place(0, timedelta(), timedelta(seconds=10)) for pk in range(many)}
    fleet = correlation.Fleet(places, {"libvirt": frozenset(places)}, {})
    signals = [
        Signal(pk, Kind.SERVICE, pk, pk, "nova-compute", NOON, is_critical=True)
        for pk in range(many)
    ]
    accused = [Accusation(pk, "nova-compute", ("libvirt",), "entry", NOON, 1) for pk in range(many)]
    asked = []
    lacks = correlation._Correlation._lacks
    monkeypatch.setattr(
        correlation._Correlation, "_lacks", lambda *given: asked.append(1) or lacks(*given)
    )
    gathered = correlation.gather(signals, accused, fleet)
    assert {one.cause.what for one in gathered} == {"libvirt"}
    assert len(gathered) == many
    assert len(asked) <= many
