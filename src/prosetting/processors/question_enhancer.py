"""New questions from failed ones: which kind to ask for, and the three calls that it takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from prosetting.records import Question, QuestionKind
from prosetting.teachers.base import FailedAttempt, NewQuestion, Teacher
from prosetting.teachers.replies import TeacherDeclined

HARDER_FROM = 0.75


@dataclass(frozen=True, slots=True)
class EnhancedQuestion:
    """A new question and what the teacher itself answers to it, None when it does not know."""

    new: NewQuestion
    teacher_answer: str | None


def kind_for(pass_rate: float) -> QuestionKind:
    """What to practise next, by the share of attempts at a question that were correct (0 … 1).

    Learning is fastest where a task is neither out of reach nor mastered, the zone of proximal development
    (Vygotsky 1978): never solved asks for an easier one, mostly solved for a harder one, else the same again.
    """
    if pass_rate <= 0:
        return "easier"
    return "harder" if pass_rate >= HARDER_FROM else "variant"


async def enhance_question(
    teacher: Teacher, question: Question, failures: Sequence[FailedAttempt], pass_rate: float
) -> EnhancedQuestion | None:
    """Analyse the failures, write a question from them, and let the teacher solve it unseen.

    None when the teacher declines. Raises TeacherReplyError when a call brought nothing usable (worth another
    round's try) and TeacherUnavailable when the teacher is out of reach.
    """
    analysis = await teacher.analyse(question, failures)
    try:
        new = await teacher.enhance(question, failures, analysis, kind_for(pass_rate))
    except TeacherDeclined:
        return None
    return EnhancedQuestion(new, await teacher.solve(new.text))
