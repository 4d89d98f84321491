"""The table of five_seeds.py from its results file's lines."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Sequence
from typing import Any

from prosetting.evaluation.comparison import compare_rates
from prosetting.evaluation.scores import bootstrap_ci
from prosetting.records import QuestionId

Line = dict[str, Any]
BOOTSTRAP_SEED = 0
T_95 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776}
"""Student's t, two-sided 95 %, by degrees of freedom."""
Interval = tuple[float, float | None, float | None]
"""A mean with the ends of its 95 % interval, which a single seed does not have."""


def tell(lines: Sequence[Line]) -> None:
    """Print each seed's arms, then the differences over seeds, then one JSON object."""
    by_seed: dict[int, dict[str, Line]] = {}
    for line in lines:
        name = line["arm"] if line["arm"] not in by_seed.get(line["seed"], {}) else f"{line['arm']} {line['settings']}"
        by_seed.setdefault(line["seed"], {})[name] = line
    if not by_seed:
        print("nothing is measured yet")
        return
    for machine in {line["machine"] for line in lines}:
        print(f"machine: {machine} · seeds {', '.join(map(str, sorted(by_seed)))}")
    print("| Seed | Arm | CPU s | wall s | rounds or steps | held-out pass@1 | loop − arm |")
    print("|---|---|---|---|---|---|---|")
    for seed, arms in sorted(by_seed.items()):
        for name, line in arms.items():
            print(f"| {seed} | {name} | {_row(line, arms.get('loop'))} |")
    found = {name: _over_seeds(by_seed, name) for name in sorted({name for arms in by_seed.values() for name in arms})}
    print("\n| Arm | seeds | held-out pass@1 | loop − arm, 95 % over seeds |\n|---|---|---|---|")
    for name, told in found.items():
        print(f"| {name} | {told['seeds']} | {told['pass_at_1']:.3f} | {_told(told['loop_minus_arm'])} |")
    ratios = {seed: _time_ratio(arms) for seed, arms in sorted(by_seed.items()) if {"loop", "stock"} <= arms.keys()}
    print(f"\nloop's time to the score that stock ends at, over stock's: {ratios}")
    print(json.dumps({"experiment": "five_seeds", "seeds": sorted(by_seed), "arms": found, "time_ratio": ratios}))


def at_budget(line: Line) -> Line:
    found: Line = next(weights for weights in line["weights"] if weights["number"] == line["at_budget"])
    return found


def _row(line: Line, loop: Line | None) -> str:
    weights = at_budget(line)
    rates = weights["pass_rates"]
    low, high = bootstrap_ci(rates, BOOTSTRAP_SEED)
    cells = [f"{weights['cpu_s']:.0f}", f"{weights['wall_s']:.0f}", str(weights["number"])]
    cells.append(f"{statistics.fmean(rates):.3f} [{low:.3f}, {high:.3f}]")
    if loop is None or loop is line:
        return " | ".join([*cells, ""])
    found = compare_rates(_by_question(rates), _by_question(at_budget(loop)["pass_rates"]), BOOTSTRAP_SEED)
    assert found is not None
    return " | ".join([*cells, _told((found.change, found.low, found.high))])


def _by_question(rates: Sequence[float]) -> dict[QuestionId, float]:
    return {QuestionId(f"{place:04}"): rate for place, rate in enumerate(rates)}


def _over_seeds(by_seed: dict[int, dict[str, Line]], name: str) -> Line:
    """Seeds are what repeats: an interval of Student's t over their differences."""
    of = {seed: statistics.fmean(at_budget(arms[name])["pass_rates"]) for seed, arms in by_seed.items() if name in arms}
    loops = {s: statistics.fmean(at_budget(by_seed[s]["loop"])["pass_rates"]) for s in of if "loop" in by_seed[s]}
    return {
        "seeds": len(of),
        "pass_at_1": round(statistics.fmean(of.values()), 4),
        "loop_minus_arm": _interval([loops[seed] - of[seed] for seed in loops]) if name != "loop" else None,
    }


def _interval(values: Sequence[float]) -> Interval | None:
    if not values:
        return None
    mean = statistics.fmean(values)
    if len(values) < 2:
        return round(mean, 4), None, None
    margin = T_95[len(values) - 1] * statistics.stdev(values) / math.sqrt(len(values))
    return round(mean, 4), round(mean - margin, 4), round(mean + margin, 4)


def _told(interval: Interval | None) -> str:
    if interval is None:
        return ""
    mean, low, high = interval
    return f"{mean:+.3f}" if low is None or high is None else f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]"


def _time_ratio(arms: dict[str, Line]) -> float | None:
    """Time of the loop's first weights that score what stock's last do, over stock's time; None: it never does."""
    stock, loop = arms["stock"], arms["loop"]
    last = stock["weights"][-1]
    target, measure = statistics.fmean(last["pass_rates"]), f"{stock['measure']}_s"
    for weights in loop["weights"]:
        if statistics.fmean(weights["pass_rates"]) >= target:
            return round(float(weights[measure]) / float(last[measure]), 3)
    return None
