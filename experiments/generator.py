"""Does the Generator learn to write useful questions, and is the Solver as good with half as many of Teacher2's?

    python experiments/generator.py --seeds 24 25 26 --out experiments/results

For each seed the demo is run twice, from the same solver and questions: with all new questions from Teacher2, and with
GENERATOR_SHARE=0.5. Told are the Generator's admitted share and the share of its questions in the 20–80 % band round by
round beside Teacher2's and beside that of all its drafts, held-out pass@1 of both runs with the paired difference and
the mean of the seeds, and Teacher2's calls for writing: `enhance` alone, and with `analyse` and `solve`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from prosetting.core.journal import Journal
from prosetting.core.state_manager import GENERATOR_TRIALS
from prosetting.evaluation.scores import mean_with_interval

ROUNDS = 5
ARMS = {
    "teacher2": ["--generator-share", "0", "--generator-model-path", ""],
    "half": [],
}
TOLD = ("asked", "admitted", "played", "in_band")


def run_arm(folder: Path, seed: int, arm: str, flags: list[str]) -> dict[str, Any]:
    """One demo run, or what an earlier call made of it."""
    workspace = folder / f"seed_{seed}_{arm}"
    env_file = folder / f"demo_{seed}" / "generator.env"
    command = [sys.executable, "-m", "prosetting", "run", "--env-file", str(env_file)]
    started = time.monotonic()
    log_file = folder / f"seed_{seed}_{arm}.log"
    with log_file.open("w") as log:
        subprocess.run([*command, "--workspace-dir", str(workspace), *flags], stdout=log, stderr=log, check=True)
    summary = json.loads((workspace / "auto_training_summary.json").read_text(encoding="utf-8"))
    with Journal(workspace / "prosetting.db", read_only=True) as journal:
        calls = {task.task: task.totals.calls for task in journal.teacher_tasks()}
        tallies = journal.tallies("heldout", ROUNDS)
        trials = [journal.stage(r, GENERATOR_TRIALS) for r in range(1, ROUNDS + 1)]
        heldout_Q = [tally.correct / (tally.correct + tally.incorrect) for tally in tallies]
    return {
        "pass_at_1_R": [r["heldout"]["pass_at_1"] for r in summary["rounds"]],
        "pass_at_1_ci": summary["rounds"][-1]["heldout"]["pass_at_1_ci"],
        "base": summary["base"]["heldout"]["pass_at_1"],
        "calls": calls,
        "sources_R": [by_source(summary["rounds"], place) for place in range(len(summary["rounds"]))],
        "generator_R": [r["generator"] for r in summary["rounds"]],
        "drafts_R": [trial.output["measured"] if trial else {} for trial in trials],
        "pairs_R": [r["pairs"] for r in summary["rounds"]],
        "run_seconds": summary["duration_seconds"],
        "seconds": time.monotonic() - started,
        "heldout_Q": heldout_Q,
    }


def by_source(rounds: list[dict[str, Any]], place: int) -> dict[str, dict[str, Any]]:
    """The new questions of a round by source, with their pass rates in the round after it."""
    following = rounds[place + 1]["measured"] if place + 1 < len(rounds) else {}
    return {
        source: {**{"played": 0, "in_band": 0}, **following.get(source, {}), **written}
        for source, written in rounds[place]["sources"].items()
    }


def experiment(folder: Path, seed: int) -> dict[str, Any]:
    prepare = [sys.executable, "-m", "prosetting.demo", "prepare", "--seed", str(seed), "--generator"]
    subprocess.run([*prepare, "--out", str(folder / f"demo_{seed}")], check=True, stdout=subprocess.DEVNULL)
    arms = {arm: run_arm(folder, seed, arm, flags) for arm, flags in ARMS.items()}
    pairs = zip(*(arms[arm].pop("heldout_Q") for arm in ("half", "teacher2")), strict=True)
    difference_Q = [half - teacher2 for half, teacher2 in pairs]
    return {"seed": seed, "arms": arms, "difference": interval(difference_Q), "difference_Q": difference_Q}


def interval(difference_Q: list[float]) -> tuple[float, float, float]:
    """Mean and its 95 % interval over questions: how one training differs from the next is not in it."""
    found = mean_with_interval(difference_Q, 0)
    assert found is not None
    return found.value, found.low, found.high


def table(results: list[dict[str, Any]]) -> str:
    """Markdown: pass@1 and calls a seed, then what each source brought a round, all seeds together."""
    lines = [
        "| Seed | base | Teacher2 alone | half by the Generator | difference, 95 % | `enhance` | all writing | time |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for one in results:
        alone, half = one["arms"]["teacher2"], one["arms"]["half"]
        value, low, high = one["difference"]
        calls = [arm["calls"] for arm in (alone, half)]
        writing = [sum(each.get(task, 0) for task in ("analyse", "enhance", "solve")) for each in calls]
        lines.append(
            f"| {one['seed']} | {alone['base']:.3f} | {alone['pass_at_1_R'][-1]:.3f} | {half['pass_at_1_R'][-1]:.3f}"
            f" | {value:+.3f} [{low:+.3f}, {high:+.3f}] | {calls[0]['enhance']} → {calls[1]['enhance']}"
            f" | {writing[0]} → {writing[1]} | {alone['run_seconds']:.0f} → {half['run_seconds']:.0f} s |"
        )
    value, low, high = interval([difference for one in results for difference in one["difference_Q"]])
    lines += [
        "",
        f"All seeds: {value:+.3f} [{low:+.3f}, {high:+.3f}]",
        "",
        "| Source | | " + " | ".join(f"round {r}" for r in range(1, ROUNDS + 1)) + " |",
        "|---|---|" + "---|" * ROUNDS,
    ]
    drafts = [[one["arms"]["half"].get("drafts_R", [{}] * ROUNDS)[r] for one in results] for r in range(ROUNDS)]
    for arm, source in (("half", "generator"), ("half", "teacher2"), ("teacher2", "teacher2")):
        rounds = [[one["arms"][arm]["sources_R"][r].get(source, {}) for one in results] for r in range(ROUNDS)]
        sums = [{name: sum(each.get(name, 0) for each in found) for name in TOLD} for found in rounds]
        name = f"{source}{' alone' if arm == 'teacher2' else ''}"
        for told, part, of in (("admitted share", "admitted", "asked"), ("in the 20–80 % band", "in_band", "played")):
            cells = [f"{s[part] / s[of]:.2f} ({s[part]}/{s[of]})" if s[of] else "–" for s in sums]
            lines.append(f"| {name} | {told} | " + " | ".join(cells) + " |")
    lines.append("| generator | drafts in the band, before the choice | " + " | ".join(map(in_band, drafts)) + " |")
    return "\n".join(lines)


def in_band(found: list[dict[str, Any]]) -> str:
    """Of the drafts of all seeds, by the Solver's trials of them."""
    played = sum(each.get("played", 0) for each in found)
    inside = sum(each.get("in_band", 0) for each in found)
    return f"{inside / played:.2f} ({inside}/{played})" if played else "–"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", required=True)
    parser.add_argument("--work", type=Path, default=Path("runs/experiment_generator"), help="where the runs are kept")
    parser.add_argument("--out", type=Path, help="folder for generator.json")
    asked = parser.parse_args()
    asked.work.mkdir(parents=True, exist_ok=True)
    results = []
    for seed in asked.seeds:
        results.append(experiment(asked.work.resolve(), seed))
        print(table(results), flush=True)
        if asked.out:
            asked.out.mkdir(parents=True, exist_ok=True)
            (asked.out / "generator.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
