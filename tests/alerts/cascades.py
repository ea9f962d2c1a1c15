"""Failures of a whole cloud as its agents would tell them: reports with real log lines, in time.

The timings and lines are those of a real OpenStack that was broken on purpose. A cloud of 31
servers stands in one cloud group, with another small cloud beside it. `arrivals` are reports in the
order in which they come in: each up to 30 s late, and every tenth much later than the others.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid5

INTERVAL = 30.0
#: All is over so long after the cause was mended.
OVER = 150.0
#: Reports begin so long before the failure, in seconds.
BEFORE = 60.0
JITTER = 30.0
LATE = (30.0, 60.0)

_CONTEXT = "[None req-23ae6383-a7bb-4835-bb15-b2fa771d041f - - - - - -] "

AMQP = (
    "[55ba895a-5e14-4054-8700-a75944b05ee5] AMQP server on 10.0.0.11:5672 is unreachable:"
    " [Errno 111] ECONNREFUSED. Trying again in {n} seconds.: ConnectionRefusedError: [Errno 111]"
    " ECONNREFUSED"
)
CONDUCTOR = (
    "Lost connection to nova-conductor for reporting service status.: oslo_messaging.exceptions."
    "MessagingTimeout: Timed out waiting for a reply to message ID 0abc0e0dab544ff9acf9031eb114ef68"
)
MYSQL = (
    "DB exception wrapped.: sqlalchemy.exc.OperationalError: (pymysql.err.OperationalError)"
    " (2003, \"Can't connect to MySQL server on '10.0.0.11' ([Errno 111] ECONNREFUSED)\")"
)
REPORTING = "Failed reporting state!: oslo_messaging.exceptions.MessagingTimeout"
TOKEN = (
    "Unable to validate token: Unable to establish connection to http://10.0.0.11:5000/v3/auth/"
    "tokens: HTTPConnectionPool(host='10.0.0.11', port=5000): Max retries exceeded"
)
NO_SPACE = "OSError: [Errno 28] No space left on device: '/var/lib/{n}'"


@dataclass
class Host:
    """A server, what runs on it, and what becomes of it: times are seconds from the failure."""

    name: str
    services: dict[str, str]
    #: service -> when it goes down and when it is back.
    down: dict[str, tuple[float, float]] = field(default_factory=dict)
    #: when, service, level, message
    lines: list[tuple[float, str, str, str]] = field(default_factory=list)
    #: when it sends its last report, and the first one after that
    silent: tuple[float, float] = (1e9, 1e9)
    #: Besides the points, which rules look at; agents of old do without.
    tells_states: bool = False
    #: measurement -> fields while it lasts, tags, from, until
    points: list[tuple[str, dict[str, float], dict[str, str], float, float]] = field(
        default_factory=list
    )

    @property
    def agent(self) -> UUID:
        return uuid5(UUID(int=7), self.name)

    def report(self, number: int, at: float, began: float) -> dict[str, Any]:
        """What it says `at` seconds after the failure, which was at `began` in Unix time."""
        states = {
            name: "down"
            if name in self.down and self.down[name][0] <= at < self.down[name][1]
            else "up"
            for name in self.services
        }
        return {
            "agent": str(self.agent),
            "epoch": "cascade",
            "sequence": number,
            "host": self.name,
            "at": began + at,
            "interval": INTERVAL,
            "version": "2.0.0",
            "services": [
                {"name": name, "project": project, "state": states[name]}
                for name, project in self.services.items()
                if self.tells_states
            ],
            "points": [
                {
                    "measurement": "service",
                    "fields": {
                        "up": int(states[name] == "up"),
                        "down": int(states[name] == "down"),
                    },
                    "tags": {"service": name, "project": project},
                }
                for name, project in self.services.items()
            ]
            + [
                {"measurement": measurement, "fields": fields, "tags": tags}
                for measurement, fields, tags, first, last in self.points
                if first <= at < last
            ],
            "events": [
                {
                    "id": f"{self.name}-{index}",
                    "at": began + when,
                    "level": level,
                    "service": service,
                    "message": message,
                }
                for index, (when, service, level, message) in enumerate(self.lines)
                if at - INTERVAL < when <= at
            ],
        }


def _project(service: str) -> str:
    return {"rabbitmq-server": "rabbitmq"}.get(service, service.split("-")[0])


def _host(name: str, *services: str, tells_states: bool = False) -> Host:
    known = {service: _project(service) for service in services}
    return Host(name, known, tells_states=tells_states)


@dataclass
class Cloud:
    """One OpenStack cloud of 31 servers in one group, and a small one in another group."""

    name: str
    controller: Host
    network: Host
    computes: list[Host]
    others: list[Host]

    @property
    def group(self) -> str:
        return f"Frankfurt {self.name}"

    @property
    def other_group(self) -> str:
        return f"Munich {self.name}"

    @property
    def own(self) -> list[Host]:
        return [self.controller, self.network, *self.computes]

    @property
    def hosts(self) -> list[Host]:
        return [*self.own, *self.others]


def cloud(name: str) -> Cloud:
    control = (
        "rabbitmq-server", "mariadb", "memcached", "keystone", "placement-api", "glance-api",
        "nova-api", "nova-scheduler", "nova-conductor", "neutron-server", "cinder-api",
        "cinder-scheduler", "heat-api", "heat-engine",
    )  # fmt: skip
    compute = ("nova-compute", "neutron-openvswitch-agent", "libvirtd")
    return Cloud(
        name,
        _host(f"ctl1-{name}", *control, tells_states=True),
        _host(f"net1-{name}", "neutron-l3-agent", "neutron-dhcp-agent", "cinder-volume"),
        [_host(f"compute-{number:02}-{name}", *compute) for number in range(1, 30)],
        [
            _host(f"munich-ctl-{name}", *control, tells_states=True),
            *(
                _host(f"munich-{number}-{name}", "nova-compute", "backup-agent")
                for number in (1, 2, 3, 4)
            ),
        ],
    )


@dataclass
class Cascade:
    """A failure: what happens to the cloud, and what must be known of it."""

    name: str
    #: How the name of the cause begins, and the knowledge entry that comes first; "": none must.
    cause: str
    entry: str
    least: int
    break_it: Callable[[Cloud, random.Random, float], None]
    #: The cause is mended so long after the failure, in seconds.
    mended: float = 180.0


def _down(chance: random.Random, back: float, hosts: list[Host], *services: str) -> None:
    """These services go down within two minutes, and are back within one."""
    for host in hosts:
        for service in services:
            if service in host.services:
                host.down[service] = (chance.uniform(5, 120), back + chance.uniform(0, 40))


def _say(chance: random.Random, hosts: list[Host], services: dict[str, str], level: str) -> None:
    """Lines of these services within two minutes, several of each."""
    for host in hosts:
        for service, message in services.items():
            if service in host.services:
                first = chance.uniform(1, 30)
                host.lines += [
                    (first + 15 * n, service, level, message.replace("{n}", str(2 * n + 1)))
                    for n in range(6)
                ]


_RPC = ("nova-compute", "neutron-openvswitch-agent", "neutron-l3-agent", "neutron-dhcp-agent",
        "nova-conductor", "nova-scheduler", "cinder-scheduler", "cinder-volume", "heat-engine",
        "neutron-server")  # fmt: skip


def rabbitmq(cloud: Cloud, chance: random.Random, back: float) -> None:
    cloud.controller.down["rabbitmq-server"] = (0, back)
    _down(chance, back, cloud.own, *_RPC)
    _say(chance, cloud.own, dict.fromkeys(_RPC, AMQP), "error")
    _say(chance, cloud.computes, {"nova-compute": CONDUCTOR}, "warning")


def mariadb(cloud: Cloud, chance: random.Random, back: float) -> None:
    cloud.controller.down["mariadb"] = (0, back)
    _down(chance, back, cloud.own, *_RPC, "keystone", "nova-api", "heat-api", "cinder-api")
    speaking = ("nova-scheduler", "nova-conductor", "nova-api", "cinder-scheduler", "cinder-volume",
                "cinder-api", "heat-engine", "neutron-server", "keystone")  # fmt: skip
    _say(chance, cloud.own, dict.fromkeys(speaking, MYSQL), "error")
    agents = ("neutron-openvswitch-agent", "neutron-l3-agent", "neutron-dhcp-agent")
    _say(chance, cloud.own, dict.fromkeys(agents, REPORTING), "error")
    _say(chance, cloud.computes, {"nova-compute": CONDUCTOR}, "warning")


def keystone(cloud: Cloud, chance: random.Random, back: float) -> None:
    cloud.controller.down["keystone"] = (0, back)
    _down(chance, back, [cloud.controller], "glance-api", "placement-api", "cinder-api")
    _down(chance, back, cloud.own, "nova-compute", "neutron-openvswitch-agent", "nova-api")
    apis = ("glance-api", "placement-api", "cinder-api", "nova-api", "neutron-server")
    _say(chance, [cloud.controller], dict.fromkeys(apis, TOKEN), "critical")


def host(cloud: Cloud, chance: random.Random, back: float) -> None:
    """One compute dies; its services are missed by the API a minute later."""
    gone = cloud.computes[chance.randrange(len(cloud.computes))]
    gone.silent = (0, back)
    for service in ("nova-compute", "neutron-openvswitch-agent"):
        tags = {"service": service, "host": gone.name, "project": _project(service)}
        missed = chance.uniform(55, 75)
        cloud.controller.points += [
            ("openstack_service", {"up": 1}, tags, -1e9, missed),
            ("openstack_service", {"up": 0}, tags, missed, back + 20),
            ("openstack_service", {"up": 1}, tags, back + 20, 1e9),
        ]


def partition(cloud: Cloud, chance: random.Random, back: float) -> None:
    """The network to one cloud group is cut: all but its controller's site are gone at once."""
    for one in cloud.own:
        one.silent = (0, back)


