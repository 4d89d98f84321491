"""The cascade over HTTP while a trainer draws attempts, asked by the very function that verl loads."""

from __future__ import annotations

import asyncio
import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from prosetting.core.group_commit import GroupCommit
from prosetting.core.journal import Journal
from prosetting.errors import RunPaused, TeacherReplyError, TeacherUnavailable, TrainingError
from prosetting.processors import reward_server
from prosetting.processors.answer_verifier import AnswerVerifier
from prosetting.processors.reward_calculator import RewardCalculator
from prosetting.processors.reward_server import RewardServer
from prosetting.records import Question, Verdict, question_id_of
from prosetting.teachers.base import GradeReply
from prosetting.trainers import worker_verl_reward
from prosetting.trainers.base import OpenRewards

WITH_REFERENCE = Question(question_id_of("5 + 4?"), "5 + 4?", "9")
WITHOUT = Question(question_id_of("6 + 7?"), "6 + 7?")
BY_ID = {question.question_id: question for question in (WITH_REFERENCE, WITHOUT)}


class Teacher1:
    """Knows the canaries; of an attempt it says that \\boxed{13} is right. Can be slow, down, in doubt or gullible."""

    def __init__(self, *, takes_s: float = 0.0, error: Exception | None = None, gullible: bool = False) -> None:
        self.takes_s, self.error, self.gullible = takes_s, error, gullible
        self.asked = self.in_flight = self.most_in_flight = 0

    async def solve(self, question_text: str) -> str | None:
        return "13"

    async def grade(self, question: Question, response: str) -> GradeReply:
        answer = response.partition("{")[2].partition("}")[0]
        if question.question_id not in BY_ID:  # a canary
            right = self.gullible or answer == question.reference
            return GradeReply(Verdict.CORRECT if right else Verdict.INCORRECT, answer or None, "")
        self.asked += 1
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await asyncio.sleep(self.takes_s)
        finally:
            self.in_flight -= 1
        if self.error:
            raise self.error
        return GradeReply(Verdict.CORRECT if answer == "13" else Verdict.INCORRECT, answer or None, "")


Serve = Callable[..., Any]


@pytest.fixture
def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Serve:
    """`with serve(teacher) as rewards:` on an event loop in a thread, as a run has one in its main thread."""

    @contextmanager
    def opened(teacher: Teacher1, *, workers: int = 4) -> Iterator[OpenRewards]:
        with ExitStack() as stack:
            loop = asyncio.new_event_loop()
            thread = threading.Thread(target=loop.run_forever)
            thread.start()
            stack.callback(loop.close)
            stack.callback(thread.join)
            stack.callback(loop.call_soon_threadsafe, loop.stop)
            server = asyncio.run_coroutine_threadsafe(make(stack, teacher, workers, loop), loop).result()
            rewards = stack.enter_context(server.serving(3))
            monkeypatch.setenv(worker_verl_reward.PORT, str(rewards.port))
            monkeypatch.setenv(worker_verl_reward.TOKEN, rewards.token)
            monkeypatch.setenv(worker_verl_reward.FAILURE_FILE, str(tmp_path / "failures"))
            yield rewards

    async def make(stack: ExitStack, teacher: Teacher1, workers: int, loop: asyncio.AbstractEventLoop) -> RewardServer:
        journal = Journal(tmp_path / "prosetting.db")
        verifier = stack.enter_context(AnswerVerifier())
        rewards = RewardCalculator(
            journal,
            GroupCommit(journal),
            verifier,
            teacher,
            reward_function=None,
            concurrent_workers=workers,
            run_seed=1,
        )

        async def close() -> None:
            journal.close()

        stack.callback(lambda: asyncio.run_coroutine_threadsafe(close(), loop).result())
        return RewardServer(rewards, BY_ID.get, loop)

    return opened


async def reward(question: Question, response: str, *, pass_rate: float = 0.25, cut_off: bool = False) -> float:
    info = {"question_id": question.question_id, "pass_rate": pass_rate, "cut_off": cut_off, "num_turns": 2}
    found = await worker_verl_reward.compute_score("prosetting", response, question.reference or "", info)
    assert found["unknown"] == (found["score"] not in (0.0, 1.0))
    return found["score"]


def rewards_of(*asked: Any) -> list[Any]:
    async def all_of_them() -> list[Any]:
        return await asyncio.gather(*asked, return_exceptions=True)

    return asyncio.run(all_of_them())


def test_rules_decide_where_there_is_a_reference_and_teacher1_elsewhere(serve: Serve, tmp_path: Path) -> None:
    teacher = Teacher1()
    with serve(teacher) as rewards:
        found = rewards_of(
            reward(WITH_REFERENCE, "so \\boxed{9}"),
            reward(WITH_REFERENCE, "so \\boxed{8}"),
            reward(WITHOUT, "so \\boxed{13}"),
            reward(WITHOUT, "so \\boxed{12}"),
        )
        assert found == [1.0, 0.0, 1.0, 0.0]
        assert teacher.asked == 2
        assert rewards.counts == {"attempts": 4, "correct": 2, "incorrect": 2, "unknown": 0}
        assert rewards.failure is None
    assert not (tmp_path / "failures").exists()


def test_without_a_verdict_the_reward_is_the_questions_pass_rate_and_never_zero(serve: Serve) -> None:
    with serve(Teacher1(error=TeacherReplyError("no JSON in the reply"))) as rewards:
        assert rewards_of(reward(WITHOUT, "so \\boxed{13}", pass_rate=0.625)) == [0.625]
        assert rewards.counts["unknown"] == 1
        assert rewards.failure is None


