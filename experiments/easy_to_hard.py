"""Does the growing curriculum take a solver to questions clearly harder than any it was started on?

    python experiments/easy_to_hard.py --seeds 101 102 103 104 105
    python experiments/easy_to_hard.py --show            only the table, from the results that are there

A solver is warm-started on ledger stories of one to three operations. Then come five rounds of a real `prosetting run`
for each arm: the loop, and three controls from the same solver and questions (`prosetting.demo.ledgers.recipe.ARMS`).
Told is held-out pass@1 by level and round, mean over seeds with 95 % intervals (Student's t). The bar: at level 5, two
above the warm start, from at most .10 to at least .60, and at most .20 for each control.

Each finished run is a line of the results file and is not run again; one that was interrupted goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from level_curve import draw

from prosetting.collectors.data_normalizer import load_questions
from prosetting.core.artifacts import replace_atomically
from prosetting.core.journal import Journal
from prosetting.core.pool_questions import PoolQuestions
from prosetting.core.workspace import Workspace
from prosetting.demo.ledgers.prepare import prepare, workspace_of
from prosetting.demo.ledgers.recipe import ARMS, EVERY_ARM, RECIPE_VERSION, TARGET_LEVEL
from prosetting.records import GREEDY_ATTEMPT, Question, Stage, Verdict
from prosetting.teachers import ledger

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "easy_to_hard.jsonl"
CURVE = HERE.parent / "docs" / "easy_to_hard.svg"
BASE_MOST, END_LEAST, CONTROL_MOST = 0.10, 0.60, 0.20
T_975 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}
"""Student's t by degrees of freedom; above, the normal 1.96 is near enough."""
Row = dict[str, Any]


def run_arm(folder: Path, seed: int, arm: str) -> Row:
    """One run to its end, and what it came to: held-out attempts by level and round, and rows trained on."""
    env_file = prepare(folder, seed)[arm]
    started = time.monotonic()
    with (folder / f"{env_file.stem}.log").open("a", encoding="utf-8") as log:
        command = [sys.executable, "-m", "prosetting", "run", "--env-file", str(env_file)]
        subprocess.run(command, stdout=log, stderr=log, check=True)
    workspace = workspace_of(folder, arm)
    heldout = load_questions(folder / "heldout.jsonl")
    with Journal(Workspace(workspace, workspace / "logs").journal, read_only=True) as journal:
        rounds = [round_row(journal, round_, heldout) for round_ in range(total_rounds(workspace) + 1)]
    seconds = round(time.monotonic() - started)
    return {"recipe_version": RECIPE_VERSION, "seed": seed, "arm": arm, "rounds": rounds, "seconds": seconds}


def total_rounds(workspace: Path) -> int:
    summary = json.loads((workspace / "auto_training_summary.json").read_text(encoding="utf-8"))
    return len(summary["rounds"])


def round_row(journal: Journal, round_: int, heldout: Sequence[Question]) -> Row:
    """`heldout`: [correct, attempts] by level, empty where the weights did not change; `pool`: questions by level."""
    levels = {question.question_id: level_of(question) for question in heldout}
    counts: dict[int, list[int]] = defaultdict(lambda: [0, 0])
    for attempt, grade in journal.graded_attempts("heldout", round_):
        if attempt.attempt != GREEDY_ATTEMPT:
            found = counts[levels[attempt.question_id]]
            found[0] += grade.verdict is Verdict.CORRECT
            found[1] += 1
    pool = Counter(level_of(question) for question in PoolQuestions(journal, round_)) if round_ else {}
    made = journal.stage(round_, Stage.DPO_CONVERSION) if round_ else None
    rows = {key: made.output.get(key, 0) for key in ("pairs", "supervised_rows")} if made else {}
    return {"round": round_, "heldout": _by_level(counts), "pool": _by_level(pool), **rows}


def level_of(question: Question) -> int:
    story = ledger.parse(question.text)
    assert story is not None, f"no ledger story: {question.text}"
    return ledger.level(story)


def _by_level(found: Any) -> dict[str, Any]:
    return {str(level): found[level] for level in sorted(found)}


def pass_at_1(row: Row) -> list[dict[int, float]]:
    """By round (0 is the base), then level; where the weights did not change, as before."""
    shares: list[dict[int, float]] = []
    for entry in row["rounds"]:
        found = {int(level): correct / attempts for level, (correct, attempts) in entry["heldout"].items()}
        shares.append(found or shares[-1])
    return shares


def rows_trained_on(row: Row) -> int:
    """Pairs and supervised rows of the rounds that trained, those of validation included."""
    trained = [entry for entry in row["rounds"] if entry["round"] and entry["heldout"]]
    return sum(entry["pairs"] + entry["supervised_rows"] for entry in trained)


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean with its 95 % interval over seeds; without an interval for one seed."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return mean, math.nan, math.nan
    half = T_975.get(len(values) - 1, 1.96) * statistics.stdev(values) / math.sqrt(len(values))
    return mean, max(0.0, mean - half), min(1.0, mean + half)


