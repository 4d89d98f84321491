"""The child process that trains the Generator: trl.SFTTrainer on weighted rows of prompt and completion.

Run by `accelerate launch`. What is learned is the completion alone, each row's by its weight; everything else is
trl's own. Weights, precision and checkpoints are as in `worker_dpo`.
"""

from __future__ import annotations

import gc

if __name__ == "__main__":
    gc.disable()  # until they are frozen: libraries are no garbage, and to look for some is a quarter of their loading

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import torch
from transformers import PreTrainedTokenizerBase
from trl import SFTConfig, SFTTrainer
from trl.data_utils import common_prefix_length

from prosetting.trainers.generator_job import read_rows
from prosetting.trainers.worker_dpo_callbacks import Checkpoints, Progress, StopWish
from prosetting.trainers.worker_dpo_data import prompts_ids, wholes_ids
from prosetting.trainers.worker_dpo_model import AsOrdered, adapters, begin, load, save, train_to_the_end
from prosetting.trainers.worker_process import main

NOT_LEARNED = -100
"""The label that the loss leaves out."""


@dataclass
class WithWeights:
    """Collates rows as trl does, and their weights."""

    collate: Callable[[list[dict[str, Any]]], dict[str, Any]]

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        return {**self.collate(rows), "weight": torch.tensor([row["weight"] for row in rows], dtype=torch.float32)}


class WeightedSFTTrainer(SFTTrainer):
    """Stock SFT but for each row's `weight`: the loss is Σ_i w_i Σ_t −log p(token it) / number of learned tokens.

    With all weights 1 that is stock TRL's own loss, which weighs all learned tokens of an update alike. The division,
    over processes and accumulated steps too, and all figures are TRL's.
    """

    data_collator: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.data_collator = WithWeights(self.data_collator)

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        if "weight" not in self._signature_columns:
            self._signature_columns.append("weight")

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        weight_B = inputs.pop("weight")

        def weighted(**kwargs: Any) -> Any:
            outputs = model(**kwargs)
            if outputs.get("log_probs") is not None:
                outputs.log_probs = outputs.log_probs * weight_B[:, None]
            return outputs

        return super().compute_loss(weighted, inputs, return_outputs, num_items_in_batch)


def train(job: dict[str, Any], stop: StopWish) -> bool:
    """Train and save; False when it stopped before, as it was asked to. As `worker_dpo.train`."""
    args = SFTConfig(output_dir=job["work_dir"], **job["sft"])
    tokenizer = begin(job, args)
    rows = tokenized(job["train_files"], tokenizer, args.max_length)
    if not len(rows):
        raise ValueError(f"every row is longer than TRL_MAX_LENGTH={args.max_length} tokens")
    checkpoints = Checkpoints(Path(job["work_dir"]), job["run"], stop)
    trainer = WeightedSFTTrainer(
        model=load(job),
        args=args,
        train_dataset=rows,
        processing_class=tokenizer,
        callbacks=[AsOrdered(job["order"]), Progress(Path(job["progress_file"])), checkpoints],
        **adapters(job),
    )
    steps = train_to_the_end(trainer, job, checkpoints, stop)
    if steps is None:
        return False
    metrics = figures(trainer.state.log_history) | {"processes": args.world_size}
    result = {
        "train_pairs": len(rows),
        "validation_pairs": 0,
        "steps": steps,
        "batch_size": args.per_device_train_batch_size,
        "most_tokens": 0,
        "metrics": {name: float(value) for name, value in metrics.items() if math.isfinite(value)},
    }
    save(trainer, job, result)
    return True


def tokenized(files: list[str], tokenizer: PreTrainedTokenizerBase, max_length: int) -> datasets.Dataset:
    """The rows of the Generator's training files as tokens, less those longer than `max_length`: a question that is
    cut off in the middle teaches to stop there."""
    rows = list(read_rows(Path(file) for file in files))
    prompts = prompts_ids([row.prompt for row in rows], tokenizer)
    wholes = wholes_ids([(row.prompt, row.completion) for row in rows], tokenizer)
    found = []
    for row, prompt, ids in zip(rows, prompts, wholes, strict=True):
        start = common_prefix_length(prompt, ids)
        if len(ids) <= max_length:
            labels = [NOT_LEARNED] * start + ids[start:]
            found.append({"input_ids": ids, "labels": labels, "weight": row.weight})
    return datasets.Dataset.from_list(found)


def figures(history: list[dict[str, float]]) -> dict[str, float]:
    """Loss and accuracy of the first and of the last logged steps, from the history that a checkpoint carries."""
    steps = [entry for entry in history if "loss" in entry]
    if not steps:
        return {}
    first, last = steps[0], steps[-1]
    names = ("loss", "grad_norm", "mean_token_accuracy", "entropy")
    return {"first_loss": first["loss"]} | {name: last[name] for name in names if name in last}


if __name__ == "__main__":
    main(train)
