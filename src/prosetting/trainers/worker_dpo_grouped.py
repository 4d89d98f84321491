"""trl.DPOTrainer over questions instead of pairs: each distinct completion is computed once, each prompt once.

n attempts at a question, k of them correct, make k(n - k) pairs and 2k(n - k) sequences for stock TRL, of which only n
are distinct. Here the model computes those n, sharing their prompt, and the outputs are laid out as the pairs that TRL
expects: its own code then computes every loss and figure. An update is the mean over all of its pairs, whatever
questions they come from and however these are spread over steps and processes: stock TRL's update over the same pairs.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, fsdp2_prepare_model, gather_object, is_peft_model
from datasets import Dataset, concatenate_datasets
from datasets.fingerprint import Hasher
from torch.nn.utils.rnn import pad_sequence
from torch.utils._pytree import tree_map_only
from torch.utils.data import DataLoader
from transformers import PreTrainedModel, TrainerCallback
from trl import DPOConfig, DPOTrainer
from trl.trainer.utils import FusedCausalLMOutput, add_fused_lm_head

from prosetting.trainers.worker_dpo_attention import NAME as SHARED
from prosetting.trainers.worker_dpo_attention import take_parts
from prosetting.trainers.worker_dpo_layout import QuestionCollator

COLUMNS = ("rows", "starts", "chosen", "rejected")
REFERENCE = "ref_logps"
# What weighs a figure's mean, of (lines, chosen tokens, rejected tokens, pairs): a line that is no pair is a
# supervised row, whose two sides are one completion. Figures of log-probabilities and rewards are of pairs alone.
OF_LINES = torch.tensor([1.0, 0.0, 0.0, 0.0])
OF_PAIRS = torch.tensor([0.0, 0.0, 0.0, 1.0])
WEIGHTS = {
    "entropy": torch.tensor([0.0, 1.0, 1.0, 0.0]),
    "logits/chosen": torch.tensor([0.0, 1.0, 0.0, 0.0]),
    "mean_token_accuracy": torch.tensor([0.0, 1.0, 0.0, 0.0]),
    "logits/rejected": torch.tensor([0.0, 0.0, 1.0, 0.0]),
    **dict.fromkeys(("rewards/chosen", "rewards/rejected", "rewards/accuracies", "rewards/margins"), OF_PAIRS),
    **dict.fromkeys(("logps/chosen", "logps/rejected"), OF_PAIRS),
}
A_TOKEN = ("log_probs", "entropy", "log_sum_sq_probs", "mean_logits", "is_top1")


class GroupedDPOTrainer(DPOTrainer):
    """Trains on questions: datasets of `rows` (token ids), `starts`, `chosen` and `rejected` (indices into rows).

    `per_device_train_batch_size` counts questions; `most_tokens` bounds what is in one forward pass of the model.
    With `references`, so many processes beside this one collate the batches and compute the reference's
    log-probabilities of their pairs, each with a model of its own; else they are computed for all rows before.
    Raises ValueError for what depends on how pairs fall into batches, or on one pair of a completion's many.
    """

    loss_is_scaled_for_ga = True
    loss_weights: list[float]

    def __init__(
        self,
        model: PreTrainedModel,
        args: DPOConfig,
        *,
        most_tokens: int | None = None,
        references: int = 0,
        **kwargs: Any,
    ) -> None:
        _refuse(model, args)
        self._references = references
        share = _take_parts(model.get_base_model() if is_peft_model(model) else model)
        self._counts: dict[str, list[torch.Tensor]] = {"train": [], "eval": []}
        """Lines, chosen and rejected tokens, and pairs behind each figure that TRL notes: the weights of its mean."""
        self._reference: PreTrainedModel | None = None
        callbacks = [*kwargs.pop("callbacks", ()), _NoReferenceOfTrl(self)]
        collator: Callable[..., dict[str, Any]] = QuestionCollator(most_tokens, share)
        if references:
            args.dataloader_num_workers, args.dataloader_multiprocessing_context = references, "fork"
            collator = _WithReference(self, collator)
        super().__init__(model=model, args=args, data_collator=collator, callbacks=callbacks, **kwargs)
        self.is_fsdp_enabled = self.is_sharded
        self._reference = None

    def _prepare_dataset(self, dataset: Dataset, *_: Any) -> Dataset:
        return dataset

    def _set_signature_columns_if_needed(self) -> None:
        self._signature_columns = [*COLUMNS, REFERENCE]

    def _precompute_ref_logps(self, dataset: Dataset, name: str, batch_size: int) -> Dataset:
        """`dataset` with the reference's log-probability of each row, from the cache beside it where it is there; as it
        is where they are computed beside the training."""
        if self._references:
            return dataset
        fingerprint = [Hasher.hash((dataset._fingerprint, self._precompute_model_hash, REFERENCE))]
        broadcast_object_list(fingerprint, from_process=0)
        cache_file = dataset._get_cache_file_path(fingerprint[0])
        if not os.path.exists(cache_file):
            found = self._reference_of(dataset, batch_size)
            if self.accelerator.is_main_process:
                dataset.map(
                    lambda _, indices: {REFERENCE: [found[index] for index in indices]},
                    with_indices=True,
                    batched=True,
                    remove_columns=dataset.column_names,
                    new_fingerprint=fingerprint[0],
                    cache_file_name=cache_file,
                )
            self.accelerator.wait_for_everyone()
        return concatenate_datasets([dataset, Dataset.from_file(cache_file)], axis=1)

    def _reference_of(self, dataset: Dataset, batch_size: int) -> dict[int, list[float]]:
        """The log-probabilities of the rows of each question, each process having computed its share of questions."""
        world, rank = self.accelerator.num_processes, self.accelerator.process_index
        share = -(-len(dataset) // world)
        mine = [(rank * share + at) % len(dataset) for at in range(share)]  # as many on each process
        loader = DataLoader(dataset.select(mine), batch_size=batch_size, collate_fn=self.data_collator)
        model = self._shared_reference() if self.is_sharded else self.model
        logps: list[list[float]] = []
        for batch in loader:
            inputs = self._prepare_inputs(batch)
            of_question = self._logps_of_rows(model, inputs).cpu().split(inputs["rows_a_question"].tolist())
            logps += [question.tolist() for question in of_question]
        return dict(gather_object(list(zip(mine, logps, strict=True))))

    def _logps_of_rows(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        """(rows,) log-probabilities of the completions of a batch."""
        lengths, device = inputs["lengths"], self.accelerator.device
        once = self._once(model, inputs, torch.arange(len(lengths), device=device))
        mask = torch.ones(len(lengths), 1 + max(lengths), dtype=torch.long, device=device)
        return torch.cat(self.compute_ref_log_probs(once, {"input_ids": mask, "completion_mask": mask}))

    def _shared_reference(self) -> PreTrainedModel:
        """The model at the round's start, shared by the processes layer by layer; the policy is whole until `train`."""
        if self._reference is None:
            reference = self._another_reference(_take_parts)
            self._reference = fsdp2_prepare_model(self.accelerator, reference).eval()
        return self._reference

    def _another_reference(self, take_parts: Callable[[PreTrainedModel], bool]) -> PreTrainedModel:
        """The model at the round's start, loaded once more."""
        policy = self.model.get_base_model() if is_peft_model(self.model) else self.model
        found = type(policy).from_pretrained(policy.name_or_path, dtype=policy.dtype, use_safetensors=True)
        take_parts(found)
        add_fused_lm_head(found)
        return found

    def with_reference(self, batch: dict[str, Any]) -> dict[str, Any]:
        """`batch` with the reference's log-probabilities of its pairs, by a model that this process loads for it."""
        if self._reference is None:
            self._reference = self._another_reference(take_parts).eval()
        logps = self._logps_of_rows(self._reference, batch)
        chosen, rejected = batch["lines"].chunk(2)
        return batch | {"ref_chosen_logps": logps[chosen], "ref_rejected_logps": logps[rejected]}

    def _as_many_parts(self, parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """`parts` and, where another process has more, repeats that score nothing: each pass gathers shared layers."""
        most = torch.tensor(len(parts), device=self.accelerator.device)
        torch.distributed.all_reduce(most, torch.distributed.ReduceOp.MAX)
        shortest = min(parts, key=lambda part: part["inputs"]["input_ids"].numel())
        return parts + [{**shortest, "scored": shortest["scored"][:0]}] * (int(most) - len(parts))

    def _once(self, model: Any, inputs: dict[str, Any], lines: torch.Tensor) -> Callable[..., FusedCausalLMOutput]:
        """A model in TRL's eyes that computes each row once and repeats its outputs as `lines` says."""

        def forward(**_: Any) -> FusedCausalLMOutput:
            parts = self._as_many_parts(inputs["parts"]) if self.is_sharded else inputs["parts"]
            output = model(parts=parts, shift_labels=inputs["targets"], fused_lm_head=True, use_cache=False)
            fields = {}
            for name in A_TOKEN:
                if (tokens := output.get(name)) is not None:
                    rows = pad_sequence(tokens[0].split(inputs["lengths"]), batch_first=True)
                    fields[name] = rows.index_select(0, lines)
            return FusedCausalLMOutput(**fields)

        return forward

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> torch.Tensor | None:
        """Lines, chosen and rejected tokens, and pairs (4,) of an update, over its steps and processes."""
        if not batch_samples:
            return None
        counts = torch.stack([_counts(batch) for batch in batch_samples]).sum(dim=0).to(device)
        return self.accelerator.reduce(counts.float(), "sum")

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """TRL's mean over the pairs of these questions, scaled to their share of the update; processes are averaged.

        The sft loss is a mean over tokens: its share is one of the update's chosen tokens.
        """
        if num_items_in_batch is None:
            return super().compute_loss(model, inputs, return_outputs)
        counts = _counts(inputs).to(num_items_in_batch)
        of_pairs, of_tokens, *_ = (counts / num_items_in_batch * self.accelerator.num_processes).tolist()
        weights = self.loss_weights
        named = zip(self.loss_types, weights, strict=True)
        self.loss_weights = [weight * of_tokens / of_pairs if name == "sft" else weight for name, weight in named]
        try:
            return super().compute_loss(model, inputs, return_outputs) * of_pairs
        finally:
            self.loss_weights = weights

    def _compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool) -> torch.Tensor:
        mode = "train" if self.model.training else "eval"
        chosen, rejected = inputs["lines"].chunk(2)
        with _of_this_process(self.accelerator, pairs=chosen != rejected):
            loss = super()._compute_loss(self._once(model, inputs, inputs["lines"]), inputs, return_outputs)
        self._counts[mode].append(_counts(inputs).double())
        if mode == "eval":
            self._metrics[mode]["loss"].append(loss.item())
        return loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """TRL's figures of all processes: means over the pairs, or tokens, since the last time; `eval_loss` too."""
        mode = "train" if self.model.training else "eval"
        if self._counts[mode]:
            figures = self._metrics[mode]
            names = sorted(figures.keys() - {"num_tokens"})
            counts = torch.stack(self._counts[mode])
            weights = torch.stack([counts @ WEIGHTS.get(name, OF_LINES).to(counts) for name in names])
            values = torch.tensor([figures[name] for name in names]).to(weights)
            tokens = torch.tensor([self._total_train_tokens]).to(weights)
            told = torch.cat([(values * weights).sum(dim=1), weights.sum(dim=1), tokens])
            *sums, tokens_seen = self.accelerator.reduce(told, "sum").tolist()
            totals = sums[len(names) :]
            for name, value, total in zip(names, sums, totals, strict=False):
                figures[name] = [value / total if total else math.nan]
            figures["num_tokens"] = [tokens_seen]
            self._counts[mode].clear()
        super().log(logs, start_time)


