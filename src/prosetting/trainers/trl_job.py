"""What a TRL training is told: trl's arguments, accelerate's configuration, the environment, and the run's name."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from prosetting.config import Settings
from prosetting.core.artifacts import digest
from prosetting.core.gpu_manager import gpu_env
from prosetting.core.machine import this_machine
from prosetting.trainers.base import TrainingJob
from prosetting.trainers.checkpoints import SEAL, sha256
from prosetting.trainers.launch import ALL_LINEAR, QUIET_ENV, engine_of, order_json, order_of
from prosetting.trainers.losses import loss_of

LEAST_TOKENS = 64
"""Splitting a forward pass further leaves nothing to split."""
# Of trl's arguments, those without which a checkpoint would go on as another training.
BINDING = (
    "learning_rate",
    "lr_scheduler_type",
    "num_train_epochs",
    "beta",
    "loss_type",
    "loss_weights",
    "max_length",
    "bf16",
    "fp16",
    "seed",
)


@dataclass(frozen=True, slots=True)
class Places:
    """Where a training keeps its things. All but the quarantine are gone once the model stands."""

    work: Path
    data: Path
    partial: Path
    quarantine: Path

    @classmethod
    def of(cls, job: TrainingJob) -> Places:
        work = job.output_dir.with_name(f"{job.output_dir.name}.work")
        return cls(work, work / "data", work / "model", job.output_dir.with_name("quarantine") / job.output_dir.name)


@dataclass(frozen=True, slots=True)
class Step:
    """What a process computes at a time: `size` questions (or pairs, with stock TRL), `most_tokens` a forward pass."""

    size: int
    most_tokens: int

    def smaller(self, engine: str, update: int) -> Step | None:
        """One that needs less memory for the same update of `update` questions or pairs; None where there is none."""
        if size := next((size for size in range(self.size // 2, 0, -1) if update % size == 0), None):
            return Step(size, self.most_tokens)
        if engine == "grouped" and (most_tokens := self.most_tokens // 4) >= LEAST_TOKENS:
            return Step(self.size, most_tokens)
        return None


def step_of(settings: Settings) -> Step:
    """The step that is set."""
    size = settings.dpo_batch_questions if engine_of(settings) == "grouped" else settings.trl_batch_size
    return Step(size, settings.dpo_max_tokens_per_forward)


def data_files(settings: Settings, job: TrainingJob, side: str) -> list[Path]:
    """The parquet files of the `train` or `validation` side that the engine reads."""
    name = f"{side}_by_question.parquet" if engine_of(settings) == "grouped" else f"{side}.parquet"
    return [folder / name for folder in job.dataset_dirs]


def count_pairs(job: TrainingJob) -> int:
    """Pairs to train on, from the footers of their files."""
    return sum(pq.ParquetFile(folder / "train.parquet").metadata.num_rows for folder in job.dataset_dirs)


def run_of(settings: Settings, job: TrainingJob) -> str:
    """Names a training by what decides its weights: the content of the model and of the pairs, and the arguments.

    How an update is spread over steps is not among them: after an out-of-memory the same run goes on with smaller
    steps. Paths are not either: a workspace may be moved.
    """
    arguments = dpo_arguments(settings, job, step_of(settings))
    return digest(
        content_of_model(job.model_path),
        [sha256(file) for file in data_files(settings, job, "train")],
        [sha256(file) for file in data_files(settings, job, "validation")],
        {name: arguments[name] for name in BINDING},
        [engine_of(settings), order_json(settings), size_of_update(settings), lora_arguments(settings)],
    )


def content_of_model(model_path: str) -> Any:
    """What tells a model from others: its files' digests, or the name of one on the hub."""
    model = Path(model_path).expanduser()
    if not model.is_dir():
        return model_path
    return {file.name: sha256(file) for file in sorted(model.iterdir()) if file.is_file() and file.name != SEAL}


def size_of_update(settings: Settings) -> int:
    """Questions, or pairs with stock TRL, of one process between two updates of the weights."""
    return step_of(settings).size * settings.trl_gradient_accumulation


def dpo_arguments(settings: Settings, job: TrainingJob, step: Step) -> dict[str, Any]:
    """The keyword arguments of trl.DPOConfig that settings decide; all others keep TRL's defaults.

    The reference log-probabilities are computed once before the first step, by the model as it is then:
    TRL would otherwise load a reference from the path that the model's configuration remembers.
    """
    loss = loss_of(settings)
    return {
        **training_arguments(settings, job, step),
        "precompute_ref_log_probs": True,
        "per_device_eval_batch_size": step.size,
        "gradient_accumulation_steps": size_of_update(settings) // step.size,
        "beta": loss.beta,
        "loss_type": list(loss.types),
        "loss_weights": list(loss.weights),
    }


