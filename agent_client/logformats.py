"""What one log line says: time, level, who wrote it, message. Pure; one line in, one head out.

A *head* is a line that begins an event. What is no head continues the event before it. Formats,
as their programs write them by default: oslo.log (text and JSON), structlog (console and JSON),
Python's logging, syslog (RFC 3164, RFC 5424 time stamps), PostgreSQL, MariaDB, RabbitMQ, libvirt,
Open vSwitch, Apache (error and access log), uwsgi, Redis and Valkey; and what containers' runtimes
wrap around such lines: Docker's json-file, the CRI form of containerd, CRI-O and Podman.
"""

from __future__ import annotations

import calendar
import dataclasses
import json
import re
import time
from typing import Any, Callable, Match

_LEVELS = {
    "critical": "critical crit fatal panic emerg emergency alert",
    "error": "error err trace severe",
    "warning": "warning warn",
    "info": "info information notice note log audit statement detail hint context system",
    "debug": "debug debug1 debug2 debug3 debug4 debug5 dbg verbose finest fine",
}
_LEVEL_OF = {word: level for level, said in _LEVELS.items() for word in said.split()}
_SYSLOG_SEVERITY = ["critical", "critical", "critical", "error", "warning", "info", "info", "debug"]
_VALKEY_LEVELS = {".": "debug", "-": "info", "*": "info", "#": "warning"}
_MONTHS = {
    name: number
    for number, name in enumerate(
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"],
        start=1,
    )
}

_ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_AT = re.compile(
    r"(?P<date>\d{4}-\d\d-\d\d)[ T](?P<clock>\d\d:\d\d:\d\d)(?:[.,](?P<fraction>\d{1,9}))?"
    r" ?(?P<zone>Z|[+-]\d\d:?\d\d|(?:UTC|GMT)\b)?"
)
_OSLO = re.compile(
    r" (?P<pid>\d+) (?P<level>DEBUG|INFO|AUDIT|WARN|WARNING|ERROR|CRITICAL|FATAL|TRACE)"
    r" (?P<logger>[^\s\[]\S*) ?"
    r"(?P<context>\[(?:-|(?:None |req-)[^\]]*|[0-9a-f]{32} [^\]]*)\] ?)?(?P<message>.*)$",
    re.DOTALL,
)
_OSLO_WITHIN = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[.,]\d{3}(?= \d)")
_REQUEST = re.compile(r"req-[0-9a-f-]{36}")
_BRACKETED = re.compile(  # structlog's console, RabbitMQ, MariaDB
    r" (?:(?P<thread>\d+) )?\[(?P<level>[A-Za-z]+) *\] (?P<message>.*)$", re.DOTALL
)
_LOGGER_BEHIND = re.compile(
    r"^(?P<message>.*?) +\[(?P<logger>[A-Za-z_][\w.\-]*)\](?P<rest>(?: \S.*)?)$", re.DOTALL
)
_KEY_REQUEST = re.compile(r"\brequest_id=['\"]?([\w-]+)")
_POSTGRES = re.compile(
    r" (?:[A-Z]{2,5} )?\[(?P<pid>\d+)\](?: [^ :]+@[^ :]+)? ?"
    r"(?P<level>LOG|ERROR|FATAL|PANIC|WARNING|NOTICE|INFO|DEBUG\d?|DETAIL|HINT|STATEMENT|CONTEXT"
    r"|QUERY|LOCATION): +(?P<message>.*)$",
    re.DOTALL,
)
_POSTGRES_MORE = frozenset(["DETAIL", "HINT", "STATEMENT", "CONTEXT", "QUERY", "LOCATION"])
_LIBVIRT = re.compile(r": (?P<pid>\d+): (?P<level>\w+) : (?P<message>.*)$", re.DOTALL)
_OPENVSWITCH = re.compile(
    r"\|\d+\|(?P<logger>[^|]+)\|(?P<level>[A-Z]+)\|(?P<message>.*)$", re.DOTALL
)
_TAGGED = re.compile(
    r" (?P<host>\S+) (?P<tag>[^\s:\[]+)(?:\[(?P<pid>\d+)\])?: (?P<message>.*)$", re.DOTALL
)
_ERLANG = re.compile(  # RabbitMQ up to 3.6; the text follows in lines of its own
    r"=(?P<level>[A-Z]+) REPORT==== (?P<day>\d{1,2})-(?P<month>[A-Z][a-z]{2})-(?P<year>\d{4})::"
    r"(?P<clock>\d\d:\d\d:\d\d)(?:\.(?P<fraction>\d+))? ===$"
)
_ERLANG_PID = re.compile(r"<\d+\.\d+\.\d+> ")
_ACCESS = re.compile(  # common and combined log format
    r"\S+ \S+ \S+ \[(?P<day>\d\d)/(?P<month>[A-Z][a-z]{2})/(?P<year>\d{4}):"
    r"(?P<clock>\d\d:\d\d:\d\d) (?P<zone>[+-]\d{4})\] "
    r"(?P<message>\"[^\"]*\" (?P<status>\d{3}) .*)$",
    re.DOTALL,
)
_CRI = re.compile(
    r"(?P<date>\d{4}-\d\d-\d\d)T(?P<clock>\d\d:\d\d:\d\d)(?:\.(?P<fraction>\d{1,9}))?"
    r"(?P<zone>Z|[+-]\d\d:\d\d) (?P<stream>stdout|stderr) (?P<tag>[PF])(?::\S+)? ?(?P<text>.*)$",
    re.DOTALL,
)
_WORDS = re.compile(  # Python's logging in its many arrangements: a level among the first words
    r"(?P<before>.{0,120}?)\b(?P<level>DEBUG|INFO|NOTICE|WARNING|WARN|ERROR|CRITICAL|FATAL)\b"
    r"(?P<after>.*)$",
    re.DOTALL,
)
_NAMED = re.compile(r"(?P<logger>[A-Za-z_]\w*(?:\.\w+)+):? (?P<message>.*)$", re.DOTALL)
_SYSLOG_AT = re.compile(
    r"(?:<(?P<priority>\d{1,3})>)?(?P<month>[A-Z][a-z]{2}) (?P<day>[ \d]\d)"
    r" (?P<clock>\d\d:\d\d:\d\d)"
)
_PRIORITY = re.compile(r"<(?P<priority>\d{1,3})>(?:1 )?")
_APACHE = re.compile(
    r"\[\w{3} (?P<month>\w{3}) (?P<day>\d\d) (?P<clock>\d\d:\d\d:\d\d)(?:\.(?P<fraction>\d+))?"
    r" (?P<year>\d{4})\] \[(?P<logger>\w*):(?P<level>\w+)\] (?:\[pid (?P<pid>\d+)[^\]]*\] )?"
    r"(?P<message>.*)$",
    re.DOTALL,
)
_UWSGI = re.compile(
    r"\[pid: (?P<pid>\d+)\|.*?\[\w{3} (?P<month>\w{3}) (?P<day>[ \d]\d) (?P<clock>\d\d:\d\d:\d\d)"
    r" (?P<year>\d{4})\] (?P<message>.*)$",
    re.DOTALL,
)
_VALKEY = re.compile(
    r"(?P<pid>\d+):[A-Z] (?P<day>\d\d) (?P<month>[A-Z][a-z]{2}) (?P<year>\d{4})"
    r" (?P<clock>\d\d:\d\d:\d\d)\.(?P<fraction>\d{3}) (?P<level>[.*#-]) (?P<message>.*)$",
    re.DOTALL,
)
_LOUD = re.compile(
    r"\b(CRITICAL|FATAL|PANIC|EMERG|ALERT|ERROR|WARNING|WARN|"
    r"(?:critical|fatal|panic|error|warning)(?=:))"
)


