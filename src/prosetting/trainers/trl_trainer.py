"""Stage 4 with TRL: DPO (Rafailov et al. 2023, arXiv 2305.18290) in child processes, through `accelerate launch`.

The parent prepares everything that can be said without torch, starts the launcher, follows a progress file
and takes over the model folder once it is whole. Beside the log `NAME.log` a training leaves `NAME.job.json`,
`NAME.accelerate.json` and `NAME.progress.jsonl`; until the model stands, its checkpoints are in MODEL.work.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from prosetting.config import Settings
from prosetting.core import children, pausing, stopping
from prosetting.core.model_folder import missing_parts
from prosetting.errors import DataError, RunStopped, TrainingError
from prosetting.trainers.base import TrainingJob, TrainingResult
from prosetting.trainers.checkpoints import (
    Sealed,
    clear_dropped,
    hold,
    newest_checkpoint,
    open_sealed,
    put_in_place,
    sealed_or_quarantined,
)
from prosetting.trainers.launch import (
    DPO_WORKER,
    LAUNCHER,
    check_training,
    config_file,
    engine_of,
    may_fork,
    other_machines,
)
from prosetting.trainers.losses import OF_A_BATCH, check_losses, loss_of
from prosetting.trainers.training_child import TrainingChild
from prosetting.trainers.trl_job import (
    Places,
    Step,
    count_pairs,
    launch_env,
    run_of,
    size_of_update,
    step_of,
    worker_job,
)

log = logging.getLogger("prosetting")

POLL_INTERVAL_S = 0.2
STOP_GRACE_S = 8.0
MOST_SMALLER_STEPS = 3

OnProgress = Callable[[int, int, float | None], None]


class OutOfMemory(Exception):
    """The child could not allocate what a step needs."""


class TrlTrainer:
    """Trains one round with `TRL_NUM_PROCESSES` processes; `on_progress(step, total, loss)` hears each step.

    An exception that reaches `train`, Ctrl+C for one, leaves the child `stop_grace_s` to save a checkpoint.
    Another kind of training (generator_trainer.py) has another worker and overrides what stands last in the class.
    """

    worker = DPO_WORKER
    unit = "pairs"

    def __init__(
        self, settings: Settings, *, on_progress: OnProgress | None = None, stop_grace_s: float = STOP_GRACE_S
    ) -> None:
        check_losses(settings)
        self._settings = settings
        self._on_progress = on_progress or (lambda step, total, loss: None)
        self._stop_grace_s = stop_grace_s
        self._child: TrainingChild | None = None

    def get_ready(self, job: TrainingJob) -> None:
        """Start the launcher and its workers, which load their libraries and wait for the job file: torch, trl and
        accelerate take seconds to import, and meanwhile attempts are drawn. What waits for this job already goes on.
        """
        self._have_child(job)

    def close(self) -> None:
        if self._child is not None:
            self._child.end()
            self._child = None

    @classmethod
    def check(cls, settings: Settings) -> None:
        """Refuse what cannot work before anything is spent. Raises ConfigError."""
        check_training(settings)

    def train(self, job: TrainingJob) -> TrainingResult:
        """Train from the model at `job.model_path`, which is the reference policy too.

        Afterwards `job.output_dir` holds the trained model whole, or nothing. The same job again goes on from its
        last checkpoint. Raises TrainingError with the log's last lines when the child fails, RunStopped when
        somebody told the child to stop.
        """
        if not (pairs := self._amount(job)):
            raise TrainingError(f"there are no {self.unit} to train on", next_step="see dataset_info.json of the round")
        started = time.monotonic()
        run, places = self._run_name(job), Places.of(job)
        try:
            with hold(places.work):  # a trainer of a killed run may still be in it
                done = _finished(job, places, run)
            if done is None:
                self._train(job, places, run)
                done = _trained(job, places, run)
        finally:
            self.close()
        shutil.rmtree(places.work, ignore_errors=True)
        step = Step(done.facts["batch_size"], done.facts["most_tokens"])
        return TrainingResult(
            model_dir=job.output_dir,
            train_pairs=done.facts["train_pairs"],
            validation_pairs=done.facts["validation_pairs"],
            steps=done.facts["steps"],
            metrics={"pairs_too_long": pairs - done.facts["train_pairs"], **done.facts["metrics"]},
            duration_seconds=time.monotonic() - started,
            batch_size_used=step.size,
            notes=self._notes(step),
        )

    def _train(self, job: TrainingJob, places: Places, run: str) -> None:
        """Until the model is whole in `places.partial`; with smaller steps when memory does not suffice."""
        step = self._wished_step()
        for tries in range(MOST_SMALLER_STEPS + 1):
            checkpoint = start_from(places, run)
            if checkpoint:
                log.info("training goes on from step %d", checkpoint.facts["step"])
                step = Step(min(step.size, checkpoint.facts["batch_size"]), step.most_tokens)
            try:
                return self._run(job, places, run, step, checkpoint)
            except OutOfMemory as error:
                smaller = self._smaller(step)
                if smaller is None or tries == MOST_SMALLER_STEPS:
                    raise TrainingError(
                        f"training of round {job.round} ran out of memory with {self._in_words(step)}: {error}",
                        next_step="lower TRL_MAX_LENGTH, or set TRL_GRADIENT_CHECKPOINTING=true",
                    ) from None
                what = "training ran out of memory with %s; trying %s, of the same updates"
                log.warning(what, self._in_words(step), self._in_words(smaller))
                step = smaller

    def _run(self, job: TrainingJob, places: Places, run: str, step: Step, checkpoint: Sealed | None) -> None:
        progress_file = job.log_file.with_suffix(".progress.jsonl")
        for file in (progress_file, _stop_file(job)):
            file.unlink(missing_ok=True)
        child = self._have_child(job)
        resume_from = checkpoint.folder if checkpoint else None
        child.begin(self._job(job, run, step, resume_from))
        status = None
        try:
            status = self._follow(child, progress_file)
        finally:
            if status != 0:
                self._let_it_save(child, job, places)
                self.close()
        if status != 0:
            raise _failure(job, status, progress_file)

    def _have_child(self, job: TrainingJob) -> TrainingChild:
        """What is there for this job, else what is started for it."""
        job_file = job_file_of(job)
        if self._child is None or not self._child.will_train(job_file, job.output_dir):
            self.close()
            job_file.unlink(missing_ok=True)
            job.log_file.parent.mkdir(parents=True, exist_ok=True)
            started = children.start_child(
                self._command(job),
                log_file=job.log_file,
                extra_env=launch_env(self._settings, job),
                forked=self._may_fork(job),
            )
            self._child = TrainingChild(started, job_file, job.output_dir)
        return self._child

    def _command(self, job: TrainingJob) -> list[str]:
        """The launcher's module, and what it is told."""
        launch_file = config_file(self._settings, job.log_file.with_suffix(".accelerate.json"))
        if machines := other_machines(self._settings, launch_file):
            what = "on the other %d machines, N from 1 on: %s -m %s --job %s"
            log.info(what, *machines, self.worker, job_file_of(job))
        worker = [self.worker, "--job", str(job_file_of(job))]
        start = ["--no_python", *children.forked_command(worker)] if self._may_fork(job) else ["-m", *worker]
        return [LAUNCHER, "--config_file", str(launch_file), *start]

    def _follow(self, child: TrainingChild, progress_file: Path) -> int:
        """The training's exit status."""
        news = read_news(progress_file)
        status = None
        while status is None:
            stopping.check()
            pausing.check()
            status = child.status_within(POLL_INTERVAL_S)
            for line in next(news):
                if "step" in line:
                    self._on_progress(line["step"], line["total"], line["loss"])
        return status

    def _let_it_save(self, child: TrainingChild, job: TrainingJob, places: Places) -> None:
        """Ask the child to stop after its step and wait for it; a launcher may be gone before its worker is."""
        until = time.monotonic() + self._stop_grace_s
        _stop_file(job).touch()
        while time.monotonic() < until and not stopping.broken_off():
            if child.status_within(POLL_INTERVAL_S) is not None:
                break
        while time.monotonic() < until and not stopping.broken_off():
            with contextlib.suppress(TrainingError), hold(places.work, POLL_INTERVAL_S):
                break

    # What this kind of training is

    def _may_fork(self, job: TrainingJob) -> bool:
        return may_fork(self._settings, job.model_path)

    def _amount(self, job: TrainingJob) -> int:
        """How much there is to train on."""
        return count_pairs(job)

    def _run_name(self, job: TrainingJob) -> str:
        return run_of(self._settings, job)

    def _wished_step(self) -> Step:
        return step_of(self._settings)

    def _smaller(self, step: Step) -> Step | None:
        return step.smaller(engine_of(self._settings), size_of_update(self._settings))

    def _job(self, job: TrainingJob, run: str, step: Step, resume_from: Path | None) -> dict[str, Any]:
        return worker_job(self._settings, job, run, step, resume_from)

    def _in_words(self, step: Step) -> str:
        return _in_words(engine_of(self._settings), step)

    def _notes(self, step: Step) -> tuple[str, ...]:
        return _notes(self._settings, step)


