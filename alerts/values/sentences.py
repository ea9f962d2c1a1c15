"""What an alert says, as an operator would: data, by what its rule measures.

A sentence names what, where and since when. The fields of a template: `host`, `service`, `subject`
(a mount, a device …), `value` and `limit` with their units, `over` (", averaged over 5 min"),
`since` (" since 14:03 UTC") and `project` (" (nova)"). What no sentence is known for is told by its
measurement and field, so every rule of one's own has words as well.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from string import Formatter
from typing import NamedTuple, Protocol

from alerts.values.wording import number, span


@dataclass(frozen=True)
class Sentence:
    """What is said while it holds, and what when it no longer does."""

    holds: str
    over: str
    #: What its incident is called; empty: as its rule is.
    title: str = ""


_DOWN = Sentence(
    "{service} is down on {host}{since}{project}",
    "{service} is up again on {host}{project}",
    "{service} is down",
)

#: measurement and field -> what is said of it.
OF_METRICS: Mapping[tuple[str, str], Sentence] = {
    ("service", "down"): _DOWN,
    ("service", "up"): _DOWN,
    ("service", "ports_silent"): Sentence(
        "{service} runs on {host} and does not answer{since}{project}",
        "{service} answers again on {host}{project}",
        "{service} does not answer",
    ),
    ("cpu", "percent"): Sentence(
        "The processors of {host} are {value} busy{over} (limit {limit})",
        "The processors of {host} are {value} busy again",
    ),
    ("cpu", "iowait"): Sentence(
        "The processors of {host} wait for disks {value} of the time{over} (limit {limit})",
        "The processors of {host} wait for disks only {value} of the time",
    ),
    ("memory", "percent"): Sentence(
        "The memory of {host} is {value} full{over} (limit {limit})",
        "The memory of {host} is {value} full again",
    ),
    ("swap", "percent"): Sentence(
        "The swap space of {host} is {value} full{over} (limit {limit})",
        "The swap space of {host} is {value} full again",
    ),
    ("disk", "percent"): Sentence(
        "{subject} on {host} is {value} full{over} (limit {limit})",
        "{subject} on {host} is {value} full again",
    ),
    ("disk", "inodes_percent"): Sentence(
        "{subject} on {host} has used {value} of its inodes{over} (limit {limit})",
        "{subject} on {host} has used {value} of its inodes again",
    ),
    ("load", "load_per_core"): Sentence(
        "The load of {host} is {value} for each core{over} (limit {limit})",
        "The load of {host} is {value} for each core again",
    ),
    ("certificate", "seconds_left"): Sentence(
        "The certificate {subject} on {host} ends in {value} (limit {limit})",
        "The certificate {subject} on {host} is good for {value} again",
    ),
    ("openstack_endpoint", "up"): Sentence(
        "The API of {service} does not answer {host}{since}",
        "The API of {service} answers {host} again",
        "The API of {service} does not answer",
    ),
    ("openstack_services", "missing"): Sentence(
        "An API that {host} asks answers without {value} services that it had{since}",
        "The APIs that {host} asks know all their services again",
        "OpenStack services are missing",
    ),
    ("rabbitmq", "up"): Sentence(
        "RabbitMQ does not answer on {host}{since}",
        "RabbitMQ answers again on {host}",
        "RabbitMQ does not answer",
    ),
    ("mariadb", "up"): Sentence(
        "MariaDB does not answer on {host}{since}",
        "MariaDB answers again on {host}",
        "MariaDB does not answer",
    ),
    ("rabbitmq", "alarm_disk"): Sentence(
        "RabbitMQ on {host} takes no messages{since}: its disk is nearly full",
        "RabbitMQ on {host} takes messages again",
        "RabbitMQ takes no messages",
    ),
    ("rabbitmq", "alarm_memory"): Sentence(
        "RabbitMQ on {host} takes no messages{since}: its memory is used up",
        "RabbitMQ on {host} takes messages again",
        "RabbitMQ takes no messages",
    ),
    ("rabbitmq", "partitions"): Sentence(
        "RabbitMQ on {host} is cut off from {value} of its nodes{since}",
        "RabbitMQ on {host} sees its nodes again",
        "RabbitMQ is partitioned",
    ),
    ("mariadb", "cluster_ready"): Sentence(
        "The Galera node {host} serves no queries{since}",
        "The Galera node {host} serves queries again",
        "A Galera node serves nobody",
    ),
    ("mariadb", "connections_percent"): Sentence(
        "MariaDB on {host} has {value} of its connections in use{over} (limit {limit})",
        "MariaDB on {host} has {value} of its connections in use again",
    ),
    ("clock", "synchronised"): Sentence(
        "The clock of {host} is not synchronised{since}",
        "The clock of {host} is synchronised again",
        "A clock is not synchronised",
    ),
    ("memcached", "up"): Sentence(
        "memcached does not answer on {host}{since}",
        "memcached answers again on {host}",
        "memcached does not answer",
    ),
}

#: What a service rule counts, by how it takes it.
OF_SERVICES: Mapping[str, Sentence] = {
    "down": _DOWN,
    "flapping": Sentence(
        "{service} on {host} went down or up {value} times within {window}{project}",
        "{service} on {host} went down or up only {value} times within {window}{project}",
        "{service} goes down and up",
    ),
    "restarts": Sentence(
        "{service} on {host} was restarted {value} times within {window}{project}",
        "{service} on {host} was restarted only {value} times within {window}{project}",
        "{service} restarts again and again",
    ),
}

OF_ANY = Sentence(
    "{what} on {host} is {value}{over} (limit {limit})", "{what} on {host} is {value} again"
)
#: These are true of a state, not of an amount: the other way round they would say the opposite.
_STATES = {
    "down": (">", ">="),
    "ports_silent": (">", ">="),
    "up": ("<", "<="),
    "cluster_ready": ("<", "<="),
    "synchronised": ("<", "<="),
}

_OVER = {
    "avg": "averaged over",
    "min": "the least within",
    "max": "the most within",
    "sum": "in sum within",
    "count": "counted within",
    "rate": "a second within",
    "delta": "from the first to the last value within",
    "stddev": "as standard deviation within",
    "changes": "changes within",
    "p50": "as median of",
    "p90": "as 90th percentile of",
    "p95": "as 95th percentile of",
    "p99": "as 99th percentile of",
}
#: What these give is not the thing itself, of which a sentence could tell how full it is.
_DERIVED = ("count", "rate", "sum", "delta", "stddev", "changes")
_DAY = timedelta(days=1)


class RuleLike(Protocol):
    """What a metric rule says of itself."""

    measurement: str
    field: str
    aggregation: str
    comparison: str
    window: timedelta


class Measured(NamedTuple):
    """What a metric rule looks at, and how."""

    measurement: str
    field: str
    aggregation: str
    comparison: str
    window: timedelta

    @classmethod
    def by(cls, rule: RuleLike) -> Measured:
        return cls(rule.measurement, rule.field, rule.aggregation, rule.comparison, rule.window)

    @property
    def sentence(self) -> Sentence:
        known = OF_METRICS.get((self.measurement, self.field))
        if self.aggregation in OF_SERVICES:
            return OF_SERVICES[self.aggregation]
        if known is None or self.aggregation in _DERIVED:
            return OF_ANY
        ways = _STATES.get(self.field, (">", ">=") if self.field != "seconds_left" else ("<", "<="))
        return known if self.comparison in ways else OF_ANY

    @property
    def is_state(self) -> bool:
        """Whether the number only stands for a state, which is told in words."""
        return bool(self.sentence.title)


class Seen(NamedTuple):
    """One value of it: of what, where, and since when it holds."""

    host: str
    service: str
    subject: str
    value: float
    unit: str
    tags: Mapping[str, str]
    since: datetime | None = None


def holds(measured: Measured, seen: Seen, limit: float, at: datetime) -> str:
    """What is wrong, in one sentence without its stop."""
    return _filled(measured.sentence.holds, _Said(measured, seen, limit, at))


def title(measured: Measured, service: str) -> str:
    """What an incident of it is called; empty: as its rule is."""
    return measured.sentence.title.format(service=service)


def over(measured: Measured, seen: Seen, at: datetime) -> str:
    """That it is over, with its stop."""
    return _filled(measured.sentence.over, _Said(measured, seen, None, at)) + "."


class _Said(NamedTuple):
    """What a template is filled with; no limit where it is over."""

    measured: Measured
    seen: Seen
    limit: float | None
    at: datetime


def _filled(template: str, said: _Said) -> str:
    return template.format_map({name: _WORDS[name](said) for name in _names(template)})


@functools.cache
def _names(template: str) -> tuple[str, ...]:
    """The fields that a template has; a storm says the same sentence thousands of times."""
    return tuple(name for _, name, _, _ in Formatter().parse(template) if name)


def _what(said: _Said) -> str:
    return what(said.measured.measurement, said.measured.field, said.seen.tags)


def _limit(said: _Said) -> str:
    if said.limit is None:
        return ""
    limit = number(said.limit, said.seen.unit)
    return f"at least {limit}" if said.measured.comparison in ("<", "<=") else limit


def _since(said: _Said) -> str:
    return f" since {clock(said.seen.since, said.at)}" if said.seen.since else ""


def _project(said: _Said) -> str:
    project = said.seen.tags.get("project", "")
    return f" ({project})" if project else ""


def what(measurement: str, field: str, tags: Mapping[str, str]) -> str:
    """`backup seconds of s3`: the measurement by its name, and which one of several."""
    which = " ".join(text for key, text in sorted(tags.items()) if text)
    return f"{measurement} {field} of {which}" if which else f"{measurement} {field}"


class ForecastLike(Protocol):
    """What a forecast rule says of itself."""

    measurement: str
    field: str
    target: float | None
    window: timedelta


def forecast(
    rule: ForecastLike, tags: Mapping[str, str], level: float, left: float, unit: str
) -> str:
    """How long it takes; {host} stands for the server."""
    name = _forecast_name(rule, tags)
    target = number(rule.target or 0.0, unit)
    if left <= 0:
        return f"{name} on {{host}} has reached {target}"
    when = number(left, "seconds")
    return (
        f"{name} on {{host}} reaches {target} in {when} at the rate of the last"
        f" {span(rule.window)}; it is at {number(level, unit)}"
    )


def no_forecast(rule: ForecastLike, tags: Mapping[str, str], level: float, unit: str) -> str:
    name = _forecast_name(rule, tags)
    target = number(rule.target or 0.0, unit)
    return f"{name} on {{host}} no longer runs towards {target}; it is at {number(level, unit)}."


def _forecast_name(rule: ForecastLike, tags: Mapping[str, str]) -> str:
    """A disk by its mount; others by what is measured."""
    if rule.measurement == "disk" and tags.get("mount"):
        return tags["mount"]
    return what(rule.measurement, rule.field, tags)


def _over(said: _Said) -> str:
    how = _OVER.get(said.measured.aggregation)
    return f", {how} {span(said.measured.window)}" if how else ""


_WORDS: Mapping[str, Callable[[_Said], str]] = {
    "host": lambda said: said.seen.host,
    "service": lambda said: said.seen.service,
    "subject": lambda said: said.seen.subject,
    "what": _what,
    "value": lambda said: number(said.seen.value, said.seen.unit),
    "limit": _limit,
    "over": _over,
    "window": lambda said: span(said.measured.window),
    "since": _since,
    "project": _project,
}


def clock(since: datetime, at: datetime) -> str:
    """`14:03 UTC`, with the day where that was not today."""
    moment = since.astimezone(UTC)
    if moment.date() == at.astimezone(UTC).date():
        return f"{moment.hour:02}:{moment.minute:02} UTC"
    return f"{moment.day} {moment:%b %H:%M} UTC"
