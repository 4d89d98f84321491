"""How long a whole training round takes, beside the same round put together from stock parts (stock_round.py).

2,000 questions of the demo's family × 8 attempts, its solver and its hyper-parameters, no cap on pairs, a new question
asked for after each: sampling, grading, pairs, DPO, new questions. The product is `prosetting run` of one round, from
the command to the files of the finished round. Both start from nothing: imports and model loading count, and are told
apart as what a round of 16 questions takes. Both ask the same teacher, a server of its own that answers 50 ms late,
with 32 calls in flight. Product and stock take turns.

Stock batches pairs, the product questions: an update of stock holds as many pairs as one of the product does on
average, so that a pass over the pairs has as many updates. Stock samples with the batch size that is fastest here,
which is found beforehand and not counted, and computes with one thread and with one a core, as torch does by itself:
the faster of both is what counts. The product runs as it does by itself. Bar: 3 times as fast. `--questions N` tries it
smaller, `--runs N` oftener.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from served_teacher import LATENCY_S, WORKERS, served_teacher

from prosetting.demo.prepare import prepare
from prosetting.demo.questions import seed_pool
from prosetting.demo.recipe import RUN_SETTINGS, Recipe

QUESTIONS, OF_A_START = 2_000, 16
BAR = 3.0
SEED = 7
STOCK = Path(__file__).with_name("stock_round.py")
PR_SET_CHILD_SUBREAPER = 36  # of <sys/prctl.h>
THREADS = "OMP_NUM_THREADS"
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != THREADS} | {"HF_HUB_OFFLINE": "1"}


@dataclass(frozen=True, slots=True)
class Run:
    """One round of one side: wall seconds, CPU seconds of all its processes, pairs and updates, what it tells."""

    wall_s: float
    cpu_s: float
    pairs: int
    updates: int
    stages: dict[str, float]


@dataclass(frozen=True, slots=True)
class Inputs:
    """What both sides are given."""

    model: Path
    teacher: str
    folder: Path

    def questions(self, count: int) -> Path:
        file = self.folder / f"questions-{count}.json"
        if not file.exists():
            file.write_text(json.dumps(seed_pool(SEED, replace(Recipe(), seed_questions=count))))
        return file

    def new_folder(self, name: str) -> Path:
        return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self.folder))


def product(inputs: Inputs, count: int) -> Run:
    folder = inputs.new_folder("product")
    settings = {
        **RUN_SETTINGS,
        "SOLVER_MODEL_PATH": str(inputs.model),
        "QUESTIONS_FILE": str(inputs.questions(count)),
        "WORKSPACE_DIR": str(folder / "run"),
        "SEED": str(SEED),
        "TOTAL_ROUNDS": "1",
        "FIRST_TRAINING_ROUND": "1",
        "MAX_PAIRS_PER_QUESTION": "",
        "NEW_QUESTIONS_PER_ROUND": "",
        "TEACHER_BASE_URL": inputs.teacher,
        "TEACHER_CONCURRENT_WORKERS": str(WORKERS),
    }
    env_file = folder / "settings.env"
    env_file.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
    wall_s, cpu_s, _ = timed([sys.executable, "-m", "prosetting", "run", "--env-file", str(env_file)], folder)
    result = json.loads((folder / "run/training_results/trl_r1_result.json").read_text())
    assert result["trained"], result["reason"]
    progress = json.loads((folder / "run/round_01_progress.json").read_text())
    return Run(wall_s, cpu_s, result["train_pairs"], result["steps"], progress["meta"].get("seconds", {}))


def stock(inputs: Inputs, count: int, pairs_an_update: int, prompts_a_batch: int, threads: int) -> Run:
    folder = inputs.new_folder("stock")
    command = [*stock_command(inputs, count, folder), "--workers", str(WORKERS), "--seed", str(SEED)]
    command += ["--pairs-an-update", str(pairs_an_update), "--prompts-a-batch", str(prompts_a_batch)]
    wall_s, cpu_s, out = timed(command, folder, threads)
    told = json.loads(out.splitlines()[-1])
    return Run(wall_s, cpu_s, told["train_pairs"], told["updates"], told["seconds"])


def stock_command(inputs: Inputs, count: int, folder: Path) -> list[str]:
    given = {"--model": inputs.model, "--questions": inputs.questions(count), "--out": folder}
    arguments = [part for name, value in given.items() for part in (name, str(value))]
    return [sys.executable, str(STOCK), *arguments, "--teacher", inputs.teacher]


def best_prompts_a_batch(inputs: Inputs, count: int) -> int:
    command = [*stock_command(inputs, count, inputs.new_folder("batch")), "--find-batch"]
    return int(json.loads(timed(command, inputs.folder)[2].splitlines()[-1])["prompts_a_batch"])


def timed(command: list[str], folder: Path, threads: int | None = None) -> tuple[float, float, str]:
    """Wall and CPU seconds of a command with its children, and what it printed."""
    before, started = cpu_of_children(), time.perf_counter()
    environment = ENVIRONMENT | ({THREADS: str(threads)} if threads else {})
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    wall_s = time.perf_counter() - started
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    return wall_s, cpu_of_children() - before, done.stdout


def adopt_orphans() -> None:
    """Processes that outlive their parent become this one's children, so that their CPU time is counted."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def cpu_of_children() -> float:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def tell(name: str, run: Run) -> None:
    stages = ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in run.stages.items())
    print(
        f"{name:<38}{run.wall_s:7.1f} s wall {run.cpu_s:7.1f} s CPU {run.pairs:>8,} pairs {run.updates:>6} updates  "
        f"({stages})",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--questions", type=int, default=QUESTIONS)
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument(
        "--demo", type=Path, default=Path("runs/demo-inputs") / f"seed-{SEED}", help="kept for next time"
    )
    given = parser.parse_args()
    count: int = given.questions
    adopt_orphans()
    prepare(given.demo, SEED, workspace=given.demo / "run")
    with tempfile.TemporaryDirectory() as temporary, served_teacher(LATENCY_S) as base_url:
        inputs = Inputs((given.demo / "solver").resolve(), base_url, Path(temporary))
        prompts = best_prompts_a_batch(inputs, count)
        print(f"stock samples fastest with {prompts} prompts × 8 a batch")
        sides = {"stock, one thread": 1, "stock, a thread a core": os.cpu_count() or 1}
        starts = {"product": product(inputs, OF_A_START)}
        pairs = pairs_an_update(starts["product"])
        starts |= {name: stock(inputs, OF_A_START, pairs, prompts, threads) for name, threads in sides.items()}
        for name, run in starts.items():
            tell(f"{name}, {OF_A_START} questions", run)
        runs: dict[str, list[Run]] = {name: [] for name in starts}
        for _ in range(given.runs):
            runs["product"].append(product(inputs, count))
            pairs = pairs_an_update(runs["product"][-1])
            for name, threads in sides.items():
                runs[name].append(stock(inputs, count, pairs, prompts, threads))
            for name, found in runs.items():
                tell(name, found[-1])
    print(json.dumps(outcome(count, runs, starts)))


def pairs_an_update(run: Run) -> int:
    return max(1, round(run.pairs / run.updates))


def outcome(count: int, runs: dict[str, list[Run]], starts: dict[str, Run]) -> dict[str, Any]:
    best = min(
        (name for name in runs if name != "product"),
        key=lambda name: statistics.median(run.wall_s for run in runs[name]),
    )
    ratios = [theirs.wall_s / ours.wall_s for ours, theirs in zip(runs["product"], runs[best], strict=True)]
    ratio = statistics.median(ratios)
    return {
        "claim": f"a whole training round of {count:,} questions × 8 attempts is over sooner than one of stock parts",
        "value": round(ratio, 2),
        "unit": "wall time of stock parts over that of the product",
        "bar": BAR,
        "holds": ratio >= BAR,
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
        "spread": [round(min(ratios), 2), round(max(ratios), 2)],
        "wall_s": {name: [round(run.wall_s, 1) for run in found] for name, found in runs.items()},
        "cpu_s": {name: [round(run.cpu_s, 1) for run in found] for name, found in runs.items()},
        "pairs": {name: found[-1].pairs for name, found in runs.items()},
        "updates": {name: found[-1].updates for name, found in runs.items()},
        "start_up_s": {name: round(run.wall_s, 1) for name, run in starts.items()},
    }


if __name__ == "__main__":
    main()
