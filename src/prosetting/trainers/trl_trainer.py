"""Stage 4 with TRL: DPO (Rafailov et al. 2023, arXiv 2305.18290) in child processes, through `accelerate launch`.

The parent prepares everything that can be said without torch, starts the launcher, follows a progress file
and takes over the model folder once it is whole. Beside the log `NAME.log` a training leaves `NAME.job.json`,
`NAME.accelerate.json`, `NAME.progress.jsonl` and `NAME.result.json`.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from prosetting.config import Settings
from prosetting.core import children
from prosetting.core.machine import this_machine
from prosetting.core.model_folder import missing_parts
from prosetting.errors import ConfigError, TrainingError
from prosetting.trainers.base import TrainingJob, TrainingResult

LAUNCHER = "accelerate.commands.launch"
WORKER = "prosetting.trainers.worker_dpo"
POLL_INTERVAL_S = 0.2

# TRL's names less `exo_pair`, which needs a label smoothing that is no setting here.
LOSSES = (
    "sigmoid",
    "sigmoid_norm",
    "hinge",
    "ipo",
    "nca_pair",
    "robust",
    "bco_pair",
    "sppo_hard",
    "aot",
    "aot_unpaired",
    "apo_zero",
    "apo_down",
    "discopop",
    "sft",
)

OnProgress = Callable[[int, int, float | None], None]


class TrlTrainer:
    """Trains one round with `TRL_NUM_PROCESSES` processes; `on_progress(step, total, loss)` hears each step."""

    def __init__(self, settings: Settings, *, on_progress: OnProgress | None = None) -> None:
        check_losses(settings.trl_loss_type)
        self._settings = settings
        self._on_progress = on_progress or (lambda step, total, loss: None)

    def train(self, job: TrainingJob) -> TrainingResult:
        """Train from the model at `job.model_path`, which is the reference policy too.

        Afterwards `job.output_dir` holds the trained model whole; on failure it is as it was before.
        Raises TrainingError with the log's last lines when the child fails.
        """
        if not (pairs := count_pairs(job.train_files)):
            raise TrainingError("there are no pairs to train on", next_step="see dataset_info.json of the round")
        started = time.monotonic()
        partial = _beside(job.output_dir, "partial")
        work = _beside(job.output_dir, "work")
        _remove(partial, work)
        try:
            self._run(job, partial, work)
            result = _read_result(job, partial)
            put_in_place(partial, job.output_dir)
        finally:
            _remove(partial, work)
        metrics: dict[str, float] = {"pairs_too_long": pairs - result["train_pairs"], **result["metrics"]}
        return TrainingResult(
            model_dir=job.output_dir,
            train_pairs=result["train_pairs"],
            validation_pairs=result["validation_pairs"],
            steps=result["steps"],
            metrics=metrics,
            duration_seconds=time.monotonic() - started,
        )

    def _run(self, job: TrainingJob, partial: Path, work: Path) -> None:
        job_file, launch_file = job.log_file.with_suffix(".job.json"), job.log_file.with_suffix(".accelerate.json")
        progress_file = job.log_file.with_suffix(".progress.jsonl")
        job.log_file.parent.mkdir(parents=True, exist_ok=True)
        for file in (progress_file, job.log_file.with_suffix(".result.json")):
            file.unlink(missing_ok=True)
        _write(job_file, worker_job(self._settings, job, partial, work))
        _write(launch_file, launch_config(self._settings))
        gpus = self._settings.physical_grpo_gpu[: self._settings.trl_num_processes]
        child = children.start_child(
            [LAUNCHER, "--config_file", str(launch_file), "-m", WORKER, "--job", str(job_file)],
            log_file=job.log_file,
            extra_env=launch_env(gpus, self._settings.trl_num_processes, job.model_path),
        )
        try:
            self._follow(child, progress_file)
        finally:
            children.end_child(child)
        if child.returncode != 0:
            raise _failure(job, child.returncode, progress_file)

    def _follow(self, child: subprocess.Popen[str], progress_file: Path) -> None:
        news = read_news(progress_file)
        running = True
        while running:
            try:
                child.wait(timeout=POLL_INTERVAL_S)
                running = False
            except subprocess.TimeoutExpired:
                pass
            for line in next(news):
                if "step" in line:
                    self._on_progress(line["step"], line["total"], line["loss"])


def check_losses(names: Sequence[str]) -> None:
    """Raises ConfigError for a loss that TRL does not know."""
    for name in names:
        if name not in LOSSES:
            raise ConfigError(
                f"TRL_LOSS_TYPE names the loss {name!r}, which is not known",
                next_step=f"choose from {', '.join(LOSSES)}",
            )


def count_pairs(files: Sequence[Path]) -> int:
    """Rows in parquet files, from their footers."""
    return sum(pq.ParquetFile(file).metadata.num_rows for file in files)


def dpo_arguments(settings: Settings, job: TrainingJob) -> dict[str, Any]:
    """The keyword arguments of trl.DPOConfig that settings decide; all others keep TRL's defaults.

    The reference log-probabilities are computed once before the first step, by the model as it is then:
    TRL would otherwise load a reference from the path that the model's configuration remembers.
    """
    on_cpu = not settings.physical_grpo_gpu
    return {
        "precompute_ref_log_probs": True,
        "learning_rate": settings.trl_learning_rate,
        "lr_scheduler_type": settings.trl_lr_scheduler,
        "num_train_epochs": settings.trl_num_epochs,
        "per_device_train_batch_size": settings.trl_batch_size,
        "per_device_eval_batch_size": settings.trl_batch_size,
        "gradient_accumulation_steps": settings.trl_gradient_accumulation,
        "beta": settings.trl_beta,
        "loss_type": list(settings.trl_loss_type),
        "loss_weights": list(settings.trl_loss_weights),
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


def worker_job(settings: Settings, job: TrainingJob, partial: Path, work: Path) -> dict[str, Any]:
    """What the worker is told, JSON-ready."""
    folder = Path(job.model_path).expanduser()
    return {
        "model_path": str(folder) if folder.is_dir() else job.model_path,
        "train_files": [str(file) for file in job.train_files],
        "validation_files": [str(file) for file in job.validation_files],
        "save_to": str(partial),
        "work_dir": str(work),
        "trackers_dir": str(job.log_file.parent / "trackers" / f"round-{job.round}"),
        "progress_file": str(job.log_file.with_suffix(".progress.jsonl")),
        "result_file": str(job.log_file.with_suffix(".result.json")),
        "dpo": dpo_arguments(settings, job),
    }


def launch_config(settings: Settings) -> dict[str, Any]:
    """accelerate's configuration, in a file of its own so that one of the user's has no say.

    `MULTI_GPU` is what makes accelerate start several processes, on CPUs too: `--cpu --num_processes 2`
    starts one and says nothing. On CPUs the worker's `use_cpu` makes them a gloo group.
    """
    several = settings.trl_num_processes > 1
    return {
        "compute_environment": "LOCAL_MACHINE",
        "distributed_type": "MULTI_GPU" if several else "NO",
        "num_machines": 1,
        "num_processes": settings.trl_num_processes,
        "machine_rank": 0,
        "gpu_ids": "all",
        "main_process_port": 0,
        "mixed_precision": settings.trl_mixed_precision,
        "use_cpu": not settings.physical_grpo_gpu,
    }


def launch_env(gpus: Sequence[int], processes: int, model_path: str) -> dict[str, str]:
    """What the training processes see beyond the run's environment."""
    env = {
        "CUDA_VISIBLE_DEVICES": ",".join(map(str, gpus)),
        "TOKENIZERS_PARALLELISM": "false",
        "TQDM_DISABLE": "1",
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    }
    if "OMP_NUM_THREADS" not in os.environ:
        env["OMP_NUM_THREADS"] = str(max(1, this_machine().cpu_count // processes))
    if Path(model_path).expanduser().is_dir():
        env["HF_HUB_OFFLINE"] = "1"
    return env


def read_news(file: Path) -> Iterator[list[dict[str, Any]]]:
    """Each `next` gives the whole JSON lines that were appended to `file` since the last one."""
    position = 0
    while True:
        lines: list[bytes] = []
        if file.exists():
            with file.open("rb") as stream:
                stream.seek(position)
                text = stream.read()
            whole = text[: text.rfind(b"\n") + 1]
            position += len(whole)
            lines = whole.splitlines()
        yield [json.loads(line) for line in lines]


def put_in_place(new: Path, target: Path) -> None:
    """Make the folder `new` be `target`; a folder that stood there goes only once the new one stands."""
    old = _beside(target, "old")
    _remove(old)
    if target.exists():
        os.replace(target, old)
    os.replace(new, target)
    _remove(old)


def _read_result(job: TrainingJob, partial: Path) -> dict[str, Any]:
    lacking = missing_parts(partial)
    result_file = job.log_file.with_suffix(".result.json")
    if lacking or not result_file.is_file():
        raise TrainingError(
            f"training ended without a whole model: it lacks {', '.join(lacking) or result_file.name}",
            next_step=f"see {job.log_file}",
        )
    return dict(json.loads(result_file.read_text(encoding="utf-8")))


def _failure(job: TrainingJob, status: int, progress_file: Path) -> TrainingError:
    """What went wrong: the worker's own last word where it had one, else the end of its log."""
    errors = [line["error"] for line in next(read_news(progress_file)) if "error" in line]
    tail = children.log_tail(job.log_file)
    next_step = f"see {job.log_file}, then start the run again: it goes on where it stopped"
    if "SIGKILL" in tail or status == -signal.SIGKILL:
        # Of several processes the others then report a lost connection: not the cause.
        errors = []
        next_step = "it was killed, often for want of memory: lower TRL_BATCH_SIZE or TRL_NUM_PROCESSES"
    elif "out of memory" in (errors[0] if errors else tail).lower():
        next_step = "lower TRL_BATCH_SIZE (raise TRL_GRADIENT_ACCUMULATION) or TRL_MAX_LENGTH"
    elif "No module named" in tail:
        next_step = "pip install 'prosetting[train]'"
    elif errors and "TRL_MAX_LENGTH" in errors[0]:
        next_step = "raise TRL_MAX_LENGTH"
    elif errors and "not finite" in errors[0]:
        next_step = "lower TRL_LEARNING_RATE"
    what = errors[0] if errors else f"exit status {status}. Its last messages:\n{tail}"
    return TrainingError(f"training of round {job.round} failed: {what}", next_step=next_step)


def _beside(folder: Path, suffix: str) -> Path:
    return folder.with_name(f"{folder.name}.{suffix}")


def _remove(*folders: Path) -> None:
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def _write(file: Path, content: dict[str, Any]) -> None:
    file.write_text(json.dumps(content, indent=1), encoding="utf-8")
