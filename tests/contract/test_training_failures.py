"""What a training does when it is interrupted, killed with its run, or short of memory: real launcher, real trl."""

from __future__ import annotations

import hashlib
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from processes import parent_of, until
from tiny_model import build_tiny_model
from training_jobs import a_job, a_question, settings, sums, write_dataset
from training_zygote import Zygote, zygote

from prosetting.core import pausing
from prosetting.core.machine import this_machine
from prosetting.errors import RunStopped, TrainingError
from prosetting.trainers import trl_trainer
from prosetting.trainers.base import TrainingJob, TrainingResult
from prosetting.trainers.checkpoints import Sealed, checkpoints, hold, newest_checkpoint
from prosetting.trainers.trl_job import Places, Step, run_of, worker_job
from prosetting.trainers.trl_trainer import TrlTrainer

MANY_STEPS: dict[str, Any] = {"dpo_batch_questions": 1, "trl_gradient_accumulation": 1}
"""With as many pairs as STEPS, in one epoch: with the reference beside the training where there are cores to spare."""
STEPS = 200


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="module")
def forks() -> Iterator[Zygote]:
    with zygote() as process:
        yield process


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("model"))


class ForkedTrainer(TrlTrainer):
    """Starts the worker as a fork that may allocate `memory_mb`, without a launcher; all else is the product's."""

    def __init__(self, forks: Zygote, *, memory_mb: int = 0, **changes: Any) -> None:
        super().__init__(settings(**changes))
        self._forks = forks
        self._memory_mb = memory_mb
        self.steps: list[Step] = []

    def _run(self, job: TrainingJob, places: Places, run: str, step: Step, checkpoint: Sealed | None) -> None:
        self.steps.append(step)
        told = worker_job(self._settings, job, run, step, checkpoint.folder if checkpoint else None)
        job.log_file.parent.mkdir(exist_ok=True)
        progress_file = job.log_file.with_suffix(".progress.jsonl")
        progress_file.unlink(missing_ok=True)
        points = {"points_file": str(job.log_file.with_suffix(".points"))}
        if status := self._forks.train(told | points, memory_mb=self._memory_mb):
            raise trl_trainer._failure(job, status, progress_file)


def new_job(folder: Path, model: Path, pairs: int = 40) -> TrainingJob:
    folder.mkdir()
    return a_job(
        folder, model, dataset_dirs=[write_dataset(folder / "round_3", sums(range(pairs)), sums(range(40, 43)))]
    )


def weights(result: TrainingResult) -> str:
    return hashlib.sha256((result.model_dir / "model.safetensors").read_bytes()).hexdigest()


def test_interrupted_it_saves_and_the_same_job_goes_on_to_the_same_weights(
    base: Path, forks: Zygote, tmp_path: Path
) -> None:
    job, before = new_job(tmp_path / "interrupted", base, STEPS), started_here()

    def interrupt(step: int, total: int, loss: float | None) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        TrlTrainer(settings(**MANY_STEPS), on_progress=interrupt, stop_grace_s=30).train(job)
    places, run = Places.of(job), run_of(settings(**MANY_STEPS), job)
    saved = newest_checkpoint(places.work, run, places.quarantine)
    assert saved is not None
    assert 0 < saved.facts["step"] < STEPS
    assert not places.quarantine.exists()
    heard: list[int] = []
    resumed = TrlTrainer(settings(**MANY_STEPS), on_progress=lambda step, *_: heard.append(step)).train(job)
    assert heard[0] > saved.facts["step"]
    assert resumed.steps == heard[-1] == STEPS
    assert started_here() == before  # nothing stays that nobody started ahead
    whole = ForkedTrainer(forks, **MANY_STEPS).train(new_job(tmp_path / "whole", base, STEPS))
    assert weights(resumed) == weights(whole)
    assert resumed.metrics == pytest.approx(whole.metrics)


@pytest.mark.slow
def test_asked_to_pause_it_saves_and_ends_to_be_gone_on_with(base: Path, tmp_path: Path) -> None:
    job = new_job(tmp_path / "paused", base, STEPS)
    trainer = TrlTrainer(settings(**MANY_STEPS), on_progress=lambda *_: pausing.wish(), stop_grace_s=30)
    with pausing.pausable(), pytest.raises(pausing.PauseRequested):
        trainer.train(job)
    saved = newest_checkpoint(Places.of(job).work, run_of(settings(**MANY_STEPS), job), Places.of(job).quarantine)
    assert saved is not None
    assert 0 < saved.facts["step"] < STEPS


