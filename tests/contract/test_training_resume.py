"""A training that is killed goes on, and ends with the very weights of one that is not: real trl, real kills."""

from __future__ import annotations

import hashlib
import itertools
import os
import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_model import build_tiny_model
from training_jobs import a_job, settings
from training_zygote import KILLED, Zygote, zygote

from prosetting.config import Settings
from prosetting.errors import EXIT_STOPPED
from prosetting.trainers import checkpoints
from prosetting.trainers.base import TrainingJob
from prosetting.trainers.trl_job import Places, run_of, step_of, worker_job
from prosetting.trainers.trl_trainer import _finished, _trained, read_news, start_from

SEED = 20
STEPS = 20
SHORT_EPOCHS = {"dpo_batch_questions": 1, "trl_gradient_accumulation": 4, "trl_num_epochs": 2.0}


@pytest.fixture(scope="module")
def forks() -> Iterator[Zygote]:
    with zygote() as process:
        yield process


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("model"))


@dataclass
class Training:
    """One job, started as often as it takes, the way TrlTrainer starts it but without its launcher."""

    folder: Path
    model: Path
    forks: Zygote
    settings: Settings

    def __post_init__(self) -> None:
        self.folder.mkdir()
        self.job: TrainingJob = a_job(self.folder, self.model)
        self.job.log_file.parent.mkdir()
        self.places = Places.of(self.job)
        self.run = run_of(self.settings, self.job)

    def start(self, **kill: Any) -> int:
        """One start of the worker; what it left behind decides where it begins."""
        self.places.work.mkdir(exist_ok=True)
        assert self.finished() is None
        found = start_from(self.places, self.run)
        told = worker_job(self.settings, self.job, self.run, step_of(self.settings), found.folder if found else None)
        return self.forks.train(told | {"points_file": str(self.folder / "points")}, **kill)

    def finished(self) -> checkpoints.Sealed | None:
        return _finished(self.job, self.places, self.run)

    def points(self) -> list[str]:
        return (self.folder / "points").read_text().splitlines()

    def finish(self) -> dict[str, Any]:
        assert self.start() == 0
        return self.outcome(_trained(self.job, self.places, self.run))

    def outcome(self, done: checkpoints.Sealed) -> dict[str, Any]:
        """What must not depend on how often the training was interrupted."""
        metrics = {name: value for name, value in done.facts["metrics"].items() if not name.endswith("seconds")}
        weights = hashlib.sha256((done.folder / "model.safetensors").read_bytes()).hexdigest()
        return {**done.facts, "metrics": metrics, "weights": weights}

    def losses(self) -> dict[int, set[float]]:
        """All losses heard of each step, over all starts: `loss` of a line is the one of the step before."""
        heard: dict[int, set[float]] = {}
        for line in next(read_news(self.job.log_file.with_suffix(".progress.jsonl"))):
            if "step" in line and line["loss"] is not None:
                heard.setdefault(line["step"] - 1, set()).add(line["loss"])
        return heard

    def quarantined(self) -> list[str]:
        return sorted(path.name for path in self.places.quarantine.glob("*"))


@pytest.fixture(scope="module")
def whole(base: Path, forks: Zygote, tmp_path_factory: pytest.TempPathFactory) -> tuple[Training, dict[str, Any]]:
    training = Training(tmp_path_factory.mktemp("whole") / "run", base, forks, settings(**SHORT_EPOCHS))
    return training, training.finish()


@pytest.fixture
def training(base: Path, forks: Zygote, tmp_path: Path) -> Training:
    return Training(tmp_path / "run", base, forks, settings(**SHORT_EPOCHS))


