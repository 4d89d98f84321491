"""Rows for the Generator, and the weight of a new question."""

from __future__ import annotations

from typing import Any

import pytest

from prosetting.datasets.generator_data import generator_rows, utility
from prosetting.records import Question, QuestionId

PARENT, OTHER = (Question(QuestionId(name), f"text of {name}", "1") for name in ("p", "o"))
OUTCOME = {"pass_rate": 0.25, "attempt": 3, "verdict": "incorrect", "analysis": "added instead"}


def child(name: str, parent: Question | None = PARENT) -> Question:
    return Question(
        QuestionId(name), f"text of {name}", "2", "1+1=2", "variant", parent.question_id if parent else None
    )


def rows_of(admitted: list[Question], measured: dict[QuestionId, float] | None = None) -> list[dict[str, Any]]:
    parents = {question.question_id: question for question in (PARENT, OTHER)}
    outcomes = {PARENT.question_id: OUTCOME, OTHER.question_id: OUTCOME | {"attempt": 0, "verdict": "correct"}}
    attempts = {(PARENT.question_id, 3): "so 7", (OTHER.question_id, 0): "so 1"}
    return generator_rows(admitted, outcomes, parents, attempts, measured or {})


@pytest.mark.parametrize(
    ("pass_rate", "expected"), [(0.5, 1.0), (0.25, 0.4578), (0.75, 0.4578), (0, 0.0439), (1, 0.0439)]
)
def test_a_question_is_most_useful_where_half_of_the_attempts_fail(pass_rate: float, expected: float) -> None:
    assert utility(pass_rate) == pytest.approx(expected, abs=1e-4)


def test_a_row_tells_what_a_new_question_was_made_from() -> None:
    assert rows_of([child("a")]) == [
        {
            "question_id": "a",
            "parent_id": "p",
            "parent_question": "text of p",
            "parent_pass_rate": 0.25,
            "attempt": "so 7",
            "attempt_verdict": "incorrect",
            "analysis": "added instead",
            "kind": "variant",
            "new_question": "text of a",
            "reference": "2",
            "solution": "1+1=2",
            "pass_rate": None,
            "utility": None,
        }
    ]


def test_the_utility_follows_once_the_pass_rate_is_measured() -> None:
    first, second = rows_of([child("b", OTHER), child("a")], {QuestionId("a"): 0.0})
    assert (first["question_id"], first["pass_rate"], first["utility"]) == ("a", 0.0, utility(0.0))
    assert (second["question_id"], second["attempt"], second["utility"]) == ("b", "so 1", None)


def test_a_question_without_a_parent_gives_no_row() -> None:
    assert rows_of([child("s", None)]) == []
