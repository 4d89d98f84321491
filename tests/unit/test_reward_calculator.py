"""The cascade: rules first, Teacher1 for what they leave open, `unknown` for what neither decides."""

from __future__ import annotations

import asyncio

import pytest

from prosetting.core.concurrency import Frontier
from prosetting.core.group_commit import GroupCommit
from prosetting.core.journal import Journal
from prosetting.core.stopping import StopRequested
from prosetting.errors import RunPaused, TeacherReplyError
from prosetting.processors.answer_verifier import AnswerVerifier
from prosetting.processors.reward_calculator import (
    ATTEMPTS_BETWEEN_CANARIES,
    RewardCalculator,
    count_grades,
    judge_health,
)
from prosetting.processors.reward_function import RewardVerdict
from prosetting.records import Grade, Question, Trajectory, Verdict, question_id_of
from prosetting.teachers.base import GradeReply


class Judge:
    """Teacher1 that knows the canaries and calls all else what it is told to, or gives no usable reply."""

    def __init__(self, says: Verdict = Verdict.CORRECT, *, down: bool = False, gullible: bool = False) -> None:
        self.says = says
        self.down = down
        self.gullible = gullible
        self.asked: list[str] = []
        self.canaries: list[str] = []

    async def solve(self, question_text: str) -> str | None:
        return "13"

    async def grade(self, question: Question, response: str) -> GradeReply:
        answer = response.partition("{")[2].partition("}")[0]
        if question.question_id not in QUESTIONS:
            self.canaries.append(question.text + response)
            right = answer == question.reference
            return GradeReply(Verdict.CORRECT if right or self.gullible else Verdict.INCORRECT, answer, "")
        self.asked.append(response)
        if self.down:
            raise TeacherReplyError("time-out")
        return GradeReply(self.says, answer, "")


WITH = Question(question_id_of("with"), "What is 6 + 6?", reference="12")
WITHOUT = Question(question_id_of("without"), "What is 6 + 7?")
QUESTIONS = {WITH.question_id: WITH, WITHOUT.question_id: WITHOUT}


@pytest.fixture
def journal(tmp_path):
    with Journal(tmp_path / "j.db") as journal:
        yield journal


def draw(journal: Journal, question: Question, *responses: str, cut: bool = False) -> None:
    rows = [
        Trajectory(1, question.question_id, n, text, "length" if cut else "stop", 1) for n, text in enumerate(responses)
    ]
    journal.add_trajectories("train", rows)


def grade(journal: Journal, judge: Judge | None, reward_function=None, attempts_a_question=8) -> list[Grade]:
    with AnswerVerifier() as verifier:
        rewards = RewardCalculator(
            journal,
            GroupCommit(journal),
            verifier,
            judge,  # type: ignore[arg-type]
            reward_function=reward_function,
            concurrent_workers=4,
            run_seed=1,
        )
        asyncio.run(rewards.grade("train", 1, [WITHOUT, WITH], attempts_a_question=attempts_a_question))
    return [found for _, found in journal.graded_attempts("train", 1)]


def test_rules_decide_where_there_is_a_reference_and_the_teacher_is_not_asked(journal):
    judge = Judge()
    draw(journal, WITH, "\\boxed{12}", "\\boxed{13}")
    found = grade(journal, judge)
    assert [(g.verdict, g.decided_by) for g in found] == [(Verdict.CORRECT, "rules"), (Verdict.INCORRECT, "rules")]
    # Asked about a sample of them only to know how far it agrees: a verdict never comes from it.
    assert judge.canaries == []
    health = judge_health(journal, 1)
    assert (health.regraded, health.regraded_agree) == (2, 1)


def test_the_teacher_decides_without_a_reference_and_equal_attempts_are_asked_once(journal):
    judge = Judge()
    draw(journal, WITHOUT, "\\boxed{13}", "\\boxed{13}", "\\boxed{14}")
    found = grade(journal, judge)
    assert [g.decided_by for g in found] == ["teacher1"] * 3
    assert sorted(judge.asked) == ["\\boxed{13}", "\\boxed{14}"]


def test_a_teacher_that_fails_leaves_unknown_which_is_asked_again_later(journal):
    draw(journal, WITHOUT, "\\boxed{13}")
    assert [g.verdict for g in grade(journal, Judge(down=True))] == [Verdict.UNKNOWN]
    assert [g.verdict for g in grade(journal, Judge())] == [Verdict.CORRECT]


def test_without_a_teacher_open_attempts_stay_unknown(journal):
    draw(journal, WITHOUT, "\\boxed{13}")
    assert [g.verdict for g in grade(journal, None)] == [Verdict.UNKNOWN]


def test_each_set_of_questions_has_canaries_of_its_own_and_a_resumed_run_asks_the_same_ones(journal):
    draw(journal, WITH, "twelve or so")
    draw(journal, WITHOUT, "\\boxed{13}")
    first = Judge(down=True)
    grade(journal, first, attempts_a_question=ATTEMPTS_BETWEEN_CANARIES)
    again = Judge()
    grade(journal, again, attempts_a_question=ATTEMPTS_BETWEEN_CANARIES)
    assert len(first.canaries) == 6
    assert sorted(again.canaries) == sorted(first.canaries)
    assert judge_health(journal, 1).canaries == judge_health(journal, 1).canaries_right == 6


