"""Where a teacher's calls are kept, so that no reply is bought twice."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

from prosetting.core.group_commit import GroupCommit
from prosetting.core.journal_rows import TeacherCall


class CallLedger(Protocol):
    """What an HttpTeacher needs of it."""

    def recall(self, request_hashes: Sequence[str]) -> list[str]:
        """The replies recorded for these requests, in their order."""
        ...

    def record(self, call: TeacherCall) -> asyncio.Future[None]:
        """Keep a call. It is kept whether or not the result is awaited, which tells when it is on disk."""
        ...


class JournalLedger:
    """The journal as a ledger."""

    def __init__(self, commits: GroupCommit) -> None:
        self._commits = commits

    def recall(self, request_hashes: Sequence[str]) -> list[str]:
        return self._commits.journal.recall(request_hashes)

    def record(self, call: TeacherCall) -> asyncio.Future[None]:
        return self._commits.submit(lambda: self._commits.journal.record(call))


class NoLedger:
    """Keeps nothing."""

    def recall(self, request_hashes: Sequence[str]) -> list[str]:
        return []

    def record(self, call: TeacherCall) -> asyncio.Future[None]:
        done = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done
