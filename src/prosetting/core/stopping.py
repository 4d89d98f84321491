"""Ctrl+C and SIGTERM: the first one lets what is in flight be finished and committed, the second stops at once.

The first signal only asks. Who takes new work asks `requested()` before it does, and who can wait calls `check()` at
a point where all is committed. What is still in flight after DRAIN_S is broken off: it was never committed, so
nothing is lost but its own cost. One process has one run, so the state is the module's.
"""

from __future__ import annotations

import _thread
import asyncio
import contextlib
import logging
import signal
from collections.abc import Coroutine, Iterator
from typing import Any, TypeVar

DRAIN_S = 8.0

log = logging.getLogger("prosetting")
T = TypeVar("T")


class StopRequested(Exception):
    """All that was in flight is committed, and nothing new is begun: the run was asked to stop."""


class _State:
    requested = False
    broken_off = False
    immediate = False
    task: asyncio.Task[Any] | None = None


_state = _State()


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """Handle SIGINT, SIGTERM and the end of the drain for as long as a run lasts. Main thread only."""
    handlers = {signal.SIGINT: _asked, signal.SIGTERM: _asked, signal.SIGALRM: _drained}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    _state.requested = _state.broken_off = _state.immediate = False
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)
        _state.requested = False


def requested() -> bool:
    """Whether the run was asked to stop: begin nothing new."""
    return _state.requested


def broken_off() -> bool:
    """Whether the run was asked twice: wait for nothing."""
    return _state.broken_off


def check() -> None:
    """Raises StopRequested if the run was asked to stop."""
    if _state.requested:
        raise StopRequested


@contextlib.contextmanager
def at_once() -> Iterator[None]:
    """Nothing is in flight inside (a wait, a question to a person): the first signal ends it by KeyboardInterrupt."""
    check()
    _state.immediate = True
    try:
        yield
    finally:
        _state.immediate = False


def run(runner: asyncio.Runner, work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end. Raises KeyboardInterrupt once it was broken off and its tasks are cleaned up."""

    async def watched() -> T:
        _state.task = asyncio.current_task()
        try:
            return await work
        finally:
            _state.task = None

    try:
        return runner.run(watched())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


def _asked(number: int, frame: object) -> None:
    if _state.requested:
        _state.broken_off = True
        return _break_off()
    _state.requested = True
    if _state.immediate:
        raise KeyboardInterrupt
    signal.setitimer(signal.ITIMER_REAL, DRAIN_S)
    # Not said here: the signal may have come in the middle of a log line, and a file is not written to twice at once.
    # threading.Thread takes a lock, which may be held too.
    _thread.start_new_thread(_say_what_is_awaited, ())


def _say_what_is_awaited() -> None:
    log.warning("stopping: what is in flight is finished first, for at most %.0f s; again to stop at once", DRAIN_S)


def _drained(number: int, frame: object) -> None:
    _break_off()


def _break_off() -> None:
    signal.setitimer(signal.ITIMER_REAL, 0)
    task = _state.task
    if task is None or task.done():
        raise KeyboardInterrupt
    # Raised inside the loop it would leave the tasks standing; cancelled, they end and keep their books.
    task.get_loop().call_soon_threadsafe(task.cancel)
