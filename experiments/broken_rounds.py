"""What the round gate does to a run that goes wrong in round 4: real trainings of the demo's solver.

    python experiments/broken_rounds.py [--seed 11] [--out runs/broken-rounds]

Three rounds of the demo are run once and forked. Each fork plays rounds 4 and 5:
  clean        nothing is done to it: the gate has nothing to say
  flipped      round 4 trains on its pairs with chosen and rejected exchanged
  hundredfold  round 4 trains with 100 times the learning rate
The latter two are run with ROUND_GATE=stop, which must pause them in round 4, and go on with ROUND_GATE=rollback: the
weights after round 4 must then be those before it, with their held-out score. What is done already is not done again.
The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from prosetting.config import Settings
from prosetting.core.journal import Journal
from prosetting.core.machine import fit_to_machine, this_machine
from prosetting.core.state_manager import ROUND_GATE
from prosetting.core.workspace import Workspace
from prosetting.demo.prepare import prepare
from prosetting.errors import RunPaused
from prosetting.managers.round_gate import made_in
from prosetting.managers.run import start_run
from prosetting.managers.run_summary import heldout_score
from prosetting.settings_sources import load_settings
from prosetting.trainers.base import TrainingJob, TrainingResult
from prosetting.trainers.trl_trainer import TrlTrainer

SABOTAGED = 4


class Flipped(TrlTrainer):
    """Chosen and rejected exchanged in round 4."""

    def train(self, job: TrainingJob) -> TrainingResult:
        if job.round == SABOTAGED:
            job = replace(job, dataset_dirs=[_exchanged(folder) for folder in job.dataset_dirs])
        return super().train(job)


def _exchanged(folder: Path) -> Path:
    target = folder.with_name(f"{folder.name}_exchanged")
    target.mkdir(exist_ok=True)
    for file in folder.glob("*.parquet"):
        table = pq.read_table(file)
        names = {"chosen": "rejected", "rejected": "chosen"}
        pq.write_table(table.rename_columns([names.get(name, name) for name in table.column_names]), target / file.name)
    return target


class Hundredfold(TrlTrainer):
    """A hundred times the learning rate in round 4."""

    def train(self, job: TrainingJob) -> TrainingResult:
        rate = self._settings.trl_learning_rate
        self._settings = self._settings.model_copy(
            update={"trl_learning_rate": 100 * rate if job.round == SABOTAGED else rate}
        )
        try:
            return super().train(job)
        finally:
            self._settings = self._settings.model_copy(update={"trl_learning_rate": rate})


ARMS: dict[str, type[TrlTrainer]] = {"clean": TrlTrainer, "flipped": Flipped, "hundredfold": Hundredfold}


def settings_of(env_file: Path, workspace: Path, gate: str, rounds: int) -> Settings:
    changed = {"WORKSPACE_DIR": str(workspace), "ROUND_GATE": gate, "TOTAL_ROUNDS": str(rounds)}
    return fit_to_machine(load_settings(flags=changed, environ={}, env_file=env_file), this_machine())[0]


def play(settings: Settings, trainer: type[TrlTrainer]) -> str:
    """Empty, or why the run paused."""
    try:
        start_run(settings, (), "auto", open_trainer=trainer)
    except RunPaused as pause:
        return pause.what
    return ""


def forked(source: Path, target: Path, env_file: Path) -> None:
    if (target / "prosetting.db").exists():
        return
    command = [sys.executable, "-m", "prosetting", "fork", "--from-round", "3", "--to", str(target)]
    environ = {**os.environ, "WORKSPACE_DIR": str(source)}
    subprocess.run([*command, "--env-file", str(env_file)], check=True, env=environ)


def outcome(workspace: Workspace, paused: str) -> dict[str, Any]:
    """Held-out pass@1 after rounds 3, 4 and 5, which round made the weights after round 4, the gate's own words."""
    with Journal(workspace.journal, read_only=True) as journal:
        scores = [heldout_score(journal, round_) for round_ in (3, 4, 5)]
        gates = [gate.output if (gate := journal.stage(round_, ROUND_GATE)) else {} for round_ in (4, 5)]
        return {
            "paused": bool(paused),
            "pass_at_1": [round(score.pass_at_1, 3) if score else None for score in scores],
            "weights_after_round_4_made_in": made_in(journal, SABOTAGED),
            "actions": [gate.get("action") for gate in gates],
            "evidence": gates[0].get("evidence", ""),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--out", type=Path, default=Path("runs/broken-rounds"))
    given = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    folder: Path = given.out.resolve() / f"seed-{given.seed}"
    base = folder / "base"
    env_file = prepare(folder / "inputs", given.seed, workspace=base)
    play(settings_of(env_file, base, "warn", 3), TrlTrainer)
    found = {}
    for name, trainer in ARMS.items():
        workspace = folder / name
        forked(base, workspace, env_file)
        gate = "rollback" if name == "clean" else "stop"
        paused = play(settings_of(env_file, workspace, gate, 5), trainer)
        if paused:
            play(settings_of(env_file, workspace, "rollback", 5), trainer)
        found[name] = outcome(Workspace.of(settings_of(env_file, workspace, gate, 5)), paused)
    print(
        "| Round 4 | with ROUND_GATE=stop | held-out pass@1 after rounds 3, 4, 5 | weights after round 4 | the gate |"
    )
    print("|---|---|---|---|---|")
    for name, one in found.items():
        stopped = "pauses" if one["paused"] else "goes on"
        scores = " ".join("–" if score is None else f"{score:.3f}" for score in one["pass_at_1"])
        made = f"of round {one['weights_after_round_4_made_in']}"
        print(f"| {name} | {stopped} | {scores} | {made} | {one['actions']}: {one['evidence']} |")
    print(json.dumps({"experiment": "broken_rounds", "seed": given.seed, **found}))


if __name__ == "__main__":
    main()
