"""Scores of a checkpoint on held-out questions, with intervals. Pure."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from prosetting.records import HeldoutScore

BOOTSTRAP_DRAWS = 2000
BOOTSTRAP_MOST = 500
"""Questions from which on the mean is normal enough, and drawing them again and again too slow."""
Z_95 = 1.959964


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over `n` questions with its 95 % interval."""

    value: float
    low: float
    high: float
    n: int


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


def mean_with_interval(values_Q: Sequence[float], seed: int) -> Estimate | None:
    """The mean over questions with its 95 % interval: bootstrap up to BOOTSTRAP_MOST questions, normal beyond."""
    if not values_Q:
        return None
    mean, n = _mean(values_Q), len(values_Q)
    if n <= BOOTSTRAP_MOST:
        return Estimate(mean, *bootstrap_ci(values_Q, seed), n)
    margin = Z_95 * math.sqrt(sum((value - mean) ** 2 for value in values_Q) / (n - 1) / n)
    return Estimate(mean, mean - margin, mean + margin, n)


def share_with_interval(hits_Q: Sequence[int], totals_Q: Sequence[int]) -> Estimate | None:
    """Σ hits / Σ totals with the normal 95 % interval of a ratio whose questions, not attempts, are independent."""
    n, total = len(totals_Q), sum(totals_Q)
    if not total:
        return None
    ratio = sum(hits_Q) / total
    residuals = sum((hits - ratio * of) ** 2 for hits, of in zip(hits_Q, totals_Q, strict=True))
    margin = Z_95 * math.sqrt(residuals * n / max(n - 1, 1)) / total
    return Estimate(ratio, max(0.0, ratio - margin), min(1.0, ratio + margin), n)


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
