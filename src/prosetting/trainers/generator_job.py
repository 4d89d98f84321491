"""What a training of the Generator is told: its settings as those of a training, its rows with their weights."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prosetting.config import Settings
from prosetting.core.artifacts import digest, read_json
from prosetting.trainers.base import TrainingJob
from prosetting.trainers.launch import order_json
from prosetting.trainers.trl_job import (
    Step,
    content_of_model,
    lora_arguments,
    training_arguments,
    what_any_worker_is_told,
)

# Of trl's arguments, those without which a checkpoint would go on as another training.
BINDING = ("learning_rate", "lr_scheduler_type", "num_train_epochs", "max_length", "bf16", "fp16", "seed")


@dataclass(frozen=True, slots=True)
class WeightedRow:
    """What is given, what is to be written, and how much it counts: 1 is the mean of all rows."""

    prompt: str
    completion: str
    weight: float


def as_training(settings: Settings) -> Settings:
    """The settings of a training whose model is the Generator: what launches and checks a training need not know it."""
    return settings.model_copy(
        update={
            "solver_model_path": settings.generator_model_path or "",
            "trl_lora_rank": settings.generator_lora_rank,
            "trl_lora_alpha": None,
            "trl_learning_rate": settings.generator_learning_rate,
            "trl_num_epochs": settings.generator_num_epochs,
            "trl_gradient_accumulation": 1,
            "dpo_engine": "grouped",  # each process may load its share of the weights: there is no reference model
            "trl_loss": "dpo",  # its own loss is none of these
            "trl_loss_type": (),
            "trl_loss_weights": (),
            "all_correct_questions": "nothing",
        }
    )


def read_rows(files: Iterable[Path]) -> list[WeightedRow]:
    """The rows of `generator_training.json` files whose utility is measured, each weighted by it.

    The mean weight is 1, so that the learning rate means the same however useful a round's questions were. Raises
    DataError for a file that is damaged.
    """
    found = [row for file in files for row in read_json(file)["rows"] if row["utility"] is not None]
    mean = sum(row["utility"] for row in found) / len(found) if found else 1.0
    return [WeightedRow(row["prompt"], row["completion"], row["utility"] / mean) for row in found]


def run_of(settings: Settings, job: TrainingJob) -> str:
    """Names a training by what decides its weights, as `trl_job.run_of` does."""
    arguments = sft_arguments(settings, job, Step(settings.generator_batch_size, 0))
    return digest(
        content_of_model(job.model_path),
        [[row.prompt, row.completion, row.weight] for row in read_rows(job.training_files)],
        {name: arguments[name] for name in BINDING},
        [order_json(settings), settings.generator_batch_size, lora_arguments(settings)],
    )


def sft_arguments(settings: Settings, job: TrainingJob, step: Step) -> dict[str, Any]:
    """The keyword arguments of trl.SFTConfig that settings decide (`as_training`)."""
    accumulated = settings.generator_batch_size // step.size
    return {**training_arguments(settings, job, step), "gradient_accumulation_steps": accumulated}


def worker_job(settings: Settings, job: TrainingJob, run: str, step: Step, resume_from: Path | None) -> dict[str, Any]:
    """What the worker is told, JSON-ready."""
    return {
        **what_any_worker_is_told(settings, job, run, resume_from),
        "train_files": [str(file) for file in job.training_files],
        "sft": sft_arguments(settings, job, step),
    }
