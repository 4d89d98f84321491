from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from prosetting.errors import TeacherReplyError
from prosetting.processors.question_enhancer import EnhancedQuestion, enhance_question, kind_for
from prosetting.processors.question_gate import MAX_QUESTION_CHARS, HeldOut, Rejection, admit
from prosetting.records import Question, QuestionId, QuestionKind, question_id_of
from prosetting.teachers.base import FailedAttempt, GradeReply, NewQuestion
from prosetting.teachers.replies import TeacherDeclined

NEW = NewQuestion("What is 7 + 5?", "12", "7+5=12", "variant")
NEW_ID = question_id_of(NEW.text)
NOTHING = HeldOut.of([])


def test_a_sound_question_is_admitted_with_its_parent() -> None:
    admitted = admit(NEW, known=set(), held_out=NOTHING, teacher_answer="12.0", parent_id=QuestionId("p"))
    assert admitted == Question(NEW_ID, NEW.text, "12", "7+5=12", "variant", QuestionId("p"))


def test_a_teacher_that_does_not_know_is_no_objection() -> None:
    assert isinstance(admit(NEW, known=set(), held_out=NOTHING, teacher_answer=None), Question)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"text": " \n"}, Rejection.EMPTY),
        ({"text": "x" * (MAX_QUESTION_CHARS + 1)}, Rejection.TOO_LONG),
        ({"reference": " "}, Rejection.NO_REFERENCE),
        ({"reference": "13"}, Rejection.REFERENCE_DISAGREES),
        ({"reference": "12%"}, Rejection.REFERENCE_DISAGREES),
    ],
)
def test_an_unsound_question_is_rejected_with_the_reason(change: dict[str, Any], reason: Rejection) -> None:
    assert admit(replace(NEW, **change), known=set(), held_out=NOTHING, teacher_answer="12") == reason


def test_a_question_already_known_or_held_out_stays_out_however_it_is_spaced() -> None:
    spaced = replace(NEW, text=" What  is\n7 + 5? ")
    assert admit(spaced, known={NEW_ID}, held_out=NOTHING, teacher_answer=None) == Rejection.DUPLICATE
    assert (
        admit(spaced, known={NEW_ID}, held_out=HeldOut(frozenset({NEW_ID}), frozenset()), teacher_answer=None)
        == Rejection.HELD_OUT
    )


@pytest.mark.parametrize(
    ("reference", "answer"), [("1,200", "1200"), ("0.5", "1/2"), ("Paris", " paris."), ("$\\frac{1}{2}$", "0.5")]
)
def test_answers_are_compared_by_value_or_by_spelling(reference: str, answer: str) -> None:
    new = replace(NEW, reference=reference)
    assert isinstance(admit(new, known=set(), held_out=NOTHING, teacher_answer=answer), Question)


@pytest.mark.parametrize(
    ("pass_rate", "kind"), [(0.0, "easier"), (0.125, "variant"), (0.7499, "variant"), (0.75, "harder"), (1.0, "harder")]
)
def test_the_kind_follows_the_pass_rate(pass_rate: float, kind: QuestionKind) -> None:
    assert kind_for(pass_rate) == kind


class ScriptedTeacher:
    """A teacher that writes NEW, or fails in the way it is told."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.failure = failure
        self.asked: list[str] = []

    async def grade(self, question: Question, response: str) -> GradeReply:
        raise AssertionError("nothing to grade here")

    async def analyse(self, question: Question, failures: Sequence[FailedAttempt]) -> str:
        self.asked.append("analyse")
        return "forgets the carry"

    async def enhance(
        self, question: Question, failures: Sequence[FailedAttempt], analysis: str, kind: QuestionKind
    ) -> NewQuestion:
        self.asked.append(f"enhance {kind}: {analysis}")
        if self.failure is not None:
            raise self.failure
        return NEW

    async def solve(self, question_text: str) -> str | None:
        self.asked.append(f"solve {question_text}")
        return "12"

    async def close(self) -> None:
        pass


QUESTION = Question(QuestionId("q"), "What is 6 + 5?")


def test_a_question_is_written_from_the_analysis_and_solved_unseen() -> None:
    teacher = ScriptedTeacher()
    made = asyncio.run(enhance_question(teacher, QUESTION, [FailedAttempt("10", "slip")], 0.0))
    assert made == EnhancedQuestion(NEW, "12")
    assert teacher.asked == ["analyse", "enhance easier: forgets the carry", "solve What is 7 + 5?"]


def test_a_teacher_that_declines_gives_no_question() -> None:
    teacher = ScriptedTeacher(TeacherDeclined("no"))
    assert asyncio.run(enhance_question(teacher, QUESTION, [], 0.5)) is None


def test_an_unusable_reply_is_the_callers_to_see() -> None:
    teacher = ScriptedTeacher(TeacherReplyError("garbage"))
    with pytest.raises(TeacherReplyError):
        asyncio.run(enhance_question(teacher, QUESTION, [], 0.5))


def test_a_held_out_question_with_other_names_stays_out_and_one_with_other_numbers_does_not() -> None:
    held = HeldOut.of([Question(QuestionId("h"), "Max has 5 cards and buys 4. How many has he?")])
    renamed = replace(NEW, text="Eva has 5 coins and finds 4. How many has she?", reference="9")
    other = replace(NEW, text="Eva has 5 coins and finds 6. How many has she?", reference="11")
    assert admit(renamed, known=set(), held_out=held, teacher_answer=None) == Rejection.HELD_OUT_NUMBERS
    assert isinstance(admit(other, known=set(), held_out=held, teacher_answer=None), Question)


def test_a_single_number_does_not_tell_questions_apart() -> None:
    held = HeldOut.of([Question(QuestionId("h"), "What is the square of 12?")])
    new = replace(NEW, text="What is the double of 12?", reference="24")
    assert isinstance(admit(new, known=set(), held_out=held, teacher_answer=None), Question)
