"""Stage 4 with verl: PPO (Schulman et al. 2017, arXiv 1707.06347) or GRPO (Shao et al. 2024, arXiv 2402.03300).

verl runs in an environment of its own as a child process, with everything that Ray starts for it in one group. It
draws attempts itself and asks the run for their verdicts, so the run's cascade is served while it trains. Beside the
log `NAME.log` a training leaves `NAME.job.json` (what verl was told) and `NAME.progress.jsonl`; until the model
stands, verl's checkpoints are in MODEL.work, from where the same job goes on.

verl keeps fp32 weights and optimizer state in its checkpoints; its merger writes the model folder in bf16.
"""

from __future__ import annotations

import logging
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prosetting.config import Settings
from prosetting.core import children, stopping
from prosetting.core.artifacts import read_json, write_json
from prosetting.core.machine import this_machine
from prosetting.core.model_folder import missing_parts
from prosetting.core.orphans import end_processes_with
from prosetting.core.text import printable
from prosetting.errors import DataError, TrainingError
from prosetting.trainers.base import OpenRewards, RewardService, TrainingJob, TrainingResult
from prosetting.trainers.checkpoints import Sealed, hold, put_in_place, quarantine, seal, sealed_or_quarantined
from prosetting.trainers.trl_trainer import OnProgress, read_news
from prosetting.trainers.verl_environment import resolved_configuration, verl_python
from prosetting.trainers.verl_job import (
    LAUNCHER,
    Batches,
    Places,
    batches_of,
    count_questions,
    overrides,
    run_of,
    training_env,
)
from prosetting.trainers.worker_verl_reward import FAILURE_FILE, PORT, TOKEN

log = logging.getLogger("prosetting")
HeardStep = Callable[[int, float], None]

TRAINER, MERGER = "verl.trainer.main_ppo", "verl.model_merger"
POLL_INTERVAL_S = 0.2
GO_ON = "Start the run again: training goes on from its last checkpoint"
MARK = "PROSETTING_VERL_TRAINING"
"""In the environment of all that a training starts: Ray's processes do not all stay in the child's group."""
METRICS = {
    "reward": "critic/score/mean",
    "pg_loss": "actor/pg_loss",
    "vf_loss": "critic/vf_loss",
    "kl_loss": "actor/kl_loss",
    "entropy": "actor/entropy",
    "grad_norm": "actor/grad_norm",
    "response_length": "response_length/mean",
    "cut_off_share": "response_length/clip_ratio",
}
"""verl's figures of the last step that are kept, under our names."""
_LAST_ERROR = re.compile(r"(?:\w+\.)*(\w*(?:Error|Exception)): (.+)")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_ACTOR = re.compile(r"\(\w+ pid=\d+\)")
"""What Ray puts before each line of a process's output."""


class Watch:
    """Follows a training of verl: its steps, and whether every attempt of them had a verdict.

    `attempts_a_step` are asked about in each; `heard` gets step, total and loss.
    """

    def __init__(
        self, progress_file: Path, failure_file: Path, rewards: OpenRewards, attempts_a_step: int, heard: HeardStep
    ) -> None:
        for file in (progress_file, failure_file):
            file.unlink(missing_ok=True)
        self.steps = 0
        """Steps since this start; a resumed training has begun at a later one."""
        self.figures: dict[str, float | None] = {}
        """verl's own figures of the last step; None for what is no number."""
        self._news = read_news(progress_file)
        self._failure_file = failure_file
        self._rewards = rewards
        self._attempts_a_step = attempts_a_step
        self._heard = heard

    def look(self) -> None:
        """Raises StopRequested, what the rewards failed with, or TrainingError: then verl is to be ended."""
        stopping.check()
        if self._rewards.failure is not None:
            raise self._rewards.failure
        if self._failure_file.exists():
            first = self._failure_file.read_text(encoding="utf-8", errors="replace").partition("\n")[0]
            raise TrainingError(
                f"training was ended: verl got no verdict on an attempt: {printable(first)[:500]}", next_step=GO_ON
            )
        for line in next(self._news):
            self._hear(line["step"], line["data"])

    def _hear(self, step: int, figures: dict[str, float | None]) -> None:
        self.steps, self.figures = self.steps + 1, figures
        loss = figures.get("actor/pg_loss", 0.0)
        if loss is None or figures.get("actor/grad_norm", 0.0) is None:
            raise TrainingError(f"the loss of step {step} is not finite", next_step="lower VERL_LEARNING_RATE")
        # verl pads what a failed attempt leaves out of its group, and trains on: so what it asked for is counted.
        drawn, asked = self.steps * self._attempts_a_step, self._rewards.counts["attempts"]
        if asked < drawn:
            raise TrainingError(
                f"verl lost attempts: up to step {step} it drew {drawn}, and only {asked} were asked about",
                next_step="see the log for 'Error in _run_prompt', then start the run again",
            )
        self._heard(step, loss)


