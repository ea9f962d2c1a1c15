"""RabbitMQ stops: what every service logs of it arrives as events that one can work with."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable

import pytest

from tests.openstack import host
from tests.openstack.conftest import AtWork
from tests.openstack.prepare import Cloud

pytestmark = pytest.mark.openstack

#: Everything that keeps a connection to the broker.
CONNECTED = {
    "nova-conductor", "nova-scheduler", "nova-compute", "neutron-rpc-server",
    "neutron-linuxbridge-agent", "neutron-dhcp-agent", "neutron-l3-agent", "neutron-metadata-agent",
    "cinder-scheduler", "cinder-volume", "heat-engine",
}  # fmt: skip
BROKER = re.compile(r"AMQP server|ECONNREFUSED|Connection refused|MessagingTimeout|unreachable")


def test_the_connection_errors_of_every_service_arrive_with_request_ids_and_whole_tracebacks(
    agent: AtWork, stopped: Callable[[str], float]
) -> None:
    # Agents that wait for an answer when the broker goes give their call up with a traceback:
    # without their server each of them waits at any time.
    before = stopped("neutron-rpc-server")
    agent.wait_for(
        "agents that wait in vain",
        lambda: any("Failed reporting state" in one["message"] for one in agent.events(before)),
        180,
    )
    since = stopped("rabbitmq-server")
    host.order("spawn", "neutron-rpc-server")
    ask_for_work()

    def complaints() -> list[dict]:
        return [event for event in agent.events(since) if BROKER.search(event["message"])]

    agent.wait_for(
        "a connection error of every service",
        lambda: {event["service"] for event in complaints()} >= CONNECTED,
        240,
    )
    agent.wait_for(
        "a request id and a traceback",
        lambda: (
            any(event.get("request_id") for event in complaints())
            and any(
                "Traceback (most recent call last)" in event["message"] for event in complaints()
            )
        ),
        240,
    )
    for event in complaints():
        if event.get("request_id"):
            assert re.fullmatch(r"req-[0-9a-f-]{36}", event["request_id"])
    traced = [event for event in complaints() if "Traceback" in event["message"]]
    assert traced
    for event in traced:
        lines = event["message"].splitlines()
        assert len(lines) > 3
        # One event for one traceback: no line of it still carries the log's own head.
        assert not any(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", line) for line in lines[1:])


def ask_for_work() -> None:
    """Requests that need the broker: they hang and are given up by the services, not awaited."""
    cloud = Cloud()
    servers = cloud.get("http://127.0.0.1:8774/v2.1/servers")["servers"]

    def reboot() -> None:
        try:
            cloud.post(
                f"http://127.0.0.1:8774/v2.1/servers/{servers[0]['id']}/action",
                reboot={"type": "HARD"},
            )
        except (OSError, RuntimeError):
            return  # what it comes to is in the services' logs, and the matter of the test

    threading.Thread(target=reboot, daemon=True).start()
