"""What the Generator drafted in a round, and how the Solver did at it.

A draft is named by the question that it was written after and its number. The Solver's attempts at one stand in the
journal under that name, graded against the draft's own answer: a pass rate of half says that it is worth playing, and
that its answer may well be right.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean, pvariance

from prosetting.core.journal import Journal
from prosetting.core.journal_rows import QuestionTally
from prosetting.core.pool_questions import QuestionsById
from prosetting.datasets.generator_data import utility
from prosetting.datasets.generator_text import Draft, read_draft
from prosetting.processors.question_gate import TextChecks
from prosetting.records import Question, QuestionId, Verdict

DRAFTED_AHEAD = 2
"""Questions on which the Generator builds in its one turn, for each new one that is wanted of it."""
DRAFTS = range(4)
"""What it writes after each of them: the first is taken with whose answer the teacher agrees."""
LEAST_SPREAD = 0.02
"""Of drafts whose pass rates differ by no more than chance, as a share of the variance of a coin's: 49 trials."""


@dataclass(frozen=True, slots=True)
class TriedDraft:
    """A whole draft. `worth_a_call` where the gate does not turn it away whatever a teacher says. `promise` is the
    utility U at the pass rate that is to be expected of it, 0 where no trial came to the draft's own answer."""

    draft: Draft
    worth_a_call: bool
    promise: float


@dataclass(frozen=True, slots=True)
class TrialsOfARound:
    """What a few trials say of a draft, given those of all others: the mean pass rate of those that were solved at all,
    and how many trials of its own a draft needs to count as much as that mean.

    Drafts that look best by a few trials were mostly lucky, or unlucky: when the Solver solves most drafts, one that it
    solved in half of four trials is easier than that. This is the beta-binomial estimate with the moments of the round
    (empirical Bayes; Efron and Morris 1975 for the thought).
    """

    mean: float
    worth_trials: float

    @classmethod
    def of(cls, tallies: Iterable[QuestionTally]) -> TrialsOfARound:
        solved = [(tally.correct, tally.correct + tally.incorrect) for tally in tallies if tally.correct]
        if not solved:
            return cls(0.5, 0.0)
        rates, trials = [correct / decided for correct, decided in solved], fmean(decided for _, decided in solved)
        mean = fmean(rates)
        by_chance = mean * (1 - mean)
        if trials <= 1 or not by_chance:
            return cls(mean, 0.0)
        # Of the variance of observed rates, which is by_chance · (1/n + (1 - 1/n) · alike), what is not chance.
        alike = (pvariance(rates) / by_chance - 1 / trials) / (1 - 1 / trials)
        return cls(mean, 1 / max(alike, LEAST_SPREAD) - 1)

    def expected(self, correct: int, decided: int) -> float:
        """The pass rate to expect of a draft, 0 … 1."""
        return (correct + self.worth_trials * self.mean) / (decided + self.worth_trials)


class GeneratorDrafts:
    """The drafts in the journal."""

    def __init__(self, journal: Journal, held_out: Iterable[Question]) -> None:
        self._journal = journal
        self._held_out = held_out
        self._trials: dict[int, TrialsOfARound] = {}

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
        verdicts = Counter(grade.verdict for _, grade in found if grade is not None)
        correct, incorrect = verdicts[Verdict.CORRECT], verdicts[Verdict.INCORRECT]
        return utility(self._trials_of(round_).expected(correct, correct + incorrect)) if correct else 0.0

    def _trials_of(self, round_: int) -> TrialsOfARound:
        """Read once all of the round's trials are there."""
        if round_ not in self._trials:
            self._trials = {round_: TrialsOfARound.of(self._journal.tallies("trial", round_))}
        return self._trials[round_]


def _name(parent: QuestionId, number: int) -> QuestionId:
    return QuestionId(f"{parent}/{number}")