def _finished(job: TrainingJob, places: Places, run: str) -> Sealed | None:
    """What an earlier start of this very job brought to its end, if it did; anything else goes to quarantine."""
    if done := sealed_or_quarantined(job.output_dir, run, places.quarantine):
        return done
    if sealed_or_quarantined(places.partial, run, places.quarantine):
        return _trained(job, places, run)
    return None


def start_from(places: Places, run: str) -> Sealed | None:
    """The checkpoint to go on from, with everything half made out of the way."""
    clear_dropped(places.work)
    sealed_or_quarantined(places.partial, run, places.quarantine)
    try:
        open_sealed(places.data, run)
    except DataError:  # no loss: it is made from the pairs
        shutil.rmtree(places.data, ignore_errors=True)
    return newest_checkpoint(places.work, run, places.quarantine)


def _trained(job: TrainingJob, places: Places, run: str) -> Sealed:
    """Take over what the worker made, whole or not at all."""
    made = sealed_or_quarantined(places.partial, run, places.quarantine)
    lacking = missing_parts(places.partial) if made else ["its seal"]
    if made is None or lacking:
        raise TrainingError(
            f"training ended without a whole model: it lacks {', '.join(lacking)}", next_step=f"see {job.log_file}"
        )
    put_in_place(places.partial, job.output_dir)
    return Sealed(job.output_dir, made.facts)


