"""Whether a question that Teacher2 wrote may enter a pool. Pure."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from enum import StrEnum

from prosetting.processors.answer_forms import parse_number, spelling_key
from prosetting.records import Question, QuestionId, question_id_of
from prosetting.teachers.base import NewQuestion

MAX_QUESTION_CHARS = 4_000
_NUMBER = re.compile(r"[0-9]+(?:[.,][0-9]+)*")


class Rejection(StrEnum):
    """Why a new question stays out."""

    EMPTY = "empty"
    TOO_LONG = "too_long"
    DUPLICATE = "duplicate"
    HELD_OUT = "held_out"
    HELD_OUT_NUMBERS = "held_out_numbers"
    NO_REFERENCE = "no_reference"
    REFERENCE_DISAGREES = "reference_disagrees"


@dataclass(frozen=True, slots=True)
class HeldOut:
    """What must stay out of every pool: held-out questions, and their numbers under other names."""

    question_ids: frozenset[QuestionId]
    numbers: frozenset[tuple[str, ...]]

    @classmethod
    def of(cls, questions: Iterable[Question]) -> HeldOut:
        """A single number is too common to tell questions apart, so only two or more count."""
        questions = list(questions)
        numbers = (numbers_of(question.text) for question in questions)
        return cls(
            frozenset(question.question_id for question in questions),
            frozenset(found for found in numbers if len(found) > 1),
        )


def numbers_of(text: str) -> tuple[str, ...]:
    """The numbers of a question in their order: what is left of it when only names change."""
    return tuple(_NUMBER.findall(unicodedata.normalize("NFKC", text)))


def admit(
    new: NewQuestion,
    *,
    known: AbstractSet[QuestionId],
    held_out: HeldOut,
    teacher_answer: str | None,
    parent_id: QuestionId | None = None,
) -> Question | Rejection:
    """The question for the pool, or the first reason against it.

    `known` are all questions of all pools so far, `held_out` those that only score. `teacher_answer` is what
    the teacher answers without seeing the reference; None, it does not know, is no objection.
    """
    text, reference = new.text.strip(), new.reference.strip()
    if not text:
        return Rejection.EMPTY
    if len(text) > MAX_QUESTION_CHARS:
        return Rejection.TOO_LONG
    question_id = question_id_of(text)
    if question_id in held_out.question_ids:
        return Rejection.HELD_OUT
    if numbers_of(text) in held_out.numbers:
        return Rejection.HELD_OUT_NUMBERS
    if question_id in known:
        return Rejection.DUPLICATE
    if not reference:
        return Rejection.NO_REFERENCE
    if teacher_answer is not None and not same_answer(reference, teacher_answer):
        return Rejection.REFERENCE_DISAGREES
    return Question(question_id, text, reference, new.solution, new.kind, parent_id)


def same_answer(left: str, right: str) -> bool:
    """Equal as exact numbers (`1,200` and `1200.0`), otherwise equal in spelling."""
    numbers = parse_number(left), parse_number(right)
    if numbers[0] is not None and numbers[1] is not None:
        return (numbers[0].value, numbers[0].percent) == (numbers[1].value, numbers[1].percent)
    return spelling_key(left).casefold() == spelling_key(right).casefold()