def load(results: Path, seeds: Sequence[int]) -> list[Row]:
    lines = results.read_text(encoding="utf-8").splitlines() if results.exists() else []
    rows = [json.loads(line) for line in lines]
    return [r for r in rows if r["recipe_version"] == RECIPE_VERSION and (not seeds or r["seed"] in seeds)]


def summary(rows: Sequence[Row]) -> dict[str, Any]:
    """By arm: the seeds, and [mean, low, high] of held-out pass@1 by level for each round."""
    told: dict[str, Any] = {}
    for arm in EVERY_ARM:
        mine = [row for row in rows if row["arm"] == arm]
        curves = [pass_at_1(row) for row in mine]
        if mine:
            told[arm] = {
                "seeds": [row["seed"] for row in mine],
                "pass_at_1": [
                    {
                        level: [round(x, 3) for x in interval([curve[n][level] for curve in curves])]
                        for level in curves[0][n]
                    }
                    for n in range(min(map(len, curves)))
                ],
                "rows": round(statistics.fmean(rows_trained_on(row) for row in mine)),
            }
    return told


def table(told: dict[str, Any]) -> str:
    """Markdown: pass@1 at the target level round by round, then every level of the main arm."""
    lines: list[str] = []
    for arm, found in told.items():
        curve = [figures(point[TARGET_LEVEL]) for point in found["pass_at_1"]]
        if not lines:
            lines += [
                f"Held-out pass@1 at level {TARGET_LEVEL} by round, mean over seeds with 95 % interval",
                "",
                "| Arm | Seeds | Rows | Base | " + " | ".join(f"Round {n}" for n in range(1, len(curve))) + " |",
                "|---|---|---|" + "---|" * len(curve),
            ]
        lines.append(f"| {arm} | {len(found['seeds'])} | {found['rows']} | " + " | ".join(curve) + " |")
    for arm, found in told.items():
        levels = list(found["pass_at_1"][0])
        lines += ["", f"{arm}, by level", "", "| Round | " + " | ".join(f"Level {level}" for level in levels) + " |"]
        lines.append("|---|" + "---|" * len(levels))
        for n, point in enumerate(found["pass_at_1"]):
            lines.append(f"| {n or 'base'} | " + " | ".join(figures(point[level]) for level in levels) + " |")
    return "\n".join(lines)


def figures(point: Sequence[float]) -> str:
    mean, low, high = point
    return f"{mean:.3f}" if math.isnan(low) else f"{mean:.3f} [{low:.3f}, {high:.3f}]"


def verdict(told: dict[str, Any]) -> dict[str, Any]:
    """Each bar with what was measured; None where it was not."""
    main = told["main"]["pass_at_1"] if "main" in told else None
    found: dict[str, Any] = {
        "base": main and {"measured": main[0][TARGET_LEVEL], "holds": main[0][TARGET_LEVEL][0] <= BASE_MOST},
        "end": main and {"measured": main[-1][TARGET_LEVEL], "holds": main[-1][TARGET_LEVEL][0] >= END_LEAST},
    }
    for arm in list(ARMS)[1:]:
        end = told[arm]["pass_at_1"][-1][TARGET_LEVEL] if arm in told else None
        found[arm] = end and {"measured": end, "holds": end[0] <= CONTROL_MOST}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[])
    parser.add_argument("--arms", nargs="+", choices=list(EVERY_ARM), default=list(ARMS))
    parser.add_argument(
        "--folder", type=Path, default=Path("runs/easy-to-hard"), help="where solvers and runs are kept"
    )
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--curve", type=Path, help=f"draw the picture to this file (the README's: {CURVE})")
    parser.add_argument("--show", action="store_true", help="run nothing")
    asked = parser.parse_args()
    for arm in [] if asked.show else asked.arms:
        for seed in asked.seeds:
            if any(r["arm"] == arm and r["seed"] == seed for r in load(asked.results, asked.seeds)):
                continue
            row = run_arm(asked.folder / f"seed-{seed}", seed, arm)
            asked.results.parent.mkdir(parents=True, exist_ok=True)
            with asked.results.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            curve = [round(point[TARGET_LEVEL], 3) for point in pass_at_1(row)]
            print(f"{arm}, seed {seed}: level {TARGET_LEVEL} {curve}, {row['seconds']} s", flush=True)
    told = summary(load(asked.results, asked.seeds))
    if not told:
        sys.exit(f"no results of recipe version {RECIPE_VERSION} in {asked.results}: give --seeds")
    print(table(told))
    if asked.curve:
        with replace_atomically(asked.curve) as temporary:
            temporary.write_text(draw(told, TARGET_LEVEL), encoding="utf-8")
    print(json.dumps({"experiment": "easy_to_hard", "recipe_version": RECIPE_VERSION, "bars": verdict(told)}))


if __name__ == "__main__":
    main()