class VerlTrainer:
    """Trains one round on the GPUs of PHYSICAL_GRPO_GPU; `on_progress(step, total, loss)` hears each step.

    A training that is stopped goes on from its last checkpoint, which is written every VERL_SAVE_STEPS steps.
    """

    def __init__(self, settings: Settings, rewards: RewardService, *, on_progress: OnProgress | None = None) -> None:
        self._settings = settings
        self._rewards = rewards
        self._on_progress = on_progress or (lambda step, total, loss: None)

    def get_ready(self, job: TrainingJob) -> None:
        """verl loads what it needs when it trains."""

    def close(self) -> None:
        """Nothing waits between trainings."""

    def train(self, job: TrainingJob) -> TrainingResult:
        """Train from the model at `job.model_path`, which is the reference policy too.

        Afterwards `job.output_dir` holds the trained model whole, or nothing. Raises TrainingError when verl fails or
        loses attempts, and what the reward service fails with: there is no training without verdicts.
        """
        started = time.monotonic()
        questions = count_questions(job)
        batches = batches_of(self._settings, questions)
        run, places = run_of(self._settings, job), Places.of(job)
        with hold(places.work):
            done = sealed_or_quarantined(job.output_dir, run, places.quarantine)
            if done is None:
                begin(places, run)
                facts = self._train(job, places, batches)
                done = self._merge(job, places, run, facts | {"questions": questions})
        shutil.rmtree(places.work, ignore_errors=True)
        return TrainingResult(
            model_dir=job.output_dir,
            train_pairs=done.facts["questions"],
            validation_pairs=0,
            steps=done.facts["steps"],
            metrics=done.facts["metrics"],
            duration_seconds=time.monotonic() - started,
            batch_size_used=batches.questions,
            notes=(f"{self._settings.training_framework}, the model in bf16",),
        )

    def _train(self, job: TrainingJob, places: Places, batches: Batches) -> dict[str, Any]:
        """Until verl's last step is in its checkpoints; what it came to. A training that had come so far says so."""
        facts_file = places.work / "trained.json"
        if facts_file.exists():
            return dict(read_json(facts_file)["facts"])
        # Short: the names of Ray's sockets must fit into 107 characters.
        with tempfile.TemporaryDirectory(prefix="ps-ray-", dir="/tmp", ignore_cleanup_errors=True) as ray_dir:
            arguments = overrides(self._settings, job, batches, cpu_count=this_machine().cpu_count, ray_dir=ray_dir)
            configuration = resolved_configuration(self._settings, arguments)
            write_json(job.log_file.with_suffix(".job.json"), {"module": TRAINER, "arguments": arguments})
            with self._rewards.serving(job.round) as rewards:
                watch = self._watch(job, places, batches, rewards, configuration)
                self._run(job, places, rewards, arguments, watch)
                metrics = metrics_of(watch.figures, rewards.counts)
        if not (steps := latest_step(places)):
            raise TrainingError(f"training of round {job.round} ended without a step", next_step=f"see {job.log_file}")
        facts = {"steps": steps, "metrics": metrics}
        write_json(facts_file, {"facts": facts})
        return facts

    def _watch(
        self, job: TrainingJob, places: Places, batches: Batches, rewards: OpenRewards, configuration: dict[str, Any]
    ) -> Watch:
        """With the sizes as verl has them: VERL_OVERRIDES may have changed them."""
        group = int(configuration["data"]["train_batch_size"]) * int(configuration["actor_rollout_ref"]["rollout"]["n"])
        total = int(configuration["trainer"]["total_epochs"]) * batches.steps
        return Watch(
            job.log_file.with_suffix(".progress.jsonl"),
            places.work / "reward_failures",
            rewards,
            group,
            lambda step, loss: self._on_progress(step, total, loss),
        )

    def _run(self, job: TrainingJob, places: Places, rewards: OpenRewards, arguments: list[str], watch: Watch) -> None:
        if resumed := latest_step(places):
            log.info("training goes on from step %d", resumed)
        env = training_env(self._settings, job) | {
            PORT: str(rewards.port),
            TOKEN: rewards.token,
            FAILURE_FILE: str(places.work / "reward_failures"),
        }
        status = self._run_child([TRAINER, *arguments], job.log_file, env, watch.look)
        if status != 0:
            raise failure_of(job, status, cannot_go_on=bool(resumed) and not watch.steps)

    def _run_child(
        self, module_and_args: list[str], log_file: Path, env: dict[str, str], look: Callable[[], None]
    ) -> int:
        """Run a module in verl's environment to its end, with a `look` at it every POLL_INTERVAL_S; its exit status.

        Whatever comes, nothing that it started lives on.
        """
        mark = f"{log_file}:{time.time_ns()}"
        child = children.start_child(
            [str(LAUNCHER), "run", *module_and_args],
            log_file=log_file,
            extra_env=env | {MARK: mark},
            python=str(verl_python(self._settings)),
            python_options=(),
        )
        try:
            while _still_running(child):
                look()
            look()
        finally:
            children.end_child(child)
            end_processes_with(MARK, mark)
        return child.returncode

    def _merge(self, job: TrainingJob, places: Places, run: str, facts: dict[str, Any]) -> Sealed:
        """Make one Hugging Face folder of the last checkpoint's shards, and take it over whole."""
        shards = places.checkpoints / f"global_step_{facts['steps']}" / "actor"
        shutil.rmtree(places.partial, ignore_errors=True)
        arguments = ["merge", "--backend", "fsdp", "--local_dir", str(shards), "--target_dir", str(places.partial)]
        env = training_env(self._settings, job) | {"CUDA_VISIBLE_DEVICES": ""}
        status = self._run_child([MERGER, *arguments], job.log_file, env, stopping.check)
        lacking = missing_parts(places.partial)
        if status != 0 or lacking:
            tail = children.log_tail(job.log_file)
            raise TrainingError(
                f"the checkpoint {shards} could not be merged into a model"
                f" (exit status {status}, missing: {', '.join(lacking) or 'nothing'}). Its last messages:\n{tail}",
                next_step=f"see {job.log_file}, then start the run again: only the merging is done again",
            )
        seal(places.partial, run, facts)
        put_in_place(places.partial, job.output_dir)
        return Sealed(job.output_dir, facts)