def test_killed_mid_epoch_it_goes_on_step_by_step_with_the_same_losses(
    training: Training, whole: tuple[Training, dict[str, Any]]
) -> None:
    at = random.Random(SEED).randrange(STEPS // 4 + 2, STEPS)
    assert training.start(kill_at=at, matching=r"progress\.jsonl$") == KILLED
    assert training.finish() == whole[1]
    assert training.losses() == whole[0].losses()
    assert all(len(losses) == 1 for losses in training.losses().values())
    steps = [line["step"] for line in next(read_news(training.job.log_file.with_suffix(".progress.jsonl")))]
    resumed_at = next(after for before, after in itertools.pairwise(steps) if after <= before)
    assert resumed_at > 1


def test_adapters_go_on_too(base: Path, forks: Zygote, tmp_path: Path) -> None:
    wanted = settings(**SHORT_EPOCHS, trl_lora_rank=4)
    whole, killed = (Training(tmp_path / name, base, forks, wanted) for name in ("whole", "killed"))
    outcome = whole.finish()
    assert killed.start(kill_at=12, matching=r"progress\.jsonl$") == KILLED
    assert killed.finish() == outcome
    assert killed.losses() == whole.losses()


@pytest.mark.parametrize(
    ("point", "left"),
    [
        (r"open .*checkpoint-10/trainer_state.json", ["checkpoint-10-1"]),
        (r"os.rename .*checkpoint-10/\.complete", ["checkpoint-10-1"]),
        (r"os.rename .*checkpoint-5$", []),  # the older one is dropped
        (r"open .*model/tokenizer_config.json", ["model-1"]),
        (r"os.rename .*model/\.complete", ["model-1"]),
        (r"os.rename .*data/\.complete", []),
    ],
)
def test_killed_while_it_saves_it_uses_nothing_half_made(
    training: Training, whole: tuple[Training, dict[str, Any]], point: str, left: list[str]
) -> None:
    assert training.start(kill_at=1, matching=point) == KILLED
    assert training.finish() == whole[1]
    assert training.quarantined() == left


def kill_twice(training: Training, whole: dict[str, Any], first: int, again: int) -> None:
    """A kill may come when the model is whole already: then nothing is left to start."""
    assert training.start(kill_at=first) == KILLED
    for kill_at in (again, 0):
        if training.finished() is None:
            training.start(kill_at=kill_at)
    done = training.finished()
    assert done is not None
    assert training.outcome(done) == whole


@pytest.mark.parametrize("nth", range(3))
def test_killed_anywhere_and_again_while_it_resumes(
    training: Training, whole: tuple[Training, dict[str, Any]], nth: int
) -> None:
    points = len(whole[0].points())
    draw = random.Random(SEED + nth)
    kill_twice(training, whole[1], draw.randrange(1, points - 1), draw.randrange(1, points // 2))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_at_every_point_and_once_more(
    base: Path, forks: Zygote, tmp_path: Path, whole: tuple[Training, dict[str, Any]]
) -> None:
    points = len(whole[0].points())
    draw = random.Random(SEED)
    for point in range(1, points - 1):
        again = draw.randrange(1, points // 2)
        training = Training(tmp_path / str(point), base, forks, settings(**SHORT_EPOCHS))
        kill_twice(training, whole[1], point, again)
        shutil.rmtree(training.folder)


def test_told_to_stop_it_saves_after_its_step_and_goes_on_from_there(
    training: Training, whole: tuple[Training, dict[str, Any]]
) -> None:
    assert training.start(kill_at=8, matching=r"progress\.jsonl$", action="stop") == EXIT_STOPPED
    newest = checkpoints.newest_checkpoint(training.places.work, training.run, training.places.quarantine)
    assert newest is not None
    assert newest.facts["step"] == 8
    finished = training.finish()
    assert finished["weights"] == whole[1]["weights"]
    told = [name for name in whole[1]["metrics"] if name.startswith(("logps_before/", "logps_after/", "eval_"))]
    assert len(told) > 4
    assert {name: finished["metrics"][name] for name in told} == {name: whole[1]["metrics"][name] for name in told}


def test_a_damaged_checkpoint_goes_to_quarantine_and_the_one_before_it_serves(
    training: Training, whole: tuple[Training, dict[str, Any]]
) -> None:
    training.start(kill_at=12, matching=r"progress\.jsonl$")
    weights = training.places.work / "checkpoint-10" / "optimizer.pt"
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    assert training.finish() == whole[1]
    assert training.quarantined() == ["checkpoint-10-1"]


def test_checkpoints_hold_no_pickle_that_is_not_read_as_weights_only(training: Training) -> None:
    training.start(kill_at=7, matching=r"progress\.jsonl$")
    saved = training.places.work / "checkpoint-5"
    assert {file.name for file in saved.iterdir() if file.suffix in (".bin", ".pt", ".pth")} == {
        "optimizer.pt",
        "scheduler.pt",
        "rng_state.pth",
    }
    torch.load(saved / "optimizer.pt", weights_only=True)


def test_a_hostile_pickle_in_a_checkpoint_is_not_run(training: Training, tmp_path: Path) -> None:
    training.start(kill_at=7, matching=r"progress\.jsonl$")
    saved = training.places.work / "checkpoint-5"

    class Hostile:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "ran"),)

    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        torch.save(Hostile(), saved / name)
    checkpoints.seal(saved, training.run, {"step": 5, "batch_size": 1})
    assert training.start() == 1
    assert not (tmp_path / "ran").exists()
    assert "Weights only load failed" in training.job.log_file.with_suffix(".progress.jsonl").read_text()


def test_a_loss_that_is_lost_ends_the_training_and_names_the_step(base: Path, forks: Zygote, tmp_path: Path) -> None:
    training = Training(tmp_path / "run", base, forks, settings(**SHORT_EPOCHS, trl_learning_rate=1e30))
    assert training.start() == 1
    last = next(read_news(training.job.log_file.with_suffix(".progress.jsonl")))[-1]
    assert "the loss is not finite: it became nan at step" in last["error"]
    assert not training.places.partial.exists()