def _notes(settings: Settings, step: Step) -> tuple[str, ...]:
    """What did not go as set, in words."""
    engine, wished, notes = engine_of(settings), step_of(settings), []
    if engine != settings.dpo_engine:
        losses = loss_of(settings).types
        batches = OF_A_BATCH & set(losses)
        why = f"{', '.join(losses)} compares the pairs of a batch" if batches else "DeepSpeed"
        notes.append(f"{why}: trained by stock TRL")
    if step.size < wished.size or step.most_tokens < wished.most_tokens:
        notes.append(
            f"memory did not suffice for {_in_words(engine, wished)}: trained with {_in_words(engine, step)}, "
            f"{size_of_update(settings) // step.size} steps an update"
        )
    return tuple(notes)


def _in_words(engine: str, step: Step) -> str:
    if engine == "stock":
        return f"{step.size} pairs a step (TRL_BATCH_SIZE)"
    return f"{step.size} questions a step (DPO_BATCH_QUESTIONS), {step.most_tokens} tokens a forward pass"


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


def job_file_of(job: TrainingJob) -> Path:
    return job.log_file.with_suffix(".job.json")


def _stop_file(job: TrainingJob) -> Path:
    return job.log_file.with_suffix(".stop")


def _failure(job: TrainingJob, status: int, progress_file: Path) -> Exception:
    """What went wrong: the worker's own last word where it had one, else the end of its log."""
    last_words = next(read_news(progress_file))
    errors = [line["error"] for line in last_words if "error" in line]
    if any(line.get("out_of_memory") for line in last_words):
        return OutOfMemory(next(line["error"] for line in last_words if line.get("out_of_memory")))
    if any("stopped" in line for line in last_words):
        return RunStopped(
            f"training of round {job.round} was told to stop; its checkpoint is kept",
            next_step="start the run again: it goes on where it stopped",
        )
    tail = children.log_tail(job.log_file)
    next_step = f"see {job.log_file}, then start the run again: it goes on where it stopped"
    if "SIGKILL" in tail or status == -signal.SIGKILL:
        # Of several processes the others then report a lost connection: not the cause.
        errors = []
        next_step = "it was killed, often for want of memory: lower DPO_MAX_TOKENS_PER_FORWARD or TRL_NUM_PROCESSES"
    elif errors and re.search(r"DataLoader worker .*(killed by signal|exited unexpectedly)", errors[0]):
        next_step = (
            "what computes beside the training was killed, often for want of memory: lower DPO_MAX_TOKENS_PER_FORWARD"
        )
    elif errors and "RAY_NODE_TIMEOUT" in errors[0]:
        next_step = "see `ray status`; add nodes, or raise RAY_NODE_TIMEOUT, then start the run again"
    elif "No module named" in tail:
        next_step = "pip install 'prosetting[train]'"
    elif errors and "as it was ordered" in errors[0]:
        next_step = "see that ACCELERATE_CONFIG_FILE and variables named ACCELERATE_… or FSDP_… order what settings do"
    elif errors and "Target modules" in errors[0]:
        next_step = "set TRL_LORA_TARGETS to layers that the model has, or to all-linear"
    elif errors and "TRL_MAX_LENGTH" in errors[0]:
        next_step = "raise TRL_MAX_LENGTH"
    elif errors and "DPO_ENGINE" in errors[0]:
        next_step = "set DPO_ENGINE=stock"
    elif errors and "not finite" in errors[0]:
        next_step = "lower TRL_LEARNING_RATE (of the Generator: GENERATOR_LEARNING_RATE)"
    elif errors and "No space left on device" in errors[0]:
        next_step = f"make room on the disk of {job.output_dir.parent}, then start the run again"
    what = errors[0] if errors else f"exit status {status}. Its last messages:\n{tail}"
    return TrainingError(f"training of round {job.round} failed: {what}", next_step=next_step)
