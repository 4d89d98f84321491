"""Live parts of pages as server-sent events: made at most once a second however many pages are open.

A part is sent when it has changed; a page that nobody looks at costs nothing.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

INTERVAL_S = 1.0
HEARTBEAT_S = 15.0
PACE_WINDOW_S = 20.0
MOST_PARTS = 50

Make = Callable[[], Awaitable[str]]


@dataclass(slots=True)
class _Part:
    """A live part: what was made last, and when."""

    html: str = ""
    made_at: float = -1e9
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Feed:
    """`ended` tells that the server stops: open streams then end, so that it need not wait for them."""

    def __init__(self, ended: Callable[[], bool]) -> None:
        self._ended = ended
        self._parts: dict[str, _Part] = {}

    async def stream(self, name: str, make: Make) -> AsyncIterator[str]:
        """Events of one page: `part` with the HTML whenever it has changed."""
        sent, silent_since = "", time.monotonic()
        yield "retry: 2000\n\n"
        while not self._ended():
            html = await self._current(name, make)
            if html != sent:
                sent, silent_since = html, time.monotonic()
                yield f"event: part\ndata: {json.dumps(html)}\n\n"
            elif time.monotonic() - silent_since > HEARTBEAT_S:
                silent_since = time.monotonic()
                yield ": still here\n\n"
            await asyncio.sleep(INTERVAL_S)

    async def _current(self, name: str, make: Make) -> str:
        if name not in self._parts and len(self._parts) >= MOST_PARTS:
            self._parts.clear()
        part = self._parts.setdefault(name, _Part())
        async with part.lock:
            if time.monotonic() - part.made_at >= INTERVAL_S * 0.9:
                part.html, part.made_at = await make(), time.monotonic()
            return part.html


class Pace:
    """How fast counts grow, from what pages saw of them in the last seconds."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, tuple[int, ...], int]] = deque()

    def rates(self, round_: int, counts: tuple[int, ...]) -> tuple[float, ...] | None:
        """Items a second of each count; None until there is something to tell it from."""
        now = time.monotonic()
        if self._seen and self._seen[-1][2] != round_:
            self._seen.clear()
        self._seen.append((now, counts, round_))
        while now - self._seen[0][0] > PACE_WINDOW_S and len(self._seen) > 2:
            self._seen.popleft()
        first, before, _ = self._seen[0]
        if now - first < 2 * INTERVAL_S:
            return None
        return tuple(max(0.0, (c - b) / (now - first)) for c, b in zip(counts, before, strict=True))