@dataclasses.dataclass(frozen=True)
class Head:
    """How an event begins. `more` says that the line only adds to the event before it."""

    at: float
    level: str
    message: str
    component: str = ""
    request_id: str = ""
    pid: int | None = None
    #: Equal for the lines of one traceback that oslo.log prefixes one by one.
    group: str = ""
    more: bool = False
    #: It may be the reason that the line before it, of the same group, ends with a colon for.
    explains: bool = False


@dataclasses.dataclass(frozen=True)
class Piece:
    """A container's line without its wrapping. `partial` says that its next piece continues it."""

    text: str
    at: float
    stream: str = ""
    partial: bool = False


class Clock:
    """Turns the times of log lines into Unix seconds; what has no zone is the host's local time."""

    def __init__(self) -> None:
        self._last: tuple[str, float] = ("", 0.0)

    def full(self, date: str, clock: str, fraction: str | None, zone: str | None) -> float:
        """Of a full date (`2026-11-22`). Raises ValueError where there is no such day."""
        key = f"{date} {clock} {zone}"
        if self._last[0] != key:
            year, month, day = (int(part) for part in date.split("-"))
            self._last = (key, self._seconds(year, month, day, clock, zone))
        return self._last[1] + _fraction(fraction)

    def named(
        self, year: int, month: str, day: str, clock: str, fraction: str | None = None
    ) -> float:
        """Of a date with the month's English name, local time."""
        number = _MONTHS.get(month)
        if number is None:
            raise ValueError(month)
        return self._seconds(year, number, int(day), clock, None) + _fraction(fraction)

    def without_year(self, month: str, day: str, clock: str, now: float) -> float:
        """Of a date that leaves out the year: the last one that is not past tomorrow."""
        year = time.localtime(now).tm_year
        at = self.named(year, month, day, clock)
        return at if at <= now + 86_400 else self.named(year - 1, month, day, clock)

    @staticmethod
    def _seconds(year: int, month: int, day: int, clock: str, zone: str | None) -> float:
        hour, minute, second = (int(part) for part in clock.split(":"))
        if not (1 <= month <= 12 and 1 <= day <= 31 and hour < 24 and minute < 60 and second < 62):
            raise ValueError(clock)
        if year < 1971:
            raise ValueError(str(year))
        if zone is None:
            try:
                return time.mktime((year, month, day, hour, minute, second, 0, 0, -1))
            except OverflowError:
                raise ValueError(str(year)) from None
        at = float(calendar.timegm((year, month, day, hour, minute, second, 0, 0, 0)))
        if zone[0] in "+-":
            offset = int(zone[1:3]) * 3600 + int(zone[-2:]) * 60
            at -= offset if zone[0] == "+" else -offset
        return at


def _fraction(digits: str | None) -> float:
    return float("0." + digits) if digits else 0.0


def without_colour(line: str) -> str:
    """The line without terminal escapes and without NUL, which no database stores."""
    if "\x1b" in line:
        line = _ANSI.sub("", line)
    return line.replace("\0", "\ufffd") if "\0" in line else line


def head(line: str, clock: Clock, now: float, form: str = "") -> Head | None:
    """The head that this line is, or None where it has no form of its own.

    `form`, one of FORMATS, is taken for granted where it fits; empty means by the line alone.
    """
    try:
        if form in _BY_FORM:
            return _BY_FORM[form](line, clock, now)
        if line[:1].isdigit():
            return _dated(line, clock, now)
        if line[:1] == "{":
            return _json(line, clock, now)
        if line[:1] == "[":
            return _in_brackets(line, clock)
        if line[:1] == "=":
            return _erlang(line, clock)
        if line[:1] == "<" or line[:1].isupper():
            return _syslog(line, clock, now)
    except (ValueError, RecursionError):
        return None  # looks like a time, or like JSON, and is none
    return None


