import itertools
import math
import random
from collections import Counter
from fractions import Fraction

import pytest

from prosetting.evaluation.scores import (
    CORRECT,
    QuestionVotes,
    bootstrap_ci,
    exact_ci,
    majority_at_k,
    metrics,
    pass_at_k,
    score,
)


def test_pass_at_k_equals_counting_all_subsets():
    for n, c, k in itertools.product(range(1, 7), range(7), range(1, 7)):
        if c > n or k > n:
            continue
        rewards = [1] * c + [0] * (n - c)
        subsets = list(itertools.combinations(rewards, k))
        assert pass_at_k(n, c, k) == pytest.approx(sum(any(s) for s in subsets) / len(subsets))


def test_pass_at_k_refuses_more_draws_than_attempts():
    with pytest.raises(ValueError, match="needs at least 9 attempts"):
        pass_at_k(8, 1, 9)


def test_the_interval_holds_the_mean_and_narrows_with_more_questions():
    few, many = [0.0, 1.0] * 8, [0.0, 1.0] * 128
    low_few, high_few = bootstrap_ci(few, seed=1)
    low_many, high_many = bootstrap_ci(many, seed=1)
    assert low_few < 0.5 < high_few
    assert low_few < low_many < 0.5 < high_many < high_few


def test_the_interval_of_all_equal_questions_is_a_point():
    assert bootstrap_ci([0.25] * 10, seed=3) == (0.25, 0.25)


def test_a_score_counts_questions_samples_and_greedy_apart():
    found = score([[1, 0, 0, 0], [1, 1, 1, 1]], [0.0, 1.0], seed=1)
    assert found.pass_at_1 == pytest.approx(0.625)
    assert found.pass_at_k == 1.0
    assert found.greedy == 0.5
    assert (found.questions, found.samples) == (2, 8)


def brute_force_majority(votes, k):
    """All subsets of k attempts; tied answers share the win."""
    won = Fraction(0)
    subsets = list(itertools.combinations(votes, k))
    for subset in subsets:
        counts = Counter(vote for vote in subset if vote is not None)
        first = [vote for vote, count in counts.items() if count == max(counts.values())]
        won += Fraction(first.count(CORRECT), max(1, len(first)))
    return won / len(subsets)


@pytest.mark.parametrize("seed", range(8))
def test_majority_at_k_equals_counting_all_subsets(seed):
    rng = random.Random(seed)
    votes = [rng.choice([CORRECT, CORRECT, "4", "5", "6", None]) for _ in range(8)]
    for k in range(1, 9):
        assert majority_at_k(votes, k) == pytest.approx(float(brute_force_majority(votes, k)), abs=1e-12)


def test_a_tie_for_first_is_shared_and_attempts_without_an_answer_have_no_vote():
    assert majority_at_k([CORRECT, "4"], 2) == 0.5
    assert majority_at_k([CORRECT, None, None], 3) == 1.0
    assert majority_at_k([None, None], 2) == 0.0


def test_the_exact_interval_is_that_of_clopper_and_pearson():
    # Each end by its definition: half of the rest lies beyond it.
    for successes, trials in ((3, 20), (19, 20), (0, 30), (30, 30), (640, 1319)):
        low, high = exact_ci(successes, trials)
        assert low <= successes / trials <= high
        if successes:
            assert tail_from(successes, trials, low) == pytest.approx(0.025, rel=1e-6)
        if successes < trials:
            assert 1 - tail_from(successes + 1, trials, high) == pytest.approx(0.025, rel=1e-6)
    assert exact_ci(0, 30) == (0.0, pytest.approx(1 - 0.025 ** (1 / 30)))


def tail_from(least, trials, p):
    p = Fraction(p).limit_denominator(10**9)
    return float(sum(math.comb(trials, i) * p**i * (1 - p) ** (trials - i) for i in range(least, trials + 1)))


def test_the_table_says_which_interval_each_line_has():
    questions = [QuestionVotes((CORRECT, "4", None, CORRECT), greedy=True), QuestionVotes(("4", "4", "4", "4"), False)]
    found = {line.name: line for line in metrics(questions, seed=1)}
    assert list(found) == ["mean@4", "pass@2", "pass@4", "majority@4", "greedy"]
    assert found["mean@4"].interval == "bootstrap"
    assert found["pass@4"].interval == found["greedy"].interval == "exact"
    assert found["mean@4"].value == pytest.approx(0.25)
    assert found["majority@4"].value == 0.5


def test_a_k_leaves_out_the_questions_with_fewer_decided_attempts_and_says_so():
    found = {line.name: line for line in metrics([QuestionVotes((CORRECT, "4")), QuestionVotes(("4",))], seed=1)}
    assert (found["mean@2"].questions, found["mean@2"].value) == (2, 0.25)
    assert (found["pass@2"].questions, found["pass@2"].value) == (1, 1.0)


def test_questions_without_a_decided_attempt_have_no_score():
    assert metrics([QuestionVotes(())], seed=1) == []
