"""One round of questions: log in, ask the parts, look at every endpoint, tell what changed."""

from __future__ import annotations

import dataclasses
import http.client
import json
import os
import socket
import ssl
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Mapping, Sequence
from urllib.parse import urlsplit

from agent_client.certificates import of_host
from agent_client.openstack.client import (
    TIMEOUT,
    Cloud,
    Failure,
    NoRight,
    NotThere,
    OutOfBudget,
    Stopwatch,
)
from agent_client.openstack.parts import QUESTIONS, Cursor, Found, Question, Row

#: A service that an API lists no more is missed for so long.
_MISSED_FOR = 86_400.0
_STATE_VERSION = 1
#: Endpoints that are looked at together: where none answers, the round must still end in time.
_LOOKS_AT_ONCE = 8

#: How a part ended, as the field `result` counts it.
RESULTS = ("ok", "failed", "no right", "empty", "not there", "left out")


@dataclasses.dataclass
class Outcome:
    """How one part of a round fared. `result` is one of RESULTS."""

    part: str
    result: str
    seconds: float = 0.0
    calls: int = 0
    status: int = 0
    items: int = 0
    reason: str = ""
    #: When the part was last answered in full, in Unix seconds.
    answered_at: float | None = None


@dataclasses.dataclass
class Round:
    """All that one round brought."""

    outcomes: list[Outcome] = dataclasses.field(default_factory=list)
    points: list[tuple[str, dict[str, Any], dict[str, str]]] = dataclasses.field(
        default_factory=list
    )
    #: (level, text, service)
    events: list[tuple[str, str, str]] = dataclasses.field(default_factory=list)
    calls: int = 0
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


