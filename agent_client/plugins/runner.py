"""One plugin's process: confine it, then run one function of its module with an agent to talk to.

Started by the supervisor with the number of a socket's descriptor as its argument. The first line
that comes says what to run; from then on the plugin's pushes go out as lines, each answered by one.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import itertools
import json
import os
import socket
import sys
import threading
import time
import traceback
import types
from typing import Any, Callable, Dict, Mapping

from agent_client import plugin_modules
from agent_client.plugins import trollius
from agent_client.plugins.confine import Refused, confine, interpreter_paths
from agent_client.plugins.limits import Limits

#: Exit codes: the module or function is not there; it raised; it may not run here.
NOT_THERE, RAISED, REFUSED = 3, 4, 5
_SIGN_EVERY = 5.0
_LONGEST_LINE = 4 * 1024 * 1024


class PushFailed(Exception):
    """The agent did not take it; the text says why."""


class Channel:
    """Lines to the agent and its answers; for any number of threads."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._stream = connection.makefile("rb")
        self._writing = threading.Lock()
        self._numbers = itertools.count(1)
        self._waiting: dict[int, Callable[[Mapping[str, Any]], None]] = {}
        self._signed_at = 0.0
        self.stopped: Callable[[], None] = lambda: None

    def hear(self) -> dict[str, Any]:
        """The next line. Raises EOFError when the agent is gone."""
        line = self._stream.readline(_LONGEST_LINE)
        if not line:
            raise EOFError
        said: dict[str, Any] = json.loads(line)
        return said

    def say(self, what: Mapping[str, Any]) -> None:
        """One line, not answered."""
        line = json.dumps(what, default=str).encode() + b"\n"
        if len(line) > _LONGEST_LINE:
            raise PushFailed(f"a push is longer than {_LONGEST_LINE} bytes")
        with self._writing:
            self._connection.sendall(line)

    def ask(self, what: Mapping[str, Any], answered: Callable[[Mapping[str, Any]], None]) -> None:
        """One line; its answer goes to `answered`, in the listening thread."""
        number = next(self._numbers)
        self._waiting[number] = answered
        self.say({**what, "id": number})

    def sign(self) -> None:
        """A sign of life, now and then."""
        now = time.monotonic()
        if now - self._signed_at >= _SIGN_EVERY:
            self._signed_at = now
            self.say({"alive": True})

    def listen(self) -> None:
        """Hand out answers until the agent goes; then there is nothing left to live for."""
        while True:
            try:
                said = self.hear()
            except (EOFError, OSError, ValueError):
                os._exit(0)
            if "stop" in said:
                self.stopped()
            else:
                answered = self._waiting.pop(said.get("id", 0), None)
                if answered is not None:
                    answered(said)


class ThreadEvent:
    """`agent.run_event` of a plain function."""

    def __init__(self, channel: Channel) -> None:
        self._event = threading.Event()
        self._event.set()
        self._channel = channel

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the agent to run; it does."""
        self._channel.sign()
        return self._event.wait(timeout)

    def is_set(self) -> bool:
        """Whether to go on."""
        self._channel.sign()
        return self._event.is_set()

    def clear(self) -> None:
        """The agent stops."""
        self._event.clear()


class LoopEvent:
    """`agent.run_event` of a coroutine."""

    def __init__(self) -> None:
        self._set = True

    async def wait(self) -> bool:
        """Wait for the agent to run; it does."""
        return self._set

    def is_set(self) -> bool:
        """Whether to go on."""
        return self._set

    def clear(self) -> None:
        """The agent stops."""
        self._set = False


class Settings(Dict[str, Any]):
    """`agent.config`: the plugin's own files of conf.d, by name without `.conf`."""

    def __init__(self, module: str, said: Mapping[str, Any]) -> None:
        super().__init__(said)
        self._module = module

    def __missing__(self, name: str) -> Any:
        raise KeyError(
            f"{name}: no file {name}.conf that is {self._module}'s; one of another name is its own"
            f' by config = ["{name}"] below [plugin_limits."{self._module}"]'
        )


