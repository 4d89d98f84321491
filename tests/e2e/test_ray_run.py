"""A whole run on a cluster of four simulated nodes, of which it loses one while it samples and one while it trains,
beside the same run on this machine alone."""

from __future__ import annotations

import itertools
import json
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from whole_runs import children_of, clean_env, read

sys.path.append(str(Path(__file__).parents[1] / "contract"))
from ray_nodes import ray_nodes

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]
# Round 1 gathers, round 2 trains, with steps enough to lose a node between two of them.
SHORT = {
    "--total-rounds": "2",
    "--first-training-round": "2",
    "--trl-num-processes": "2",
    "--trl-num-epochs": "10",
    "--trl-gradient-accumulation": "1",
    "--auto-max-retries": "0",
}
ROWS = "SELECT * FROM trajectories ORDER BY split, round, question_id, attempt"
VERDICTS = "SELECT * FROM grades ORDER BY split, round, question_id, attempt"
POOLS = "SELECT * FROM pools ORDER BY round, question_id"


def flags(**more: str) -> list[str]:
    named = {f"--{name.replace('_', '-')}": value for name, value in more.items()}
    return [part for pair in (SHORT | named).items() for part in pair]


def rows(workspace: Path, query: str) -> list[tuple]:
    db = sqlite3.connect(f"file:{workspace / 'prosetting.db'}?mode=ro", uri=True)
    try:
        return db.execute(query).fetchall()
    finally:
        db.close()


def sampling(workspace: Path) -> bool:
    try:
        drawn = rows(workspace, "SELECT count(*) FROM trajectories WHERE split = 'train' AND round = 1")[0][0]
    except sqlite3.Error:
        return False
    return 8 <= drawn < 8 * 12


def training(workspace: Path) -> bool:
    file = workspace / "logs" / "trl_trainer.progress.jsonl"
    steps = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    return any("step" in line and line["step"] >= 0.4 * line["total"] for line in steps)


def come_to(run: subprocess.Popen[str], log: Path, holds: Callable[[], bool]) -> None:
    while not holds():
        assert run.poll() is None, log.read_text()[-4000:]
        time.sleep(0.02)


def test_a_run_that_loses_two_nodes_equals_one_on_this_machine(demo, tmp_path):
    alone, spread, log = tmp_path / "alone", tmp_path / "spread", tmp_path / "output.log"
    done = demo.run(alone, *flags())
    assert done.returncode == 0, done.stderr[-4000:]
    with ray_nodes(4) as nodes:
        on_ray = flags(
            solver_engine="ray",
            trl_launcher="ray",
            ray_cluster_address=nodes.address,
            ray_trainer_gpus="0",
            ray_node_timeout="180",
            solver_batch_size="4",  # so that sampling is long enough to lose a node in it
        )
        with log.open("w") as stream:
            run = subprocess.Popen(demo.command(spread, *on_ray), stdout=stream, stderr=stream, env=clean_env())
        try:
            come_to(run, log, lambda: sampling(spread))
            nodes.remove_one_that_runs("Replica")
            come_to(run, log, lambda: training(spread))
            nodes.remove_one_that_runs("RayTrainWorker")
            assert run.wait(timeout=600) == 0, log.read_text()[-4000:]
        finally:
            run.kill()
        nodes.until_nothing_runs()
        assert children_of(spread) == []
    text = log.read_text()
    assert "is lost" in text, "a replica was lost while it sampled"
    steps = [line["step"] for line in map(json.loads, progress(spread)) if "step" in line]
    assert any(after < before for before, after in itertools.pairwise(steps)), "training went back"
    assert read(spread / "auto_training_summary.json")["final_status"] == "completed"
    mine, other = (load_file(each / "checkpoints/merged_solver_r2/model.safetensors") for each in (spread, alone))
    assert max(float(torch.max(torch.abs(mine[name] - other[name]))) for name in mine) < 1e-6
    for query in (ROWS, VERDICTS, POOLS):
        assert rows(spread, query) == rows(alone, query)


def progress(workspace: Path) -> list[str]:
    return (workspace / "logs" / "trl_trainer.progress.jsonl").read_text().splitlines()
