"""What each fault of a server comes to, with the real journal: the right verdict or none, each reply paid once."""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import gzip
import json
import logging
import time
import traceback
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from http_peer import (
    CORRECT,
    GOOD,
    HTML,
    QUESTION,
    RIGHT,
    Answer,
    drip,
    error,
    flood,
    hang,
    http_answer,
    peer,
    run,
    says,
)
from http_peer import reset as reset_in_the_middle

from prosetting.core.group_commit import GroupCommit
from prosetting.core.journal import Journal
from prosetting.core.journal_rows import TeacherTotals
from prosetting.errors import RunPaused, TeacherReplyError, TeacherUnavailable
from prosetting.teachers.budget import Budget
from prosetting.teachers.call_ledger import JournalLedger
from prosetting.teachers.endpoint import Endpoint
from prosetting.teachers.http_teacher import RE_ASKS, HttpTeacher

KEY = "sk-plantedKey/4f8a2b6c1d9e"
WRONG = CORRECT | {"verdict": "incorrect"}
GOOD_BODY = GOOD.partition(b"\r\n\r\n")[2]
SAMPLES = 1 + RE_ASKS
TRIES = 2  # max_retries=1
SHORT_S = 0.7  # deadline of calls that have no end


async def retry_at_a_date(writer: asyncio.StreamWriter) -> None:
    soon = email.utils.formatdate(time.time() + 1, usegmt=True)
    writer.write(error(429, "slow down", f"Retry-After: {soon}"))


def in_a_body(text: bytes) -> bytes:
    """A good completion, changed: `text` in place of its list of choices."""
    choices = GOOD_BODY[GOOD_BODY.index(b"[") : GOOD_BODY.rindex(b"]") + 1]
    return http_answer(200, GOOD_BODY.replace(choices, text))


def choice(reply: object) -> dict[str, object]:
    return {"message": {"content": json.dumps(reply)}, "finish_reason": "stop"}


def two_choices() -> bytes:
    return in_a_body(json.dumps([choice(CORRECT), choice(WRONG)]).encode())


BOMB = http_answer(200, gzip.compress(GOOD_BODY + b" " * 10_000_000), "Content-Encoding: gzip")
DOUBLE_CHOICES = GOOD_BODY[:-1] + b', "choices": ' + json.dumps([choice(WRONG)]).encode() + b"}"


@dataclass(frozen=True)
class Fault:
    """`calls`: what a fault that stays costs before the item is left; `error`: how it is left."""

    name: str
    answer: Answer
    calls: int
    error: type[Exception] = TeacherReplyError
    passes: bool = True
    timeout_s: float = 20.0