def unwrapped(line: str, now: float) -> Piece:
    """What a container wrote, of the line that its runtime keeps; anything else as it is."""
    if line[:1] == "{":
        try:
            said = json.loads(line)
            text = said["log"]
            if not isinstance(text, str):
                return Piece(line, now)
        except (ValueError, RecursionError, KeyError, TypeError):
            return Piece(line, now)
        at = _json_time(said.get("time"), Clock(), now)
        # Docker cuts long lines; only the last piece of one ends as a line does.
        return Piece(
            without_colour(text.rstrip("\r\n")),
            at,
            str(said.get("stream", "")),
            partial=not text.endswith("\n"),
        )
    found = _CRI.match(line)
    if found is None:
        return Piece(line, now)
    try:
        at = Clock().full(found["date"], found["clock"], found["fraction"], found["zone"])
    except ValueError:
        at = now
    return Piece(found["text"], at, found["stream"], partial=found["tag"] == "P")


def level_of(word: Any) -> str | None:
    """One of wire.LEVELS for what other programs call it."""
    if isinstance(word, str):
        return _LEVEL_OF.get(word.lower())
    if isinstance(word, (int, float)) and not isinstance(word, bool):  # Python's numbers
        for bound, level in ((50, "critical"), (40, "error"), (30, "warning"), (20, "info")):
            if word >= bound:
                return level
        return "debug"
    return None


def level_of_priority(priority: str) -> str:
    """One of wire.LEVELS for a syslog priority's number, facility included or not."""
    return _SYSLOG_SEVERITY[int(priority) & 7]


def guessed_level(message: str) -> str:
    """The level of a line that names none: a loud word near its beginning, otherwise info."""
    loud = _LOUD.search(message, 0, 200)
    return (level_of(loud.group(1)) if loud else None) or "info"


def _dated(line: str, clock: Clock, now: float) -> Head | None:
    said = _AT.match(line)
    if said is None:
        return _valkey(line, clock) or _access(line, clock)
    at = clock.full(said["date"], said["clock"], said["fraction"], said["zone"])
    end = said.end()
    # A zone may have swallowed the blank before it, or the blank stands before no zone.
    rest = line[end:] if line[end - 1 : end] != " " else line[end - 1 :]
    for form in (_oslo, _bracketed, _postgres, _libvirt, _openvswitch, _tagged, _worded):
        found = form(at, rest)
        if found is not None:
            return found
    message = rest.strip()
    return Head(at, guessed_level(message), message)


def _oslo(at: float, rest: str) -> Head | None:
    said = _OSLO.match(rest)
    if said is None:
        return None
    level = _LEVEL_OF[said["level"].lower()]
    group = f"{at}/{said['pid']}/{said['logger']}"
    context = said["context"] or ""
    requests = _REQUEST.findall(context)
    return Head(
        at=at,
        level=level,
        message=said["message"],
        component=said["logger"],
        # The first of two is the caller's: it is the one that other services log as well.
        request_id=requests[0] if requests else "",
        pid=int(said["pid"]),
        group=group,
        more=not context and level in ("error", "critical"),
    )


def _bracketed(at: float, rest: str) -> Head | None:
    said = _BRACKETED.match(rest)
    level = level_of(said["level"]) if said else None
    if said is None or level is None:
        return None
    message, component = said["message"].strip(), ""
    behind = _LOGGER_BEHIND.match(message)
    if behind is not None:
        component = behind["logger"]
        message = behind["message"].rstrip() + behind["rest"]
    request = _KEY_REQUEST.search(message)
    erlang = _ERLANG_PID.match(message)
    return Head(
        at,
        level,
        message,
        component,
        request.group(1) if request else "",
        group=erlang.group() if erlang else "",
        explains=erlang is not None,
    )


def _postgres(at: float, rest: str) -> Head | None:
    said = _POSTGRES.match(rest)
    if said is None:
        return None
    more = said["level"] in _POSTGRES_MORE
    message = f"{said['level']}: {said['message']}" if more else said["message"]
    level = level_of(said["level"]) or "info"
    return Head(at, level, message, pid=int(said["pid"]), group=said["pid"], more=more)


