"""Scores on questions from graded attempts: estimators and their intervals. Pure.

mean@k     share of correct attempts, averaged over questions (pass@1 of sampled attempts)
pass@k     chance that one of k attempts is correct: the unbiased estimator of Chen et al. 2021 (arXiv 2107.03374)
majority@k chance that the answer that most of k attempts give is correct (self-consistency, arXiv 2203.11171),
           over all ways to take k of the attempts; answers that are tied for first share it: each wins as often

An interval is 95 %. Where each question has a value of 0 or 1 it is the exact binomial one (Clopper & Pearson 1934),
else the percentile bootstrap over questions: attempts at one question are not independent of each other.
"""

from __future__ import annotations

import math
import random
import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

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


LEVEL = 0.95
CORRECT = True
"""The vote of every correct attempt, however it spells its answer; another vote is a wrong answer."""
Vote = str | bool | None


@dataclass(frozen=True, slots=True)
class Metric:
    """One line of a table of scores: the mean over questions and its 95 % interval."""

    name: str
    value: float
    low: float
    high: float
    interval: Literal["exact", "bootstrap"]
    questions: int


@dataclass(frozen=True, slots=True)
class QuestionVotes:
    """The decided attempts at one question. `votes_A` holds CORRECT, a wrong answer, or None for no clear answer;
    `greedy` whether the greedy attempt is correct, None without one."""

    votes_A: tuple[Vote, ...]
    greedy: bool | None = None

    @property
    def correct(self) -> int:
        return sum(vote is CORRECT for vote in self.votes_A)

    @property
    def pass_rate(self) -> float:
        return self.correct / len(self.votes_A)


def pass_at_k(attempts: int, correct: int, k: int) -> float:
    """The unbiased estimator 1 − C(n−c, k) / C(n, k), k ≤ n."""
    _check_k(attempts, k, "pass")
    return 1.0 - math.comb(attempts - correct, k) / math.comb(attempts, k)


def majority_at_k(votes_A: Sequence[Vote], k: int) -> float:
    """The chance that the most frequent answer among k of these attempts is the correct one, k ≤ n.

    Exact: all C(n, k) ways are counted, by how often each answer is drawn. t answers tied for first win 1/t each.
    An attempt without a clear answer is drawn but has no vote.
    """
    _check_k(len(votes_A), k, "majority")
    counts = Counter(votes_A)
    right, silent = counts.pop(CORRECT, 0), counts.pop(None, 0)
    total = 0.0
    for most in range(1, min(k, right) + 1):
        ways = {(most, 1): math.comb(right, most)}  # (drawn so far, answers that have `most` votes) → ways
        for size in counts.values():
            ways = _draw_another(ways, size, most, k)
        for (drawn, first), number in ways.items():
            total += number * math.comb(silent, k - drawn) / first
    return total / math.comb(len(votes_A), k)


def _draw_another(ways: dict[tuple[int, int], int], size: int, most: int, k: int) -> dict[tuple[int, int], int]:
    """Each way, continued by 0 … `most` votes for a further answer that `size` attempts give."""
    more: Counter[tuple[int, int]] = Counter()
    for (drawn, first), number in ways.items():
        for votes in range(min(size, most, k - drawn) + 1):
            more[drawn + votes, first + (votes == most)] += number * math.comb(size, votes)
    return more


def _check_k(attempts: int, k: int, what: str) -> None:
    if not 0 < k <= attempts:
        raise ValueError(f"{what}@{k} needs at least {k} attempts, there are {attempts}")


def bootstrap_ci(
    values_Q: Sequence[float], seed: int, draws: int = BOOTSTRAP_DRAWS, level: float = LEVEL
) -> tuple[float, float]:
    """Percentile interval of the mean over questions, resampling questions (attempts are not independent)."""
    rng = random.Random(seed)
    n, tail = len(values_Q), (1 - level) / 2
    means = sorted(sum(rng.choices(values_Q, k=n)) / n for _ in range(draws))
    return means[round(tail * (draws - 1))], means[round((1 - tail) * (draws - 1))]


