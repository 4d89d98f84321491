"""Bounded concurrency over items that come one by one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

from prosetting.core import stopping

Item = TypeVar("Item")


async def for_each(items: Iterable[Item], work: Callable[[Item], Awaitable[None]], *, limit: int) -> None:
    """Await `work(item)` for every item, at most `limit` at a time.

    The first error cancels what is in flight and is raised as it is. Items are taken as places come free. Raises
    StopRequested when the run is asked to stop, once what is in flight is done.
    """
    stream = iter(items)

    async def worker() -> None:
        for item in stream:
            stopping.check()
            await work(item)

    tasks = [asyncio.create_task(worker()) for _ in range(limit)]
    try:
        await asyncio.gather(*tasks)
    except stopping.StopRequested:
        # The others take nothing new either.
        await asyncio.gather(*(task for task in tasks if not task.done()), return_exceptions=True)
        raise
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