def _libvirt(at: float, rest: str) -> Head | None:
    said = _LIBVIRT.match(rest)
    level = level_of(said["level"]) if said else None
    if said is None or level is None:
        return None
    return Head(at, level, said["message"], pid=int(said["pid"]))


def _openvswitch(at: float, rest: str) -> Head | None:
    said = _OPENVSWITCH.match(rest)
    if said is None:
        return None
    message, logger = said["message"], said["logger"]
    return Head(at, "critical" if said["level"] == "EMER" else _loud_or(said), message, logger)


def _loud_or(said: Match[str]) -> str:
    return level_of(said["level"]) or "info"


def _tagged(at: float, rest: str) -> Head | None:
    said = _TAGGED.match(rest)
    if said is None or said["tag"].upper() in ("INFO", "ERROR", "WARNING", "DEBUG", "CRITICAL"):
        return None
    message = said["message"]
    pid = int(said["pid"]) if said["pid"] else None
    within = _OSLO_WITHIN.match(message)  # oslo.log's whole line as the text of a syslog message
    found = _oslo(at, message[within.end() :]) if within else None
    return found or Head(at, guessed_level(message), message, said["tag"], pid=pid)


def _worded(at: float, rest: str) -> Head | None:
    said = _WORDS.match(rest)
    if said is None:
        return None
    before = said["before"].strip(" -:[](),|")
    after = said["after"].lstrip(" -:|])").rstrip()
    if " " in before:  # the word stands in a sentence
        message = rest.strip()
        return Head(at, _LEVEL_OF[said["level"].lower()], message)
    named = _NAMED.match(after) if not before else None
    if named is not None:
        before, after = named["logger"], named["message"]
    return Head(at, _LEVEL_OF[said["level"].lower()], after, before)


def _valkey(line: str, clock: Clock) -> Head | None:
    said = _VALKEY.match(line)
    if said is None:
        return None
    at = clock.named(int(said["year"]), said["month"], said["day"], said["clock"], said["fraction"])
    return Head(at, _VALKEY_LEVELS[said["level"]], said["message"], pid=int(said["pid"]))


def _syslog(line: str, clock: Clock, now: float) -> Head | None:
    priority: str | None = None
    said = _SYSLOG_AT.match(line)
    if said is not None:
        at = clock.without_year(said["month"], said["day"], said["clock"], now)
        priority, rest = said["priority"], line[said.end() :]
    else:
        opening = _PRIORITY.match(line)
        dated = _AT.match(line, opening.end()) if opening else None
        if opening is None or dated is None:
            return None
        at = clock.full(dated["date"], dated["clock"], dated["fraction"], dated["zone"])
        priority, rest = opening["priority"], line[dated.end() :]
    found = _tagged(at, rest) or Head(at, guessed_level(rest), rest.strip())
    if priority is not None:
        found = dataclasses.replace(found, level=level_of_priority(priority))
    return found


def _erlang(line: str, clock: Clock) -> Head | None:
    said = _ERLANG.match(line)
    if said is None:
        return None
    at = clock.named(int(said["year"]), said["month"], said["day"], said["clock"], said["fraction"])
    return Head(at, level_of(said["level"]) or "info", "")


def _access(line: str, clock: Clock) -> Head | None:
    said = _ACCESS.match(line)
    if said is None:
        return None
    date = f"{said['year']}-{_MONTHS.get(said['month'], 0):02d}-{said['day']}"
    at = clock.full(date, said["clock"], None, said["zone"])
    # A server's own failure is a warning here: the reason stands in the error log.
    return Head(at, "warning" if said["status"] >= "500" else "info", said["message"])


def _in_brackets(line: str, clock: Clock) -> Head | None:
    said = _APACHE.match(line) or _UWSGI.match(line)
    if said is None:
        return None
    found = said.groupdict()
    at = clock.named(
        int(found["year"]), found["month"], found["day"], found["clock"], found.get("fraction")
    )
    pid = int(found["pid"]) if found["pid"] else None
    level = level_of(found["level"]) or "info" if "level" in found else "info"
    return Head(at, level, found["message"], found.get("logger") or "", pid=pid)


