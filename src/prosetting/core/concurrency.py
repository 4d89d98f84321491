"""Bounded concurrency over items that come one by one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

Item = TypeVar("Item")


async def for_each(items: Iterable[Item], work: Callable[[Item], Awaitable[None]], *, limit: int) -> None:
    """Await `work(item)` for every item, at most `limit` at a time.

    The first error cancels what is in flight and is raised as it is. Items are taken as places come free.
    """
    stream = iter(items)

    async def worker() -> None:
        for item in stream:
            await work(item)

    tasks = [asyncio.create_task(worker()) for _ in range(limit)]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