def begin(places: Places, run: str) -> None:
    """Have `places.work` be this training's: what another one left in it goes to quarantine."""
    try:
        same = read_json(places.run_file)["run"] == run
    except (DataError, KeyError):
        same = False
    if not same:
        if places.checkpoints.exists():
            what = f"{places.checkpoints} is of another training (other weights, questions or settings)"
            quarantine(places.checkpoints, places.quarantine, what)
        (places.work / "trained.json").unlink(missing_ok=True)
        write_json(places.run_file, {"run": run})


def _still_running(child: subprocess.Popen[str]) -> bool:
    try:
        child.wait(timeout=POLL_INTERVAL_S)
    except subprocess.TimeoutExpired:
        return True
    return False


def latest_step(places: Places) -> int:
    """The step of verl's newest whole checkpoint, which it names last; 0 where there is none."""
    try:
        return int((places.checkpoints / "latest_checkpointed_iteration.txt").read_text())
    except (OSError, ValueError):
        return 0


def metrics_of(figures: dict[str, float | None], counts: dict[str, int]) -> dict[str, float]:
    """verl's figures that are kept, under our names, and what was graded."""
    kept = {ours: value for ours, theirs in METRICS.items() if (value := figures.get(theirs)) is not None}
    return {name: float(value) for name, value in kept.items()} | {
        f"graded_{name}": float(count) for name, count in counts.items()
    }


def failure_of(job: TrainingJob, status: int, *, cannot_go_on: bool) -> TrainingError:
    """What went wrong, in verl's own last words. `cannot_go_on`: before the first step after a checkpoint."""
    tail = _COLOUR.sub("", children.log_tail(job.log_file, 400))
    lines = [_ACTOR.sub("", line, count=1).strip() for line in tail.splitlines()]
    errors = [match for line in lines if (match := _LAST_ERROR.fullmatch(line)) and match[1] != "RayTaskError"]
    # That every attempt of a step failed is only the consequence of what each of them failed with.
    causes = [match for match in errors if "no materializable trajectories" not in match[2]] or errors
    what = f"{causes[-1][1]}: {causes[-1][2]}" if causes else ""
    text = "\n".join(lines)
    next_step = f"see {job.log_file}. {GO_ON}"
    if "OutOfMemoryError" in text or "out of memory" in text:
        next_step = "lower VERL_MAX_TOKENS_PER_GPU or VERL_GPU_MEMORY, or train on more GPUs"
    elif "ModuleNotFoundError" in text:
        next_step = "install it in the environment of VERL_PYTHON, or build that anew: make verl-env"
    elif "No space left on device" in text:
        next_step = f"make room on the disk of {job.output_dir.parent}, then start the run again"
    elif "dataloader is empty" in text:
        next_step = "raise VERL_MAX_PROMPT_LENGTH: too few questions fit it"
    elif cannot_go_on:
        next_step += f"; if it cannot read that, move {Places.of(job).checkpoints} away and it begins anew"
    if not what:
        what = f"exit status {status}. Its last messages:\n" + "\n".join(lines[-15:])
    return TrainingError(f"training of round {job.round} failed: {printable(what)[:2000]}", next_step=next_step)
