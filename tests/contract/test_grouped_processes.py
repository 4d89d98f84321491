"""Several processes with unequal questions make the update of stock TRL in one: real accelerate launch, gloo."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny_model import build_tiny_model
from training_jobs import a_job, a_question, settings, sums, write_dataset

from prosetting.trainers.base import TrainingResult
from prosetting.trainers.trl_trainer import TrlTrainer

SIZES = ((1, 5), (3, 3), (1, 1), (4, 1), (2, 3), (1, 2))
PAIRS = sum(right * wrong for right, wrong in SIZES)


def trained(folder: Path, model: Path, *, supervised: int = 0, **changes: Any) -> TrainingResult:
    """On questions of SIZES and, before them, supervised rows, of which a process may get nothing else."""
    folder.mkdir()
    rows = [{**row, "completions": row["completions"][:1], "rejected": [0]} for row in sums(range(60, 60 + supervised))]
    questions = [
        a_question(
            f"Max has {n} cards?", [f"{n}+{a} \\boxed{{{a}}}" for a in range(right)], [f"{b}" for b in range(wrong)]
        )
        for n, (right, wrong) in enumerate(SIZES)
    ]
    job = a_job(folder, model, dataset_dirs=[write_dataset(folder / "round_3", rows + questions, sums(range(3)))])
    return TrlTrainer(settings(trl_gradient_checkpointing=False, **changes)).train(job)


@pytest.mark.slow
@pytest.mark.parametrize(("most_tokens", "supervised"), [(16384, 0), (64, 0), (16384, 8)])
def test_two_processes_make_the_update_of_one(tmp_path: Path, most_tokens: int, supervised: int) -> None:
    model = build_tiny_model(tmp_path / "model")
    ours = trained(
        tmp_path / "ours",
        model,
        supervised=supervised,
        trl_num_processes=2,
        dpo_batch_questions=1,
        trl_gradient_accumulation=(len(SIZES) + supervised) // 2,
        dpo_max_tokens_per_forward=most_tokens,
    )
    whole = {"trl_batch_size": PAIRS + supervised, "trl_gradient_accumulation": 1}
    stock = trained(tmp_path / "stock", model, supervised=supervised, dpo_engine="stock", **whole)
    assert (ours.train_pairs, ours.steps, ours.metrics["processes"]) == (PAIRS + supervised, 1, 2)
    assert (stock.train_pairs, stock.steps) == (PAIRS + supervised, 1)
    start = load_file(model / "model.safetensors")
    moved = [load_file(result.model_dir / "model.safetensors") for result in (ours, stock)]
    one, other = (torch.cat([(weights[name] - start[name]).flatten() for name in start]) for weights in moved)
    assert float((one - other).norm() / other.norm()) < 1e-3  # AdamW's first step makes signs of gradients
    told = [name for name in stock.metrics if "rewards" in name or "logps" in name or "train_loss" in name]
    assert "train_loss" in told
    for name in told:
        # Of supervised rows stock TRL tells log-probabilities as of pairs; before and after are of a sample of rows,
        # which are questions here and pairs there.
        same = not name.startswith(("eval_", "logps_before", "logps_after")) and not (supervised and "logps" in name)
        if same:
            assert ours.metrics[name] == pytest.approx(stock.metrics[name], rel=1e-4, abs=1e-5), name
