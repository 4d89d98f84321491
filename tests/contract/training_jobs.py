"""Jobs of a second or two for the trainer: settings, pairs and a job around a model folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from prosetting.config import Settings
from prosetting.trainers.base import TrainingJob

BETA = 0.5


def settings(**changes: Any) -> Settings:
    values: dict[str, Any] = {
        "solver_model_path": "unused",
        "physical_grpo_gpu": (),
        "trl_num_processes": 1,
        "trl_mixed_precision": "no",
        "trl_learning_rate": 5e-3,
        "trl_batch_size": 4,
        "trl_gradient_accumulation": 2,
        "trl_beta": BETA,
        "trl_loss_type": ("sigmoid", "sft"),
        "trl_loss_weights": (1.0, 5.0),
        "trl_max_length": 128,
    }
    return Settings(**values | changes)


def write_pairs(file: Path, numbers: range, question: str = "Max has {} cards and buys 4 more?") -> Path:
    rows = [
        {
            "prompt": question.format(n),
            "chosen": f"{n}+4={n + 4} \\boxed{{{n + 4}}}",
            "rejected": f"{n}-4={n - 4} \\boxed{{{n - 4}}}",
            "question_id": str(n),
            "chosen_attempt": 0,
            "rejected_attempt": 1,
            "round": 3,
        }
        for n in numbers
    ]
    pq.write_table(pa.Table.from_pylist(rows), file)
    return file


def a_job(folder: Path, model: Path, **changes: Any) -> TrainingJob:
    values: dict[str, Any] = {
        "round": 3,
        "model_path": str(model),
        "train_files": [write_pairs(folder / "a.parquet", range(24)), write_pairs(folder / "b.parquet", range(24, 40))],
        "validation_files": [write_pairs(folder / "validation.parquet", range(40, 43))],
        "output_dir": folder / "checkpoint",
        "log_file": folder / "logs" / "trl_r3.log",
        "seed": 5,
    }
    return TrainingJob(**values | changes)
