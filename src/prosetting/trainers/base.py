"""What the run asks of a training engine, and nothing of the framework behind it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True)
class TrainingJob:
    """One round's training: the rounds' data in (docs/files.md), a plain Hugging Face model folder out."""

    round: int
    model_path: str
    dataset_dirs: Sequence[Path]
    """Folders with `train.parquet`, `validation.parquet` and the same pairs as `…_by_question.parquet`."""
    output_dir: Path
    """Where the trained model folder must stand afterwards, whole or not at all."""
    log_file: Path
    seed: int
    training_files: Sequence[Path] = ()
    """In the verl flow, instead of `dataset_dirs`: parquet files of questions in verl's columns (docs/verl.md)."""


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """What training came to; `metrics` are the trainer's own last figures (loss, rewards/margins, …).

    `notes` tells what did not go as set, for the log and the report; `batch_size_used` is what a step of one
    process holds: questions, or pairs with stock TRL.
    """

    model_dir: Path
    train_pairs: int
    validation_pairs: int
    steps: int
    metrics: dict[str, float]
    duration_seconds: float
    batch_size_used: int
    notes: tuple[str, ...] = ()


class Trainer(Protocol):
    """Trains in a child process, so that its memory is free when it ends."""

    def get_ready(self, job: TrainingJob) -> None:
        """Start what takes long to start and needs neither the pairs nor a GPU's memory. It may stay after `train`, for
        the next round: `close` comes in any case."""
        ...

    def train(self, job: TrainingJob) -> TrainingResult:
        """The same job again goes on from its last checkpoint, or gives the model that already stands.

        Raises TrainingError with the log's last lines when the child fails, RunStopped when it was told to stop,
        and `pausing.PauseRequested` when a pause is wished (`pausing.check`) and a checkpoint is kept. A trainer that
        cannot end in the middle may come to its end first.
        """
        ...

    def close(self) -> None:
        """End what `get_ready` started. Safe to call at any time, and twice."""
        ...


class OpenRewards(Protocol):
    """Where verdicts are to be had, on loopback: POST /verdict with the token. `counts` tells what was given so far.

    `failure` is why none are given any more: training must end then, and with that error.
    """

    port: int
    token: str

    @property
    def failure(self) -> Exception | None: ...

    @property
    def counts(self) -> dict[str, int]: ...


class RewardService(Protocol):
    """The run's grading cascade, for a trainer that draws attempts of its own."""

    def serving(self, round_: int) -> AbstractContextManager[OpenRewards]:
        """To be opened in a thread, while the run's event loop goes on."""
        ...
