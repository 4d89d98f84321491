"""Rows for the Generator, and the weight of a new question."""

from __future__ import annotations

import pytest

from prosetting.core.journal_rows import AdmittedQuestion
from prosetting.datasets.generator_data import generator_row, utility
from prosetting.datasets.generator_text import generator_prompt
from prosetting.records import Question, QuestionId, Verdict

CHILD = Question(QuestionId("a"), "text of a", "2", "1+1=2", "variant", QuestionId("p"))
OUTCOME = {"pass_rate": 0.25, "attempt": 3, "verdict": "incorrect", "analysis": "added instead"}


def made(pass_rate: float | None) -> AdmittedQuestion:
    return AdmittedQuestion(CHILD, "text of p", "so 7", OUTCOME, pass_rate)


@pytest.mark.parametrize(
    ("pass_rate", "expected"), [(0.5, 1.0), (0.25, 0.4578), (0.75, 0.4578), (0, 0.0439), (1, 0.0439)]
)
def test_a_question_is_most_useful_where_half_of_the_attempts_fail(pass_rate: float, expected: float) -> None:
    assert utility(pass_rate) == pytest.approx(expected, abs=1e-4)


def test_a_row_tells_what_a_new_question_was_made_from() -> None:
    assert generator_row(made(0.5), measured=False) == {
        "question_id": "a",
        "parent_id": "p",
        "parent_question": "text of p",
        "parent_pass_rate": 0.25,
        "attempt": "so 7",
        "attempt_verdict": "incorrect",
        "analysis": "added instead",
        "kind": "variant",
        "source": "teacher2",
        "new_question": "text of a",
        "reference": "2",
        "solution": "1+1=2",
        "pass_rate": None,
        "utility": None,
        "prompt": generator_prompt("text of p", "so 7", Verdict.INCORRECT, "variant"),
        "completion": "text of a\nSolution: 1+1=2\nAnswer: 2",
    }


def test_the_utility_follows_once_the_pass_rate_is_measured() -> None:
    row = generator_row(made(0.0), measured=True)
    assert (row["pass_rate"], row["utility"]) == (0.0, utility(0.0))


def test_a_question_that_the_next_round_did_not_play_has_no_utility() -> None:
    row = generator_row(made(None), measured=True)
    assert (row["pass_rate"], row["utility"]) == (None, None)
