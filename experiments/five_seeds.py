"""The demo's loop against five ways to do without it: five seeds, equal time, held-out pass@1.

    python experiments/five_seeds.py [--seeds 41 42 43 44 45] [--measure cpu|wall] [--arms loop fixed …]

  loop      `prosetting run` with the demo's settings: five rounds. The time until its last weights are there is the
            seed's budget for all others. Scored after each training
  fixed     (a) the same without Teacher2's questions: POOL_POLICY=fixed, as many rounds as the budget allows
  base      (b) the same without training: the weights that all begin with
  shuffled  (c) the same with the verdicts among a question's attempts permuted before pairing, to the budget
  grpo      (d) TRL's GRPOTrainer on the same seed questions, to the budget (grpo_arm.py)
  stock     (e) rounds of stock parts, one stage after another (stock_arm.py): to the budget, and on until it has
            ended five rounds, for the time that the loop takes to the score that it ends at

Time is what a training takes from its command to its weights, start-up included, all its processes. `--measure cpu`
counts their CPU seconds, which other work on the machine hardly moves, with one thread a process. `wall` is for a
machine that does nothing else: each computes with as many threads as it does by itself (stock parts and GRPO with one
a core), and all ask one teacher of its own that answers LATENCY_S late, with WORKERS calls in flight.
Scores are those of `prosetting eval`: 8 sampled attempts at each of 256 held-out questions; they count as no time.

What is measured stands in a results file, one line an arm and seed, and is not measured again. The last line of the
output is one JSON object. `--set grpo:learning_rate=2e-3` tries another setting, for tuning seeds alone.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from five_seeds_table import tell
from timed_training import Enough, Weights, environment, watch

from prosetting.demo.prepare import prepare
from prosetting.demo.recipe import RECIPE_VERSION, RUN_SETTINGS

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))
from served_teacher import LATENCY_S, WORKERS, served_teacher

HERE = Path(__file__).resolve().parent
REPORTED_SEEDS = (41, 42, 43, 44, 45)
REPORTED_BEFORE = (31, 32, 33, 34, 35)
ROUNDS = int(RUN_SETTINGS["TOTAL_ROUNDS"])
# Each with the settings that did best on the tuning seeds 1, 2, 3, 7; docs/experiments.md has what was tried.
ARMS: dict[str, dict[str, str]] = {
    "loop": {},
    "fixed": {"POOL_POLICY": "fixed"},
    "base": {},
    "shuffled": {"SHUFFLE_LABELS": "true"},
    "grpo": {"learning_rate": "3e-4", "questions_a_step": "32", "beta": "0"},
    "stock": {"max_pairs": "4"},
}
Line = dict[str, Any]
"""A line of the results file."""


def command_of(arm: str, settings: dict[str, str], seed: int, inputs: Path, out: Path, teacher: str) -> list[str]:
    """What makes an arm's weights in OUT/checkpoints; without a teacher's address it has one of its own."""
    if arm in ("grpo", "stock"):
        program = HERE / {"grpo": "grpo_arm.py", "stock": "stock_arm.py"}[arm]
        given = {
            "model": inputs / "solver",
            "questions": inputs / "questions.json",
            "out": out,
            "seed": seed,
            **({"teacher": teacher} if arm == "stock" and teacher else {}),
            **settings,
        }
        return [sys.executable, str(program), *(f"--{key.replace('_', '-')}={value}" for key, value in given.items())]
    # Held out, so that no question of it is written; scored afterwards and not by the run. Stopped, not ended.
    changed = {"VALIDATION_DATA_FILE": "", "EVAL_FILES": str(inputs / "heldout.jsonl"), "TOTAL_ROUNDS": "99"}
    if teacher:
        changed |= {"TEACHER_BASE_URL": teacher, "TEACHER_CONCURRENT_WORKERS": str(WORKERS)}
    env_file = prepare(inputs, seed, workspace=out, say=lambda _: None)
    file = out / "settings.env"
    lines = [
        *env_file.read_text().splitlines(),
        *(f"{key}='{value}'" for key, value in {**changed, **settings}.items()),
    ]
    file.write_text("\n".join(lines) + "\n")
    return [sys.executable, "-m", "prosetting", "run", "--env-file", str(file)]


def enough_for(arm: str, budget: float | None, measure: str) -> Enough:
    def enough(made: Sequence[Weights], cpu_s: float, wall_s: float) -> bool:
        five_rounds = any(weights.number >= ROUNDS for weights in made)
        spent = budget is not None and (cpu_s if measure == "cpu" else wall_s) > budget
        return {"loop": five_rounds, "stock": spent and five_rounds}.get(arm, spent)

    return enough


def play(arm: str, settings: dict[str, str], seed: int, budget: float | None, given: argparse.Namespace) -> Line:
    """Train one arm and score what it made."""
    inputs, out = given.out / f"seed-{seed}" / "inputs", given.out / f"seed-{seed}" / arm
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    made = [Weights(inputs / "solver", 0, 0.0, 0.0)]
    if arm != "base":
        with contextlib.ExitStack() as stack:
            teacher = stack.enter_context(served_teacher(LATENCY_S)) if given.measure == "wall" else ""
            command = command_of(arm, settings, seed, inputs, out, teacher)
            threads = 1 if given.measure == "cpu" else None
            enough = enough_for(arm, budget, given.measure)
            made += watch(command, environment(threads), out, out.with_suffix(".log"), enough)
    of_budget = [weights for weights in made if budget is None or weights.seconds(given.measure) <= budget]
    scored = {"loop": made[1:], "stock": made[-1:]}.get(arm, [])
    return {
        "recipe_version": RECIPE_VERSION,
        "seed": seed,
        "arm": arm,
        "measure": given.measure,
        **({"teacher_latency_s": LATENCY_S} if given.measure == "wall" else {}),
        "settings": settings,
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
        "at_budget": of_budget[-1].number,
        "weights": [
            {key: round(value, 1) for key, value in asdict(weights).items() if key != "folder"}
            | {"pass_rates": pass_rates(weights.folder, inputs, out)}
            for weights in made
            if weights in scored or weights is of_budget[-1]
        ],
    }


def pass_rates(model: Path, inputs: Path, out: Path) -> list[float]:
    """Of each held-out question, in the file's order."""
    scores = out / f"scores-{model.name}.json"
    command = [sys.executable, "-m", "prosetting", "eval", str(model), str(inputs / "heldout.jsonl"), "--attempts", "8"]
    subprocess.run(
        [*command, "--env-file", str(inputs / ".env"), "--out", str(scores)],
        check=True,
        env=environment(threads=1),
        capture_output=True,
    )
    rows = [json.loads(line) for line in scores.with_suffix(".questions.jsonl").read_text().splitlines()]
    return [round(row["pass_rate"], 3) for row in rows]