def exact_ci(successes: int, trials: int, level: float = LEVEL) -> tuple[float, float]:
    """The interval of Clopper & Pearson for a share: each end is where the other side's tail has half the rest."""
    tail = (1 - level) / 2
    low = _solve(lambda p: 1 - _binomial_cdf(successes - 1, trials, p), tail) if successes else 0.0
    high = 1 - _solve(lambda p: 1 - _binomial_cdf(trials - successes - 1, trials, p), tail)
    return low, high if successes < trials else 1.0


def _binomial_cdf(most: int, trials: int, p: float) -> float:
    """The chance of at most `most` successes, 0 < p < 1."""
    of_one, of_none, n = math.log(p), math.log1p(-p), math.lgamma(trials + 1)
    return math.fsum(
        math.exp(n - math.lgamma(i + 1) - math.lgamma(trials - i + 1) + i * of_one + (trials - i) * of_none)
        for i in range(most + 1)
    )


def _solve(rising: Callable[[float], float], target: float) -> float:
    """Where a function of (0, 1) that rises comes to `target`, by halving."""
    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if rising(middle) < target else (low, middle)
    return (low + high) / 2


def metric(name: str, values_Q: Sequence[float], seed: int) -> Metric:
    """The mean of one value a question, with the interval that fits it."""
    mean = math.fsum(values_Q) / len(values_Q)
    if all(value in (0.0, 1.0) for value in values_Q):
        return Metric(name, mean, *exact_ci(round(sum(values_Q)), len(values_Q)), "exact", len(values_Q))
    return Metric(name, mean, *bootstrap_ci(values_Q, seed), "bootstrap", len(values_Q))


def ks_of(attempts: int) -> list[int]:
    """The k that a table shows: 1, 2, 4 … and all of the attempts."""
    powers = [2**i for i in range(attempts.bit_length()) if 2**i < attempts]
    return [*powers, attempts]


def metrics(questions: Sequence[QuestionVotes], seed: int) -> list[Metric]:
    """mean@n, pass@k, majority@k and greedy accuracy over questions that have a decided attempt.

    mean@n takes all attempts of each; a k needs that many, so pass@k and majority@k leave out the questions that have
    fewer because verdicts are unknown: each line says how many questions it is of. Empty without any question.
    """
    sampled = [question for question in questions if question.votes_A]
    greedy = [float(question.greedy) for question in questions if question.greedy is not None]
    found = []
    if sampled:
        n = max(len(question.votes_A) for question in sampled)
        found.append(metric(f"mean@{n}", [question.pass_rate for question in sampled], seed))
        enough = {k: [question for question in sampled if len(question.votes_A) >= k] for k in ks_of(n)}
        found += [
            metric(f"pass@{k}", [pass_at_k(len(q.votes_A), q.correct, k) for q in enough[k]], seed)
            for k in enough
            if k > 1
        ]
        found += [
            metric(f"majority@{k}", [majority_at_k(q.votes_A, k) for q in enough[k]], seed) for k in enough if k > 2
        ]
    if greedy:
        found.append(metric("greedy", greedy, seed))
    return found


def interval_of_mean(values_Q: Sequence[float], seed: int, level: float = LEVEL) -> tuple[float, float]:
    """Of a mean over questions: bootstrap up to BOOTSTRAP_MOST questions, normal beyond."""
    n = len(values_Q)
    if n <= BOOTSTRAP_MOST:
        return bootstrap_ci(values_Q, seed, level=level)
    mean = _mean(values_Q)
    z = statistics.NormalDist().inv_cdf((1 + level) / 2)
    margin = z * math.sqrt(sum((value - mean) ** 2 for value in values_Q) / (n - 1) / n)
    return mean - margin, mean + margin


def mean_with_interval(values_Q: Sequence[float], seed: int) -> Estimate | None:
    """The mean over questions with its 95 % interval: bootstrap up to BOOTSTRAP_MOST questions, normal beyond."""
    if not values_Q:
        return None
    return Estimate(_mean(values_Q), *interval_of_mean(values_Q, seed), len(values_Q))


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
