"""The child process that trains one round: trl.DPOTrainer on the questions or pairs of a job file.

Run by `accelerate launch`.

Weights are float32 and, with bf16 or fp16, computed with under autocast, as TRL does by default: small updates
would be lost in a bf16 weight. A process holds weights, gradients and two AdamW moments, 16 bytes a parameter.
The reference policy is the model at the round's start, after a resume too: trl computes the reference
log-probabilities with the model that is loaded from there, and only then does the trainer load its checkpoint; or a
process beside this one computes them, with a model of its own.
A checkpoint's optimizer, schedule and random state are pickles: transformers reads them with `weights_only=True`.
"""

from __future__ import annotations

import gc

if __name__ == "__main__":
    gc.disable()  # until they are frozen: libraries are no garbage, and to look for some is a quarter of their loading

import math
import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch
from trl import DPOConfig, DPOTrainer

from prosetting.core.machine import usable_cores
from prosetting.trainers.checkpoints import SEAL, seal
from prosetting.trainers.worker_dpo_callbacks import Checkpoints, Progress, StopWish
from prosetting.trainers.worker_dpo_data import pairs_in, prepare, questions_in
from prosetting.trainers.worker_dpo_grouped import GroupedDPOTrainer
from prosetting.trainers.worker_dpo_model import AsOrdered, adapters, begin, load, save, train_to_the_end
from prosetting.trainers.worker_process import main

OF_THIS_START = ("_runtime", "_per_second", "_num_tokens")
"""Figures of trl that tell of the time since the last start, not of the training."""
MOST_CORES = 16
"""Of a processor on which the reference is computed beside the training."""
FEWEST_QUESTIONS, SAMPLED = 10, 16
"""Questions of a validation set below which log-probabilities before and after are those of training rows, so many."""


def train(job: dict[str, Any], stop: StopWish) -> bool:
    """Train, evaluate, save; False when it stopped before, as it was asked to. Only the first process writes.

    Works in each process of a group, whether this call makes the group or finds it initialised: any launcher will do
    that sets RANK, LOCAL_RANK, WORLD_SIZE and, for FSDP, the variables that `accelerate launch` makes of its
    configuration. Raises ValueError where that gives something else than `job["order"]`. Of `stop` only `felt()` is
    asked.
    """
    args = DPOConfig(output_dir=job["work_dir"], **job["dpo"])
    tokenizer = begin(job, args)
    train_set, validation_set = prepare(job, args, tokenizer)
    checkpoints = Checkpoints(Path(job["work_dir"]), job["run"], stop)
    engine = DPOTrainer
    if job["engine"] == "grouped":
        processes = beside(args, usable_cores())
        torch.set_num_threads(max(1, torch.get_num_threads() - processes))
        engine = partial(GroupedDPOTrainer, most_tokens=job["most_tokens"], references=processes)
    trainer = engine(
        model=load(job),
        args=args,
        train_dataset=train_set,
        eval_dataset=validation_set,
        processing_class=tokenizer,
        callbacks=[AsOrdered(job["order"]), Progress(Path(job["progress_file"])), checkpoints],
        **adapters(job),
    )
    if args.process_index == 0:
        keep_data(job)
    steps = train_to_the_end(trainer, job, checkpoints, stop)
    if steps is None:
        return False
    evaluated = trainer.evaluate() if validation_set is not None else {}
    metrics = logged_metrics(trainer.state.log_history, every=trainer.state.logging_steps)
    metrics |= {name: value for name, value in evaluated.items() if not name.endswith(OF_THIS_START)}
    metrics |= before_and_after(trainer, evaluated, questions_in(validation_set))
    metrics["processes"] = args.world_size
    result = {
        "train_pairs": pairs_in(train_set),
        "validation_pairs": pairs_in(validation_set),
        "steps": steps,
        "batch_size": args.per_device_train_batch_size,
        "most_tokens": job["most_tokens"],
        "metrics": {name: float(value) for name, value in metrics.items() if math.isfinite(value)},
    }
    save(trainer, job, result)
    return True


def beside(args: DPOConfig, cores: int) -> int:
    """Processes beside this one that compute the reference's log-probabilities while it trains; 0: they are computed
    before.

    On the cores of one processor, of which a training step leaves some idle: one in four, for it costs three of the
    reference's passes or more, and no more than make sense to hold a model each. Each epoch would compute them again.
    """
    spare = args.use_cpu and args.world_size == 1 and args.num_train_epochs <= 1 and sys.platform == "linux"
    return max(1, cores // 4) if spare and 1 < cores <= MOST_CORES else 0


def keep_data(job: dict[str, Any]) -> None:
    """Seal the prepared pairs with the reference log-probabilities computed before: a resumed training has them."""
    folder = Path(job["data_dir"])
    if not (folder / SEAL).exists():
        seal(folder, job["run"], {})


def before_and_after(trainer: DPOTrainer, evaluated: dict[str, float], questions: int) -> dict[str, float]:
    """`logps_before/…` and `logps_after/…`: the mean log-probability of the same chosen, and rejected, attempts with
    the weights that the training started from and with those that it made.

    Of the validation set, as `evaluated`; where its `questions` are too few, of a sample of what was trained on. The
    steps that were logged would not do: the first and the last of them are a few questions each, and not the same.
    A reward is β times the difference from the reference, which is the model as it was before. Stock TRL's mean is one
    over batches, before and after alike.
    """
    if questions < FEWEST_QUESTIONS:
        trained_on = trainer.train_dataset
        most = min(SAMPLED, len(trained_on))
        # Not as an argument: trl would compute the reference of these rows again, by what is no reference any more.
        trainer.eval_dataset = trained_on.select([n * len(trained_on) // most for n in range(most)])
        evaluated = trainer.evaluate()
    after = {side: evaluated[f"eval_logps/{side}"] for side in ("chosen", "rejected")}
    drift = {side: evaluated[f"eval_rewards/{side}"] / trainer.beta for side in after}
    before = {f"logps_before/{side}": after[side] - drift[side] for side in after}
    return before | {f"logps_after/{side}": value for side, value in after.items()}


def logged_metrics(history: list[dict[str, float]], *, every: int) -> dict[str, float]:
    """TRL's figures of the last logged steps, the mean loss, and the largest gradient norm, of the steps that are
    logged `every` so often: the one at which a training was stopped is logged besides, and has no say.

    From the history, which a checkpoint carries; trl's own mean is of the steps since the last start only.
    """
    steps = [entry for entry in history if "rewards/margins" in entry and "loss" in entry]
    if not steps:
        return {}
    last = {name: value for name, value in steps[-1].items() if "/" in name or name in ("loss", "grad_norm")}
    ends = [0, *(entry["step"] for entry in steps)]
    total = sum(entry["loss"] * (end - start) for entry, start, end in zip(steps, ends, ends[1:], strict=False))
    regular = [entry for entry in steps if entry["step"] % every == 0 or entry["step"] in (1, ends[-1])]
    largest = {"grad_norm_max": max(entry["grad_norm"] for entry in regular)} if "grad_norm" in last else {}
    return {"train_loss": total / ends[-1], **last, **largest}


if __name__ == "__main__":
    main(train)
