import itertools

import pytest

from prosetting.evaluation.scores import bootstrap_ci, pass_at_k, score


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