FAULTS = [
    Fault("429", error(429, "slow down"), TRIES),
    Fault("429, seconds", error(429, "slow down", "Retry-After: 0.2"), TRIES),
    Fault("429, date", retry_at_a_date, TRIES),
    Fault("429, a day", error(429, "tomorrow", "Retry-After: 86400"), 1, TeacherUnavailable, passes=False),
    Fault("500", error(500, "oops"), TRIES),
    Fault("503, seconds", error(503, "busy", "Retry-After: 0.2"), TRIES),
    Fault("reset in the body", reset_in_the_middle, TRIES),
    Fault("closed in the body", http_answer(200, GOOD_BODY[:-20], length=len(GOOD_BODY)), TRIES),
    Fault("closed at once", b"", TRIES),
    Fault("no HTTP", b"\x00\xff garbage\r\n\r\n", TRIES),
    Fault("hang", hang, TRIES, timeout_s=SHORT_S),
    Fault("slow drip", drip, TRIES, timeout_s=SHORT_S),
    Fault("truncated JSON", http_answer(200, GOOD_BODY[:-20]), SAMPLES),
    Fault("HTML", HTML, SAMPLES),
    Fault("empty", http_answer(200, b""), SAMPLES),
    Fault("another schema", http_answer(200, b'{"output": [{"text": "correct"}]}'), SAMPLES),
    Fault("a reply of another schema", says({"verdict": True, "final_answer": 5}), SAMPLES),
    Fault("a reply of another contract", says({"verdict": "right", "final_answer": "5", "diagnosis": ""}), SAMPLES),
    Fault("cut off by the token limit", says(CORRECT, finish_reason="length"), SAMPLES),
    Fault("no choice", in_a_body(b"[]"), SAMPLES),
    Fault("two choices", two_choices(), SAMPLES),
    Fault("100 MB", flood, SAMPLES),
    Fault("compressed bomb", BOMB, SAMPLES),
    Fault("choices twice", http_answer(200, DOUBLE_CHOICES), SAMPLES),
    Fault("verdict twice", says('{"final_answer": "5", "verdict": "correct", "verdict": "incorrect"}'), SAMPLES),
    Fault("two replies", says(json.dumps(CORRECT) + json.dumps(WRONG)), SAMPLES),
    Fault("invalid UTF-8", http_answer(200, GOOD_BODY.replace(b"stop", b"\xff\xfe\xfd\xfc")), SAMPLES),
    Fault("100,000 brackets", http_answer(200, b"[" * 100_000), SAMPLES),
    Fault("100,000 brackets in the reply", says('{"a":' * 100_000), SAMPLES),
    Fault("400", error(400, "context too long"), 1, passes=False),
    Fault("401", error(401, "who are you?"), 1, TeacherUnavailable, passes=False),
    Fault("402", error(402, "pay"), 1, TeacherUnavailable, passes=False),
    Fault("403", error(403, "no"), 1, TeacherUnavailable, passes=False),
    Fault("unknown model", error(404, "no such model"), 1, TeacherUnavailable, passes=False),
]


@contextlib.asynccontextmanager
async def opened(
    base_url: str, folder: Path, budget: Budget | None = None, timeout_s: float = 20.0
) -> AsyncIterator[HttpTeacher]:
    """A teacher with a real journal in `folder`."""
    with Journal(folder / "prosetting.db") as journal:
        commits = GroupCommit(journal)
        teacher = HttpTeacher(
            Endpoint(base_url, KEY, "judge"),
            concurrent_workers=4,
            timeout_s=timeout_s,
            max_retries=TRIES - 1,
            retry_delay_s=0.0,
            ledger=JournalLedger(commits),
            budget=budget,
        )
        try:
            yield teacher
        finally:
            await teacher.close()
            commits.flush()


def totals(folder: Path) -> TeacherTotals:
    with Journal(folder / "prosetting.db", read_only=True) as journal:
        return journal.teacher_totals()


@pytest.fixture(autouse=True)
def _the_key_is_nowhere(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """No file of the workspace and no log line, however detailed, holds the key."""
    caplog.set_level(logging.DEBUG)
    yield
    assert KEY not in caplog.text
    for path in tmp_path.rglob("*"):
        assert KEY.encode() not in path.read_bytes()


def told(error: BaseException) -> str:
    return "".join([*traceback.format_exception(error), repr(error), str(error), repr(vars(error))])


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault.passes], ids=lambda fault: fault.name)
def test_a_fault_that_passes_ends_in_the_right_verdict_paid_once(fault: Fault, tmp_path: Path) -> None:
    async def main() -> None:
        async with peer(fault.answer, GOOD) as server:
            for _ in range(2):
                async with opened(server.base_url, tmp_path, timeout_s=fault.timeout_s) as teacher:
                    assert await teacher.grade(QUESTION, "5") == RIGHT
            assert len(server.requests) == 2
        assert totals(tmp_path).attempts == 2

    run(main)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_that_stays_ends_in_no_verdict(fault: Fault, tmp_path: Path) -> None:
    async def main() -> None:
        timeout_s = fault.timeout_s
        async with peer(fault.answer) as server, opened(server.base_url, tmp_path, timeout_s=timeout_s) as teacher:
            with pytest.raises(fault.error) as caught:
                await teacher.grade(QUESTION, "5")
            assert len(server.requests) == fault.calls
        assert KEY not in told(caught.value) + repr(teacher)
        spent = totals(tmp_path)
        assert spent.attempts == fault.calls
        assert spent.calls == spent.failed > 0

    run(main)


