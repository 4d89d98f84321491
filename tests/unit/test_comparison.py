"""Two sets of weights on the same questions, question by question."""

from __future__ import annotations

import random
import statistics

import pytest

from prosetting.evaluation.comparison import compare_rates
from prosetting.evaluation.scores import BOOTSTRAP_MOST, bootstrap_ci, interval_of_mean
from prosetting.records import QuestionId


def rates(values: list[float], first: int = 0) -> dict[QuestionId, float]:
    return {QuestionId(f"q{number:05}"): value for number, value in enumerate(values, first)}


def test_only_questions_that_both_were_scored_on_are_compared() -> None:
    found = compare_rates(rates([0.0, 0.5, 1.0]), rates([1.0, 0.5, 0.25], first=1), seed=1)
    assert found is not None
    assert (found.questions, found.a, found.b, found.change) == (2, 0.75, 0.75, 0.0)
    assert (found.better, found.worse) == (1, 1)
    assert compare_rates(rates([1.0]), rates([1.0], first=5), seed=1) is None


def test_pairing_takes_out_how_unequally_hard_questions_are() -> None:
    """Each question is a little easier for B; between questions the rates differ much more than that."""
    draw = random.Random(3)
    before = [draw.random() * 0.9 for _ in range(100)]
    found = compare_rates(rates(before), rates([rate + 0.05 for rate in before]), seed=1)
    assert found is not None
    assert found.is_better
    assert found.low == pytest.approx(0.05)
    assert statistics.stdev(before) / 10 > 0.02  # an unpaired interval would be wider than the change


def test_no_change_is_neither_better_nor_worse() -> None:
    draw = random.Random(4)
    before, after = ([draw.random() for _ in range(200)] for _ in range(2))
    found = compare_rates(rates(before), rates(after), seed=1, level=0.98)
    assert found is not None
    assert not found.is_better
    assert not found.is_worse


def test_the_normal_interval_of_many_questions_is_that_of_the_bootstrap() -> None:
    draw = random.Random(5)
    values = [draw.choice((-0.25, 0.0, 0.25, 0.5)) for _ in range(BOOTSTRAP_MOST + 100)]
    assert interval_of_mean(values, 1, 0.98) == pytest.approx(bootstrap_ci(values, 1, level=0.98), abs=0.006)