def disk(cloud: Cloud, chance: random.Random, back: float) -> None:
    """The controller's disk runs full: first the database and RabbitMQ, then all who use them."""
    controller = cloud.controller
    controller.points += [
        ("disk", {"percent": 71.0}, {"mount": "/var", "device": "vda2"}, -1e9, 0),
        ("disk", {"percent": 100.0}, {"mount": "/var", "device": "vda2"}, 0, back),
        ("disk", {"percent": 52.0}, {"mount": "/var", "device": "vda2"}, back, 1e9),
    ]
    for service in ("mariadb", "rabbitmq-server"):
        controller.down[service] = (chance.uniform(5, 40), back + chance.uniform(5, 20))
        controller.lines.append((chance.uniform(1, 10), service, "error", NO_SPACE))
    _down(chance, back, cloud.own, *_RPC, "keystone", "nova-api")
    _say(chance, cloud.own, dict.fromkeys(_RPC, AMQP), "error")
    _say(chance, [controller], dict.fromkeys(("nova-api", "keystone"), MYSQL), "error")


CASCADES = (
    Cascade("rabbitmq", "RabbitMQ", "oslo-broker-unreachable", 60, rabbitmq),
    Cascade("mariadb", "MariaDB", "oslo-db-unreachable", 60, mariadb),
    Cascade("keystone", "Keystone", "keystone-unreachable", 55, keystone),
    Cascade("host", "Server compute-", "", 2, host, 270.0),
    Cascade("partition", "Cloud group Frankfurt ", "", 31, partition, 270.0),
    Cascade("disk", "Full disk of ctl1-", "system-disk-full", 60, disk),
)