def lines_of(file: Path) -> list[Line]:
    """Those of the demo's recipe as it is."""
    lines = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    return [line for line in lines if line.get("recipe_version", 2) == RECIPE_VERSION]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(REPORTED_SEEDS))
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--measure", choices=["cpu", "wall"], default="cpu")
    parser.add_argument("--set", action="append", default=[], metavar="ARM:NAME=VALUE", help="for tuning")
    parser.add_argument("--results", type=Path, default=HERE / "results" / "five_seeds.jsonl")
    parser.add_argument("--out", type=Path, default=Path("runs/five-seeds"), help="inputs and trainings")
    parser.add_argument("--table-only", action="store_true", help="measure nothing")
    given = parser.parse_args()
    if given.set and set(given.seeds) & {*REPORTED_SEEDS, *REPORTED_BEFORE}:
        parser.error("--set is for tuning, on other seeds than those that are reported on")
    given.out = given.out.resolve()
    for seed in [] if given.table_only else given.seeds:
        measure_seed(seed, given)
    tell([line for line in lines_of(given.results) if line["seed"] in given.seeds and line["measure"] == given.measure])


def measure_seed(seed: int, given: argparse.Namespace) -> None:
    prepare(given.out / f"seed-{seed}" / "inputs", seed, workspace=given.out / f"seed-{seed}" / "loop")
    for arm in sorted(given.arms, key=list(ARMS).index):
        changed = dict(text.removeprefix(f"{arm}:").split("=", 1) for text in given.set if text.startswith(f"{arm}:"))
        settings = {**ARMS[arm], **changed}
        of_seed = [x for x in lines_of(given.results) if x["seed"] == seed and x["measure"] == given.measure]
        if any(line["arm"] == arm and line["settings"] == settings for line in of_seed):
            continue
        loop = next((line for line in of_seed if line["arm"] == "loop" and line["settings"] == ARMS["loop"]), None)
        if loop is None and arm not in ("loop", "base"):
            raise SystemExit(f"seed {seed} has no budget yet: measure the arm loop first")
        budget = loop["weights"][-1][f"{given.measure}_s"] if loop and arm not in ("loop", "base") else None
        print(f"seed {seed}: {arm} {settings or ''}", file=sys.stderr, flush=True)
        line = play(arm, settings, seed, budget, given)
        given.results.parent.mkdir(parents=True, exist_ok=True)
        with given.results.open("a") as stream:
            stream.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
