"""What a training does beside training: it tells its steps, keeps checkpoints, and stops when asked to.

Part of the training child process.
"""

from __future__ import annotations

import json
import math
import signal
import threading
import time
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from prosetting.trainers.checkpoints import CHECKPOINTS_KEPT, drop_older, seal

PROGRESS_INTERVAL_S = 0.2
CHECKPOINTS_A_TRAINING = 4
CHECKPOINT_INTERVAL_S = 600.0
SAVING_SHARE = 0.04
"""Checkpoints take at most this share of the time, but for the first, whose cost is not known yet."""


class Progress(TrainerCallback):
    """Appends steps to the progress file, has the last step logged whatever the interval, and ends on a lost loss."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.loss: float | None = None
        self.told_at = 0.0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.loss = next((entry["loss"] for entry in reversed(state.log_history) if "loss" in entry), None)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        last = state.global_step >= state.max_steps
        control.should_log = control.should_log or last
        if state.is_world_process_zero and (last or time.monotonic() - self.told_at >= PROGRESS_INTERVAL_S):
            self.told_at = time.monotonic()
            append_line(self.file, {"step": state.global_step, "total": state.max_steps, "loss": self.loss})

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        self.loss = (logs or {}).get("loss", self.loss)
        if self.loss is not None and not math.isfinite(self.loss):
            raise ArithmeticError(f"the loss is not finite: it became {self.loss} at step {state.global_step}")


class StopWish:
    """Whether this training is to stop: by SIGTERM, or by a file, which reaches a worker behind any launcher."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._signalled = False
        if threading.current_thread() is threading.main_thread():  # on Ray it is not, and no signal comes
            signal.signal(signal.SIGTERM, self._on_signal)

    def _on_signal(self, *_: object) -> None:
        self._signalled = True

    def felt(self) -> bool:
        return self._signalled or self._file.exists()


class Checkpoints(TrainerCallback):
    """Has the trainer save itself now and then, and when it is to stop; seals what it saved and drops older ones.

    Every quarter of the training, after ten minutes at the latest, unless saving would take too much of the time.
    A checkpoint that is not asked for waits for a step that is logged: so a resumed training logs the same steps.
    """

    def __init__(self, folder: Path, run: str, stop: StopWish) -> None:
        self._folder = folder
        self._run = run
        self._stop = stop
        self._step = 0
        self._since = self._saving_since = time.monotonic()
        self._cost_s = 0.0
        self.stopped = False

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._step, self._since = state.global_step, time.monotonic()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        stop, due = agreed(args, self._stop.felt(), self._is_due(state))
        if state.global_step >= state.max_steps:
            return  # the model itself is saved next
        if stop:
            self.stopped = control.should_training_stop = control.should_log = control.should_save = True
        elif due and control.should_log:
            control.should_save = True
        self._saving_since = time.monotonic()

    def _is_due(self, state: TrainerState) -> bool:
        passed = time.monotonic() - self._since
        quarter = math.ceil(state.max_steps / CHECKPOINTS_A_TRAINING)
        wished = state.global_step - self._step >= quarter or passed >= CHECKPOINT_INTERVAL_S
        return wished and passed * SAVING_SHARE >= self._cost_s

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        all_here()  # each process has written its own random state
        if state.is_world_process_zero:
            saved = self._folder / f"checkpoint-{state.global_step}"
            # A pickle that nothing reads and that names this machine's paths.
            (saved / "training_args.bin").unlink(missing_ok=True)
            seal(saved, self._run, {"step": state.global_step, "batch_size": args.per_device_train_batch_size})
            drop_older(self._folder, CHECKPOINTS_KEPT)
        all_here()  # none leaves while the first still seals
        self._step, self._since = state.global_step, time.monotonic()
        self._cost_s = self._since - self._saving_since


def agreed(args: TrainingArguments, *wishes: bool) -> list[bool]:
    """What any process wishes, known to all: they must save and stop at the same step."""
    if not torch.distributed.is_initialized():
        return list(wishes)
    votes = torch.tensor(wishes, dtype=torch.int32, device=args.device)
    torch.distributed.all_reduce(votes, torch.distributed.ReduceOp.MAX)
    return [bool(vote) for vote in votes.tolist()]


def all_here() -> None:
    if torch.distributed.is_initialized():
        torch.distributed.barrier()


def append_line(file: Path, message: dict[str, Any]) -> None:
    with file.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(message) + "\n")
