"""Scoring a checkpoint on a set of questions: the one way, for rounds of a run and for `prosetting eval`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from prosetting.core.journal import Journal
from prosetting.evaluation.scores import score
from prosetting.records import GREEDY_ATTEMPT, Grade, HeldoutScore


def score_checkpoint(
    journal: Journal,
    round_: int,
    *,
    sampled_attempts: int,
    seed: int,
    collect: Callable[[Sequence[int]], None],
    grade: Callable[[], None],
) -> HeldoutScore | None:
    """Sample and grade the held-out attempts of a round, then score them; None when none could be graded.

    `collect` draws the attempts of these numbers at every question, the greedy one among them; `grade` grades
    what was drawn. Both commit to `journal`, so what is there already is neither drawn nor graded again.
    """
    collect([GREEDY_ATTEMPT, *range(sampled_attempts)])
    grade()
    return score_of_grades((found for _, found in journal.graded_attempts("heldout", round_)), seed)


def score_of_grades(grades: Iterable[Grade], seed: int) -> HeldoutScore | None:
    """The score of graded attempts; unknown verdicts are left out. None without any sampled, decided attempt."""
    sampled_Q: dict[str, list[float]] = {}
    greedy_Q: list[float] = []
    for grade in grades:
        if grade.reward is None:
            continue
        if grade.attempt == GREEDY_ATTEMPT:
            greedy_Q.append(grade.reward)
        else:
            sampled_Q.setdefault(grade.question_id, []).append(grade.reward)
    return score(list(sampled_Q.values()), greedy_Q, seed) if sampled_Q else None