def test_a_long_retry_after_is_waited_for_and_burns_no_tries(tmp_path: Path) -> None:
    async def main() -> None:
        async with (
            peer(error(429, "later", "Retry-After: 300")) as server,
            opened(server.base_url, tmp_path) as teacher,
        ):
            asking = asyncio.create_task(teacher.grade(QUESTION, "5"))
            while not server.requests:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.5)
            assert not asking.done()
            assert len(server.requests) == 1
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
        assert totals(tmp_path).attempts == 1

    run(main)


def test_equal_ids_of_different_replies_mix_nothing_up(tmp_path: Path) -> None:
    """A proxy that gives all completions one id: each reply still belongs to the request that it answers."""
    same_id = http_answer(200, b'{"id": "chatcmpl-1", ' + GOOD_BODY[1:])
    other = CORRECT | {"final_answer": "6", "verdict": "incorrect"}
    wrong = http_answer(200, b'{"id": "chatcmpl-1", ' + says(other).partition(b"\r\n\r\n")[2][1:])

    async def main() -> None:
        async with peer(same_id, wrong) as server:
            for _ in range(2):
                async with opened(server.base_url, tmp_path) as teacher:
                    assert (await teacher.grade(QUESTION, "5")).verdict == "correct"
                    assert (await teacher.grade(QUESTION, "6")).verdict == "incorrect"
            assert len(server.requests) == 2

    run(main)


def test_a_spent_budget_pauses_after_the_reply_that_spent_it(tmp_path: Path) -> None:
    async def main() -> None:
        async with peer(GOOD, says("hm")) as server:
            async with opened(server.base_url, tmp_path, Budget(max_tokens=36)) as teacher:
                assert await teacher.grade(QUESTION, "5") == RIGHT
                with pytest.raises(RunPaused, match="36 tokens of TEACHER_MAX_TOKENS_TOTAL=36"):
                    await teacher.grade(QUESTION, "6")
            assert len(server.requests) == 2
            async with opened(server.base_url, tmp_path, Budget(max_tokens=36, spent=totals(tmp_path))) as teacher:
                assert await teacher.grade(QUESTION, "5") == RIGHT
                with pytest.raises(RunPaused):
                    await teacher.grade(QUESTION, "6")
            assert len(server.requests) == 2

    run(main)


ECHOED = KEY.replace("/", "\\/").replace("k", "\\u006b")
ECHOES = [
    *(error(status, f"you sent Bearer {KEY}") for status in (400, 401, 402, 403, 404, 422, 429, 500, 503)),
    http_answer(500, f"<pre>Authorization: Bearer {KEY}</pre>".encode()),
    http_answer(200, f"<pre>Authorization: Bearer {KEY}</pre>".encode()),
    says(CORRECT | {"diagnosis": f"Bearer {KEY}"}),
    says(CORRECT | {"final_answer": KEY}),
    says(CORRECT | {"verdict": KEY}),
    says(CORRECT | {KEY: 1}),
    says(f"Authorization: {KEY} " + json.dumps(CORRECT)),
    says(json.dumps(CORRECT).replace('"5"', f'"{ECHOED}"')),
    http_answer(200, json.dumps({"choices": [], "error": KEY}).encode()),
    http_answer(429, b"", f"Retry-After: {KEY}", f"X-Echo: Bearer {KEY}"),
]


@pytest.mark.parametrize("echo", ECHOES, ids=range(len(ECHOES)))
def test_a_server_that_repeats_the_key_gets_it_stored_and_told_nowhere(echo: bytes, tmp_path: Path) -> None:
    async def main() -> None:
        async with peer(echo) as server, opened(server.base_url, tmp_path) as teacher:
            with pytest.raises((TeacherReplyError, TeacherUnavailable)) as caught:
                await teacher.grade(QUESTION, "5")
            assert KEY not in told(caught.value) + repr(teacher)
        assert totals(tmp_path).failed == totals(tmp_path).calls > 0

    run(main)