class _WithReference:
    """Collates questions, and adds the reference's log-probabilities of their pairs, in a process beside the trainer's.

    A fork of it: what is here is as it was when the pass over the data began, but for the reference, loaded anew.
    """

    def __init__(self, trainer: GroupedDPOTrainer, collate: Callable[..., dict[str, Any]]) -> None:
        self._trainer = trainer
        self._collate = collate
        self._has_begun = False

    def __call__(self, questions: list[dict[str, Any]]) -> dict[str, Any]:
        if not self._has_begun:
            self._has_begun = True
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the trainer's to answer, which saves a checkpoint first
        return _Sent(self._trainer.with_reference(self._collate(questions)))


class _Sent(dict[str, Any]):
    """A batch that goes to another process as bytes: torch would send each tensor as a shared file of its own."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _received, (tree_map_only(torch.Tensor, torch.Tensor.numpy, dict(self)),)


def _received(arrays: dict[str, Any]) -> dict[str, Any]:
    return tree_map_only(np.ndarray, torch.from_numpy, arrays)


class _NoReferenceOfTrl(TrainerCallback):
    """Hides FSDP from trl while it is made: it would load a whole reference on each process, and share it as one layer.

    `on_init_end` comes after transformers has placed the model and before trl sees to the reference.
    """

    def __init__(self, trainer: GroupedDPOTrainer) -> None:
        self._trainer = trainer

    def on_init_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._trainer.is_sharded = self._trainer.is_fsdp_enabled
        self._trainer.is_fsdp_enabled = False


def _take_parts(model: PreTrainedModel) -> bool:
    """`take_parts`, decided by the first process: under FSDP the others have no weights yet to try it with."""
    share = take_parts(model)
    decided = [share]
    broadcast_object_list(decided, from_process=0)
    if decided[0] != share:
        model.set_attn_implementation(SHARED if decided[0] else "sdpa")
    return bool(decided[0])


def _refuse(model: PreTrainedModel, args: DPOConfig) -> None:
    text = model.config.get_text_config()
    coefficient = args.router_aux_loss_coef
    coefficient = getattr(text, "router_aux_loss_coef", 0.0) if coefficient is None else coefficient
    experts = hasattr(text, "output_router_logits") and coefficient
    problems = {
        "aot and aot_unpaired compare the pairs of a batch": {"aot", "aot_unpaired"} & set(args.loss_type),
        "ld_alpha makes a log-probability depend on the other half of the pair": args.ld_alpha is not None,
        "a mixture of experts has a loss over all tokens of a batch": experts,
        "reference log-probabilities must be computed beforehand": not args.precompute_ref_log_probs,
        "truncation keeps the start": args.truncation_mode != "keep_start",
    }
    for problem, found in problems.items():
        if found:
            raise ValueError(f"not possible question by question: {problem}; DPO_ENGINE=stock trains it")


def _counts(batch: dict[str, Any]) -> torch.Tensor:
    """Lines, chosen and rejected tokens, and pairs (4,) of a batch."""
    chosen, rejected = batch["lines"].chunk(2)
    tokens_chosen, tokens_rejected = batch["completion_mask"][:, 1:].sum(dim=1).chunk(2)
    lines = torch.tensor(len(chosen), device=chosen.device)
    return torch.stack([lines, tokens_chosen.sum(), tokens_rejected.sum(), (chosen != rejected).sum()])


@contextlib.contextmanager
def _of_this_process(accelerator: Accelerator, pairs: torch.Tensor) -> Iterator[None]:
    """TRL gathers figures of equally many lines from each process; here they differ, and `log` adds them up instead.

    Of what TRL gathers line by line only those that are `pairs` (lines,) are given back: a supervised row would count
    as a pair of margin 0. Without any pair the figure's weight is 0, whatever it is.
    """
    accelerator.gather = lambda figures: figures[pairs] if pairs.any() else figures
    accelerator.gather_for_metrics = lambda figures: figures
    try:
        yield
    finally:
        del accelerator.gather, accelerator.gather_for_metrics
