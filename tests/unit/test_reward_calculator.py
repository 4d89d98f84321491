"""The cascade: rules first, Teacher1 for what they leave open, `unknown` for what neither decides."""

from __future__ import annotations

import asyncio

import pytest

from prosetting.core.journal import Journal
from prosetting.errors import TeacherReplyError
from prosetting.processors.answer_verifier import AnswerVerifier
from prosetting.processors.reward_calculator import RewardCalculator, count_grades
from prosetting.records import Grade, Question, Trajectory, Verdict, question_id_of
from prosetting.teachers.base import GradeReply


class Judge:
    """Teacher1 that calls everything correct, or gives no usable reply."""

    def __init__(self, *, down: bool = False) -> None:
        self.down = down
        self.asked: list[str] = []

    async def grade(self, question: Question, response: str) -> GradeReply:
        self.asked.append(response)
        if self.down:
            raise TeacherReplyError("time-out")
        return GradeReply(Verdict.CORRECT, "")


WITH = Question(question_id_of("with"), "What is 6 + 6?", reference="12")
WITHOUT = Question(question_id_of("without"), "What is 6 + 7?")
QUESTIONS = {WITH.question_id: WITH, WITHOUT.question_id: WITHOUT}


@pytest.fixture
def journal(tmp_path):
    with Journal(tmp_path / "j.db") as journal:
        yield journal


def draw(journal: Journal, question: Question, *responses: str) -> None:
    rows = [Trajectory(1, question.question_id, n, text, "stop", 1) for n, text in enumerate(responses)]
    journal.add_trajectories("train", rows)


def grade(journal: Journal, judge: Judge | None) -> list[Grade]:
    with AnswerVerifier() as verifier:
        asyncio.run(RewardCalculator(journal, verifier, judge, 4).grade("train", 1, QUESTIONS))
    return [found for _, found in journal.graded_attempts("train", 1)]


def test_rules_decide_where_there_is_a_reference_and_the_teacher_is_not_asked(journal):
    judge = Judge()
    draw(journal, WITH, "\\boxed{12}", "\\boxed{13}")
    found = grade(journal, judge)
    assert [(g.verdict, g.decided_by) for g in found] == [(Verdict.CORRECT, "rules"), (Verdict.INCORRECT, "rules")]
    assert judge.asked == []


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


def test_the_average_reward_leaves_unknown_attempts_out():
    verdicts = [Verdict.CORRECT, Verdict.INCORRECT, Verdict.UNKNOWN, Verdict.UNKNOWN]
    grades = [Grade(1, WITH.question_id, n, verdict, "rules") for n, verdict in enumerate(verdicts)]
    counts = count_grades(grades)
    assert counts.average_reward == 0.5
    assert counts.decided_by == {"rules": 2, "teacher1": 0}
    assert count_grades(grades[2:]).average_reward is None
