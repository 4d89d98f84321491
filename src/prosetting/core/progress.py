"""How far each stage is: one line a stage, live at a terminal (`live_lines`), now and then in a log.

Stages overlap, so several are open at a time. A stage that follows another waits for it: its pace counts the time in
which it had something to do (`busy`), its end is estimated from what it has come through lately, waiting included.
A pause counts for neither.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import NamedTuple

from prosetting.core import pausing

INTERVAL_S = 5.0
WINDOW_S = 60.0
"""Pace and end are those of the last minute."""
IS_PROGRESS = {"progress": True}
"""Marks a log line that a live display shows better."""
log = logging.getLogger("prosetting")


class _Mark(NamedTuple):
    """A moment: seconds so far, of them with something to do, and items done."""

    at: float
    busy_s: float
    done: int


class Progress:
    """Counts one stage's items and says how far it is, how fast, and how long it will take.

    As a context manager it is closed at the end; what is done to its last item closes itself.
    """

    def __init__(self, what: str, total: int) -> None:
        self.what, self.total, self.done = what, total, 0
        self.counts: Counter[str] = Counter()
        self.note = ""
        self._working, self._busy_s, self._since = 0, 0.0, 0.0
        self._said = pausing.clock()
        self._marks: deque[_Mark] = deque()
        _opened(self)

    def skip(self, count: int) -> None:
        """Items that need no work: done already, and no part of the pace."""
        self.total -= count

    def advance(self, count: int, note: str = "") -> None:
        self.done += count
        self.note = note or self.note
        now = pausing.clock()
        self._mark(now)
        if now - self._said >= INTERVAL_S or self.done >= self.total:
            self._said = now
            log.info(self.line(), extra=IS_PROGRESS)
        if self.done >= self.total:
            self.close()

    def count(self, counts: Mapping[str, int]) -> None:
        """How the items came out, by name: verdicts, say."""
        self.counts.update(counts)

    @contextmanager
    def busy(self) -> Iterator[None]:
        """While something of the stage is worked at; several may be at a time."""
        if not self._working:
            self._since = pausing.clock()
        self._working += 1
        try:
            yield
        finally:
            self._working -= 1
            if not self._working:
                self._busy_s += pausing.clock() - self._since

    def _mark(self, now: float) -> None:
        """The first mark is that of the first items: before them a model may have been loaded."""
        if len(self._marks) > 1 and now - self._marks[-2].at < 1.0:
            self._marks.pop()
        self._marks.append(_Mark(now, self._busy_until(now), self.done))
        while len(self._marks) > 2 and now - self._marks[1].at > WINDOW_S:
            self._marks.popleft()

    def _busy_until(self, now: float) -> float:
        return self._busy_s + (now - self._since if self._working else 0.0)

    @property
    def waits(self) -> bool:
        """Whether it has nothing to do at this moment."""
        return not self._working and bool(self._busy_s)

    def pace(self) -> tuple[float | None, float | None]:
        """Items a second of work, and seconds to the end; None while that is not known."""
        if len(self._marks) < 2:
            return None, None
        first, last = self._marks[0], self._marks[-1]
        done, left = last.done - first.done, self.total - self.done
        worked_s = (last.busy_s - first.busy_s) or (last.at - first.at)
        if not done or worked_s <= 0:
            return None, None
        left_s = left * (last.at - first.at) / done - (pausing.clock() - last.at)
        return done / worked_s, max(left_s, 0.0) if left > 0 else None

    def figures(self) -> list[str]:
        """What stands behind the counts: pace, time left, how items came out, a note."""
        rate, left_s = self.pace()
        return [
            *([f"{shown_rate(rate)}"] if rate else []),
            *([f"{shown_time(left_s)} left"] if left_s is not None else []),
            *([", ".join(f"{count} {name}" for name, count in sorted(self.counts.items()))] if self.counts else []),
            *([self.note] if self.note else []),
        ]

    def line(self) -> str:
        return " · ".join([f"{self.what} {self.done}/{self.total}", *self.figures()])

    def close(self) -> None:
        """Nothing more will be told of it. Safe to call twice."""
        _closed(self)

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def shown_rate(rate: float) -> str:
    """Items a second, a minute where they are slow."""
    return f"{rate:.0f}/s" if rate >= 10 else f"{rate:.1f}/s" if rate >= 1 else f"{rate * 60:.1f}/min"


def shown_time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


# What is open, for a live display

_open: list[Progress] = []
_listeners: list[Callable[[], None]] = []


def open_stages() -> list[Progress]:
    """The stages in progress, in the order of beginning."""
    return list(_open)


@contextmanager
def told_of_changes(listener: Callable[[], None]) -> Iterator[None]:
    """`listener` is called when a stage is opened or closed."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


def close_all() -> None:
    """After a failure: nothing goes on."""
    for progress in open_stages():
        progress.close()


def _opened(progress: Progress) -> None:
    _open.append(progress)
    _tell()


def _closed(progress: Progress) -> None:
    if progress in _open:
        _open.remove(progress)
        _tell()


def _tell() -> None:
    for listener in _listeners:
        listener()
