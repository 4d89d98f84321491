"""Training data for the Generator: (question, attempt) → new question, weighted by how useful the new one is. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

from prosetting.core.journal_rows import AdmittedQuestion
from prosetting.datasets.generator_text import generator_completion, generator_prompt
from prosetting.records import Verdict

Source = Literal["teacher2", "generator"]
BEST_PASS_RATE = 0.5
PASS_RATE_SPREAD = 0.2


def utility(pass_rate: float) -> float:
    """U = exp(−(s−μ)² / 2σ²) with μ = 0.5, σ = 0.2 (arXiv 2509.24726): most is learned where half of the attempts fail.

    `pass_rate` s is the share of correct attempts at the question (0 … 1).
    """
    return math.exp(-((pass_rate - BEST_PASS_RATE) ** 2) / (2 * PASS_RATE_SPREAD**2))


def generator_row(made: AdmittedQuestion, *, measured: bool) -> dict[str, Any]:
    """What the Generator learns from one admitted question.

    `pass_rate` and `utility` are None until the next round has `measured` its pool, and for a question that it did
    not play. `prompt` and `completion` are what the Generator is given and what it is to write, weighted by `utility`.
    """
    question, outcome = made.question, made.outcome
    pass_rate = made.pass_rate if measured else None
    return {
        "question_id": question.question_id,
        "parent_id": question.parent_id,
        "parent_question": made.parent_text,
        "parent_pass_rate": outcome["pass_rate"],
        "attempt": made.attempt_text,
        "attempt_verdict": outcome["verdict"],
        "analysis": outcome["analysis"],
        "kind": question.kind,
        "source": source_of(outcome),
        "new_question": question.text,
        "reference": question.reference,
        "solution": question.solution,
        "pass_rate": pass_rate,
        "utility": None if pass_rate is None else utility(pass_rate),
        "prompt": generator_prompt(made.parent_text, made.attempt_text, Verdict(outcome["verdict"]), question.kind),
        "completion": generator_completion(question.text, question.solution, question.reference or ""),
    }


def source_of(outcome: Mapping[str, Any]) -> Source:
    """Who wrote a question, by what is kept of its writing."""
    return "generator" if outcome.get("source") == "generator" else "teacher2"
