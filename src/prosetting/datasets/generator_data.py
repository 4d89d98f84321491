"""Training data for the Generator: (question, attempt) → new question, weighted by how useful the new one is. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from prosetting.records import Question, QuestionId

BEST_PASS_RATE = 0.5
PASS_RATE_SPREAD = 0.2


def utility(pass_rate: float) -> float:
    """U = exp(−(s−μ)² / 2σ²) with μ = 0.5, σ = 0.2 (arXiv 2509.24726): most is learned where half of the attempts fail.

    `pass_rate` s is the share of correct attempts at the question (0 … 1).
    """
    return math.exp(-((pass_rate - BEST_PASS_RATE) ** 2) / (2 * PASS_RATE_SPREAD**2))


def generator_rows(
    admitted: Iterable[Question],
    outcomes: Mapping[QuestionId, Mapping[str, Any]],
    parents: Mapping[QuestionId, Question],
    attempts: Mapping[tuple[QuestionId, int], str],
    measured: Mapping[QuestionId, float],
) -> list[dict[str, Any]]:
    """One row for each admitted new question of a round, in question-id order.

    `outcomes` and `parents` are keyed by parent, `attempts` by parent and attempt number. `measured` holds the pass
    rates of the next round; a question without one has `pass_rate` and `utility` None.
    """
    rows = []
    for question in sorted(admitted, key=lambda question: question.question_id):
        if question.parent_id is None:
            continue
        outcome = outcomes[question.parent_id]
        pass_rate = measured.get(question.question_id)
        rows.append(
            {
                "question_id": question.question_id,
                "parent_id": question.parent_id,
                "parent_question": parents[question.parent_id].text,
                "parent_pass_rate": outcome["pass_rate"],
                "attempt": attempts[question.parent_id, outcome["attempt"]],
                "attempt_verdict": outcome["verdict"],
                "analysis": outcome["analysis"],
                "kind": question.kind,
                "new_question": question.text,
                "reference": question.reference,
                "solution": question.solution,
                "pass_rate": pass_rate,
                "utility": None if pass_rate is None else utility(pass_rate),
            }
        )
    return rows
