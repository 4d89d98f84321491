"""The score of graded attempts at held-out questions."""

from __future__ import annotations

from collections.abc import Iterable

from prosetting.evaluation.scores import score
from prosetting.records import GREEDY_ATTEMPT, Grade, HeldoutScore


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