def test_questions_that_rules_will_decide_bring_few_canaries(journal):
    """A set costs three calls, so it is for attempts that the teacher is asked about."""
    more = [Question(question_id_of(f"{n}"), f"What is 6 + {n}?", reference=f"{6 + n}") for n in range(15)]
    for question in more:
        draw(journal, question, "twelve or so")
    judge = Judge()
    with AnswerVerifier() as verifier:
        rewards = RewardCalculator(
            journal,
            GroupCommit(journal),
            verifier,
            judge,  # type: ignore[arg-type]
            reward_function=None,
            concurrent_workers=4,
            run_seed=1,
        )
        asyncio.run(rewards.grade("train", 1, more, attempts_a_question=ATTEMPTS_BETWEEN_CANARIES))
    assert judge_health(journal, 1).canaries == 3


def test_questions_of_one_set_share_their_canaries(journal):
    draw(journal, WITH, "twelve or so")
    draw(journal, WITHOUT, "\\boxed{13}")
    judge = Judge()
    grade(journal, judge, attempts_a_question=1)
    assert len(judge.canaries) == 3


def test_a_question_is_graded_as_soon_as_its_attempts_are_there(journal):
    """The stage before need not have ended."""
    sampled, graded = Frontier(), Frontier()

    async def run() -> None:
        with AnswerVerifier() as verifier:
            rewards = RewardCalculator(
                journal,
                GroupCommit(journal),
                verifier,
                None,
                reward_function=None,
                concurrent_workers=4,
                run_seed=1,
            )
            grading = asyncio.create_task(
                rewards.grade("train", 1, [WITH, WITHOUT], attempts_a_question=1, sampled=sampled, graded=graded)
            )
            draw(journal, WITH, "\\boxed{12}")
            sampled.done(0)
            await graded.reached(0)
            assert [found.verdict for _, found in journal.graded_attempts("train", 1)] == [Verdict.CORRECT]
            sampled.close()
            with pytest.raises(StopRequested):
                await grading

    asyncio.run(run())


def test_a_gullible_judge_grades_nothing_and_pauses_the_run(journal):
    draw(journal, WITHOUT, "\\boxed{13}", "\\boxed{14}")
    judge = Judge(gullible=True)
    with pytest.raises(RunPaused, match="canary"):
        grade(journal, judge)
    assert judge.asked == []
    assert [found for _, found in journal.graded_attempts("train", 1)] == []


def test_after_a_failed_canary_the_batch_gets_fresh_ones(journal):
    draw(journal, WITHOUT, "\\boxed{13}")
    gullible = Judge(gullible=True)
    with pytest.raises(RunPaused):
        grade(journal, gullible)
    fair = Judge()
    assert [g.verdict for g in grade(journal, fair)] == [Verdict.CORRECT]
    assert set(fair.canaries).isdisjoint(gullible.canaries)


@pytest.mark.parametrize("attempt", ["", ":", "Solution", "Thought process:", "<|im_end|>"])
def test_an_attempt_without_anything_like_an_answer_is_incorrect_and_no_teacher_is_asked(journal, attempt):
    draw(journal, WITHOUT, attempt)
    judge = Judge()
    assert [(g.verdict, g.decided_by) for g in grade(journal, judge)] == [(Verdict.INCORRECT, "rules")]
    assert judge.canaries == judge.asked == []


def test_an_attempt_cut_off_in_the_middle_of_a_number_is_not_decided_by_rules(journal):
    draw(journal, WITH, "6 + 6 makes\nThe answer is 12", cut=True)
    assert [g.decided_by for g in grade(journal, Judge())] == ["teacher1"]


class Function:
    """A user's function that gives this for every attempt."""

    def __init__(self, verdict: Verdict, *, failed: bool = False) -> None:
        self.found = RewardVerdict(verdict, "mine", failed)

    def judge(self, question: str, reference: str | None, response: str) -> RewardVerdict:
        return self.found


def test_the_users_function_decides_before_the_rules_and_before_nothing_like_an_answer(journal):
    draw(journal, WITH, "\\boxed{13}", ":")
    found = grade(journal, Judge(), Function(Verdict.CORRECT))
    assert [(g.verdict, g.decided_by) for g in found] == [(Verdict.CORRECT, "reward_function")] * 2


def test_what_the_users_function_leaves_open_goes_to_the_rules(journal):
    draw(journal, WITH, "\\boxed{13}")
    assert [g.decided_by for g in grade(journal, Judge(), Function(Verdict.UNKNOWN))] == ["rules"]


def test_a_users_function_that_failed_leaves_the_attempt_to_nobody_else(journal):
    draw(journal, WITHOUT, "\\boxed{13}")
    judge = Judge()
    found = grade(journal, judge, Function(Verdict.UNKNOWN, failed=True))
    assert [(g.verdict, g.decided_by) for g in found] == [(Verdict.UNKNOWN, "reward_function")]
    assert judge.asked == []
    assert [g.decided_by for g in grade(journal, judge, Function(Verdict.CORRECT))] == ["reward_function"]


def test_the_average_reward_leaves_unknown_attempts_out():
    unknown = {("unknown", "rules"): 2, ("", ""): 3}
    counts = count_grades({("correct", "rules"): 1, ("incorrect", "rules"): 1, **unknown})
    assert counts.average_reward == 0.5
    assert counts.decided_by == {"rules": 2, "teacher1": 0, "reward_function": 0}
    assert count_grades(unknown).average_reward is None