def _json(line: str, clock: Clock, now: float) -> Head | None:
    """One JSON object a line, as oslo.log (`use_json`), structlog and others write it."""
    said = json.loads(line)
    message = _first(said, "message", "event", "msg")
    if not isinstance(message, str):
        return None
    at = _json_time(_first(said, "timestamp", "asctime", "time", "ts", "@timestamp"), clock, now)
    context = said.get("context")
    if not isinstance(context, dict):
        context = {}
    request = _first(context, "global_request_id", "request_id") or said.get("request_id")
    traceback = _first(said, "traceback", "exception", "exc_info", "stack_trace")
    if isinstance(traceback, list):
        traceback = "\n".join(str(part).rstrip("\n") for part in traceback)
    if isinstance(traceback, str) and traceback.strip():
        message = f"{message}\n{traceback}"
    level = level_of(_first(said, "level", "levelname", "severity", "log_level"))
    component = _first(said, "logger", "name", "logger_name", "component")
    pid = _first(said, "process", "pid")
    return Head(
        at=at,
        level=level or guessed_level(message),
        message=_with_details(message, said),
        component=component if isinstance(component, str) else "",
        request_id=request if isinstance(request, str) else "",
        pid=pid if isinstance(pid, int) and 0 < pid < 2**31 else None,
    )


#: What a JSON line says of itself elsewhere; the rest is shown behind the message as key=value.
_JSON_KNOWN = frozenset(
    [
        "message",
        "event",
        "msg",
        "timestamp",
        "asctime",
        "time",
        "ts",
        "@timestamp",
        "context",
        "request_id",
        "traceback",
        "exception",
        "exc_info",
        "stack_trace",
        "level",
        "levelname",
        "severity",
        "log_level",
        "logger",
        "name",
        "logger_name",
        "component",
        "process",
        "pid",
        "msecs",
        "relative_created",
        "thread",
        "thread_name",
        "process_name",
        "levelno",
        "pathname",
        "filename",
        "module",
        "lineno",
        "funcname",
        "created",
        "hostname",
        "extra",
        "args",
        "error_summary",
    ]
)


def _with_details(message: str, said: dict[str, Any]) -> str:
    details = [
        f"{key}={value}"
        for key, value in said.items()
        if key not in _JSON_KNOWN and isinstance(value, (str, int, float))
    ]
    if not details:
        return message
    first, newline, rest = message.partition("\n")
    return f"{first} {' '.join(details)}{newline}{rest}"


def _json_time(said: Any, clock: Clock, now: float) -> float:
    if isinstance(said, str):
        match = _AT.match(said)
        if match is not None:
            return clock.full(match["date"], match["clock"], match["fraction"], match["zone"])
    elif isinstance(said, (int, float)) and not isinstance(said, bool) and 3e7 < said < 1e11:
        return float(said)
    return now


def _first(said: dict[str, Any], *names: str) -> Any:
    for name in names:
        value = said.get(name)
        if value is not None and value != "":
            return value
    return None


def _plain(line: str, clock: Clock, now: float) -> Head | None:
    """Of a log that names neither times nor levels: every line is an event."""
    return Head(now, guessed_level(line), line) if line else None


#: Forms that are taken at their word, for logs whose lines could be taken for something else.
_BY_FORM: dict[str, Callable[[str, Clock, float], Head | None]] = {
    "plain": _plain,
    "json": lambda line, clock, now: _json(line, clock, now) if line[:1] == "{" else None,
    "syslog": lambda line, clock, now: (_dated if line[:1].isdigit() else _syslog)(
        line, clock, now
    ),
    "access": lambda line, clock, now: _access(line, clock),
}
#: What `format` of a log may say.
FORMATS = ("", *_BY_FORM)
