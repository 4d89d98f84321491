"""HttpTeacher against a real peer over real sockets that misbehaves as servers do."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from http_peer import CORRECT, GOOD, HTML, QUESTION, RIGHT, Answer, drip, error, hang, http_answer, peer, run, says

from prosetting.core.journal_rows import TeacherCall
from prosetting.errors import ConfigError, TeacherReplyError, TeacherUnavailable
from prosetting.records import Verdict
from prosetting.teachers import http_client, http_teacher
from prosetting.teachers.base import ShownAttempt
from prosetting.teachers.call_ledger import NoLedger
from prosetting.teachers.endpoint import Endpoint
from prosetting.teachers.http_teacher import HttpTeacher
from prosetting.teachers.replies import TeacherDeclined

KEY = "sk-very-secret-1234"
SHOWN = ShownAttempt("4", Verdict.INCORRECT, "slip")
TRUNCATED = http_answer(200, GOOD.partition(b"\r\n\r\n")[2][:-20])
BROKEN_OFF = http_answer(200, b'{"choices"', length=10_000)


class DictLedger(NoLedger):
    """A ledger in memory that expects no request twice."""

    def __init__(self) -> None:
        self.rows: dict[str, TeacherCall] = {}

    def recall(self, request_hashes: Sequence[str]) -> list[str]:
        rows = [self.rows[name] for name in request_hashes if name in self.rows]
        return [row.reply for row in rows if row.reply is not None]

    def record(self, call: TeacherCall) -> asyncio.Future[None]:
        assert call.request_hash not in self.rows
        self.rows[call.request_hash] = call
        return super().record(call)


def teacher_at(base_url: str, **changes: Any) -> HttpTeacher:
    options: dict[str, Any] = {"concurrent_workers": 4, "timeout_s": 20.0, "max_retries": 2, "retry_delay_s": 0.0}
    return HttpTeacher(Endpoint(base_url, KEY, "judge"), **(options | changes))


@pytest.mark.parametrize(
    "failure",
    [
        error(408, "slow"),
        error(409, "conflict"),
        error(429, "slow down", "Retry-After: 0"),
        error(429, "slow down", "Retry-After: soon"),
        error(500, "oops"),
        error(503, "busy"),
        http_answer(502, b"<html>bad gateway</html>"),
        b"",
        b"\x00\xff garbage\r\n\r\n",
        b"HTTP/1.1 500 \xff\xfe\r\nContent-Length: 0\r\n\r\n",
        http_answer(500, b"\xff\xfe", "Content-Type: application/json; charset=rot13"),
        http_answer(200, b"zz\r\n", "Transfer-Encoding: chunked"),
        BROKEN_OFF,
        TRUNCATED,
        HTML,
        http_answer(200, b""),
        http_answer(200, b"[" * 100_000),
        http_answer(200, b'{"choices": [{"message": {"content": 5}}]}'),
        http_answer(200, b"x" * 100, "Content-Encoding: gzip"),
        says("I would say correct."),
        says(CORRECT, finish_reason="length"),
    ],
    ids=str,
)
def test_a_failure_that_passes_is_survived(failure: bytes) -> None:
    async def main() -> None:
        async with peer(failure, GOOD) as server:
            assert await teacher_at(server.base_url).grade(QUESTION, "5") == RIGHT
            assert len(server.requests) == 2

    run(main)


@pytest.mark.parametrize(
    ("answer", "calls", "says_what"),
    [
        (error(500, "oops"), 3, "answers 500"),
        (error(429, "slow down"), 3, "answers 429"),
        (BROKEN_OFF, 3, "cannot be reached"),
        (says("no JSON"), 1 + http_teacher.RE_ASKS, "no JSON objects"),
        (HTML, 1 + http_teacher.RE_ASKS, "not JSON"),
        (error(400, "context too long"), 1, "refused"),
        (error(422, "what?"), 1, "refused"),
        (error(400, "odd", param={"a": [1]}, code=[]), 1, "refused"),
        (http_answer(400, b"[" * 100_000), 1, "refused"),
        (http_answer(400, b'{"error": "\xff\xfe"}'), 1, "refused"),
    ],
)
def test_a_failure_that_stays_leaves_this_item_open(answer: bytes, calls: int, says_what: str) -> None:
    async def main() -> None:
        async with peer(answer) as server:
            with pytest.raises(TeacherReplyError, match=says_what):
                await teacher_at(server.base_url).grade(QUESTION, "5")
            assert len(server.requests) == calls

    run(main)


@pytest.mark.parametrize(
    ("answer", "next_step"),
    [
        (error(401, f"Incorrect API key provided: {KEY}"), "TEACHER_API_KEY"),
        (error(403, "forbidden"), "TEACHER_API_KEY"),
        (error(402, "pay"), "credit"),
        (error(429, "quota", code="insufficient_quota"), "credit"),
        (error(404, "no such model"), "TEACHER_MODEL_NAME"),
    ],
)
def test_what_no_retry_can_mend_stops_at_once_without_telling_the_key(answer: bytes, next_step: str) -> None:
    async def main() -> None:
        async with peer(answer) as server:
            with pytest.raises(TeacherUnavailable) as caught:
                await teacher_at(server.base_url).grade(QUESTION, "5")
            assert next_step in caught.value.next_step
            assert KEY not in str(caught.value)
            assert caught.value.__cause__ is None
            assert len(server.requests) == 1

    run(main)


def test_what_the_environment_says_of_openai_goes_to_no_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-environment")
    monkeypatch.setenv("OPENAI_ORG_ID", "org-of-the-environment")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "project-of-the-environment")

    async def main() -> None:
        async with peer(GOOD) as server:
            assert await teacher_at(server.base_url).grade(QUESTION, "5") == RIGHT
            assert f"authorization: bearer {KEY}" in server.heads[0]
            assert "of-the-environment" not in server.heads[0]

    run(main)


def test_a_netrc_file_does_not_replace_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password of-the-netrc\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))

    async def main() -> None:
        async with peer(GOOD) as server:
            assert await teacher_at(server.base_url).grade(QUESTION, "5") == RIGHT
            assert f"authorization: bearer {KEY}" in server.heads[0]

    run(main)


def test_nobody_listening_is_unavailable() -> None:
    async def main() -> None:
        async with peer() as server:
            pass
        with pytest.raises(TeacherUnavailable, match="cannot be reached"):
            await teacher_at(server.base_url).grade(QUESTION, "5")

    run(main)


@pytest.mark.parametrize("answer", [drip, hang])
def test_the_deadline_holds_for_the_whole_call(answer: Answer) -> None:
    async def main() -> None:
        async with peer(answer) as server:
            teacher = teacher_at(server.base_url, timeout_s=0.2, max_retries=1)
            with pytest.raises(TeacherReplyError, match=r"in time|within 0\.2 s"):
                await teacher.grade(QUESTION, "5")
            assert len(server.requests) == 2

    run(main)


def test_a_reply_without_end_is_not_read_to_its_end() -> None:
    async def main() -> None:
        flood = http_answer(200, b"x" * (http_client.MAX_BODY_BYTES + 1))
        async with peer(flood) as server:
            with pytest.raises(TeacherReplyError, match="longer than"):
                await teacher_at(server.base_url).grade(QUESTION, "5")

    run(main)


def test_retry_after_is_waited_for() -> None:
    async def main() -> None:
        async with peer(error(429, "later", "Retry-After: 0.3"), GOOD) as server:
            started = time.monotonic()
            assert await teacher_at(server.base_url).grade(QUESTION, "5") == RIGHT
            assert time.monotonic() - started >= 0.3

    run(main)


def test_eight_items_in_a_row_without_success_are_an_outage() -> None:
    async def main() -> None:
        async with peer(error(500, "oops")) as server:
            teacher = teacher_at(server.base_url, max_retries=0)
            for _ in range(http_teacher.OUTAGE_AFTER - 1):
                with pytest.raises(TeacherReplyError):
                    await teacher.grade(QUESTION, "5")
            with pytest.raises(TeacherUnavailable, match="8 items in a row"):
                await teacher.grade(QUESTION, "5")

    run(main)


def test_a_success_between_failures_is_no_outage() -> None:
    async def main() -> None:
        async with peer(*([error(500, "oops")] * 7 + [GOOD]) * 2) as server:
            teacher = teacher_at(server.base_url, max_retries=0)
            for _ in range(2):
                for _ in range(7):
                    with pytest.raises(TeacherReplyError):
                        await teacher.grade(QUESTION, "5")
                assert await teacher.grade(QUESTION, "5") == RIGHT

    run(main)


def test_declining_is_neither_asked_again_nor_an_outage() -> None:
    async def main() -> None:
        declined = {"question": None, "reference": None, "solution": None, "kind": "easier"}
        async with peer(says(declined)) as server:
            teacher = teacher_at(server.base_url)
            for n in range(http_teacher.OUTAGE_AFTER + 1):
                with pytest.raises(TeacherDeclined):
                    await teacher.enhance(QUESTION, SHOWN, str(n), "easier")
            assert len(server.requests) == http_teacher.OUTAGE_AFTER + 1

    run(main)


def test_a_server_without_response_formats_is_asked_without_them_from_then_on() -> None:
    async def main() -> None:
        refusal = error(400, "response_format.type json_schema is not supported")
        async with peer(refusal, GOOD) as server:
            teacher = teacher_at(server.base_url)
            assert await teacher.grade(QUESTION, "5") == RIGHT
            assert await teacher.grade(QUESTION, "6") == RIGHT
            assert ["response_format" in request for request in server.requests] == [True, False, False]

    run(main)


def test_a_model_with_a_fixed_temperature_is_asked_without_one() -> None:
    async def main() -> None:
        refusal = error(400, "Unsupported value", param="temperature")
        async with peer(refusal, GOOD) as server:
            assert await teacher_at(server.base_url).grade(QUESTION, "5") == RIGHT
            assert ["temperature" in request for request in server.requests] == [True, False]

    run(main)


def test_judging_is_cold_and_writing_is_warm_with_a_seed_from_the_content() -> None:
    async def main() -> None:
        declined = {"question": None, "reference": None, "solution": None, "kind": "easier"}
        async with peer(GOOD, says(declined)) as server:
            teacher = teacher_at(server.base_url)
            await teacher.grade(QUESTION, "5")
            for analysis in ("a", "a", "b"):
                with pytest.raises(TeacherDeclined):
                    await teacher.enhance(QUESTION, SHOWN, analysis, "easier")
        sent = [(request["temperature"], request.get("seed")) for request in server.requests]
        assert sent[0] == (0.0, None)
        assert sent[1] == sent[2] != sent[3]
        assert sent[1][0] == 0.7

    run(main)


def test_asking_again_after_nonsense_is_another_sample() -> None:
    async def main() -> None:
        async with peer(says("hm"), says("hm"), GOOD) as server:
            assert await teacher_at(server.base_url).grade(QUESTION, "5") == RIGHT
        assert len({(request["temperature"], request.get("seed")) for request in server.requests}) == 3

    run(main)


def test_a_recorded_reply_is_never_bought_again_even_by_equal_calls_at_once() -> None:
    async def main() -> None:
        ledger = DictLedger()
        async with peer(says("hm"), GOOD, delay_s=0.05) as server:
            teacher = teacher_at(server.base_url, ledger=ledger)
            assert set(await asyncio.gather(*(teacher.grade(QUESTION, "5") for _ in range(6)))) == {RIGHT}
            assert await teacher_at(server.base_url, ledger=ledger).grade(QUESTION, "5") == RIGHT
            assert len(server.requests) == 2
        unusable, usable = ledger.rows.values()
        assert (unusable.reply, unusable.attempts, "JSON" in unusable.failure) == (None, 1, True)
        assert (usable.task, usable.model, usable.endpoint) == ("grade", "judge", server.base_url)
        assert (usable.reply, usable.attempts, usable.failure) == (json.dumps(CORRECT), 1, "")
        for row in (unusable, usable):
            assert (row.prompt_tokens, row.completion_tokens, row.cost) == (11, 7, None)
            assert 0.05 <= row.latency_s < 20

    run(main)


def test_requests_are_kept_apart_by_content_model_and_address() -> None:
    async def main() -> None:
        ledger = DictLedger()
        async with peer(GOOD) as server:
            base = Endpoint(server.base_url, KEY, "judge")
            for endpoint in (base, replace(base, model="other"), replace(base, identity="elsewhere")):
                teacher = HttpTeacher(
                    endpoint, concurrent_workers=1, timeout_s=20, max_retries=0, retry_delay_s=0, ledger=ledger
                )
                await teacher.grade(QUESTION, "5")
                await teacher.grade(QUESTION, "6")
                await teacher.grade(replace(QUESTION, reference="6"), "6")
        assert len(ledger.rows) == 9

    run(main)


def test_no_more_calls_are_in_flight_than_allowed() -> None:
    async def main() -> None:
        async with peer(GOOD, delay_s=0.2) as server:
            teacher = teacher_at(server.base_url, concurrent_workers=4)
            await asyncio.gather(*(teacher.grade(QUESTION, str(n)) for n in range(8)))
            await teacher.close()
        assert server.most_in_flight == 4

    run(main)


@pytest.mark.parametrize(
    "answer",
    [http_answer(200, b'{"data": [{"id": "judge"}, {"id": "other"}]}'), error(404, "no list of models here")],
)
def test_the_probe_passes_where_the_model_is_listed_or_nothing_is_listed(answer: bytes) -> None:
    async def main() -> None:
        async with peer(answer) as server:
            await teacher_at(server.base_url).probe()

    run(main)


@pytest.mark.parametrize(
    ("answer", "says_what"),
    [
        (http_answer(200, b'{"data": [{"id": "other"}]}'), "has no model 'judge'; it has other"),
        (HTML, "does not speak the OpenAI API"),
        (error(401, "who are you?"), "refuses the key"),
        (error(503, "busy"), "answers 503"),
    ],
)
def test_the_probe_stops_a_run_before_it_spends_anything(answer: bytes, says_what: str) -> None:
    async def main() -> None:
        async with peer(answer) as server:
            with pytest.raises(TeacherUnavailable, match=says_what):
                await teacher_at(server.base_url).probe()

    run(main)


@pytest.mark.parametrize(
    ("base_url", "key"),
    [
        ("teacher.example/v1", ""),
        ("ftp://teacher.example/v1", ""),
        ("http://host:port/v1", ""),
        ("http://user:sk-very-secret-1234@host/v1", ""),
        ("http://host/v1", "sk-very-secret-1234\n"),
        ("http://host/v1", "sk very-secret-1234"),
    ],
)
def test_an_address_or_key_that_cannot_hold_is_told_without_the_key(base_url: str, key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Endpoint(base_url, key, "judge")
    assert "very-secret" not in str(caught.value)


def test_the_key_is_not_in_the_repr_of_an_endpoint() -> None:
    assert KEY not in repr(Endpoint("http://host/v1", KEY, "judge"))
