"""A pause: what is in flight is finished and committed, and nothing new is begun until the run is let go on.

A wish to pause only asks, as the first Ctrl+C does (`stopping`). Who begins a piece of work does so inside `work()`,
which waits while a pause is wished and counts the piece as in flight after that. Engines stay as they are, so that
going on costs nothing; only a training, which is one long piece, saves a checkpoint, ends and goes on from there.
One process has one run, so the state is the module's.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator

from prosetting.core import stopping

POLL_S = 0.1


class PauseRequested(Exception):
    """A long piece of work has kept what it has done and ended, because a pause is wished. Begun again, it goes on."""


class _State:
    wished_at: float | None = None
    in_flight = 0
    paused_s = 0.0


_state = _State()


@contextlib.contextmanager
def pausable() -> Iterator[None]:
    """For as long as a run lasts; a new run begins unpaused."""
    _state.wished_at, _state.in_flight, _state.paused_s = None, 0, 0.0
    try:
        yield
    finally:
        _state.wished_at = None


def wish() -> None:
    """Ask for a pause. Safe from any thread, as all of this is but `work`."""
    _state.wished_at = _state.wished_at or time.monotonic()


def go_on() -> None:
    if (since := _state.wished_at) is not None:
        _state.paused_s += time.monotonic() - since
        _state.wished_at = None


def requested() -> bool:
    """Whether a pause is wished: begin nothing new."""
    return _state.wished_at is not None


def check() -> None:
    """Raises PauseRequested if a pause is wished: for a long piece of work, where it can end and be gone on with."""
    if requested():
        raise PauseRequested


def quiet() -> bool:
    """Whether nothing is in flight."""
    return _state.in_flight == 0


def clock() -> float:
    """Seconds of a clock that stands still in a pause: how long the run works."""
    wished_at = _state.wished_at  # another thread may end the pause just now
    return (time.monotonic() if wished_at is None else wished_at) - _state.paused_s


async def let_go_on() -> None:
    """Returns when no pause is wished. Raises StopRequested when the run is to stop meanwhile."""
    while requested():
        stopping.check()
        await asyncio.sleep(POLL_S)


@contextlib.contextmanager
def in_flight() -> Iterator[None]:
    """A piece of work that is finished even when a pause is wished."""
    _state.in_flight += 1
    try:
        yield
    finally:
        _state.in_flight -= 1


@contextlib.asynccontextmanager
async def work() -> AsyncIterator[None]:
    """A piece of work that is not begun while a pause is wished."""
    await let_go_on()
    with in_flight():
        yield