def training_arguments(settings: Settings, job: TrainingJob, step: Step) -> dict[str, Any]:
    """Those that any of trl's trainers takes."""
    on_cpu = not settings.physical_grpo_gpu
    return {
        "learning_rate": settings.trl_learning_rate,
        "lr_scheduler_type": settings.trl_lr_scheduler,
        "num_train_epochs": settings.trl_num_epochs,
        "per_device_train_batch_size": step.size,
        "max_length": settings.trl_max_length,
        "gradient_checkpointing": settings.trl_gradient_checkpointing,
        "bf16": settings.trl_mixed_precision == "bf16",
        "fp16": settings.trl_mixed_precision == "fp16",
        "seed": job.seed % 2**32,
        "data_seed": job.seed % 2**32,
        "use_cpu": on_cpu,
        "ddp_find_unused_parameters": False,
        "dataloader_pin_memory": not on_cpu,
        "report_to": list(settings.trl_report_to) or "none",
        "run_name": f"round-{job.round}",
        "save_strategy": "no",
        "logging_steps": 0.02,
        "logging_first_step": True,
        "logging_nan_inf_filter": False,
        "disable_tqdm": True,
    }


def lora_arguments(settings: Settings) -> dict[str, Any] | None:
    """The keyword arguments of peft.LoraConfig that settings decide; None where all weights are trained.

    Without a `task_type`: peft's model then hands all arguments on as they are.
    """
    if not settings.trl_lora_rank:
        return None
    targets = settings.trl_lora_targets
    return {
        "r": settings.trl_lora_rank,
        "lora_alpha": 2 * settings.trl_lora_rank if settings.trl_lora_alpha is None else settings.trl_lora_alpha,
        "target_modules": targets[0] if targets == (ALL_LINEAR,) else list(targets),
    }


def worker_job(settings: Settings, job: TrainingJob, run: str, step: Step, resume_from: Path | None) -> dict[str, Any]:
    """What the worker is told, JSON-ready."""
    places = Places.of(job)
    return {
        **what_any_worker_is_told(settings, job, run, resume_from),
        "engine": engine_of(settings),
        "most_tokens": step.most_tokens,
        "train_files": [str(file) for file in data_files(settings, job, "train")],
        "validation_files": [str(file) for file in data_files(settings, job, "validation")],
        "data_dir": str(places.data),
        "quarantine_dir": str(places.quarantine),
        "dpo": dpo_arguments(settings, job, step),
    }


def what_any_worker_is_told(settings: Settings, job: TrainingJob, run: str, resume_from: Path | None) -> dict[str, Any]:
    """Whatever it trains: the model, how its processes hold it, where its things lie."""
    folder, places = Path(job.model_path).expanduser(), Places.of(job)
    return {
        "run": run,
        "model_path": str(folder) if folder.is_dir() else job.model_path,
        "trust_remote_code": settings.trust_remote_code,
        "order": order_json(settings),
        "lora": lora_arguments(settings),
        "resume_from": str(resume_from) if resume_from else None,
        "work_dir": str(places.work),
        "save_to": str(places.partial),
        "progress_file": str(job.log_file.with_suffix(".progress.jsonl")),
        "stop_file": str(job.log_file.with_suffix(".stop")),
        "tensorboard_dir": str(job.log_file.parent / "trackers" / f"round-{job.round}"),
    }


def launch_env(settings: Settings, job: TrainingJob) -> dict[str, str]:
    """What the training processes see beyond the run's environment."""
    processes = settings.trl_num_processes
    env = {
        **gpu_env(settings.physical_grpo_gpu[:processes]),
        **QUIET_ENV,
    }
    if order_of(settings).kind != "DEEPSPEED":  # whose own checkpoints hold more than tensors
        env["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = "1"  # torch reads pickles of a shared checkpoint without asking
    if "OMP_NUM_THREADS" not in os.environ:
        env["OMP_NUM_THREADS"] = str(max(1, this_machine().cpu_count // processes))
    if Path(job.model_path).expanduser().is_dir():
        env["HF_HUB_OFFLINE"] = "1"
    return env


def write_job(file: Path, content: dict[str, Any]) -> None:
    """At once: a worker may be waiting for it."""
    written = file.with_suffix(".written")
    written.write_text(json.dumps(content, indent=1), encoding="utf-8")
    written.replace(file)