class State:
    """What is kept from round to round: known services, cursors, when each part last answered."""

    def __init__(self, path: str = "", owner: str = "") -> None:
        self._path = path
        self._owner = owner
        self.parts: dict[str, dict[str, Any]] = {}
        self.rows: dict[str, dict[str, Any]] = {}
        self.endpoints: dict[str, bool] = {}
        #: The catalogue of the last log-in, for the endpoints are looked at without one too.
        self.catalogue: list[dict[str, Any]] = []

    @classmethod
    def read(cls, path: str, owner: str) -> State:
        """The state of the last round; an empty one where there is none, it is damaged, or of
        another cloud or user than `owner`.
        """
        state = cls(path, owner)
        try:
            with open(path, encoding="utf-8") as file:
                kept = json.load(file)
        except (FileNotFoundError, ValueError):
            return state
        said = (_STATE_VERSION, owner)
        if isinstance(kept, dict) and (kept.get("version"), kept.get("owner")) == said:
            state.parts, state.rows = kept["parts"], kept["rows"]
            state.endpoints, state.catalogue = kept["endpoints"], kept["catalogue"]
        return state

    def write(self) -> None:
        """Raises OSError."""
        if not self._path:
            return
        kept = {
            "version": _STATE_VERSION,
            "owner": self._owner,
            "parts": self.parts,
            "rows": self.rows,
            "endpoints": self.endpoints,
            "catalogue": self.catalogue,
        }
        descriptor = os.open(self._path + ".new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(kept, file)
        os.replace(self._path + ".new", self._path)


def run(cloud: Cloud, state: State, now: float, questions: Sequence[Question] = QUESTIONS) -> Round:
    """One round. Whatever fails is data; this raises nothing of the cloud's."""
    watch, done = Stopwatch(), Round()
    login = Outcome("login", "ok", calls=1)
    try:
        cloud.log_in()
    except Failure as failure:
        login.result, login.status, login.reason = "failed", failure.status, str(failure)
        cloud.catalogue = state.catalogue
    login.seconds = watch.seconds
    _note(login, state, now, done)
    for question in questions:
        if login.result == "ok":
            _ask(question, cloud, state, now, done)
        else:
            _note(Outcome(question.name, "left out", reason="no token"), state, now, done)
    state.catalogue = cloud.catalogue
    _look_at_endpoints(cloud, state, done)
    done.calls, done.seconds = cloud.calls, watch.seconds
    return done


def _ask(question: Question, cloud: Cloud, state: State, now: float, done: Round) -> None:
    kept = state.parts.get(question.name, {})
    found, cursor = Found(), Cursor(kept.get("cursor", ""))
    watch, calls = Stopwatch(), cloud.calls
    outcome = Outcome(question.name, "ok")
    try:
        question.ask(cloud, found, now, cursor)
    except NoRight as failure:
        outcome.result, outcome.reason, outcome.status = "no right", str(failure), failure.status
    except NotThere as failure:
        outcome.result, outcome.reason = "not there", str(failure)
    except OutOfBudget as failure:
        # What a part that goes in turn has asked already counts.
        outcome.result, outcome.reason = "left out", str(failure)
    except Failure as failure:
        outcome.result, outcome.reason, outcome.status = "failed", str(failure), failure.status
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        outcome.result = "failed"
        outcome.reason = f"the answer is of another form: {type(error).__name__}: {error}"
    outcome.seconds, outcome.calls, outcome.items = watch.seconds, cloud.calls - calls, found.items
    before = kept.get("items", 0)
    if outcome.result == "ok" and question.never_empty and before and not found.items:
        outcome.result = "empty"
        outcome.reason = f"the answer is empty and had {before} before: not taken as true"
        found = Found()
    if outcome.result == "ok" and question.never_empty and not found.items:
        found.notes.append("nothing is listed: our role may see none of them")
    if outcome.result == "ok" and found.notes:
        outcome.reason = "; ".join(found.notes)[:400]
    if outcome.result in ("ok", "left out"):
        done.points += found.points
    if outcome.result == "ok" and found.rows:
        _compare(question.name, found.rows, state, now, done)
    _note(outcome, state, now, done, cursor.last)


def _note(outcome: Outcome, state: State, now: float, done: Round, cursor: str = "") -> None:
    """Keep how a part ended, and tell when it begins to fail and when that is over."""
    kept = state.parts.setdefault(outcome.part, {})
    if outcome.result == "ok":
        kept["answered_at"] = now
        kept["items"] = outcome.items
    if cursor:
        kept["cursor"] = cursor
    outcome.answered_at = kept.get("answered_at")
    done.outcomes.append(outcome)
    if outcome.result == "left out":
        return
    bad, was_bad = outcome.result in ("failed", "empty"), bool(kept.get("bad"))
    kept["bad"] = bad
    what = outcome.part.replace("_", " ")
    if bad and not was_bad:
        done.events.append(("error", f"the cloud's API, {what}: {outcome.reason}", "sentinella"))
    elif was_bad and not bad:
        done.events.append(("info", f"the cloud's API, {what}: answers again", "sentinella"))


def _compare(part: str, rows: Sequence[Row], state: State, now: float, done: Round) -> None:
    """Tell the services whose state changed since the last round, and those that are gone."""
    up = missing = disabled = 0
    listed = {row.key for row in rows}
    for row in rows:
        up += row.state == "up"
        disabled += not row.enabled
        before = state.rows.get(row.key)
        state.rows[row.key] = {"part": part, "state": row.state, "at": now, "missed": False}
        if before is None or before.get("missed"):
            if before is not None:
                done.events.append(("info", f"{_named(row)} is listed again", row.service))
            elif row.state != "up":
                done.events.append(("warning", f"{_named(row)} is {_state(row)}", row.service))
            continue
        if before["state"] != row.state:
            level = "info" if row.state == "up" else "error"
            done.events.append((level, f"{_named(row)} is {_state(row)}", row.service))
    for key, known in list(state.rows.items()):
        if known["part"] != part or key in listed:
            continue
        if now - known["at"] > _MISSED_FOR:
            del state.rows[key]
            continue
        missing += 1
        if not known["missed"]:
            known["missed"] = True
            project, service, host = key.split(" ", 2)
            text = f"{project} lists {service} on {host} no more: deleted, or its cell is down"
            done.events.append(("warning", text, service))
    done.points.append(
        (
            "openstack_services",
            {"services": len(rows), "up": up, "down": len(rows) - up, "disabled": disabled,
             "missing": missing},
            {"project": rows[0].project},
        )
    )  # fmt: skip


def _named(row: Row) -> str:
    return f"{row.service} on {row.host}"


def _state(row: Row) -> str:
    detail = f" ({row.detail})" if row.detail else ""
    return f"{row.state}, says the API of {row.project}{detail}"


# -- endpoints ------------------------------------------------------------------


@dataclasses.dataclass
class Look:
    """What one address answered to a request without a token. `status` 0: nothing."""

    status: int = 0
    seconds: float = 0.0
    reason: str = ""
    #: When its certificate ends, in Unix seconds; None without TLS.
    expires_at: float | None = None

    @property
    def up(self) -> bool:
        """An API that is well answers something; a balancer without one answers 502 or 503."""
        return 0 < self.status < 500


def _look_at_endpoints(cloud: Cloud, state: State, done: Round) -> None:
    endpoints = list(cloud.endpoints())
    addresses = sorted({version_document(one["url"]) for one in endpoints})
    with ThreadPoolExecutor(max_workers=_LOOKS_AT_ONCE) as pool:
        looks = dict(
            zip(addresses, pool.map(lambda address: look(address, cloud.ca_file), addresses))
        )
    cloud.calls += len(addresses)
    known: dict[str, bool] = {}
    for one in endpoints:
        address = version_document(one["url"])
        seen = looks[address]
        done.points.append(
            (
                "openstack_endpoint",
                {
                    "up": seen.up,
                    "seconds": seen.seconds,
                    "status": seen.status,
                    "certificate_seconds_left": (
                        None if seen.expires_at is None else round(seen.expires_at - time.time())
                    ),
                },
                {
                    "service": one["service"],
                    "type": one["type"],
                    "interface": one["interface"],
                    "region": one["region"],
                    "url": address,
                },
            )
        )
        name = f"{one['service']} {address}"
        if name not in known:
            before = state.endpoints.get(name, True)
            if before != seen.up:
                text = f"the endpoint of {one['service']} at {address} " + (
                    "answers again" if seen.up else f"does not answer: {seen.reason}"
                )
                done.events.append(("info" if seen.up else "error", text, one["service"]))
        known[name] = seen.up
    state.endpoints = known


def version_document(url: str) -> str:
    """The address of a service's version document: its own, without version and project."""
    parts = urlsplit(url)
    kept = []
    for segment in parts.path.split("/"):
        if (segment[:1] == "v" and segment[1:2].isdigit()) or "AUTH_" in segment:
            break
        if segment and "(" not in segment:
            kept.append(segment)
    return f"{parts.scheme}://{parts.netloc}/" + "".join(f"{one}/" for one in kept)


def look(address: str, ca_file: str = "") -> Look:
    """Ask for a version document, without a token and without following anything."""
    parts = urlsplit(address)
    watch, seen, timed_out = Stopwatch(), Look(), False
    host, port = parts.hostname or "", parts.port
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        context = ssl.create_default_context(cafile=ca_file or None)
        connection = http.client.HTTPSConnection(host, port, timeout=TIMEOUT, context=context)
    else:
        connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT)
    try:
        connection.request("GET", parts.path or "/", headers={"Accept": "application/json"})
        answer = connection.getresponse()
        answer.read(65_536)
        seen.status = answer.status
        if not seen.up:
            seen.reason = f"HTTP {answer.status} {answer.reason}".strip()
    except socket.timeout:
        seen.reason, timed_out = f"no answer within {TIMEOUT:g} s", True
    except ssl.SSLCertVerificationError as error:
        seen.reason = f"its certificate is not good: {error.verify_message}"
    except (OSError, http.client.HTTPException) as error:
        seen.reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    finally:
        connection.close()
    seen.seconds = watch.seconds
    if parts.scheme == "https" and not timed_out:  # who said nothing shows nothing either
        shown = of_host(f"{host}:{port or 443}", ca_file)
        seen.expires_at = shown.expires_at
    return seen


# -- what the collector sends ----------------------------------------------------


def points_of(done: Mapping[str, Any], name: str, now: float) -> list[Any]:
    """The points of a round's JSON, with those on the round itself, all tagged with the cloud."""
    points = [
        (measurement, fields, {"cloud": name, **tags})
        for measurement, fields, tags in done["points"]
    ]
    for one in done["outcomes"]:
        answered_at = one["answered_at"]
        points.append(
            (
                "openstack_api",
                {
                    "ok": one["result"] == "ok",
                    "no_right": one["result"] == "no right",
                    "seconds": one["seconds"],
                    "calls": one["calls"],
                    "status": one["status"] or None,
                    "items": one["items"] if one["result"] == "ok" else None,
                    "age_seconds": (
                        None if answered_at is None else round(max(0.0, now - answered_at), 1)
                    ),
                },
                {"cloud": name, "part": one["part"]},
            )
        )
    return points


def now() -> float:
    return round(time.time(), 3)
