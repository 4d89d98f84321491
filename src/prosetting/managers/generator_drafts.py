"""What the Generator drafted in a round, and how the Solver did at it.

A draft is named by the question that it was written after and its number. The Solver's attempts at one stand in the
journal under that name, graded against the draft's own answer: a pass rate of half says that it is worth playing, and
that its answer may well be right.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

from prosetting.core.journal import Journal
from prosetting.core.pool_questions import QuestionsById
from prosetting.datasets.generator_data import utility
from prosetting.datasets.generator_text import Draft, read_draft
from prosetting.processors.question_gate import TextChecks
from prosetting.records import Question, QuestionId

DRAFTED_AHEAD = 2
"""Questions on which the Generator builds in its one turn, for each new one that is wanted of it."""
DRAFTS = range(4)
"""What it writes after each of them: the first is taken with whose answer the teacher agrees."""


@dataclass(frozen=True, slots=True)
class TriedDraft:
    """A whole draft. `worth_a_call` where the gate does not turn it away whatever a teacher says. `promise` is the
    utility U at the share of the Solver's decided attempts that came to the draft's own answer, 0 where none did."""

    draft: Draft
    worth_a_call: bool
    promise: float


class GeneratorDrafts:
    """The drafts in the journal."""

    def __init__(self, journal: Journal, held_out: Iterable[Question]) -> None:
        self._journal = journal
        self._held_out = held_out

    def after(self, round_: int, parent: QuestionId) -> list[TriedDraft]:
        """The whole drafts after a question, the most promising first, in their own order among equals; last those
        that are not worth a call."""
        tried = [
            TriedDraft(draft, self._is_worth_a_call(draft), self._promise(round_, _name(parent, number)))
            for number, draft in self._whole(round_, parent)
        ]
        return sorted(tried, key=lambda one: (not one.worth_a_call, -one.promise))

    def most_promising_first(self, round_: int, parents: Iterable[QuestionId]) -> list[QuestionId]:
        """The questions by the best draft after each, in the given order among equals."""

        def best(parent: QuestionId) -> float:
            return max((one.promise for one in self.after(round_, parent)), default=0.0)

        return sorted(parents, key=lambda parent: -best(parent))

    def to_try(self, round_: int, parents: Iterable[QuestionId]) -> QuestionsById:
        """The drafts that are worth a call, as questions under their names."""

        def read(name: QuestionId) -> Question:
            parent, _, number = name.partition("/")
            draft = dict(self._whole(round_, QuestionId(parent)))[int(number)]
            return Question(name, draft.text, draft.reference)

        names = [
            _name(parent, number)
            for parent in parents
            for number, draft in self._whole(round_, parent)
            if self._is_worth_a_call(draft)
        ]
        return QuestionsById(names, read)

    @cached_property
    def _texts(self) -> TextChecks:
        return TextChecks(self._held_out)

    def _is_worth_a_call(self, draft: Draft) -> bool:
        return bool(draft.reference) and self._texts.objection(draft.text) is None

    def _whole(self, round_: int, parent: QuestionId) -> Iterator[tuple[int, Draft]]:
        """With their numbers. One that was cut off, or is no question, is none."""
        for written, _ in self._journal.attempts_of("generator", round_, parent):
            draft = read_draft(written.response) if written.finish_reason == "stop" else None
            if draft is not None:
                yield written.attempt, draft

    def _promise(self, round_: int, name: QuestionId) -> float:
        found = self._journal.attempts_of("trial", round_, name)
        rewards = [grade.reward for _, grade in found if grade is not None and grade.reward is not None]
        return utility(sum(rewards) / len(rewards)) if rewards else 0.0


def _name(parent: QuestionId, number: int) -> QuestionId:
    return QuestionId(f"{parent}/{number}")
