"""Two sets of weights on the same questions, question by question. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from prosetting.evaluation.scores import LEVEL, interval_of_mean
from prosetting.records import QuestionId


@dataclass(frozen=True, slots=True)
class Comparison:
    """Mean pass rates of A and B over the questions that both were scored on, and of B − A with its interval.

    The interval resamples questions and keeps the two rates of a question together, which takes out what makes
    questions unequally hard: bootstrap, beyond BOOTSTRAP_MOST questions normal. `better` and `worse` count questions.
    """

    questions: int
    a: float
    b: float
    change: float
    low: float
    high: float
    better: int
    worse: int

    @property
    def is_better(self) -> bool:
        return self.low > 0

    @property
    def is_worse(self) -> bool:
        return self.high < 0


def compare_rates(
    rates_a: Mapping[QuestionId, float], rates_b: Mapping[QuestionId, float], seed: int, level: float = LEVEL
) -> Comparison | None:
    """Pass rates by question id, paired where both have one; None where they share no question."""
    shared = sorted(rates_a.keys() & rates_b.keys())
    if not shared:
        return None
    changes_Q = [rates_b[question_id] - rates_a[question_id] for question_id in shared]
    n = len(shared)
    return Comparison(
        n,
        sum(rates_a[question_id] for question_id in shared) / n,
        sum(rates_b[question_id] for question_id in shared) / n,
        sum(changes_Q) / n,
        *interval_of_mean(changes_Q, seed, level),
        sum(change > 0 for change in changes_Q),
        sum(change < 0 for change in changes_Q),
    )
