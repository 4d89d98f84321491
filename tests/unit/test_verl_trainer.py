"""The parent's side of a verl training: what it makes of verl's last words, of lost attempts, and of what it finds."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from prosetting.core.artifacts import read_json
from prosetting.errors import TeacherUnavailable, TrainingError
from prosetting.trainers.base import TrainingJob
from prosetting.trainers.verl_job import Places
from prosetting.trainers.verl_trainer import Watch, begin, failure_of, latest_step, metrics_of

# As Ray prints what its actors say; the end of real logs.
MISSING_PACKAGE = """\
ray.exceptions.RayTaskError(ModuleNotFoundError): \x1b[36mray::TaskRunnerV1.run()\x1b[39m (pid=12271, actor_id=d3c4)
    from cachetools import LRUCache
ModuleNotFoundError: No module named 'cachetools'

Set the environment variable HYDRA_FULL_ERROR=1 for a complete stack trace.
"""
EVERY_ATTEMPT_FAILED = """\
\x1b[36m(AgentLoopWorkerTQ pid=20945)\x1b[0m     raise ValueError(f"Tokenizer does not define required token {token!r}")
\x1b[36m(AgentLoopWorkerTQ pid=20945)\x1b[0m ValueError: Tokenizer does not define required token '<|im_end|>'
Error executing job with overrides: ['algorithm.adv_estimator=grpo']
RuntimeError: Sync replay buffer selected terminal groups with no materializable trajectories. Enable refilling.

Set the environment variable HYDRA_FULL_ERROR=1 for a complete stack trace.
"""
OUT_OF_MEMORY = """\
\x1b[36m(WorkerDict pid=7)\x1b[0m torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.
"""
NO_QUESTIONS = "AssertionError: Train dataloader is empty!\n"


@pytest.fixture
def job(tmp_path: Path) -> TrainingJob:
    return TrainingJob(
        round=3,
        model_path="Qwen/Qwen3-8B",
        dataset_dirs=(),
        output_dir=tmp_path / "checkpoints" / "merged_solver_r3",
        log_file=tmp_path / "verl_trainer.log",
        seed=1,
    )


@pytest.mark.parametrize(
    ("log", "what", "next_step"),
    [
        (MISSING_PACKAGE, "failed: ModuleNotFoundError: No module named 'cachetools'", "make verl-env"),
        (EVERY_ATTEMPT_FAILED, "ValueError: Tokenizer does not define required token '<|im_end|>'", "verl_trainer.log"),
        (OUT_OF_MEMORY, "OutOfMemoryError: CUDA out of memory", "VERL_MAX_TOKENS_PER_GPU"),
        (NO_QUESTIONS, "AssertionError: Train dataloader is empty!", "VERL_MAX_PROMPT_LENGTH"),
        ("then it was gone\n", "exit status -9. Its last messages:\nsome noise\nthen it was gone", "last checkpoint"),
    ],
)
def test_a_failure_is_told_in_verls_own_last_words(job: TrainingJob, log: str, what: str, next_step: str) -> None:
    job.log_file.write_text("(WorkerDict pid=1) some noise\n" + log, encoding="utf-8")
    error = failure_of(job, -9, cannot_go_on=False)
    assert error.what.startswith("training of round 3 failed: ")
    assert what in error.what
    assert next_step in error.next_step
    assert "\x1b" not in error.what


def test_a_checkpoint_that_cannot_be_gone_on_from_is_named(job: TrainingJob) -> None:
    job.log_file.write_text("RuntimeError: PytorchStreamReader failed reading zip archive\n")
    error = failure_of(job, 1, cannot_go_on=True)
    assert f"move {Places.of(job).checkpoints} away" in error.next_step


class Rewards:
    """As many attempts were asked about as is said, or the service has failed."""

    port, token = 1, ""

    def __init__(self, attempts: int = 0, failure: Exception | None = None) -> None:
        self.counts = {"attempts": attempts, "unknown": 1}
        self.failure = failure


def a_watch(folder: Path, rewards: Rewards) -> tuple[Watch, list[tuple[int, float]]]:
    heard: list[tuple[int, float]] = []
    return Watch(folder / "progress", folder / "failures", rewards, 8, lambda *step: heard.append(step)), heard


def write_steps(folder: Path, *steps: int, **figures: float | None) -> None:
    with (folder / "progress").open("a") as stream:
        for step in steps:
            stream.write(json.dumps({"step": step, "data": {"actor/pg_loss": 0.5, **figures}}) + "\n")


@pytest.mark.parametrize(("steps", "attempts"), [((1, 2, 3), 24), ((7,), 8), ((1, 2), 20)])
def test_every_attempt_of_the_steps_was_asked_about(tmp_path: Path, steps: tuple[int, ...], attempts: int) -> None:
    watch, heard = a_watch(tmp_path, Rewards(attempts))
    watch.look()
    write_steps(tmp_path, *steps)
    watch.look()
    assert heard == [(step, 0.5) for step in steps]
    assert watch.steps == len(steps)


def test_attempts_that_verl_lost_on_the_way_end_the_training(tmp_path: Path) -> None:
    watch, heard = a_watch(tmp_path, Rewards(15))
    write_steps(tmp_path, 5, 6)
    with pytest.raises(TrainingError, match="up to step 6 it drew 16, and only 15 were asked about"):
        watch.look()
    assert heard == [(5, 0.5)]


@pytest.mark.parametrize("figure", ["actor/pg_loss", "actor/grad_norm"])
def test_a_loss_that_is_no_number_ends_the_training(tmp_path: Path, figure: str) -> None:
    watch, _ = a_watch(tmp_path, Rewards(8))
    write_steps(tmp_path, 1, **{figure: None})
    with pytest.raises(TrainingError, match="the loss of step 1 is not finite") as ended:
        watch.look()
    assert ended.value.next_step == "lower VERL_LEARNING_RATE"


def test_what_the_rewards_fail_with_ends_the_training(tmp_path: Path) -> None:
    error = TeacherUnavailable("refused", next_step="start it")
    watch, _ = a_watch(tmp_path, Rewards(failure=error))
    with pytest.raises(TeacherUnavailable) as ended:
        watch.look()
    assert ended.value is error


def test_a_request_that_failed_in_verl_ends_the_training_which_verl_would_not(tmp_path: Path) -> None:
    (tmp_path / "failures").write_text("of an earlier start")
    watch, _ = a_watch(tmp_path, Rewards())
    watch.look()
    (tmp_path / "failures").write_text("ConnectionRefusedError: \x1b[31m[Errno 111]\nTimeoutError\n")
    with pytest.raises(TrainingError, match=r"no verdict on an attempt: ConnectionRefusedError: [^\x1b]*111\]\n"):
        watch.look()


def test_the_last_steps_figures_get_our_names() -> None:
    figures = {"critic/score/mean": 0.5, "actor/grad_norm": 1, "timing_s/gen": 3, "critic/vf_loss": None}
    assert metrics_of(figures, {"attempts": 8, "unknown": 1}) == {
        "reward": 0.5,
        "grad_norm": 1.0,
        "graded_attempts": 8.0,
        "graded_unknown": 1.0,
    }


def test_checkpoints_are_gone_on_from_by_the_same_training_only(
    job: TrainingJob, caplog: pytest.LogCaptureFixture
) -> None:
    places = Places.of(job)
    places.work.mkdir(parents=True)
    begin(places, "run one")
    places.checkpoints.mkdir()
    (places.checkpoints / "latest_checkpointed_iteration.txt").write_text("40")
    begin(places, "run one")
    assert latest_step(places) == 40
    with caplog.at_level(logging.WARNING, logger="prosetting"):
        begin(places, "run two")
    assert latest_step(places) == 0
    assert "of another training (other weights, questions or settings)" in caplog.text
    assert (places.quarantine / "verl-1" / "latest_checkpointed_iteration.txt").read_text() == "40"
    assert read_json(places.run_file)["run"] == "run two"
