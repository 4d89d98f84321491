"""Work side by side on one event loop: bounded, one stage behind another, and blocking work in threads."""

from __future__ import annotations

import asyncio
import heapq
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from concurrent.futures import Executor
from typing import Any, TypeVar

from prosetting.core import stopping

Item = TypeVar("Item")
T = TypeVar("T")


async def for_each(items: Iterable[Item], work: Callable[[Item], Awaitable[None]], *, limit: int) -> None:
    """Await `work(item)` for every item, at most `limit` at a time; items are taken as places come free.

    Ends as `side_by_side` does. When the run is asked to stop nothing new is taken.
    """
    stream = iter(items)

    async def worker() -> None:
        for item in stream:
            stopping.check()
            await work(item)

    await side_by_side(*(worker() for _ in range(limit)))


async def side_by_side(*works: Coroutine[Any, Any, None]) -> None:
    """Await all of them. The first error cancels the others and is raised as it is.

    Raises StopRequested when one of them does, once the others have ended by themselves: each sees the wish too.
    """
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        await asyncio.gather(*tasks)
    except stopping.StopRequested:
        await asyncio.gather(*tasks, return_exceptions=True)
        raise
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Frontier:
    """How far one stage has come through a row of items, for the stage behind it.

    Items are done in any order, but the stage behind is let to an item only when all before it are done as well:
    so nothing is kept of a round but what is in flight.
    """

    def __init__(self) -> None:
        self.passed = 0
        """Items done without a gap, from the first."""
        self._ahead: set[int] = set()
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._closed = False

    def done(self, place: int) -> None:
        self._ahead.add(place)
        while self.passed in self._ahead:
            self._ahead.remove(self.passed)
            self.passed += 1
        while self._waiting and self._waiting[0][0] < self.passed:
            _, _, waiting = heapq.heappop(self._waiting)
            if not waiting.done():
                waiting.set_result(None)

    def complete(self) -> None:
        """All items are done, however many there are."""
        self.passed = sys.maxsize - 1
        self.done(self.passed)

    def close(self) -> None:
        """Nothing more is done: whoever waits, now or later, gets StopRequested."""
        self._closed = True
        for _, _, waiting in self._waiting:
            if not waiting.done():
                waiting.set_exception(stopping.StopRequested())
        self._waiting = []

    async def reached(self, place: int) -> None:
        """Returns when the item at `place` and all before it are done."""
        if place < self.passed:
            return
        if self._closed:
            raise stopping.StopRequested
        waiting = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (place, id(waiting), waiting))
        await waiting


async def in_thread(
    work: Callable[[], T], *, executor: Executor | None = None, end: Callable[[], None] = lambda: None
) -> T:
    """Run blocking work in a thread and wait for its end, also when cancelled: no work outlives its caller.

    `end` is called at each cancellation, to make `work` return soon.
    """
    thread = asyncio.get_running_loop().run_in_executor(executor, work)
    cancelled = False
    while not thread.done():
        try:
            await asyncio.shield(thread)
        except asyncio.CancelledError:
            cancelled = True
            end()
        except BaseException:
            break
    if cancelled:
        thread.exception()
        raise asyncio.CancelledError
    return thread.result()
