"""The part of trollius that plugins of the original agent use, on today's asyncio.

A plugin says `from trollius import From` and `yield From(agent.async_push(data))` in a generator.
The runner puts this module in trollius' place, and `drive` runs such generators.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from typing import Any, Callable, Generator

#: Marks functions that `coroutine` has wrapped, for the runner.
IS_COROUTINE = "_sentinella_coroutine"

CancelledError = asyncio.CancelledError
TimeoutError = asyncio.TimeoutError
Event = asyncio.Event
Lock = asyncio.Lock
Queue = asyncio.Queue
Future = asyncio.Future
Task = asyncio.Task


class From:
    """What a generator yields to wait for something."""

    def __init__(self, obj: Any) -> None:
        self.obj = obj


class Return(Exception):
    """What a generator raises to return a value, as Python 2 could not."""

    def __init__(self, *values: Any) -> None:
        super().__init__(*values)
        self.value = None if not values else values[0] if len(values) == 1 else values


async def drive(generator: Generator[Any, Any, Any]) -> Any:
    """Run a generator that yields what it waits for; returns what it returns."""
    value: Any = None
    failure: BaseException | None = None
    while True:
        try:
            waited = generator.throw(failure) if failure is not None else generator.send(value)
        except StopIteration as stop:
            return stop.value
        except Return as returned:
            return returned.value
        value, failure = None, None
        try:
            value = await awaited(waited)
        except asyncio.CancelledError:
            generator.close()
            raise
        except Exception as error:
            failure = error


async def awaited(thing: Any) -> Any:
    """Wait for whatever a plugin waits for: From, generator, awaitable; anything else is itself."""
    if isinstance(thing, From):
        thing = thing.obj
    if inspect.isgenerator(thing):
        return await drive(thing)
    if inspect.isawaitable(thing):
        return await thing
    if thing is None:
        await asyncio.sleep(0)
    return thing


def coroutine(function: Callable[..., Any]) -> Callable[..., Any]:
    """Trollius' decorator: calling the function gives something to wait for."""

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return awaited(function(*args, **kwargs))

    setattr(wrapped, IS_COROUTINE, True)
    return wrapped


def sleep(delay: float, result: Any = None, loop: Any = None) -> Any:
    """Wait so many seconds."""
    return asyncio.sleep(delay, result)


def async_(thing: Any, loop: Any = None) -> Any:
    """Start something beside."""
    return asyncio.ensure_future(awaited(thing))


ensure_future = async_


def wait_for(thing: Any, timeout: float | None, loop: Any = None) -> Any:
    """Wait at most so long."""
    return asyncio.wait_for(awaited(thing), timeout)


def get_event_loop() -> Any:
    """The loop that runs the plugin."""
    return asyncio.get_event_loop()