def test_a_model_that_stands_whole_is_not_trained_again(base: Path, forks: Zygote, tmp_path: Path) -> None:
    job = new_job(tmp_path / "job", base)
    first = ForkedTrainer(forks).train(job)
    nothing = TrlTrainer(settings())  # whose launcher would leave its configuration beside the log
    again = nothing.train(job)
    assert (again.metrics, again.steps, weights(again)) == (first.metrics, first.steps, weights(first))
    assert not job.log_file.with_suffix(".accelerate.json").exists()
    places = Places.of(job)
    places.work.mkdir()
    job.output_dir.rename(places.partial)  # killed between the seal and the move
    assert weights(nothing.train(job)) == weights(first)
    assert not job.log_file.with_suffix(".accelerate.json").exists()


def test_a_half_model_and_one_of_other_pairs_go_to_quarantine(base: Path, forks: Zygote, tmp_path: Path) -> None:
    job = new_job(tmp_path / "job", base)
    first = weights(ForkedTrainer(forks).train(job))
    (job.output_dir / "model.safetensors").write_bytes(b"half")
    assert weights(ForkedTrainer(forks).train(job)) == first
    other = ForkedTrainer(forks, trl_beta=0.3).train(job)
    assert weights(other) != first
    assert {path.name for path in Places.of(job).quarantine.iterdir()} == {"checkpoint-1", "checkpoint-2"}


def lean(pairs: int) -> dict[str, Any]:
    change: dict[str, Any] = {"trl_gradient_accumulation": 1, "trl_loss_type": ("sigmoid",), "trl_loss_weights": (1.0,)}
    return change | {"dpo_engine": "stock", "trl_batch_size": pairs}