def add_unrelated(cloud: Cloud, chance: random.Random, until: float) -> set[tuple[str, str]]:
    """Five things that have nothing to do with it: servers, and the titles of their incidents."""
    speaking = [one for one in cloud.computes if one.silent[0] >= until]
    near = chance.sample(speaking, 2) if speaking else [cloud.others[0], cloud.others[4]]
    full, crashed, unknown = chance.sample(cloud.others[1:4], 3)
    busy, short = near
    busy.points.append(("cpu", {"percent": 99.0}, {}, chance.uniform(0, 40), until))
    short.points.append(("memory", {"percent": 93.0}, {}, chance.uniform(0, 40), until))
    full.points.append(("disk", {"percent": 97.0}, {"mount": "/srv"}, chance.uniform(0, 40), until))
    crashed.down["nova-compute"] = (chance.uniform(0, 40), until)
    unknown.down["backup-agent"] = (chance.uniform(0, 40), until)
    return {
        (busy.name, "Busy"),
        (short.name, "Short"),
        (full.name, "Disk filling up"),
        (crashed.name, "nova-compute is down"),
        (unknown.name, "backup-agent is down"),
    }


def arrivals(
    cloud: Cloud, chance: random.Random, began: float, until: float
) -> Iterator[tuple[float, dict[str, Any]]]:
    """Reports with the time of their arrival, in seconds from the failure."""
    for one in cloud.hosts:
        at, number, was_late = -BEFORE + chance.uniform(0, INTERVAL), 0, False
        while at < until:
            number += 1
            if not one.silent[0] <= at < one.silent[1]:
                was_late = not was_late and chance.random() < 0.1 / 0.9
                delay = chance.uniform(0, JITTER) + (chance.uniform(*LATE) if was_late else 0)
                yield at + (0 if at < -INTERVAL else delay), one.report(number, at, began)
            at += INTERVAL
