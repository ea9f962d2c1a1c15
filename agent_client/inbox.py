"""Points and events that scripts hand to the running agent, by a socket in its state directory.

One JSON object a line, one answer a line. An answer means that the item is in the spool: it
survives what the agent survives. What arrives together is stored together, so a thousand lines
over one connection cost a few transactions and not a thousand.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import re
import selectors
import socket
import threading
import time
from typing import Any, Callable, Iterator, Mapping, Sequence

from agent_client.logreader import Entry
from agent_client.once import Once
from agent_client.wire import LEVELS, MAX_FIELDS, MAX_MESSAGE, MAX_NAME, MAX_TAGS, Point

log = logging.getLogger("sentinella.inbox")

_NAME = "send.sock"
_LONGEST_LINE = 2 * MAX_MESSAGE
_ITEMS_TOGETHER = 500
_CONNECTIONS = 64
_FIELD = re.compile(r"[A-Za-z_][A-Za-z0-9_.:-]*\Z")
#: How long nobody new is let in where no descriptor is left, in seconds.
_PAUSE = 1.0


class NotRunning(Exception):
    """No agent listens on this state directory."""


class Unstorable(Exception):
    """The agent could not store an item; the text says why."""


def point_of(said: Mapping[str, Any]) -> Point:
    """A point as a script gives it: measurement, fields, tags. Raises ValueError."""
    name, fields, tags = said.get("measurement"), said.get("fields"), said.get("tags") or {}
    if not isinstance(name, str) or not _FIELD.match(name) or len(name) > MAX_NAME:
        raise ValueError(f"measurement {name!r}: letters, digits and _ . : - only")
    if not isinstance(fields, dict) or not 0 < len(fields) <= MAX_FIELDS:
        raise ValueError(f"fields: needs 1 to {MAX_FIELDS} of them")
    for field, value in fields.items():
        if not _FIELD.match(field) or len(field) > MAX_NAME:
            raise ValueError(f"field {field!r}: letters, digits and _ . : - only")
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ValueError(f"field {field}: {value!r} is no number")
        if not _is_finite(value):
            raise ValueError(f"field {field}: must be finite")
    if not isinstance(tags, dict) or len(tags) > MAX_TAGS:
        raise ValueError(f"tags: at most {MAX_TAGS} of them")
    for tag, text in tags.items():
        if not isinstance(text, str) or not _FIELD.match(tag) or len(text) > MAX_NAME:
            raise ValueError(f"tag {tag!r}: a text of at most {MAX_NAME} characters")
    return Point(name, {field: float(value) for field, value in fields.items()}, dict(tags))


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # JSON knows whole numbers of any length
        return False


def entry_of(said: Mapping[str, Any], now: float) -> Entry:
    """An event as a script gives it: message, level, service, component. Raises ValueError."""
    message, level = said.get("message"), said.get("level", "info")
    if not isinstance(message, str) or not message.strip():
        raise ValueError("message: is empty")
    if len(message) > MAX_MESSAGE:
        raise ValueError(f"message: longer than {MAX_MESSAGE} characters")
    if level not in LEVELS:
        raise ValueError(f"level {level!r}: is one of {', '.join(LEVELS)}")
    names = {name: said.get(name, "") for name in ("service", "component", "request_id")}
    for name, text in names.items():
        if not isinstance(text, str) or len(text) > MAX_NAME:
            raise ValueError(f"{name}: a text of at most {MAX_NAME} characters")
    return Entry(now, level, message, **names)


class Inbox:
    """Listens until closed. `store` puts points and events into the spool, or raises."""

    def __init__(
        self,
        state_dir: str,
        store: Callable[[Sequence[Point], Sequence[Entry]], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._clock = clock
        self._storing = Once(log)
        self._stop = threading.Event()
        self._selector = selectors.DefaultSelector()
        self._waiting: dict[socket.socket, bytes] = {}
        self._listener = _listening(state_dir)
        self._path = os.path.join(state_dir, _NAME)
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._waker, self._woken = socket.socketpair()
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._serve, name="inbox", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening; what was answered is stored, what was not, the sender knows of."""
        self._stop.set()
        self._waker.send(b"x")
        self._thread.join(5.0)
        for one in [self._listener, self._waker, self._woken, *self._waiting]:
            one.close()
        self._selector.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)

    def _serve(self) -> None:
        while not self._stop.is_set():
            lines: list[tuple[socket.socket, bytes]] = []
            ready = [key for key, _ in self._selector.select()]
            # Who speaks is heard before another is let in, for whom the longest silent one goes.
            for key in sorted(ready, key=lambda key: key.fileobj is self._listener):
                if key.fileobj is self._listener:
                    self._accept()
                elif key.fileobj is not self._woken:
                    assert isinstance(key.fileobj, socket.socket)  # noqa: S101
                    lines.extend((key.fileobj, line) for line in self._read(key.fileobj))
            for start in range(0, len(lines), _ITEMS_TOGETHER):
                self._take(lines[start : start + _ITEMS_TOGETHER])

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError as error:
            if not isinstance(error, (BlockingIOError, ConnectionAbortedError)):
                log.warning("a script cannot be let in: %s", error)
                self._stop.wait(_PAUSE)
            return
        if len(self._waiting) >= _CONNECTIONS:
            self._let_go(next(iter(self._waiting)))  # who said nothing for longest
        connection.settimeout(1.0)
        self._waiting[connection] = b""
        self._selector.register(connection, selectors.EVENT_READ)

    def _read(self, connection: socket.socket) -> list[bytes]:
        """The whole lines that have come; a connection that ends is let go."""
        try:
            came = connection.recv(65_536)
        except OSError:
            came = b""
        if not came:
            self._let_go(connection)
            return []
        *lines, rest = (self._waiting[connection] + came).split(b"\n")
        if len(rest) > _LONGEST_LINE:
            self._answer(connection, {"error": f"a line is longer than {_LONGEST_LINE} bytes"})
            self._let_go(connection)
            return lines
        del self._waiting[connection]
        self._waiting[connection] = rest
        return lines

    def _let_go(self, connection: socket.socket) -> None:
        if self._waiting.pop(connection, None) is not None:
            self._selector.unregister(connection)
            connection.close()

    def _take(self, lines: Sequence[tuple[socket.socket, bytes]]) -> None:
        """Store what is sound in one go, then answer each line."""
        points: list[Point] = []
        entries: list[Entry] = []
        answers: list[tuple[socket.socket, dict[str, Any]]] = []
        for connection, line in lines:
            try:
                said = json.loads(line)
                if not isinstance(said, dict):
                    raise ValueError("is no JSON object")
                if "measurement" in said:
                    points.append(point_of(said))
                else:
                    entries.append(entry_of(said, self._clock()))
                answers.append((connection, {"ok": True}))
            except ValueError as error:
                answers.append((connection, {"error": str(error)}))
            except RecursionError:
                answers.append((connection, {"error": "is nested too deeply"}))
        try:
            if points or entries:
                self._store(points, entries)
                self._storing.over()
        except Exception as error:
            self._storing.trouble(f"what a script sent could not be stored: {error}")
            answers = [
                (connection, {"error": f"not stored: {error}"} if "ok" in answer else answer)
                for connection, answer in answers
            ]
        for connection, answer in answers:
            self._answer(connection, answer)

    def _answer(self, connection: socket.socket, answer: Mapping[str, Any]) -> None:
        if connection not in self._waiting:
            return
        try:
            connection.sendall(json.dumps(answer).encode() + b"\n")
        except OSError:
            self._let_go(connection)