@pytest.mark.slow  # how much memory a step takes differs between machines
def test_out_of_memory_is_tried_again_with_smaller_steps_of_the_same_update(
    forks: Zygote, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    wide = build_tiny_model(tmp_path / "model", wide=16384)
    trainer = ForkedTrainer(forks, memory_mb=300, **lean(8))
    with caplog.at_level(logging.WARNING, "prosetting"):
        short = trainer.train(new_job(tmp_path / "short", wide, 16))
    assert [step.size for step in trainer.steps[:2]] == [8, 4]
    assert short.batch_size_used == trainer.steps[-1].size < 8
    assert f"trained with {short.batch_size_used} pairs a step" in short.notes[0]
    assert "ran out of memory with 8 pairs a step" in caplog.text
    ample = ForkedTrainer(forks, **lean(8)).train(new_job(tmp_path / "ample", wide, 16))
    assert (ample.batch_size_used, ample.notes, ample.steps) == (8, (), short.steps)
    assert short.metrics["train_loss"] == pytest.approx(ample.metrics["train_loss"], rel=1e-3)


@pytest.mark.slow
def test_out_of_memory_with_one_large_question_is_tried_again_in_parts_of_it(forks: Zygote, tmp_path: Path) -> None:
    wide = build_tiny_model(tmp_path / "model", wide=16384)
    right, wrong = ([f"{word}{n} {n * n} \\boxed{{{n}}}" for n in range(12)] for word in ("=", "-"))
    change = lean(1) | {"dpo_engine": "grouped", "dpo_batch_questions": 1, "dpo_max_tokens_per_forward": 4096}

    def job(name: str) -> TrainingJob:
        questions = [a_question(f"Max has {n} cards?", right, wrong) for n in range(2)]
        (tmp_path / name).mkdir()
        return a_job(tmp_path / name, wide, dataset_dirs=[write_dataset(tmp_path / name / "round_3", questions)])

    for memory_mb in range(320, 100, -20):  # how much a step takes differs between machines
        trainer = ForkedTrainer(forks, memory_mb=memory_mb, **change)
        short = trainer.train(job(f"short-{memory_mb}"))
        if short.notes:
            break
    assert [step.most_tokens for step in trainer.steps[:2]] == [4096, 1024]
    assert f"{trainer.steps[-1].most_tokens} tokens a forward pass" in short.notes[0]
    ample = ForkedTrainer(forks, **change).train(job("ample"))
    assert (ample.notes, ample.steps, ample.train_pairs) == ((), short.steps, 288)
    assert short.metrics["train_loss"] == pytest.approx(ample.metrics["train_loss"], rel=1e-3)


@pytest.mark.slow
def test_memory_that_never_suffices_is_a_failure_after_three_smaller_steps(forks: Zygote, tmp_path: Path) -> None:
    wide = build_tiny_model(tmp_path / "model", wide=16384)
    trainer = ForkedTrainer(forks, memory_mb=150, dpo_engine="stock", trl_batch_size=32, trl_gradient_accumulation=1)
    with pytest.raises(TrainingError, match="out of memory with 4 pairs a step"):
        trainer.train(new_job(tmp_path / "job", wide))
    assert [step.size for step in trainer.steps] == [32, 16, 8, 4]


RUN = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from test_training_failures import STEPS, TrlTrainer, new_job, settings
TrlTrainer(settings(**{changes!r})).train(new_job(Path({folder!r}), Path({model!r}), STEPS))
"""


def processes_of(job: TrainingJob) -> list[int]:
    """All processes whose command line names this job."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                line = (entry / "cmdline").read_bytes().decode(errors="replace")
            except OSError:
                continue
            if str(job.log_file.with_suffix(".job.json")) in line:
                found.append(int(entry.name))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_a_killed_run_leaves_no_trainer_and_the_next_one_goes_on(base: Path, tmp_path: Path, processes: int) -> None:
    changes = {**MANY_STEPS, "trl_num_processes": processes}
    folder = tmp_path / "killed"
    dirs = [folder / "round_3"]
    files = {"log_file": folder / "logs" / "trl_r3.log", "output_dir": folder / "checkpoint"}
    job = a_job(tmp_path, base, dataset_dirs=dirs, **files)
    script = RUN.format(tests=str(Path(__file__).parent), changes=changes, folder=str(folder), model=str(base))
    run = subprocess.Popen([sys.executable, "-c", script])
    places = Places.of(job)
    until(lambda: bool(checkpoints(places.work)))
    assert len(processes_of(job)) >= processes
    run.send_signal(signal.SIGKILL)
    run.wait()
    with hold(places.work):  # as the next run does
        pass
    until(lambda: not processes_of(job))
    assert (newest := checkpoints(places.work))
    heard: list[int] = []
    resumed = TrlTrainer(settings(**changes), on_progress=lambda step, *_: heard.append(step)).train(job)
    assert heard[0] > int(newest[-1].name.split("-")[1])
    whole = TrlTrainer(settings(**changes)).train(new_job(tmp_path / "whole", base, STEPS))
    assert weights(resumed) == weights(whole)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_sigterm_to_launcher_and_workers_saves_a_checkpoint_and_says_so(
    base: Path, tmp_path: Path, processes: int
) -> None:
    job = new_job(tmp_path / "job", base, STEPS)

    def end_all(step: int, total: int, loss: float | None) -> None:
        for number in processes_of(job):
            os.kill(number, signal.SIGTERM)

    with pytest.raises(RunStopped):
        TrlTrainer(settings(**MANY_STEPS, trl_num_processes=processes), on_progress=end_all, stop_grace_s=30).train(job)
    assert checkpoints(Places.of(job).work)
    until(lambda: not processes_of(job))


@pytest.mark.skipif(this_machine().cpu_count < 2, reason="nothing is computed beside the training")
def test_a_lost_process_beside_the_training_is_a_failure_that_says_what_to_do(base: Path, tmp_path: Path) -> None:
    job = new_job(tmp_path / "job", base, STEPS)

    def lose_it(step: int, total: int, loss: float | None) -> None:
        trainers = processes_of(job)
        for beside in [each for each in trainers if parent_of(parent_of(each)) in trainers]:
            os.kill(beside, signal.SIGKILL)

    with pytest.raises(TrainingError, match=r"killed by signal|exited unexpectedly") as failed:
        TrlTrainer(settings(**MANY_STEPS), on_progress=lose_it).train(job)
    assert "want of memory" in (failed.value.next_step or "")
    until(lambda: not processes_of(job))
    assert TrlTrainer(settings(**MANY_STEPS)).train(job).steps == STEPS


def started_here() -> set[int]:
    """Child processes of this one that run."""
    return {int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()}


def test_a_training_that_was_started_ahead_is_the_one_that_waits(base: Path, tmp_path: Path) -> None:
    before, at_work = started_here(), set[int]()
    trainer = TrlTrainer(settings(), on_progress=lambda *_: at_work.update(started_here() - before))
    job = new_job(tmp_path / "job", base)
    trainer.get_ready(job)
    waiting = started_here() - before
    assert len(waiting) == 1
    trainer.get_ready(job)
    trainer.train(job)
    assert at_work == waiting
    assert started_here() == before


@pytest.mark.parametrize("launcher_killed", [False, True])
def test_processes_that_wait_for_a_job_that_does_not_come_end(
    base: Path, tmp_path: Path, launcher_killed: bool
) -> None:
    before, trainer = started_here(), TrlTrainer(settings())
    trainer.get_ready(new_job(tmp_path / "job", base))
    (launcher,) = started_here() - before
    children_of = Path(f"/proc/{launcher}/task/{launcher}/children")
    until(lambda: bool(children_of.read_text().split()))
    worker = Path(f"/proc/{children_of.read_text().split()[0]}")
    if launcher_killed:
        os.kill(launcher, signal.SIGKILL)
    trainer.close()
    until(lambda: not worker.exists())
    assert started_here() == before
