"""How often the round gate is wrong, by simulation: a false alarm at weights that are as good, a miss at worse ones.

    python benchmarks/round_gate.py [--runs N]

Each question has a chance of being solved, drawn from Beta(.8, .8): many easy and hard ones, few between. A training
moves the chances of the questions up and down (normal on the logit scale, σ .5) around a shift that makes their mean
change by a given amount. Both checkpoints are scored on the same questions, with the same number of sampled attempts,
and put to the decision that a run makes (evaluation/round_gate.py), alarms aside. A run trains three times here, and a
checkpoint's scores serve twice, as in a run. Bar: at most 2 % of the trainings that change nothing are called worse,
at 256 questions × 8 attempts; the decision aims at 1 %.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import random
from collections.abc import Iterator, Sequence

from prosetting.evaluation.round_gate import Evidence, decide
from prosetting.evaluation.scores import exact_ci
from prosetting.records import QuestionId

SEED = 20
SIZES = ((64, 4), (64, 8), (256, 8), (1000, 8))
"""Held-out questions, sampled attempts at each."""
CHANGES = (0.0, -0.02, -0.05, -0.10, -0.20)
TRAININGS = 3
SPREAD = 0.5
BAR = 0.02


def moved(chances_Q: Sequence[float], change: float, rng: random.Random) -> list[float]:
    """Every question's chance after a training that changes their mean by `change`."""
    noise = [rng.gauss(0, SPREAD) for _ in chances_Q]
    logits = [math.log(p / (1 - p)) + e for p, e in zip(chances_Q, noise, strict=True)]
    wanted = sum(chances_Q) / len(chances_Q) + change
    low, high = -10.0, 10.0
    for _ in range(40):
        shift = (low + high) / 2
        mean = sum(1 / (1 + math.exp(-logit - shift)) for logit in logits) / len(logits)
        low, high = (shift, high) if mean < wanted else (low, shift)
    return [1 / (1 + math.exp(-logit - low)) for logit in logits]


def scored(chances_Q: Sequence[float], attempts: int, rng: random.Random) -> dict[QuestionId, float]:
    return {
        QuestionId(str(n)): sum(rng.random() < chance for _ in range(attempts)) / attempts
        for n, chance in enumerate(chances_Q)
    }


def verdicts(questions: int, attempts: int, change: float, rng: random.Random) -> Iterator[bool]:
    """Of one run's trainings: whether the gate holds the new weights to be worse."""
    chances_Q = [min(max(rng.betavariate(0.8, 0.8), 1e-3), 1 - 1e-3) for _ in range(questions)]
    before = scored(chances_Q, attempts, rng)
    for _ in range(TRAININGS if change == 0 else 1):
        chances_Q = moved(chances_Q, change, rng)
        after = scored(chances_Q, attempts, rng)
        yield decide(Evidence(before, after, {}, {}), rng.randrange(2**31)).failed
        before = after


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--runs", type=int, default=300)
    runs = parser.parse_args().runs
    print(f"seed {SEED}; share of trainings that the gate calls worse, [95 % interval]; {runs} runs a cell")
    print("| Questions × attempts | " + " | ".join(f"true change {change:+.2f}" for change in CHANGES) + " |")
    print("|---|" + "---|" * len(CHANGES))
    found: dict[tuple[int, int], tuple[float, float, float]] = {}
    for size in SIZES:
        cells = []
        for change in CHANGES:
            rng = random.Random(f"{SEED} {size} {change}")
            called = [worse for _ in range(runs) for worse in verdicts(*size, change, rng)]
            low, high = exact_ci(sum(called), len(called))
            cells.append(f"{sum(called) / len(called):.3f} [{low:.3f}, {high:.3f}]")
            if change == 0:
                found[size] = sum(called) / len(called), low, high
        print(f"| {size[0]} × {size[1]} | " + " | ".join(cells) + " |", flush=True)
    value, low, high = found[256, 8]
    print(
        json.dumps(
            {
                "claim": "the round gate calls few trainings worse that change nothing (256 questions × 8 attempts)",
                "value": round(value, 4),
                "unit": "share of trainings",
                "bar": BAR,
                "holds": value <= BAR,
                "spread": [round(low, 4), round(high, 4)],
                "machine": f"{platform.machine()}, {os.cpu_count()} cores",
            }
        )
    )


if __name__ == "__main__":
    main()
