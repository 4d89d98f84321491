"""Whether a question that Teacher2 wrote may enter a pool."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from prosetting.core.journal import Journal
from prosetting.core.text import words
from prosetting.processors.answer_forms import parse_number, spelling_key
from prosetting.processors.question_similarity import SharedRuns, template_of
from prosetting.records import Question, QuestionId, question_id_of
from prosetting.teachers.base import NewQuestion
from prosetting.teachers.calculations import WrongCalculation, decimal, given_numbers, read_chain

MAX_QUESTION_CHARS = 4_000
TEMPLATE_QUOTA = 3
"""Questions of one number-masked template that a round may admit, the parent's own template counted."""

_NUMBER = re.compile(r"[0-9]+(?:[.,][0-9]+)*")
_CHAT_TOKEN = re.compile(
    r"<\|[a-z_]\w{0,40}\|>|<\|(?:im|eot|end)|</?s>|</?think>|<(?:start|end)_of_turn>|\[/?inst\]|<</?sys>>",
    re.IGNORECASE,
)
_JOINERS = "\u200c\u200d"  # part of the spelling in some scripts, and of some emoji


class Rejection(StrEnum):
    """Why a new question stays out."""

    MALFORMED = "malformed"
    TOO_LONG = "too_long"
    HELD_OUT = "held_out"
    HELD_OUT_NUMBERS = "held_out_numbers"
    HELD_OUT_WORDING = "held_out_wording"
    DUPLICATE = "duplicate"
    TEMPLATE_QUOTA = "template_quota"
    NEAR_DUPLICATE = "near_duplicate"
    NO_REFERENCE = "no_reference"
    NO_SECOND_SOLUTION = "no_second_solution"
    REFERENCE_DISAGREES = "reference_disagrees"


