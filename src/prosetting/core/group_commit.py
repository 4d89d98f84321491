"""Many small durable writes of concurrent tasks as few commits.

A commit with synchronous=FULL costs a disk flush (0.9 ms on a local disk, 6 ms on a slow one) whatever it
holds. So writes that tasks ask for at about the same time are committed together, and each task goes on when its
write is on disk:

    commits = GroupCommit(journal)
    await commits.write(lambda: journal.add_grades("train", grades))

The commit runs on the event loop and not in a thread: the connection is shared with the tasks' reads, which would
wait for the commit there too, and on one thread no other statement can slip into an open transaction. In exchange it
takes two fifths of the loop's time at most: after a commit the next one waits one and a half times as long as that one
took, however slow the disk is, and holds all that is asked for meanwhile. A longer pause would hold up who waits for
its write: a teacher's reply keeps its place among the calls in flight until it is on disk.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable

from prosetting.core.journal import Journal
from prosetting.core.storage import pause_for
from prosetting.errors import WorkspaceError

PAUSE_OF_A_COMMIT = 1.5
"""The least time between two commits, in times that the first one took."""


class GroupCommit:
    """One for each journal and event loop."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self._queue: list[tuple[Callable[[], None], asyncio.Future[None]]] = []
        self._not_before = 0.0  # monotonic

    async def write(self, work: Callable[[], None]) -> None:
        """Run `work`, which writes to the journal, and return once that is committed.

        Raises RunPaused when the journal's disk takes no writes, WorkspaceError when something else is in the way.
        If one write of a transaction fails, none of it is kept and all its writers get the error. A writer that is
        cancelled stops waiting; its write is made.
        """
        await self.submit(work)

    def submit(self, work: Callable[[], None]) -> asyncio.Future[None]:
        """As `write`, for who cannot wait now: the write is made in any case, the future tells when it is."""
        loop = asyncio.get_running_loop()
        if not self._queue:
            loop.call_later(max(0.0, self._not_before - time.monotonic()), self._commit)
        written = loop.create_future()
        self._queue.append((work, written))
        return written

    def flush(self) -> None:
        """Commit what is still queued, for when no event loop runs any more. Raises as `write` does."""
        if (error := self._commit()) is not None:
            raise error

    def _commit(self) -> Exception | None:
        batch, self._queue = self._queue, []
        started = time.monotonic()
        error = self._run([work for work, _ in batch]) if batch else None
        ended = time.monotonic()
        self._not_before = ended + PAUSE_OF_A_COMMIT * (ended - started)
        for _, written in batch:
            if written.done():
                continue
            if error is None:
                written.set_result(None)
            else:
                written.set_exception(error)
        return error

    def _run(self, works: list[Callable[[], None]]) -> Exception | None:
        try:
            with self.journal.transaction():
                for work in works:
                    work()
        except sqlite3.OperationalError as error:
            return pause_for(error, self.journal.path.parent) or WorkspaceError(
                f"the journal cannot be written: {error}",
                next_step="see that its disk has room and no other program holds it, then run the same command again",
            )
        except Exception as error:
            return error
        return None
