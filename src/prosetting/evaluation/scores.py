"""Scores of a checkpoint on held-out questions, with intervals. Pure."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

from prosetting.records import HeldoutScore

BOOTSTRAP_DRAWS = 2000


def pass_at_k(attempts: int, correct: int, k: int) -> float:
    """The unbiased estimator 1 − C(n−c, k) / C(n, k) of Chen et al. 2021 (arXiv 2107.03374), k ≤ n."""
    if not 0 < k <= attempts:
        raise ValueError(f"pass@{k} needs at least {k} attempts, there are {attempts}")
    return 1.0 - math.comb(attempts - correct, k) / math.comb(attempts, k)


def bootstrap_ci(values_Q: Sequence[float], seed: int, draws: int = BOOTSTRAP_DRAWS) -> tuple[float, float]:
    """95 % percentile interval of the mean over questions, resampling questions (attempts are not independent)."""
    rng = random.Random(seed)
    n = len(values_Q)
    means = sorted(sum(rng.choices(values_Q, k=n)) / n for _ in range(draws))
    return means[round(0.025 * (draws - 1))], means[round(0.975 * (draws - 1))]


def score(rewards_QA: Sequence[Sequence[float]], greedy_Q: Sequence[float], seed: int) -> HeldoutScore:
    """The held-out score from 0/1 rewards: sampled attempts of each question, and its greedy attempt."""
    rates_Q = [sum(rewards_A) / len(rewards_A) for rewards_A in rewards_QA]
    k = min(len(rewards_A) for rewards_A in rewards_QA)
    return HeldoutScore(
        pass_at_1=_mean(rates_Q),
        pass_at_1_ci=bootstrap_ci(rates_Q, seed),
        pass_at_k=_mean([pass_at_k(len(r), round(sum(r)), k) for r in rewards_QA]),
        greedy=_mean(greedy_Q),
        questions=len(rewards_QA),
        samples=sum(len(rewards_A) for rewards_A in rewards_QA),
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
