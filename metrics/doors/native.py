"""The new agent's door: `agent_client.wire.Report` as JSON.

The body is one report, a list of them, or `{"reports": […]}`. Whatever can't be taken is named in
a reject of its own; one bad point does not spoil its report, nor one bad report its request.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from agent_client import wire
from metrics.batch import Batch, Event, Point, Report, State, Tags, clean
from metrics.doors import body as body_of
from metrics.events import joined_key
from sentinel_site.kit.problems import Problem

LARGEST_VALUE = 1e100
LATEST = 32_503_680_000.0  # the year 3000
MAX_HOST = 255
MAX_SPECS_DEPTH = 6
MAX_SPECS_ITEMS = 2_000
#: Characters of all texts together; an agent's own have a few thousand.
MAX_SPECS_TEXT = 128 * 1024
LONGEST_INTERVAL = 86_400.0


class NotReports(Problem):
    status, code, title = 400, "not-reports", "The body holds no reports"


class TooManyReports(Problem):
    status, code, title = 413, "too-many-reports", "The request has too many reports"


class _Refused(Exception):
    """Why one item is not taken."""

    def __init__(self, item: str, code: str, detail: str) -> None:
        super().__init__(detail)
        self.item = item
        self.code = code
        self.detail = detail


def parse(body: bytes, received_at: datetime) -> Batch:
    """All that can be taken of a request, and a reject for each thing that can't.

    Raises NotJSON, TooDeep, NotReports or TooManyReports when nothing can be made of it.
    """
    given = body_of.parse(body)
    if isinstance(given, dict) and "reports" in given:
        given = given["reports"]
    elif isinstance(given, dict):
        given = [given]
    if not isinstance(given, list):
        raise NotReports("Send one report, a list of reports, or {“reports”: […]}.")
    if len(given) > wire.MAX_REPORTS:
        raise TooManyReports(
            f"It has {len(given)}; at most {wire.MAX_REPORTS} are taken at once. Send the rest in"
            " further requests.",
            limit=wire.MAX_REPORTS,
        )
    batch = Batch(received_at)
    for number, item in enumerate(given):
        rejects = _Rejects(number, batch)
        try:
            batch.reports.append(_report(number, item, rejects))
        except _Refused as refused:
            rejects.add(refused)
    return batch


class _Rejects:
    """Collects what is wrong with one report."""

    def __init__(self, number: int, batch: Batch) -> None:
        self.number = number
        self.batch = batch

    def add(self, refused: _Refused) -> None:
        self.batch.reject(self.number, refused.item, refused.code, refused.detail)


def _report(number: int, given: Any, rejects: _Rejects) -> Report:
    if not isinstance(given, dict):
        raise _Refused("report", "not-valid", "A report is a JSON object.")
    agent = _agent(given.get("agent"))
    epoch = _text(given, "epoch", 64, needed=True)
    return Report(
        number=number,
        host=_text(given, "host", MAX_HOST, needed=True),
        agent=agent,
        at=_time("at", given.get("at")),
        interval=timedelta(seconds=_number_of("interval", given.get("interval", 60))),
        version=_text(given, "version", 40),
        epoch=epoch,
        sequence=_sequence(given.get("sequence")),
        points=list(_each(given, "points", wire.MAX_POINTS, rejects, _point)),
        events=list(_each(given, "events", wire.MAX_EVENTS, rejects, _event, epoch)),
        services=list(_each(given, "services", wire.MAX_POINTS, rejects, _state)),
        specs=_specs(given.get("specs"), rejects),
        goodbye=_text(given, "goodbye", wire.MAX_GOODBYE),
    )


def _each(
    given: dict[str, Any], name: str, most: int, rejects: _Rejects, read: Any, *more: Any
) -> Iterator[Any]:
    items = given.get(name)
    if items is None:
        return
    if not isinstance(items, list):
        rejects.add(_Refused(name, "not-valid", "It must be a list."))
        return
    if len(items) > most:
        rejects.add(
            _Refused(
                f"{name}[{most}:]",
                "too-many",
                f"A report may have {most}; this one has {len(items)}. The rest was not taken.",
            )
        )
    for number, item in enumerate(items[:most]):
        try:
            yield read(f"{name}[{number}]", item, rejects, *more)
        except _Refused as refused:
            rejects.add(refused)


def _point(item: str, given: Any, rejects: _Rejects) -> Point:
    if not isinstance(given, dict):
        raise _Refused(item, "not-valid", "A point is a JSON object.")
    measurement = _name(f"{item}.measurement", given.get("measurement"))
    tags = _tags(item, given.get("tags"))
    fields = given.get("fields")
    if not isinstance(fields, dict) or not fields:
        raise _Refused(f"{item}.fields", "not-valid", "It must be an object with a field or more.")
    if len(fields) > wire.MAX_FIELDS:
        raise _Refused(
            f"{item}.fields",
            "too-many-fields",
            f"A point may have {wire.MAX_FIELDS} fields; this one has {len(fields)}.",
        )
    taken = {}
    for name, value in fields.items():
        try:
            taken[_name(f"{item}.fields.{name[:60]}", name)] = _value(
                f"{item}.fields.{name[:60]}", value
            )
        except _Refused as refused:
            rejects.add(refused)
    if not taken:
        raise _Refused(item, "no-fields", "None of its fields could be taken.")
    return Point(measurement, tags, taken)


def _value(item: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _Refused(item, "not-a-number", f"It is {_kind(value)}; fields are numbers.")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise _Refused(item, "not-finite", "NaN and Infinity can't be stored. Leave the field out.")
    if abs(number) > LARGEST_VALUE:
        raise _Refused(item, "too-large", f"Values go up to {LARGEST_VALUE:g}.")
    return number


def _tags(item: str, given: Any) -> Tags:
    if given is None:
        return ()
    if not isinstance(given, dict):
        raise _Refused(f"{item}.tags", "not-valid", "It must be an object of texts.")
    if len(given) > wire.MAX_TAGS:
        raise _Refused(
            f"{item}.tags",
            "too-many-tags",
            f"A point may have {wire.MAX_TAGS} tags; this one has {len(given)}.",
        )
    pairs = []
    for name, value in given.items():
        place = f"{item}.tags.{name[:60]}"
        if not isinstance(value, str):
            raise _Refused(place, "not-valid", f"It is {_kind(value)}; tags are texts.")
        if len(value) > wire.MAX_NAME:
            raise _Refused(place, "too-long", f"A tag has at most {wire.MAX_NAME} characters.")
        pairs.append((_name(place, name), clean(value)))
    return tuple(sorted(pairs))


def _event(item: str, given: Any, rejects: _Rejects, epoch: str) -> Event:
    if not isinstance(given, dict):
        raise _Refused(item, "not-valid", "An event is a JSON object.")
    number = _name(f"{item}.id", given.get("id"))
    level = given.get("level")
    if level not in wire.LEVELS:
        raise _Refused(f"{item}.level", "not-valid", f"It must be one of {', '.join(wire.LEVELS)}.")
    message = given.get("message", "")
    if not isinstance(message, str):
        raise _Refused(f"{item}.message", "not-valid", f"It is {_kind(message)}, not a text.")
    if len(message) > wire.MAX_MESSAGE:
        raise _Refused(
            f"{item}.message",
            "too-long",
            f"A message has at most {wire.MAX_MESSAGE} characters; this one has {len(message)}.",
        )
    pid = given.get("pid")
    if pid is not None and not (_is_integer(pid) and 0 <= pid < 2**62):
        raise _Refused(f"{item}.pid", "not-valid", "A process id is a whole number.")
    return Event(
        item=item,
        key=joined_key((epoch, number)),
        at=_time(f"{item}.at", given.get("at")),
        level=wire.LEVELS.index(level),
        message=clean(message.rstrip()),
        service=_text(given, "service", wire.MAX_NAME, item=item),
        component=_text(given, "component", wire.MAX_NAME, item=item),
        request_id=_text(given, "request_id", wire.MAX_NAME, item=item),
        pid=pid,
        path=_text(given, "path", 4096, item=item),
    )


def _state(item: str, given: Any, rejects: _Rejects) -> State:
    if not isinstance(given, dict):
        raise _Refused(item, "not-valid", "A service state is a JSON object.")
    state = given.get("state")
    if state not in wire.SERVICE_STATES:
        known = ", ".join(wire.SERVICE_STATES)
        raise _Refused(f"{item}.state", "not-valid", f"It must be one of {known}.")
    workers = given.get("workers", 0)
    if not (_is_integer(workers) and 0 <= workers < 2**31):
        raise _Refused(f"{item}.workers", "not-valid", "It must be a whole number, 0 or more.")
    return State(
        name=_name(f"{item}.name", given.get("name")),
        project=_text(given, "project", 60, item=item),
        state=state,
        workers=workers,
        detail=_text(given, "detail", 400, item=item),
    )


def _specs(given: Any, rejects: _Rejects) -> dict[str, Any] | None:
    if given is None:
        return None
    if not isinstance(given, dict):
        rejects.add(_Refused("specs", "not-valid", "It must be an object."))
        return None
    try:
        taken: dict[str, Any] = plain(given)
    except ValueError as error:
        rejects.add(_Refused("specs", "too-large", str(error)))
        return None
    return taken


def plain(given: Any) -> Any:
    """JSON values that PostgreSQL can keep: clean texts, finite numbers, bounded size.

    Raises ValueError when there is more than a description of a host needs.
    """
    left = [MAX_SPECS_ITEMS, MAX_SPECS_TEXT]

    def text(given: str, most: int) -> str:
        taken = clean(given)[:most]
        left[1] -= len(taken)
        if left[1] < 0:
            raise ValueError(f"At most {MAX_SPECS_TEXT} characters are taken.")
        return taken

    def copy(value: Any, depth: int) -> Any:
        left[0] -= 1
        if left[0] < 0 or depth > MAX_SPECS_DEPTH:
            raise ValueError(
                f"At most {MAX_SPECS_ITEMS} values in {MAX_SPECS_DEPTH} levels are taken."
            )
        if isinstance(value, dict):
            return {text(str(k), 200): copy(v, depth + 1) for k, v in value.items()}
        if isinstance(value, list):
            return [copy(v, depth + 1) for v in value]
        if isinstance(value, str):
            return text(value, 4096)
        if isinstance(value, float) and not math.isfinite(value):
            return None
        if isinstance(value, int) and not isinstance(value, bool) and abs(value) > 2**63:
            return None
        return value

    return copy(given, 0)


def _agent(given: Any) -> UUID:
    try:
        return UUID(given)
    except (ValueError, TypeError, AttributeError):
        raise _Refused("agent", "not-valid", "An agent's id is a UUID.") from None


def _sequence(given: Any) -> int:
    if not (_is_integer(given) and 0 <= given < 2**62):
        raise _Refused("sequence", "not-valid", "It must be a whole number, 0 or more.")
    return int(given)


def _time(item: str, given: Any) -> datetime:
    if isinstance(given, bool) or not isinstance(given, int | float):
        raise _Refused(item, "not-valid", f"It is {_kind(given)}; times are Unix seconds.")
    if not 0 <= given <= LATEST:
        raise _Refused(item, "clock", "It is no Unix time in seconds between 1970 and 3000.")
    return datetime.fromtimestamp(round(given * 1000) / 1000, UTC)


def _number_of(item: str, given: Any) -> float:
    if isinstance(given, bool) or not isinstance(given, int | float) or not given > 0:
        raise _Refused(item, "not-valid", "It must be a number of seconds above 0.")
    if given > LONGEST_INTERVAL:
        raise _Refused(item, "not-valid", f"It must be at most {LONGEST_INTERVAL:g} seconds.")
    return max(float(given), 0.001)


def _name(item: str, given: Any) -> str:
    if not isinstance(given, str) or not given.strip():
        raise _Refused(item, "not-valid", f"It is {_kind(given)}; a name is needed.")
    if len(given) > wire.MAX_NAME:
        raise _Refused(item, "too-long", f"A name has at most {wire.MAX_NAME} characters.")
    return clean(given)


def _text(
    given: dict[str, Any], name: str, most: int, *, needed: bool = False, item: str = ""
) -> str:
    value = given.get(name)
    place = f"{item}.{name}" if item else name
    if value is None:
        value = ""
    if not isinstance(value, str):
        raise _Refused(place, "not-valid", f"It is {_kind(value)}, not a text.")
    if needed and not value.strip():
        raise _Refused(place, "not-valid", "It is missing.")
    if len(value) > most:
        raise _Refused(place, "too-long", f"It has at most {most} characters.")
    return clean(value)


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _kind(value: Any) -> str:
    if value is None:
        return "missing"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, str):
        return "a text" if value.strip() else "empty"
    if isinstance(value, int | float):
        return "a number"
    return "a list" if isinstance(value, list) else "an object"
