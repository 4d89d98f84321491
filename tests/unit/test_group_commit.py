"""Concurrent small writes in few commits, each durable when its writer goes on."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from prosetting.core.group_commit import GroupCommit
from prosetting.core.journal import Journal
from prosetting.errors import RunPaused


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal(tmp_path / "prosetting.db") as journal:
        yield journal


def committed(tmp_path: Path, name: str) -> object:
    """What another process sees."""
    with Journal(tmp_path / "prosetting.db", read_only=True) as reader:
        return reader.fact(name)


def count_commits(journal: Journal) -> list[str]:
    commits: list[str] = []
    journal._db.set_trace_callback(lambda sql: commits.append(sql) if sql == "COMMIT" else None)
    return commits


def test_writes_asked_for_together_are_one_commit_and_on_disk_when_awaited(journal: Journal, tmp_path: Path) -> None:
    commits = count_commits(journal)

    async def main() -> None:
        group = GroupCommit(journal)

        async def write(n: int) -> None:
            await group.write(lambda: journal.set_fact(f"n{n}", n))
            assert committed(tmp_path, f"n{n}") == n

        await asyncio.gather(*(write(n) for n in range(50)))

    asyncio.run(main())
    assert len(commits) == 1


def test_a_slow_disk_means_fewer_commits(journal: Journal) -> None:
    def slow() -> None:
        time.sleep(0.1)
        journal.set_fact("slow", 1)

    async def main() -> list[str]:
        group = GroupCommit(journal)
        await group.write(slow)
        commits = count_commits(journal)
        for n in range(20):  # each asked for in a turn of the loop of its own
            group.submit(lambda n=n: journal.set_fact(f"n{n}", n))  # type: ignore[misc]
            await asyncio.sleep(0)
        await group.write(lambda: journal.set_fact("last", 1))
        return commits

    assert len(asyncio.run(main())) == 1


def test_a_write_may_hold_a_transaction_of_its_own(journal: Journal) -> None:
    commits = count_commits(journal)

    async def main() -> None:
        group = GroupCommit(journal)
        await asyncio.gather(group.write(lambda: journal.set_pool(1, [])), group.write(lambda: journal.set_pool(2, [])))

    asyncio.run(main())
    assert len(commits) == 1


def test_one_failing_write_fails_all_of_its_commit_and_none_later(journal: Journal) -> None:
    def bad() -> None:
        raise ValueError("no")

    async def main() -> None:
        group = GroupCommit(journal)
        first = group.write(lambda: journal.set_fact("a", 1))
        outcomes = await asyncio.gather(first, group.write(bad), return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [ValueError, ValueError]
        assert journal.fact("a") is None
        await group.write(lambda: journal.set_fact("a", 2))
        assert journal.fact("a") == 2

    asyncio.run(main())


def test_a_journal_that_takes_no_writes_is_told_with_what_to_do(journal: Journal) -> None:
    def full() -> None:
        raise sqlite3.OperationalError("database or disk is full")

    async def main() -> None:
        with pytest.raises(RunPaused, match="disk is full") as caught:
            await GroupCommit(journal).write(full)
        assert "the same command goes on" in caught.value.next_step

    asyncio.run(main())


def test_the_write_of_a_cancelled_writer_is_made(journal: Journal) -> None:
    async def main() -> None:
        group = GroupCommit(journal)
        writer = asyncio.create_task(group.write(lambda: journal.set_fact("a", 1)))
        await asyncio.sleep(0)
        writer.cancel()
        await asyncio.gather(writer, return_exceptions=True)
        group.flush()

    asyncio.run(main())
    assert journal.fact("a") == 1


def test_flush_commits_what_the_loop_did_not_come_to(journal: Journal) -> None:
    async def main() -> GroupCommit:
        group = GroupCommit(journal)
        group.submit(lambda: journal.set_fact("a", 1))
        return group

    with asyncio.Runner() as runner:
        group = runner.run(main())
        group.flush()
        assert journal.fact("a") == 1
