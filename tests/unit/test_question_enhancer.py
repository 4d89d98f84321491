"""What Teacher2 is asked for, by how a question went."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from prosetting.config import Settings
from prosetting.errors import TeacherReplyError
from prosetting.processors.curriculum import curriculum_of
from prosetting.processors.question_enhancer import Enhancement, Written, enhance_question, plan_enhancement
from prosetting.records import Grade, Question, QuestionKind, Trajectory, Verdict, question_id_of
from prosetting.teachers.base import NewQuestion, ShownAttempt

Q = Question(question_id_of("q"), "q", "1")
RIGHT, WRONG, OPEN = Verdict.CORRECT, Verdict.INCORRECT, Verdict.UNKNOWN


def plan(*verdicts: Verdict, seed: int = 1, **settings: Any) -> Enhancement | None:
    attempts = [
        (Trajectory(1, Q.question_id, n, f"r{n}", "stop", 1), Grade(1, Q.question_id, n, verdict, "rules", f"d{n}"))
        for n, verdict in enumerate(verdicts)
    ]
    decided = [verdict is RIGHT for verdict in verdicts if verdict is not OPEN]
    rate = sum(decided) / len(decided) if decided else 0.0
    kind_for = curriculum_of(Settings(solver_model_path="m", **settings))
    return plan_enhancement(Q, attempts, rate, kind_for=kind_for, run_seed=seed)


@pytest.mark.parametrize(
    ("verdicts", "kind", "shown"),
    [
        ((RIGHT, RIGHT), "harder", RIGHT),
        ((RIGHT, OPEN), "harder", RIGHT),
        ((RIGHT, WRONG), "variant", WRONG),
        ((WRONG, RIGHT, RIGHT, RIGHT), "variant", WRONG),
        ((WRONG, WRONG), "easier", WRONG),
    ],
)
def test_the_pass_rate_decides_the_kind_and_which_attempt_is_shown(verdicts, kind: str, shown: Verdict) -> None:
    found = plan(*verdicts)
    assert found is not None
    assert (found.kind, found.shown.verdict, verdicts[found.attempt]) == (kind, shown, shown)
    assert found.shown.diagnosis == ("" if shown is RIGHT else f"d{found.attempt}")


def test_nothing_is_asked_where_no_attempt_was_decided() -> None:
    assert plan(OPEN, OPEN) is None


def test_too_hard_questions_can_be_left_alone() -> None:
    assert plan(WRONG, WRONG, enhance_too_hard="none") is None
    assert plan(WRONG, RIGHT, enhance_too_hard="none") is not None
    assert plan(WRONG, WRONG, RIGHT, enhance_too_hard="none", curriculum="band", curriculum_band=(0.4, 0.8)) is None


@pytest.mark.parametrize(
    ("correct", "kind"), [(0, "easier"), (1, "variant"), (5, "variant"), (6, "harder"), (7, "harder"), (8, "harder")]
)
def test_a_band_asks_for_harder_questions_before_every_attempt_is_right(correct: int, kind: str) -> None:
    found = plan(*[RIGHT] * correct, *[WRONG] * (8 - correct), curriculum="band")
    assert found is not None
    assert (found.kind, found.shown.verdict) == (kind, RIGHT if kind == "harder" else WRONG)


@pytest.mark.parametrize("verdicts", [(RIGHT, RIGHT), (RIGHT, WRONG), (WRONG, WRONG)])
def test_without_hardening_every_question_gets_a_variant(verdicts: tuple[Verdict, ...]) -> None:
    found = plan(*verdicts, curriculum="all")
    assert found is not None
    assert (found.kind, found.shown.verdict) == ("variant", verdicts[-1])
    assert (found.shown.diagnosis == "") == (verdicts[-1] is RIGHT)


def test_the_attempt_shown_is_drawn_from_the_seed() -> None:
    drawn = {found.attempt for seed in range(40) if (found := plan(*[WRONG] * 4, RIGHT, seed=seed))}
    assert drawn == {0, 1, 2, 3}


class Teacher2:
    def __init__(self, *, solves: bool = True) -> None:
        self.calls: list[str] = []
        self._solves = solves

    async def analyse(self, question: Question, attempt: ShownAttempt) -> str:
        self.calls.append("analyse")
        return f"why {attempt.response}"

    async def enhance(self, question: Question, attempt: ShownAttempt, analysis: str, kind: QuestionKind):
        self.calls.append(f"enhance {kind} {analysis}".strip())
        return NewQuestion("new", "2", None, kind)

    async def solve(self, question_text: str) -> str | None:
        self.calls.append("solve")
        if not self._solves:
            raise TeacherReplyError("time-out")
        return "2"


def ask(teacher: Teacher2, found: Enhancement | None) -> Written | None:
    assert found is not None
    return asyncio.run(enhance_question(teacher, found))  # type: ignore[arg-type]


def test_a_failed_attempt_is_analysed_first_and_the_analysis_is_kept() -> None:
    teacher = Teacher2()
    written = ask(teacher, plan(WRONG))
    assert teacher.calls == ["analyse", "enhance easier why r0", "solve"]
    assert written == Written("why r0", NewQuestion("new", "2", None, "easier"), "2")


def test_a_mastered_question_is_not_analysed() -> None:
    teacher = Teacher2()
    written = ask(teacher, plan(RIGHT))
    assert teacher.calls == ["enhance harder", "solve"]
    assert written is not None
    assert written.analysis == ""


def test_a_solve_that_brings_nothing_is_no_second_opinion_and_no_failure() -> None:
    written = ask(Teacher2(solves=False), plan(RIGHT))
    assert written is not None
    assert written.teacher_answer is None