def hand_over(state_dir: str, items: Sequence[Mapping[str, Any]], timeout: float = 30.0) -> None:
    """Give items to the agent of this state directory; returns when all are in its spool.

    Raises NotRunning where none listens, Unstorable with the first item's reason, OSError.
    """
    with _inside(state_dir) as short, socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(timeout)
        try:
            connection.connect(short)
        except (FileNotFoundError, ConnectionRefusedError):
            raise NotRunning(state_dir) from None
        except PermissionError as error:
            path = os.path.join(state_dir, _NAME)
            raise PermissionError(error.errno, error.strerror, path) from None
        with connection.makefile("rwb") as stream:
            for item in items:
                stream.write(json.dumps(item).encode() + b"\n")
                stream.flush()
                answer = stream.readline()
                if not answer:
                    raise Unstorable("the agent ended before it had stored it")
                said = json.loads(answer)
                if "error" in said:
                    raise Unstorable(said["error"])


def _listening(state_dir: str) -> socket.socket:
    """The socket, made anew: whoever left one behind no longer holds the state directory."""
    listener = socket.socket(socket.AF_UNIX)
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(state_dir, _NAME))
        with _inside(state_dir) as short:
            listener.bind(short)
        os.chmod(os.path.join(state_dir, _NAME), 0o660)
        listener.listen(16)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener


@contextlib.contextmanager
def _inside(state_dir: str) -> Iterator[str]:
    """A short path of the socket: the kernel takes 107 bytes, a directory may be deeper."""
    try:
        descriptor = os.open(state_dir, os.O_PATH | os.O_DIRECTORY)
    except FileNotFoundError:
        raise NotRunning(state_dir) from None
    try:
        yield f"/proc/self/fd/{descriptor}/{_NAME}"
    finally:
        os.close(descriptor)
