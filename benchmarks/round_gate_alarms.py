"""How often the round gate's alarms about answers are false, and what they miss, by simulation.

    python benchmarks/round_gate_alarms.py [--runs N]

Each held-out question has a length of its answers (log-normal around 200 tokens, σ .7 between questions, .8 between
attempts at one), a number of texts that are equally likely (1 to 64, evenly on the log scale) and a chance that no
answer can be read (Beta of concentration 1.6 around a mean). A training moves each question's own by chance (σ .3, .5
and .5 on the log and logit scale) and their mean by a given amount. Both checkpoints are put to the decision that a run
makes (evaluation/round_gate.py), with the same pass rates before and after. "Limit alone" is what the alarm would do
were it not to ask for a sure change too. Bar: at most 2 % of the trainings that change nothing raise any of the three
alarms, at the fewest questions that anything is decided by; a decision aims at 1 % for each alarm.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from round_gate import moved

from prosetting.evaluation.round_gate import (
    FEWEST,
    LEAST_DISTINCT,
    LEAST_LENGTH,
    MOST_UNPARSEABLE,
    AnswerFigures,
    Evidence,
    decide,
)
from prosetting.evaluation.scores import exact_ci
from prosetting.records import QuestionId

SEED = 21
SIZES = ((FEWEST, 4), (16, 4), (64, 4), (64, 8))
"""Held-out questions, sampled attempts at each."""
UNREADABLE = (0.02, 0.10, 0.30)
"""Means of the chance that no answer can be read."""
BAR = 0.02
ALARMS = {"shrank": "answers shrank", "alike": "attempts alike", "read": "cannot be read"}
Answers = Mapping[QuestionId, AnswerFigures]


@dataclass(frozen=True)
class Habits:
    """Of one checkpoint, by question: log of the mean length, likely texts, chance that no answer can be read."""

    lengths_Q: Sequence[float]
    texts_Q: Sequence[float]
    unreadable_Q: Sequence[float]


def first(questions: int, unreadable: float, rng: random.Random) -> Habits:
    a, b = 1.6 * unreadable, 1.6 * (1 - unreadable)
    return Habits(
        [rng.gauss(math.log(200), 0.7) for _ in range(questions)],
        [math.exp(rng.uniform(0, math.log(64))) for _ in range(questions)],
        [min(max(rng.betavariate(a, b), 1e-3), 1 - 1e-3) for _ in range(questions)],
    )


def trained(before: Habits, rng: random.Random) -> Habits:
    """Other habits, the same on the mean."""
    lengths = [length + rng.gauss(0, 0.3) for length in before.lengths_Q]
    shift = math.log(fmean(map(math.exp, before.lengths_Q)) / fmean(map(math.exp, lengths)))
    texts = [count * math.exp(rng.gauss(0, 0.5)) for count in before.texts_Q]
    return Habits([length + shift for length in lengths], texts, moved(before.unreadable_Q, 0, rng))


def harmed(habits: Habits, rng: random.Random) -> Habits:
    """What each of the alarms is there for."""
    lengths = [length + math.log(0.35) for length in habits.lengths_Q]
    return Habits(lengths, [1.0] * len(lengths), moved(habits.unreadable_Q, 0.2, rng))


def drawn(habits: Habits, attempts: int, rng: random.Random) -> Answers:
    rows = zip(habits.lengths_Q, habits.texts_Q, habits.unreadable_Q, strict=True)
    return {
        QuestionId(str(n)): AnswerFigures(
            fmean(math.exp(rng.gauss(length - 0.32, 0.8)) for _ in range(attempts)),
            len({rng.randrange(max(1, round(texts))) for _ in range(attempts)}) / attempts,
            sum(rng.random() < unreadable for _ in range(attempts)) / attempts,
        )
        for n, (length, texts, unreadable) in enumerate(rows)
    }


def raised(before: Answers, after: Answers, seed: int) -> dict[str, tuple[bool, bool]]:
    """Of each alarm whether the gate raises it, and whether its limit alone would."""
    rates = dict.fromkeys(before, 0.5)
    told = decide(Evidence(rates, rates, before, after), seed).alarms_of_weights

    def mean(answers: Answers, name: str) -> float:
        return fmean(getattr(figures, name) for figures in answers.values())

    limits = {
        "shrank": mean(after, "mean_tokens") < LEAST_LENGTH * mean(before, "mean_tokens"),
        "alike": mean(after, "distinct_share") < LEAST_DISTINCT * mean(before, "distinct_share"),
        "read": mean(after, "unparseable_share") - mean(before, "unparseable_share") > MOST_UNPARSEABLE,
    }
    return {name: (any(name in line for line in told), limits[name]) for name in ALARMS}


def share(found: Sequence[bool]) -> str:
    low, high = exact_ci(sum(found), len(found))
    return f"{sum(found) / len(found):.3f} [{low:.3f}, {high:.3f}]"


def table(title: str, runs: int, harm: bool) -> dict[tuple[int, int, float], list[bool]]:
    """Print it; of each size and mean chance, whether a training raised any alarm."""
    print(f"\n{title}")
    print("| Questions × attempts | no answer in | " + " | ".join(ALARMS.values()) + " | limits alone |")
    print("|---|---|" + "---|" * (len(ALARMS) + 1))
    found: dict[tuple[int, int, float], list[bool]] = {}
    for questions, attempts in SIZES:
        for unreadable in UNREADABLE:
            rng = random.Random(f"{SEED} {questions} {attempts} {unreadable} {harm}")
            results = []
            for _ in range(runs):
                habits = first(questions, unreadable, rng)
                before, then = drawn(habits, attempts, rng), trained(habits, rng)
                after = drawn(harmed(then, rng) if harm else then, attempts, rng)
                results.append(raised(before, after, rng.randrange(2**31)))
            cells = [share([each[name][0] for each in results]) for name in ALARMS]
            limits = ", ".join(f"{fmean(each[name][1] for each in results):.3f}" for name in ALARMS)
            print(f"| {questions} × {attempts} | {unreadable:.0%} | " + " | ".join([*cells, limits]) + " |", flush=True)
            found[questions, attempts, unreadable] = [any(alarm for alarm, _ in each.values()) for each in results]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--runs", type=int, default=200)
    runs = parser.parse_args().runs
    print(f"seed {SEED}; share of trainings that raise the alarm, [95 % interval]; {runs} trainings a cell")
    false = table("Trainings that change nothing on the mean: false alarms", runs, harm=False)
    table("Answers .35 as long; one text a question; no answer in .20 more of the attempts", runs, harm=True)
    fewest = [alarm for (questions, *_), alarms in false.items() if questions == FEWEST for alarm in alarms]
    value = fmean(fewest)
    print(
        json.dumps(
            {
                "claim": f"few trainings that change nothing raise an alarm about answers ({FEWEST} questions × 4)",
                "value": round(value, 4),
                "unit": "share of trainings",
                "bar": BAR,
                "holds": value <= BAR,
                "spread": [round(bound, 4) for bound in exact_ci(sum(fewest), len(fewest))],
                "machine": f"{platform.machine()}, {os.cpu_count()} cores",
            }
        )
    )


if __name__ == "__main__":
    main()
