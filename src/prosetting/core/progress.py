"""Live progress as plain log lines: at most one every few seconds, and always the last one."""

from __future__ import annotations

import logging
import time

INTERVAL_S = 5.0
log = logging.getLogger("prosetting")


class Progress:
    """Counts one stage's items and says how far it is, how fast, and how long it will take."""

    def __init__(self, what: str, total: int) -> None:
        self._what, self._total, self._done = what, total, 0
        self._started = self._said = time.monotonic()

    def skip(self, count: int) -> None:
        """Items that need no work: done already, and no part of the pace."""
        self._total -= count

    def advance(self, count: int, note: str = "") -> None:
        self._done += count
        now = time.monotonic()
        if now - self._said < INTERVAL_S and self._done < self._total:
            return
        self._said = now
        rate = self._done / max(now - self._started, 1e-6)
        left_s = (self._total - self._done) / max(rate, 1e-6)
        log.info(
            "%s %d/%d · %.0f/s%s%s",
            self._what,
            self._done,
            self._total,
            rate,
            f" · {left_s:.0f} s left" if self._done < self._total else "",
            f" · {note}" if note else "",
        )
