"""New questions from attempts: which kind to ask for, from which attempt, and the calls that it takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from prosetting.core.artifacts import draw_seed
from prosetting.errors import TeacherReplyError
from prosetting.records import Grade, Question, QuestionKind, Trajectory, Verdict
from prosetting.teachers.base import NewQuestion, ShownAttempt, Teacher
from prosetting.teachers.replies import TeacherDeclined


@dataclass(frozen=True, slots=True)
class Enhancement:
    """What Teacher2 is asked for: a question of this kind, from this attempt at the parent question."""

    parent: Question
    pass_rate: float
    kind: QuestionKind
    attempt: int
    shown: ShownAttempt


@dataclass(frozen=True, slots=True)
class Written:
    """What came back. `analysis` is empty where a correct attempt was shown; `teacher_answer` is what the teacher
    answers to its own question without seeing the reference, None when it does not know."""

    analysis: str
    new: NewQuestion
    teacher_answer: str | None


def plan_enhancement(
    question: Question,
    attempts: Sequence[tuple[Trajectory, Grade]],
    pass_rate: float,
    *,
    kind_for: Callable[[float], QuestionKind | None],
    run_seed: int,
) -> Enhancement | None:
    """What to ask about a question, None for nothing. The attempt shown is drawn among those that fit, where there
    are any: correct ones for a harder question, else incorrect ones."""
    decided = [(trajectory, grade) for trajectory, grade in attempts if grade.reward is not None]
    kind = kind_for(pass_rate) if decided else None
    if kind is None:
        return None
    wanted = Verdict.CORRECT if kind == "harder" else Verdict.INCORRECT
    fitting = [(trajectory, grade) for trajectory, grade in decided if grade.verdict is wanted]
    trajectory, grade = min(
        fitting or decided,
        key=lambda item: draw_seed(run_seed, "shown", item[0].round, question.question_id, item[0].attempt),
    )
    shown = ShownAttempt(
        trajectory.response, grade.verdict, "" if grade.verdict is Verdict.CORRECT else grade.diagnosis
    )
    return Enhancement(question, pass_rate, kind, trajectory.attempt, shown)


async def enhance_question(teacher: Teacher, plan: Enhancement) -> Written | None:
    """Analyse the mistake, write a question from it, and let the teacher solve that one unseen.

    None when the teacher declines. Raises TeacherReplyError when a call brought nothing usable, and
    TeacherUnavailable when the teacher is out of reach.
    """
    failed = plan.shown.verdict is Verdict.INCORRECT
    analysis = await teacher.analyse(plan.parent, plan.shown) if failed else ""
    try:
        new = await teacher.enhance(plan.parent, plan.shown, analysis, plan.kind)
    except TeacherDeclined:
        return None
    try:
        answer = await teacher.solve(new.text)
    except TeacherReplyError:
        answer = None  # no second opinion: the gate may still find one
    return Written(analysis, new, answer)


async def solve_draft(teacher: Teacher, new: NewQuestion) -> Written:
    """The Generator's question with the teacher's answer to it, which stands against the Generator's own."""
    try:
        answer = await teacher.solve(new.text)
    except TeacherReplyError:
        answer = None
    return Written("", new, answer)
