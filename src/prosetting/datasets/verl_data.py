"""Graded questions → the rows that verl trains on. Pure: the same grades give the same rows, in the same order.

verl draws attempts of its own, so a row is a question: the Solver's prompt, what to grade with, and who it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from prosetting.records import Grade, Question

DATA_SOURCE = "prosetting"


def verl_row(
    question: Question, grades: Sequence[Grade], *, prompt: str, round_: int, index: int
) -> dict[str, Any] | None:
    """One row of verl's training file; None for a question of which no attempt has a verdict.

    Nobody could grade such a question, so no reward is to be had from it. `ground_truth` is the reference, empty
    where Teacher1 decides. `pass_rate` (0 … 1) is the share of correct among the decided attempts: the reward of an
    attempt in training that is left without a verdict.
    """
    rewards = [grade.reward for grade in grades if grade.reward is not None]
    if not rewards:
        return None
    return {
        "data_source": DATA_SOURCE,
        "prompt": [{"role": "user", "content": prompt}],
        "ability": "math",
        "reward_model": {
            "style": "model" if question.reference is None else "rule",
            "ground_truth": question.reference or "",
        },
        "extra_info": {
            "index": index,
            "question_id": question.question_id,
            "round": round_,
            "pass_rate": sum(rewards) / len(rewards),
        },
    }
