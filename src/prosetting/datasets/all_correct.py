"""What is made of a question whose attempts were all correct: it has no pair, but may give a supervised row.

A supervised row is one of the question's own attempts. It stands in the pair files as a pair whose chosen and rejected
side are that attempt: a loss of the difference between the two then has no gradient, and the sft term alone moves the
weights (`trainers/losses.py` says which losses are such).
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Sequence

from prosetting.core.artifacts import draw_seed
from prosetting.records import QuestionId, QuestionPairs, Trajectory

PickAttempt = Callable[[Sequence[Trajectory], int], Trajectory]
"""From a question's attempts, all correct, and the run's seed to the one that becomes a row."""


def drawn_attempt(attempts: Sequence[Trajectory], run_seed: int) -> Trajectory:
    """One of them, each as likely: what the Solver answers often is drawn often."""
    return min(attempts, key=lambda one: draw_seed(run_seed, "supervised row", one.round, one.question_id, one.attempt))


ALL_CORRECT: dict[str, PickAttempt | None] = {"nothing": None, "supervised": drawn_attempt}
"""By ALL_CORRECT_QUESTIONS; None makes no rows. When to use which: docs/strategies.md."""


def drawn_questions(
    all_correct: Iterable[QuestionId], round_: int, *, run_seed: int, most: int | None
) -> set[QuestionId]:
    """`most` of these questions of a round, by a hash of their names; all of them without a limit."""
    if most is None:
        return set(all_correct)
    return set(heapq.nsmallest(most, all_correct, key=lambda one: draw_seed(run_seed, "supervised", round_, one)))


def supervised_row(prompt: str, attempt: Trajectory) -> QuestionPairs:
    """The attempt as both sides of the only pair of its question."""
    return QuestionPairs(
        prompt,
        attempt.question_id,
        attempt.round,
        completions=(attempt.response,),
        attempts=(attempt.attempt,),
        chosen=(0,),
        rejected=(0,),
    )