class Agent:
    """What a plugin is handed: the original's contract."""

    def __init__(self, channel: Channel, told: Mapping[str, Any], run_event: Any) -> None:
        self._channel = channel
        self.run_event = run_event
        self.config = Settings(told.get("module", ""), told.get("config", {}))
        self.api_url: str = told.get("api_url", "")
        self.proxy: dict[str, str] = {}
        self.processes: list[str] = []
        self.openstack_status: dict[str, Any] = {}
        self.nova_api_version = ""
        self._config: dict[str, Any] = {"api_url": self.api_url, "openstack_services": {}}

    def push(self, data: Mapping[str, Any], *ignored: Any) -> None:
        """Hand over a push and wait until it is stored. Raises PushFailed."""
        self._blocking({"push": data})

    def push_log(self, event: Mapping[str, Any], *ignored: Any) -> None:
        """Hand over one log event and wait until it is stored. Raises PushFailed."""
        self._blocking({"log": event})

    async def async_push(self, data: Mapping[str, Any], *ignored: Any) -> None:
        """Hand over a push; to wait for is that it is stored. Raises PushFailed."""
        loop = asyncio.get_event_loop()
        done = loop.create_future()

        def settle(answer: Mapping[str, Any]) -> None:
            if done.cancelled():
                return
            if "error" in answer:
                done.set_exception(PushFailed(answer["error"]))
            else:
                done.set_result(None)

        def answered(answer: Mapping[str, Any]) -> None:
            loop.call_soon_threadsafe(settle, answer)

        self._channel.ask({"push": data}, answered)
        await done

    def _blocking(self, what: Mapping[str, Any]) -> None:
        done = threading.Event()
        answers: list[Mapping[str, Any]] = []

        def settle(answer: Mapping[str, Any]) -> None:
            answers.append(answer)
            done.set()

        self._channel.ask(what, settle)
        done.wait()
        if "error" in answers[0]:
            raise PushFailed(answers[0]["error"])

    def create_database(self, *args: Any, **kwargs: Any) -> None:
        """Does nothing, as in the original."""

    async def async_create_database(self, *args: Any, **kwargs: Any) -> None:
        """Does nothing, as in the original."""


def load(module: str, function: str, paths: list[str]) -> Callable[[Any], Any]:
    """The plugin's function. `sentinella.x` is looked for as `x` too. Raises LookupError."""
    package = types.ModuleType("sentinella")
    package.__path__ = [*paths, *(os.path.join(path, "sentinella") for path in paths)]
    sys.modules["sentinella"] = package
    sys.modules["trollius"] = trollius
    sys.path[:0] = paths
    file = plugin_modules.locate(module, paths)
    if file is not None:  # plugins for Python 2 import their neighbours without a dot
        sys.path.append(os.path.dirname(file))
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name and (module == error.name or module.startswith(error.name + ".")):
            raise LookupError(f"there is no module {module} that its user may read") from None
        raise
    wanted = getattr(found, function, None)
    if not callable(wanted):
        raise LookupError(f"{module} has no function {function}")
    made: Callable[[Any], Any] = wanted
    return made


def is_coroutine(function: Callable[..., Any]) -> bool:
    """Whether it runs in a loop: native, generator, or wrapped by trollius' decorator."""
    return (
        inspect.iscoroutinefunction(function)
        or inspect.isgeneratorfunction(function)
        or bool(getattr(function, trollius.IS_COROUTINE, False))
    )


def run(function: Callable[[Any], Any], channel: Channel, told: Mapping[str, Any]) -> None:
    """Run it to its end, in a loop or in this thread."""
    if not is_coroutine(function):
        event = ThreadEvent(channel)
        channel.stopped = event.clear
        function(Agent(channel, told, event))
        return
    loop_event = LoopEvent()
    channel.stopped = loop_event.clear

    async def beat() -> None:
        while True:
            channel.sign()
            await asyncio.sleep(_SIGN_EVERY)

    async def work() -> None:
        beating = asyncio.ensure_future(beat())
        try:
            await trollius.awaited(function(Agent(channel, told, loop_event)))
        finally:
            beating.cancel()

    asyncio.run(work())


def main() -> int:
    """Confine this process, then run what the first line says. Returns the exit code."""
    connection = socket.socket(fileno=int(sys.argv[1]))
    connection.set_inheritable(False)
    channel = Channel(connection)
    told = channel.hear()
    sys.path[:] = [path for path in sys.path if path not in ("", os.sep)]  # where it was started
    paths = list(told["paths"])
    limits = Limits(**{name: _plain(value) for name, value in told["limits"].items()})
    here = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    try:
        done = confine(limits, [*paths, here, *interpreter_paths()])
    except Refused as error:
        channel.say({"failed": str(error)})
        return REFUSED
    channel.say({"hello": {"holds": done.holds, "missing": done.missing}})
    threading.Thread(target=channel.listen, name="channel", daemon=True).start()
    try:
        function = load(told["module"], told["function"], paths)
    except LookupError as error:
        channel.say({"failed": str(error)})
        return NOT_THERE
    except BaseException as error:
        channel.say({"failed": _last_line(error)})
        traceback.print_exc()
        return RAISED
    try:
        run(function, channel, told)
    except BaseException as error:
        channel.say({"failed": _last_line(error)})
        traceback.print_exc()
        return RAISED
    return 0


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _last_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:500]


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # threads of the plugin must not hold the end up
