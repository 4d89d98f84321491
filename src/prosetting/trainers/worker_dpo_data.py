"""The pairs of a training as trl wants them. Part of the training child process."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
from transformers import PreTrainedTokenizerBase
from trl import DPOConfig

COLUMNS = ["prompt", "chosen", "rejected"]


def read_pairs(files: list[str], tokenizer: PreTrainedTokenizerBase, max_length: int) -> datasets.Dataset:
    """Pairs of parquet files in their order, less those whose prompt alone fills `max_length`.

    As conversations where the tokenizer has a chat template, as plain strings where it has none.
    """
    schema = pa.schema([(name, pa.large_string()) for name in COLUMNS])
    tables = [pq.read_table(file, columns=COLUMNS).cast(schema) for file in files]
    pairs = datasets.Dataset(pa.concat_tables(tables) if tables else schema.empty_table())

    @cache
    def fits(prompt: str) -> bool:
        turns = _chat(prompt, tokenizer, "user")
        if isinstance(turns, str):
            return len(tokenizer(turns)["input_ids"]) < max_length
        text = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
        return len(tokenizer(text, add_special_tokens=False)["input_ids"]) < max_length

    fitting = [index for index, prompt in enumerate(pairs["prompt"]) if fits(prompt)]
    if len(fitting) < len(pairs):
        pairs = pairs.select(fitting)
    if tokenizer.chat_template is None or not len(pairs):
        return pairs
    return pairs.map(
        lambda batch: {
            "prompt": [_chat(text, tokenizer, "user") for text in batch["prompt"]],
            "chosen": [_chat(text, tokenizer, "assistant") for text in batch["chosen"]],
            "rejected": [_chat(text, tokenizer, "assistant") for text in batch["rejected"]],
        },
        batched=True,
    )


def _chat(text: str, tokenizer: PreTrainedTokenizerBase, role: str) -> str | list[dict[str, str]]:
    return text if tokenizer.chat_template is None else [{"role": role, "content": text}]


def prepare(job: dict[str, Any], args: DPOConfig, tokenizer: PreTrainedTokenizerBase) -> tuple[Any, Any]:
    """The training and validation sets, written once by the first process and read by all.

    From files, not from memory: TRL keeps the reference log-probabilities beside them, for all processes.
    """
    folders = [Path(job["data_dir"]) / name for name in ("train", "validation")]
    with args.main_process_first(desc="preparing the pairs"):
        if args.process_index == 0 and not folders[0].exists():
            for folder, key in zip(folders, ("train_files", "validation_files"), strict=True):
                if len(pairs := read_pairs(job[key], tokenizer, args.max_length)):
                    pairs.save_to_disk(folder)
    train, validation = (datasets.load_from_disk(folder) if folder.exists() else None for folder in folders)
    if train is None:
        raise ValueError(f"every prompt is longer than TRL_MAX_LENGTH={args.max_length} tokens")
    return train, validation
