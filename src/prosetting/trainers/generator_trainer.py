"""The Generator's training: value-weighted supervised fine-tuning (arXiv 2509.24726) with TRL, in child processes.

Started, watched, stopped, gone on with and taken over as the Solver's is; another worker with other data.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from prosetting.config import Settings
from prosetting.errors import ConfigError
from prosetting.trainers import generator_job
from prosetting.trainers.base import TrainingJob
from prosetting.trainers.launch import check_training
from prosetting.trainers.trl_job import Step
from prosetting.trainers.trl_trainer import STOP_GRACE_S, OnProgress, TrlTrainer

log = logging.getLogger("prosetting")


class GeneratorTrainer(TrlTrainer):
    """Trains on the measured rows of `job.training_files` (generator_training.json); pairs of a result are rows."""

    worker = "prosetting.trainers.worker_sft"
    unit = "rows of which the utility is measured"

    def __init__(
        self, settings: Settings, *, on_progress: OnProgress | None = None, stop_grace_s: float = STOP_GRACE_S
    ) -> None:
        super().__init__(generator_job.as_training(settings), on_progress=on_progress, stop_grace_s=stop_grace_s)

    @classmethod
    def check(cls, settings: Settings) -> None:
        """Raises ConfigError for what cannot work, before anything is spent."""
        if settings.trl_launcher == "ray":
            raise ConfigError(
                "GENERATOR_MODEL_PATH with TRL_LAUNCHER=ray: the Generator is trained on this machine only",
                next_step="set TRL_LAUNCHER=accelerate, or leave GENERATOR_MODEL_PATH out",
            )
        check_training(generator_job.as_training(settings))

    def _amount(self, job: TrainingJob) -> int:
        return len(generator_job.read_rows(job.training_files))

    def _run_name(self, job: TrainingJob) -> str:
        return generator_job.run_of(self._settings, job)

    def _wished_step(self) -> Step:
        return Step(self._settings.generator_batch_size, 0)

    def _update(self) -> int:
        return self._settings.generator_batch_size

    def _smaller(self, step: Step) -> Step | None:
        return step.smaller("stock", self._update())

    def _job(self, job: TrainingJob, run: str, step: Step, resume_from: Path | None) -> dict[str, Any]:
        return generator_job.worker_job(self._settings, job, run, step, resume_from)

    def _in_words(self, step: Step) -> str:
        return f"{step.size} questions a step (GENERATOR_BATCH_SIZE)"

    def _notes(self, step: Step) -> tuple[str, ...]:
        if step.size == self._update():
            return ()
        return (f"memory did not suffice for {self._update()} questions at a time: trained with {step.size}",)
