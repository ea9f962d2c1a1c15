"""Starts plugins' processes, takes what they push, restarts what dies or hangs.

One thread for all of them. Nothing that a plugin does reaches the agent but lines on its socket:
they are bounded in length and number, and answered when what they bring is in the spool.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import Any, Callable, Mapping, Sequence

import agent_client
from agent_client import plugin_modules
from agent_client.config import Config
from agent_client.logreader import Entry
from agent_client.plugins import ending, pushes
from agent_client.plugins.limits import Limits, user_of
from agent_client.wire import Point

log = logging.getLogger("sentinella.plugins")

_LOOK_EVERY = 1.0
_LONGEST_LINE = 4 * 1024 * 1024
#: What may be pushed in a minute, in lines and in bytes.
_LINES_A_MINUTE = 600
_BYTES_A_MINUTE = 8 * 1024 * 1024
#: From so much a minute on it is ended, for reading it costs the agent, too: so many lines and
#: pieces of lines, and so many bytes.
_FLOOD = 20 * _LINES_A_MINUTE
_FLOOD_BYTES = 4 * _BYTES_A_MINUTE
#: How often a second its standard error is read; a plugin that writes faster waits.
_ERROR_READS = 50
_BACK_OFF_FROM, _BACK_OFF_TO = 1.0, 300.0
#: A life this long ends the back-off: what dies afterwards is started at once.
_HEALTHY_AFTER = 600.0
_STOP_SECONDS = 1.0
#: How long a plugin may take to read an answer; the others wait meanwhile.
_ANSWER_SECONDS = 2.0
#: Processor time that a plugin may use ahead of its share, in seconds.
_CPU_AHEAD = 60.0
_ERRORS_KEPT = 4096
#: How many lines of what confines it are kept.
_TEXTS_KEPT = 20


@dataclasses.dataclass
class PluginState:
    """How one plugin fares, as `sentinella status` shows it."""

    name: str
    state: str = "starting"
    ok: bool = True
    detail: str = ""
    pid: int | None = None
    restarts: int = 0
    pushes: int = 0
    points: int = 0
    events: int = 0
    refused: int = 0
    #: What confines it, and what this host could not enforce.
    holds: Sequence[str] = ()
    missing: Sequence[str] = ()

    def fields(self) -> dict[str, float]:
        """What is told of it with every report; counts since the agent was started."""
        return {
            "up": float(self.state == "running"),
            "restarts": self.restarts,
            "pushes": self.pushes,
            "refused": self.refused,
        }


class _Plugin:
    """One function with its process, while it has one."""

    def __init__(
        self, module: str, function: str, limits: Limits, settings: Mapping[str, Any]
    ) -> None:
        self.module, self.function, self.limits = module, function, limits
        self.settings = settings
        #: Keys and names of other plugins, under which this one may not push.
        self.foreign: frozenset[str] = frozenset()
        self.state = PluginState(f"{module}.{function}")
        self.process: subprocess.Popen[bytes] | None = None
        self.socket: socket.socket | None = None
        self.pending = bytearray()
        self.errors = b""
        self.error_reads = 0
        self.greeted = False
        self.warned: set[str] = set()
        self.failed = ""
        self.told = ""
        self.hung = False
        self.busy = False
        #: Ended by us for what it sent; what it said besides is not read any more.
        self.put_down = False
        self.started_at = 0.0
        self.sign_at = 0.0
        self.start_at: float | None = 0.0
        self.back_off = _BACK_OFF_FROM
        self.window_at, self.lines, self.all_lines, self.bytes = 0.0, 0, 0, 0


class Supervisor:
    """Runs the plugins of a configuration. `store` puts points and events into the spool."""

    def __init__(
        self,
        config: Config,
        store: Callable[[Sequence[Point], Sequence[Entry]], None],
        tell: Callable[[str, str], None],
    ) -> None:
        self._config = config
        self._store = store
        self._tell = tell
        self._plugins: dict[str, _Plugin] = {}
        self._next_config: Config | None = config
        self._selector = selectors.DefaultSelector()
        self._woken, self._waker = socket.socketpair()
        self._waker.setblocking(False)
        self._selector.register(self._woken, selectors.EVENT_READ, None)
        self._look_at = 0.0
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def use(self, config: Config) -> None:
        """Run the plugins of this configuration: what is new starts, what is gone ends."""
        self._next_config = config
        if self._thread is None and (config.plugins or self._plugins):
            self._thread = threading.Thread(target=self._work, name="plugins", daemon=True)
            self._thread.start()
        else:
            self._wake()

    def _wake(self) -> None:
        """End the thread's wait. Where no thread runs nobody reads, and nobody may wait for it."""
        with contextlib.suppress(BlockingIOError):  # full: it is woken already
            self._waker.send(b"x")

    @property
    def states(self) -> list[PluginState]:
        """How each fares."""
        return [plugin.state for plugin in list(self._plugins.values())]

    def close(self) -> None:
        """End all plugins: asked first, then killed."""
        if self._stop.is_set():
            return
        self._stop.set()
        self._wake()
        if self._thread is not None:
            self._thread.join(_STOP_SECONDS + 3.0)
        for plugin in self._plugins.values():
            self._kill(plugin)
        self._selector.close()
        self._woken.close()
        self._waker.close()

    # The thread

    def _work(self) -> None:
        while not self._stop.is_set():
            try:
                if self._next_config is not None:
                    self._take_up()
                    self._look_at = 0.0
                now = time.monotonic()
                if now >= self._look_at:  # not with each line that comes
                    self._look_at = now + _LOOK_EVERY
                    self._look(now)
                self._hear(max(0.0, self._look_at - time.monotonic()))
            except Exception:
                # Whatever a plugin brought about: the others, and the agent, go on.
                log.exception("plugins")
                self._stop.wait(_LOOK_EVERY)
        self._end(list(self._plugins.values()))

    def _take_up(self) -> None:
        config, self._next_config = self._next_config, None
        assert config is not None  # noqa: S101 - the caller has looked
        wanted = {
            f"{module}.{function}": (module, function)
            for module, functions in config.plugins.items()
            for function in functions
        }
        changed = [
            plugin
            for name, plugin in self._plugins.items()
            if name not in wanted
            or plugin.limits != config.limits_of(plugin.module)
            or plugin.settings != config.settings_of(plugin.module)
            or config.plugin_paths != self._config.plugin_paths
        ]
        self._end(changed)
        for plugin in changed:
            del self._plugins[plugin.state.name]
        self._config = config
        for name, (module, function) in wanted.items():
            if name not in self._plugins:
                limits, settings = config.limits_of(module), config.settings_of(module)
                self._plugins[name] = _Plugin(module, function, limits, settings)
        for plugin in self._plugins.values():
            plugin.foreign = _foreign(plugin, config)
            if plugin.state.state == "waiting":  # its author may have mended it: now, not in 5 min
                plugin.start_at, plugin.back_off = 0.0, _BACK_OFF_FROM

    def _look(self, now: float) -> None:
        """Start what is due, bury what died, kill what hangs."""
        for plugin in self._plugins.values():
            if plugin.process is None:
                if plugin.start_at is not None and now >= plugin.start_at:
                    self._start(plugin, now)
                continue
            self._listen_to_errors(plugin)
            if _has_ended(plugin.process):
                self._died(plugin, now)
                continue
            plugin.hung = now - plugin.sign_at > plugin.limits.hang_after
            plugin.busy = _uses_too_much(plugin, now)
            if plugin.hung or plugin.busy:
                self._kill(plugin)
                self._died(plugin, now)

    def _start(self, plugin: _Plugin, now: float) -> None:
        unsafe = plugin_modules.unsafe(plugin.module, self._config.plugin_paths)
        if unsafe:
            plugin.failed = f"is not run: {unsafe}"
            self._put_off(plugin, now)
            return
        ours, theirs = socket.socketpair()
        try:
            process = subprocess.Popen(  # noqa: S603 - our own runner
                [sys.executable, "-m", "agent_client.plugins.runner", str(theirs.fileno())],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                cwd="/", env=_environment(), pass_fds=(theirs.fileno(),), start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            ours.close()
            plugin.failed = f"cannot be started: {error}"
            self._put_off(plugin, now)
            return
        finally:
            theirs.close()
        assert process.stderr is not None  # noqa: S101 - asked for above
        plugin.process, plugin.socket = process, ours
        plugin.pending, plugin.errors, plugin.failed = bytearray(), b"", ""
        plugin.error_reads, plugin.greeted = 0, False
        plugin.hung = plugin.busy = plugin.put_down = False
        plugin.started_at = plugin.sign_at = now
        plugin.state.state, plugin.state.pid = "running", process.pid
        ours.settimeout(_ANSWER_SECONDS)
        os.set_blocking(process.stderr.fileno(), False)
        self._selector.register(ours, selectors.EVENT_READ, plugin)
        self._selector.register(process.stderr, selectors.EVENT_READ, plugin)
        told = {
            "module": plugin.module,
            "function": plugin.function,
            "paths": list(self._config.plugin_paths),
            "config": plugin.settings,
            "api_url": self._config.server,
            "limits": dataclasses.asdict(plugin.limits),
        }
        with contextlib.suppress(OSError):  # it died at once: that is seen at the next look
            ours.sendall(json.dumps(told).encode() + b"\n")

    def _died(self, plugin: _Plugin, now: float) -> None:
        """What became of it, said once for each reason, and when it is started again."""
        process = plugin.process
        assert process is not None  # noqa: S101 - it ran
        self._drain(plugin)
        self._kill(plugin)
        code = process.wait()
        self._close(plugin)
        if code == 0 and not plugin.hung and not plugin.busy:
            plugin.start_at, plugin.state.state = None, "ended"
            self._say(plugin, "info", "ended by itself")
            return
        if plugin.hung:
            plugin.failed = f"gave no sign of life for {plugin.limits.hang_after:g} s"
        elif plugin.busy:
            plugin.failed = f"used more than {plugin.limits.cpu:g} % of a processor"
        elif not plugin.failed:
            last = plugin.errors.decode("utf-8", "replace").strip().splitlines()
            how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            plugin.failed = f"died ({how}){': ' + last[-1][:300] if last else ''}"
        if now - plugin.started_at > _HEALTHY_AFTER:
            plugin.back_off = _BACK_OFF_FROM
        self._put_off(plugin, now)

    def _put_off(self, plugin: _Plugin, now: float) -> None:
        plugin.start_at = now + plugin.back_off
        plugin.state.state = "waiting"
        plugin.state.restarts += 1
        text = f"{plugin.failed}; started again in {plugin.back_off:g} s"
        if plugin.failed != plugin.told:  # once for each reason, not with each try
            self._say(plugin, "error", text)
            plugin.told = plugin.failed
        plugin.state.ok, plugin.state.detail = False, plugin.failed
        plugin.back_off = min(_BACK_OFF_TO, plugin.back_off * 2)

    def _say(self, plugin: _Plugin, level: str, text: str) -> None:
        log.log(logging.getLevelName(level.upper()), "plugin %s %s", plugin.state.name, text)
        self._tell(level, f"plugin {plugin.state.name} {text}")

    # What they say

    def _hear(self, seconds: float) -> None:
        for key, _ in self._selector.select(seconds):
            if key.data is None:
                self._woken.recv(64)
            elif key.fileobj is key.data.socket:
                self._read(key.data)
            else:
                self._read_errors(key.data)

    def _read(self, plugin: _Plugin) -> None:
        assert plugin.socket is not None  # noqa: S101 - it is registered
        try:
            came = plugin.socket.recv(262_144)
        except OSError:
            came = b""
        if not came:
            self._selector.unregister(plugin.socket)
            plugin.socket.close()
            plugin.socket = None
            self._look_at = 0.0  # it has ended, as good as
            return
        now = plugin.sign_at = time.monotonic()
        if now - plugin.window_at >= 60:
            plugin.window_at, plugin.lines, plugin.all_lines, plugin.bytes = now, 0, 0, 0
        plugin.bytes += len(came)
        self._count(plugin)  # a piece costs as much as a line
        first, *others = came.split(b"\n")
        plugin.pending += first
        for part in others:
            line, plugin.pending = plugin.pending, bytearray(part)
            self._count(plugin)
            self._line(plugin, line)
        if plugin.put_down:
            plugin.pending = bytearray()
        elif len(plugin.pending) > _LONGEST_LINE:
            self._put_down(plugin, f"sent a line of more than {_LONGEST_LINE} bytes")

    def _read_errors(self, plugin: _Plugin) -> None:
        process = plugin.process
        if process is None or process.stderr is None:
            return
        plugin.error_reads += 1
        if plugin.error_reads > _ERROR_READS:
            self._selector.unregister(process.stderr)
            return
        came = process.stderr.read(65_536)
        if came:
            plugin.errors = (plugin.errors + came)[-_ERRORS_KEPT:]
        elif came == b"":
            self._selector.unregister(process.stderr)
            process.stderr.close()
            self._look_at = 0.0

    def _listen_to_errors(self, plugin: _Plugin) -> None:
        """Read its standard error again, where that was left for a while."""
        stderr = plugin.process.stderr if plugin.process is not None else None
        if plugin.error_reads > _ERROR_READS and stderr is not None and not stderr.closed:
            self._selector.register(stderr, selectors.EVENT_READ, plugin)
        plugin.error_reads = 0

    def _count(self, plugin: _Plugin) -> None:
        """One line or piece of a line more; what floods is ended."""
        plugin.all_lines += 1
        if plugin.put_down:
            return
        if plugin.all_lines > _FLOOD:
            self._put_down(plugin, f"sent more than {_FLOOD} lines or pieces in a minute")
        elif plugin.bytes > _FLOOD_BYTES:
            self._put_down(plugin, f"sent more than {_FLOOD_BYTES} bytes in a minute")

    def _drain(self, plugin: _Plugin) -> None:
        """What it said before it died."""
        if plugin.socket is not None:
            plugin.socket.settimeout(0)
            for _ in range(64):
                if plugin.socket is None:
                    break
                try:
                    waits = bool(plugin.socket.recv(1, socket.MSG_PEEK))
                except OSError:
                    waits = False
                if not waits:
                    break
                self._read(plugin)
        stderr = plugin.process.stderr if plugin.process is not None else None
        if stderr is not None and not stderr.closed:
            self._listen_to_errors(plugin)
            self._read_errors(plugin)

    def _line(self, plugin: _Plugin, line: bytearray) -> None:
        if plugin.put_down:
            return
        try:
            said = json.loads(line, parse_int=_whole)
        except (ValueError, RecursionError):
            said = None
        if not isinstance(said, dict):
            plugin.state.refused += 1
            return
        if not plugin.greeted and isinstance(said.get("hello"), dict):
            self._greet(plugin, said["hello"])
        elif "failed" in said:
            plugin.failed = " ".join(str(said["failed"]).split())[:500]  # a line of our log
        elif "push" in said or "log" in said:
            answer = self._take(plugin, said)
            if plugin.socket is not None:
                try:
                    plugin.socket.sendall(
                        json.dumps({"id": said.get("id"), **answer}).encode() + b"\n"
                    )
                except socket.timeout:
                    # The others wait meanwhile, and would be taken to hang.
                    self._put_down(plugin, "does not read its answers")
                except OSError as error:
                    log.debug("plugin %s does not listen: %s", plugin.state.name, error)

    def _greet(self, plugin: _Plugin, said: Mapping[str, Any]) -> None:
        """What confines it: its first line, said before any of the plugin's own code runs."""
        plugin.greeted = True
        plugin.state.holds, plugin.state.missing = (
            _texts(said.get("holds")), _texts(said.get("missing")),
        )  # fmt: skip
        for text in plugin.state.missing:
            if text.startswith("user: ") and text not in plugin.warned:
                plugin.warned.add(text)
                self._say(plugin, "warning", f"is not the user that it should be: {text[6:]}")

    def _put_down(self, plugin: _Plugin, why: str) -> None:
        plugin.failed = why
        plugin.put_down = True
        self._kill(plugin)

    def _take(self, plugin: _Plugin, said: Mapping[str, Any]) -> dict[str, str]:
        """Store a push or an event; what to answer."""
        state = plugin.state
        plugin.lines += 1
        if plugin.lines > _LINES_A_MINUTE:
            state.refused += 1
            return {"error": f"more than {_LINES_A_MINUTE} pushes and events a minute"}
        if plugin.bytes > _BYTES_A_MINUTE:
            state.refused += 1
            return {"error": f"more than {_BYTES_A_MINUTE} bytes a minute"}
        module = plugin.module
        try:
            points = (
                pushes.points_of(said["push"], module, plugin.foreign) if "push" in said else []
            )
            entries = [pushes.entry_of(said["log"], module)] if "log" in said else []
            if points or entries:
                self._store(points, entries)
        except ValueError as error:
            state.refused += 1
            return {"error": str(error)[:500]}
        except Exception as error:
            log.warning("what plugin %s pushed could not be stored: %s", state.name, error)
            return {"error": f"not stored: {error}"}
        state.pushes += 1
        state.points += len(points)
        state.events += len(entries)
        state.ok, state.detail, plugin.told = True, "", ""
        return {}

    # The end

    def _end(self, plugins: Sequence[_Plugin]) -> None:
        """Ask them to stop, and kill what has not within a second."""
        for plugin in plugins:
            if plugin.socket is not None:
                plugin.socket.setblocking(False)
                with contextlib.suppress(OSError):  # gone already, or it does not read
                    plugin.socket.sendall(b'{"stop": true}\n')
        deadline = time.monotonic() + _STOP_SECONDS
        while any(plugin.process is not None and not _has_ended(plugin.process)
                  for plugin in plugins):  # fmt: skip
            left = deadline - time.monotonic()
            if left <= 0:
                break
            self._hear(min(left, 0.05))
        for plugin in plugins:
            self._drain(plugin)
            self._kill(plugin)
            self._close(plugin)

    def _kill(self, plugin: _Plugin) -> None:
        """End it with all that it started, also where it has ended by itself."""
        process = plugin.process
        if process is not None and process.returncode is None:
            if not ending.end(process.pid, user_of(plugin.limits)[0]):
                log.warning("plugin %s: what it started could not be ended", plugin.state.name)
            with contextlib.suppress(subprocess.TimeoutExpired):  # it waits for a disk: init's
                process.wait(2.0)

    def _close(self, plugin: _Plugin) -> None:
        process, plugin.process = plugin.process, None
        plugin.state.pid = None
        if plugin.socket is not None:
            self._selector.unregister(plugin.socket)
            plugin.socket.close()
            plugin.socket = None
        if process is not None and process.stderr is not None and not process.stderr.closed:
            with contextlib.suppress(KeyError, ValueError):  # its end was read
                self._selector.unregister(process.stderr)
            process.stderr.close()


def _has_ended(process: subprocess.Popen[bytes]) -> bool:
    """Whether it ended; it stays a zombie, so that its number is nobody else's yet."""
    if process.returncode is not None:
        return True
    try:
        ended = os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return True
    return ended is not None


def _uses_too_much(plugin: _Plugin, now: float) -> bool:
    """Whether it has used more than its share since it was started, and some ahead."""
    assert plugin.process is not None  # noqa: S101 - it runs
    try:
        used = ending.processor_seconds(plugin.process.pid)
    except OSError:
        return False  # gone, or hidden from us
    return used > (now - plugin.started_at) * plugin.limits.cpu / 100 + _CPU_AHEAD


def _texts(value: object) -> list[str]:
    return [str(one)[:300] for one in value[:_TEXTS_KEPT]] if isinstance(value, list) else []


def _whole(digits: str) -> float:
    """A whole number of JSON; one of millions of digits would take minutes to read exactly."""
    return int(digits) if len(digits) < 20 else float(digits)


def _foreign(plugin: _Plugin, config: Config) -> frozenset[str]:
    """Keys that other plugins' files name, and other plugins' names."""
    others = {
        name: said for name, said in config.plugin_settings.items() if name not in plugin.settings
    }
    names = {
        name
        for module, functions in config.plugins.items()
        if module != plugin.module
        for name in (module, *(f"{module}.{function}" for function in functions))
    }
    theirs = pushes.keys_in(others) | {pushes.same_key(name) for name in names}
    return frozenset(theirs - pushes.keys_in(plugin.settings))


def _environment() -> dict[str, str]:
    """What a plugin's process is told of this one's: nothing but the time zone and language."""
    package = os.path.dirname(os.path.dirname(os.path.abspath(agent_client.__file__)))
    given = {name: os.environ[name] for name in ("TZ", "LANG", "LC_ALL") if name in os.environ}
    return {
        **given,
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": "/",
        "PYTHONPATH": package,
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONSAFEPATH": "1",
        "PYTHONUNBUFFERED": "1",
        "MALLOC_ARENA_MAX": "2",
    }