REPEATS = frozenset({Rejection.DUPLICATE, Rejection.TEMPLATE_QUOTA, Rejection.NEAR_DUPLICATE})
"""The reasons that count as duplicates in a round's diversity figures."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """A question that stays out. `detail` is the evidence: the id it repeats, the shared words, the answers."""

    reason: Rejection
    detail: str


class QuestionGate:
    """The checks on the new questions of one round, to be asked in question-id order of the parents.

    Known are the questions of every pool up to `round_`, `held_out` are those that only score. An admitted question
    is stored and becomes known in the transaction that the caller has open, so that one whose admission is stored
    with it is not to be asked again, and the same calls in the same order give the same decisions.
    """

    def __init__(self, journal: Journal, round_: int, *, held_out: Iterable[Question]) -> None:
        journal.index_pools(round_)
        self._journal = journal
        self._index = journal.question_index
        self._next_round = round_ + 1
        self._texts = TextChecks(held_out)

    def admit(
        self, new: NewQuestion, *, parent_id: QuestionId | None, teacher_answer: str | None
    ) -> Question | Rejected:
        """The question for the pool, or the first reason against it.

        `teacher_answer` is what the teacher answers without seeing the reference; None, it does not know, is
        no vote. The reference needs one independent solution that agrees and none that contradicts.
        """
        text = new.text.strip()
        rejected = self._texts.objection(text) or self._repetition(text, parent_id)
        rejected = rejected or _doubtful_reference(new, teacher_answer)
        if rejected:
            return rejected
        question = Question(question_id_of(text), text, new.reference.strip(), new.solution, new.kind, parent_id)
        self._journal.add_questions([question])
        self._index.add(self._next_round, [question], template_of(text))
        return question

    def _repetition(self, text: str, parent_id: QuestionId | None) -> Rejected | None:
        question_id = question_id_of(text)
        if self._index.holds(question_id):
            return Rejected(Rejection.DUPLICATE, question_id)
        template = template_of(text)
        parent = self._journal.question(parent_id) if parent_id else None
        seen = self._index.admitted_like(self._next_round, template)
        if seen + (parent is not None and template_of(parent.text) == template) >= TEMPLATE_QUOTA:
            return Rejected(Rejection.TEMPLATE_QUOTA, template)
        if near := self._index.nearest(text):
            return Rejected(Rejection.NEAR_DUPLICATE, f"{near[0]} ({near[1]:.2f})")
        return None


class TextChecks:
    """What can be said against a text by itself: its form, and what must stay out of every pool, which is held-out
    questions, their numbers under other names, their wording."""

    def __init__(self, held_out: Iterable[Question]) -> None:
        questions = list(held_out)
        self._ids = {question.question_id for question in questions}
        # A single number is too common to tell questions apart.
        self._numbers = {found for question in questions if len(found := numbers_of(question.text)) > 1}
        self._runs = SharedRuns(question.text for question in questions)

    def objection(self, text: str) -> Rejected | None:
        return _ill_formed(text) or self._of_held_out(text)

    def _of_held_out(self, text: str) -> Rejected | None:
        if (question_id := question_id_of(text)) in self._ids:
            return Rejected(Rejection.HELD_OUT, question_id)
        if (numbers := numbers_of(text)) in self._numbers:
            return Rejected(Rejection.HELD_OUT_NUMBERS, " ".join(numbers))
        if shared := self._runs.first_in(text):
            return Rejected(Rejection.HELD_OUT_WORDING, shared)
        return None


def numbers_of(text: str) -> tuple[str, ...]:
    """The numbers of a question in their order: what is left of it when only names change."""
    return tuple(_NUMBER.findall(unicodedata.normalize("NFKC", text)))


def _ill_formed(text: str) -> Rejected | None:
    if len(text) > MAX_QUESTION_CHARS:
        return Rejected(Rejection.TOO_LONG, f"{len(text)} characters, at most {MAX_QUESTION_CHARS}")
    if hidden := next((c for c in text if not _is_visible(c)), None):
        return Rejected(Rejection.MALFORMED, f"the character U+{ord(hidden):04X}")
    if token := _CHAT_TOKEN.search(unicodedata.normalize("NFKC", text)):
        return Rejected(Rejection.MALFORMED, f"the chat token {token[0]}")
    found = words(text)
    if len(found) < 2 or not any(word.isalpha() for word in found):
        return Rejected(Rejection.MALFORMED, "no question in words" if text else "empty")
    return None


def _is_visible(character: str) -> bool:
    spaced = character in "\n\r\t" or unicodedata.category(character) == "Zs"
    return spaced or character.isprintable() or character in _JOINERS


def _doubtful_reference(new: NewQuestion, teacher_answer: str | None) -> Rejected | None:
    reference = new.reference.strip()
    if not reference:
        return Rejected(Rejection.NO_REFERENCE, "")
    votes: dict[str, bool] = {}
    if teacher_answer is not None:
        votes[f"the teacher's own answer {teacher_answer[:80]!r}"] = same_answer(reference, teacher_answer)
    if program := _program_vote(new, reference):
        votes[program[0]] = program[1]
    against = [who for who, agrees in votes.items() if not agrees]
    if against:
        return Rejected(Rejection.REFERENCE_DISAGREES, f"reference {reference[:80]!r}; {'; '.join(against)}")
    return None if votes else Rejected(Rejection.NO_SECOND_SOLUTION, f"reference {reference[:80]!r}")


def _program_vote(new: NewQuestion, reference: str) -> tuple[str, bool] | None:
    """What the solution's annotated calculations come to, recomputed, and whether it is the reference.

    No vote without annotations, nor from a chain with numbers that the question does not give.
    """
    number = parse_number(reference)
    try:
        chain = read_chain(new.solution or "")
    except WrongCalculation as wrong:
        return f"the solution's step {wrong}", False
    if chain is None or number is None or not chain.stands_on(given_numbers(new.text)):
        return None
    result = chain.results[-1]
    agrees = number.value == result or (number.percent and number.value == 100 * result)
    return f"the solution's calculations come to {decimal(result)}", agrees


def same_answer(left: str, right: str) -> bool:
    """Equal as exact numbers (`1,200` and `1200.0`), otherwise equal in spelling."""
    numbers = parse_number(left), parse_number(right)
    if numbers[0] is not None and numbers[1] is not None:
        return (numbers[0].value, numbers[0].percent) == (numbers[1].value, numbers[1].percent)
    return spelling_key(left).casefold() == spelling_key(right).casefold()
