"""The pass rate to expect of a draft after a few trials, given how all drafts of its round went."""

from __future__ import annotations

import random

import pytest

from prosetting.core.journal_rows import QuestionTally
from prosetting.managers.generator_drafts import TrialsOfARound

TRIALS = 4


def drawn(rates: list[float]) -> list[QuestionTally]:
    draw = random.Random(1)
    correct = [sum(draw.random() < rate for _ in range(TRIALS)) for rate in rates]
    return [QuestionTally(hits, TRIALS - hits, 0) for hits in correct]


def test_where_drafts_differ_by_chance_alone_each_is_expected_to_be_as_all() -> None:
    found = TrialsOfARound.of(drawn([0.7] * 400))
    assert found.mean == pytest.approx(0.7, abs=0.05)
    assert found.expected(2, TRIALS) == pytest.approx(0.7, abs=0.05)


def test_where_they_truly_differ_a_drafts_own_trials_count() -> None:
    found = TrialsOfARound.of(drawn([0.15, 0.5, 0.99] * 150))
    assert found.worth_trials < TRIALS
    assert 0.5 < found.expected(2, TRIALS) < found.mean


def test_the_estimate_is_nearer_to_the_truth_than_the_drafts_own_trials() -> None:
    rates = [0.5 + 0.4 * random.Random(n).random() for n in range(600)]
    tallies = drawn(rates)
    found = TrialsOfARound.of(tallies)
    solved = [(rate, tally.correct) for rate, tally in zip(rates, tallies, strict=True) if tally.correct]
    own = sum((correct / TRIALS - rate) ** 2 for rate, correct in solved)
    assert sum((found.expected(correct, TRIALS) - rate) ** 2 for rate, correct in solved) < own / 3


@pytest.mark.parametrize(
    "tallies",
    [[], [QuestionTally(0, 4, 0)], [QuestionTally(4, 0, 0)], [QuestionTally(1, 0, 0), QuestionTally(1, 0, 3)]],
)
def test_where_nothing_can_be_told_of_the_others_a_drafts_own_trials_stand(tallies: list[QuestionTally]) -> None:
    assert TrialsOfARound.of(tallies).expected(1, 4) == 0.25
