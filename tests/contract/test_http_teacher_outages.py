"""Many calls at once to a server that goes away, comes back, says no, or asks for patience."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from http_peer import GOOD, QUESTION, Answer, error, hang, peer, run

from prosetting.core.concurrency import for_each
from prosetting.core.group_commit import GroupCommit
from prosetting.core.journal import Journal
from prosetting.errors import RunPaused, TeacherUnavailable
from prosetting.records import Verdict
from prosetting.teachers.budget import Budget, Prices
from prosetting.teachers.call_ledger import JournalLedger
from prosetting.teachers.circuit_breaker import OPENS_AFTER, PROBES
from prosetting.teachers.endpoint import Endpoint
from prosetting.teachers.http_teacher import HttpTeacher

WORKERS = 32
MOST_CALLS_OF_AN_OUTAGE = WORKERS + OPENS_AFTER + PROBES


@contextlib.asynccontextmanager
async def opened(base_url: str, journal: Journal, **changes: Any) -> AsyncIterator[HttpTeacher]:
    options: dict[str, Any] = {"concurrent_workers": WORKERS, "timeout_s": 20.0, "max_retries": 2, "retry_delay_s": 0}
    commits = GroupCommit(journal)
    teacher = HttpTeacher(Endpoint(base_url, "", "judge"), ledger=JournalLedger(commits), **(options | changes))
    try:
        yield teacher
    finally:
        await teacher.close()
        commits.flush()


async def grade_all(teacher: HttpTeacher, items: int) -> int:
    """How many of different attempts got the right verdict."""
    right = 0

    async def grade(item: int) -> None:
        nonlocal right
        reply = await teacher.grade(QUESTION, str(item))
        right += reply.verdict is Verdict.CORRECT

    await for_each(range(items), grade, limit=WORKERS)
    return right


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "prosetting.db")


@pytest.mark.parametrize("status", [401, 402, 403, 404])
def test_a_refusal_of_all_calls_is_one_stop_of_one_round_of_calls(status: int, journal: Journal) -> None:
    async def main() -> None:
        async with peer(error(status, "no"), delay_s=0.05) as server:
            async with opened(server.base_url, journal) as teacher:
                with pytest.raises(TeacherUnavailable, match=str(status)):
                    await grade_all(teacher, 200)
            assert len(server.requests) <= WORKERS
        assert journal.teacher_totals().attempts == len(server.requests)

    run(main)


def test_an_outage_that_passes_costs_no_verdict(journal: Journal) -> None:
    async def main() -> None:
        failing: list[Answer] = [error(503, "starting")] * (WORKERS + PROBES - 1)
        async with peer(*failing, GOOD) as server, opened(server.base_url, journal, max_retries=9) as teacher:
            assert await grade_all(teacher, 100) == 100
            assert len(server.requests) == len(failing) + 100

    run(main)


def test_an_outage_that_stays_is_found_out_with_few_calls(journal: Journal) -> None:
    async def main() -> None:
        async with peer(error(503, "gone")) as server, opened(server.base_url, journal) as teacher:
            with pytest.raises(TeacherUnavailable, match="calls in a row"):
                await grade_all(teacher, 500)
            assert OPENS_AFTER + PROBES <= len(server.requests) <= MOST_CALLS_OF_AN_OUTAGE
        assert journal.teacher_totals().calls <= WORKERS

    run(main)


def test_hanging_calls_open_the_breaker_too(journal: Journal) -> None:
    async def main() -> None:
        async with peer(hang) as server, opened(server.base_url, journal, timeout_s=0.1) as teacher:
            with pytest.raises(TeacherUnavailable, match="calls in a row"):
                await grade_all(teacher, 500)
            assert len(server.requests) <= MOST_CALLS_OF_AN_OUTAGE

    run(main)


def test_a_server_that_restarts_is_waited_for(journal: Journal) -> None:
    async def main() -> None:
        async with peer() as gone:
            port = int(gone.base_url.rpartition(":")[2].partition("/")[0])
        async with opened(gone.base_url, journal, retry_delay_s=0.1) as teacher:
            grading = asyncio.create_task(grade_all(teacher, 64))
            await asyncio.sleep(0.5)
            async with peer(GOOD, port=port) as server:
                assert await grading == 64
                assert len(server.requests) == 64

    run(main)


def test_one_retry_after_slows_all_callers_down(journal: Journal) -> None:
    arrived: list[float] = []

    async def slow_down(writer: asyncio.StreamWriter) -> None:
        arrived.append(time.monotonic())
        writer.write(error(429, "slow down", "Retry-After: 1"))

    async def good(writer: asyncio.StreamWriter) -> None:
        arrived.append(time.monotonic())
        writer.write(GOOD)

    async def main() -> None:
        async with peer(slow_down, good) as server, opened(server.base_url, journal) as teacher:
            first = asyncio.create_task(teacher.grade(QUESTION, "first"))
            while not arrived:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.4)
            assert await grade_all(teacher, 4) == 4
            await first
        refused, *others = arrived
        assert [at - refused >= 1.0 for at in others] == [True] * 5

    run(main)


def test_a_spent_budget_lets_the_calls_in_flight_finish(journal: Journal) -> None:
    """18 tokens a reply: the first one spends the budget, the others in flight are kept all the same."""

    async def main() -> None:
        async with peer(GOOD, delay_s=0.1) as server:
            async with opened(server.base_url, journal, budget=Budget(max_tokens=18)) as teacher:
                with pytest.raises(RunPaused, match="TEACHER_MAX_TOKENS_TOTAL"):
                    await grade_all(teacher, 200)
            assert len(server.requests) == WORKERS
        totals = journal.teacher_totals()
        assert (totals.calls, totals.failed, totals.prompt_tokens) == (WORKERS, 0, 11 * WORKERS)

    run(main)


def test_costs_are_counted_by_price_and_limited(journal: Journal) -> None:
    async def main() -> None:
        options = {"prices": Prices(prompt=1e6, completion=2e6), "budget": Budget(max_cost=50.0)}
        async with peer(GOOD) as server, opened(server.base_url, journal, **options) as teacher:
            assert (await teacher.grade(QUESTION, "a")).verdict is Verdict.CORRECT
            assert (await teacher.grade(QUESTION, "b")).verdict is Verdict.CORRECT
            with pytest.raises(RunPaused, match=r"a cost of 50 of TEACHER_MAX_COST=50\.0"):
                await teacher.grade(QUESTION, "c")
        assert journal.teacher_totals().cost == 2 * (11 + 2 * 7)

    run(main)


def test_a_reply_without_usage_is_estimated(journal: Journal) -> None:
    head, _, body = GOOD.partition(b"\r\n\r\n")
    document = json.loads(body)
    del document["usage"]
    bare = json.dumps(document).encode()
    answer = head.replace(str(len(body)).encode(), str(len(bare)).encode()) + b"\r\n\r\n" + bare

    async def main() -> None:
        async with peer(answer) as server, opened(server.base_url, journal) as teacher:
            await teacher.grade(QUESTION, "5")
            sent = sum(len(message["content"]) for message in server.requests[0]["messages"])
        totals = journal.teacher_totals()
        assert totals.prompt_tokens == -(-sent // 4)
        assert totals.completion_tokens == -(-len(document["choices"][0]["message"]["content"]) // 4)

    run(main)


def test_an_interrupted_call_leaves_a_row_and_a_finished_one_its_reply(journal: Journal) -> None:
    async def main() -> None:
        async with peer(GOOD, hang) as server, opened(server.base_url, journal) as teacher:
            await teacher.grade(QUESTION, "first")
            asking = asyncio.create_task(teacher.grade(QUESTION, "second"))
            while len(server.requests) < 2:
                await asyncio.sleep(0.01)
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
        totals = journal.teacher_totals()
        assert (totals.calls, totals.attempts, totals.failed) == (2, 2, 1)

    run(main)


CHILD = """
import asyncio, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_http_teacher_outages import grade_all, opened
from prosetting.core.journal import Journal

async def main():
    async with opened(sys.argv[3], Journal(Path(sys.argv[2]))) as teacher:
        await grade_all(teacher, 200)

asyncio.run(main())
"""


def test_a_killed_run_buys_again_at_most_what_was_in_flight(tmp_path: Path) -> None:
    async def main() -> None:
        async with peer(GOOD, delay_s=0.05) as server:
            here, path = str(Path(__file__).parent), tmp_path / "prosetting.db"
            child = await asyncio.create_subprocess_exec(sys.executable, "-c", CHILD, here, str(path), server.base_url)
            while len(server.requests) < 100:
                assert child.returncode is None
                await asyncio.sleep(0.001)
            child.kill()
            await child.wait()
            with Journal(path) as journal:
                async with opened(server.base_url, journal) as teacher:
                    assert await grade_all(teacher, 200) == 200
                assert journal.teacher_totals().calls == 200
            assert 200 <= len(server.requests) <= 200 + WORKERS

    run(main)