def test_what_the_token_limit_cut_off_is_not_taken_for_an_answer(serve: Serve) -> None:
    teacher = Teacher1(error=TeacherReplyError("cannot tell"))
    with serve(teacher):
        found = rewards_of(reward(WITH_REFERENCE, "A: 9"), reward(WITH_REFERENCE, "A: 9", cut_off=True))
        assert found == [1.0, 0.25]


@pytest.mark.parametrize("error", [TeacherUnavailable("connection refused", next_step="start it")])
def test_an_outage_ends_it_and_no_attempt_gets_a_reward_from_then_on(
    serve: Serve, tmp_path: Path, error: Exception
) -> None:
    with serve(Teacher1(error=error)) as rewards:
        (first,) = rewards_of(reward(WITHOUT, "so \\boxed{13}"))
        assert isinstance(first, RuntimeError)
        assert "connection refused" in str(first)
        assert rewards.failure is error
        # Also what the rules alone could decide: the training is over.
        (second,) = rewards_of(reward(WITH_REFERENCE, "so \\boxed{9}"))
        assert isinstance(second, RuntimeError)
        assert rewards.counts["attempts"] == 0
    assert (tmp_path / "failures").read_text().count("connection refused") == 2


def test_a_judge_that_fails_a_canary_grades_nothing(serve: Serve) -> None:
    teacher = Teacher1(gullible=True)
    with serve(teacher) as rewards:
        (found,) = rewards_of(reward(WITHOUT, "so \\boxed{13}"))
        assert isinstance(found, RuntimeError)
        assert isinstance(rewards.failure, RunPaused)
        assert teacher.asked == 0


def test_a_teacher_that_leaves_most_attempts_open_ends_it(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reward_server, "LEAST_TO_TELL", 4)
    with serve(Teacher1(error=TeacherReplyError("I would rather not say"))) as rewards:
        for number in range(2):
            rewards_of(reward(WITH_REFERENCE, "so \\boxed{9}"), reward(WITHOUT, f"so \\boxed{{{number}}}"))
        assert rewards.failure is None  # half of them is not most
        rewards_of(reward(WITHOUT, "so \\boxed{3}"))
        assert isinstance(rewards.failure, TrainingError)
        assert "3 of the first 5 attempts" in rewards.failure.what
        assert "I would rather not say" in rewards.failure.what


def test_calls_in_flight_at_the_teacher_have_one_limit_for_all_that_ask(serve: Serve) -> None:
    teacher = Teacher1(takes_s=0.05)
    with serve(teacher, workers=3):
        started = time.monotonic()
        found = rewards_of(*(reward(WITHOUT, f"so \\boxed{{{13 + n % 2}}} {n}") for n in range(24)))
        assert found == [1.0, 0.0] * 12
        assert teacher.most_in_flight == 3
        assert time.monotonic() - started >= 24 / 3 * 0.05


def test_nobody_is_served_without_the_token_and_nonsense_is_refused(serve: Serve) -> None:
    teacher = Teacher1()
    with serve(teacher) as rewards:
        whole = {"question_id": WITHOUT.question_id, "response": "\\boxed{13}", "cut_off": False}
        right = f"Bearer {rewards.token}"
        assert post(rewards.port, whole, "")[0] == 401
        assert post(rewards.port, whole, "Bearer wrong")[0] == 401
        assert post(rewards.port, {"response": "x"}, right)[0] == 400
        assert post(rewards.port, ["x"], right)[0] == 400
        status, body = post(rewards.port, whole | {"question_id": "f" * 16}, right)
        assert (status, teacher.asked) == (404, 0)
        assert "no question" in body["error"]
        assert post(rewards.port, whole, right) == (200, {"verdict": "correct", "decided_by": "teacher1"})
        assert rewards.failure is None


def post(port: int, body: Any, authorization: str) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("POST", "/verdict", json.dumps(body), {"Authorization": authorization})
    response = connection.getresponse()
    found = response.status, json.loads(response.read())
    connection.close()
    return found


def test_closing_ends_what_is_asked_for_by_callers_that_are_gone(serve: Serve) -> None:
    """As when verl is ended: its calls must not go on beside a run that is over."""
    teacher = Teacher1(takes_s=600)
    with serve(teacher) as rewards:
        body = json.dumps({"question_id": WITHOUT.question_id, "response": "\\boxed{13}", "cut_off": False})
        connection = http.client.HTTPConnection("127.0.0.1", rewards.port, timeout=10)
        connection.request("POST", "/verdict", body, {"Authorization": f"Bearer {rewards.token}"})
        until = time.monotonic() + 10
        while not teacher.in_flight:
            assert time.monotonic() < until
            time.sleep(0.01)
        connection.close()
        time.sleep(0.1)
        assert teacher.in_flight == 1
    assert teacher.in_flight == 0


def test_a_server_that_is_gone_is_told_to_the_run(serve: Serve, tmp_path: Path) -> None:
    with serve(Teacher1()):
        assert rewards_of(reward(WITH_REFERENCE, "\\boxed{9}")) == [1.0]
    (found,) = rewards_of(reward(WITH_REFERENCE, "\\boxed{9}"))
    assert isinstance(found, ConnectionError)
    assert "ConnectionRefusedError" in (tmp_path / "failures").read_text()
