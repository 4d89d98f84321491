"""What a training trains on, as its engine wants it: pairs for stock TRL, questions for the grouped engine.

Part of the training child process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
from transformers import PreTrainedTokenizerBase
from trl import DPOConfig
from trl.data_utils import common_prefix_length

COLUMNS = ["prompt", "chosen", "rejected"]
QUESTION_COLUMNS = ["prompt", "completions", "chosen", "rejected"]
INTEGERS = pa.list_(pa.int32())
ROWS_SCHEMA = pa.schema(
    [("rows", pa.list_(INTEGERS)), ("starts", INTEGERS), ("chosen", INTEGERS), ("rejected", INTEGERS)]
)
QUESTIONS_A_BATCH = 1000
TEXTS_A_CALL = 64

Text = TypeVar("Text")


def read_pairs(files: list[str], tokenizer: PreTrainedTokenizerBase, max_length: int) -> datasets.Dataset:
    """Pairs of parquet files in their order, less those whose prompt alone fills `max_length`.

    As conversations where the tokenizer has a chat template, as plain strings where it has none.
    """
    schema = pa.schema([(name, pa.large_string()) for name in COLUMNS])
    tables = [pq.read_table(file, columns=COLUMNS).cast(schema) for file in files]
    pairs = datasets.Dataset(pa.concat_tables(tables) if tables else schema.empty_table())

    @cache
    def fits(prompt: str) -> bool:
        return len(prompts_ids([prompt], tokenizer)[0]) < max_length

    fitting = [index for index, prompt in enumerate(pairs["prompt"]) if fits(prompt)]
    if len(fitting) < len(pairs):
        pairs = pairs.select(fitting)
    if tokenizer.chat_template is None or not len(pairs):
        return pairs
    return pairs.map(
        lambda batch: {
            "prompt": [[_turn("user", text)] for text in batch["prompt"]],
            "chosen": [[_turn("assistant", text)] for text in batch["chosen"]],
            "rejected": [[_turn("assistant", text)] for text in batch["rejected"]],
        },
        batched=True,
    )


def read_questions(files: list[str], tokenizer: PreTrainedTokenizerBase, max_length: int) -> datasets.Dataset:
    """Questions of parquet files in their order as token rows, less those whose prompt alone fills `max_length`."""

    def tokenized(file: str) -> Iterator[pa.RecordBatch]:
        for batch in pq.ParquetFile(file).iter_batches(QUESTIONS_A_BATCH, columns=QUESTION_COLUMNS):
            rows = tokenize(batch.to_pylist(), tokenizer, max_length)
            yield pa.RecordBatch.from_pylist([row for row in rows if row], ROWS_SCHEMA)

    return datasets.Dataset(pa.Table.from_batches((batch for file in files for batch in tokenized(file)), ROWS_SCHEMA))


def tokenize(
    questions: Sequence[dict[str, Any]], tokenizer: PreTrainedTokenizerBase, max_length: int
) -> list[dict[str, list[Any]] | None]:
    """The distinct sequences of each question and its pairs, token for token those of TRL; None: too long a prompt.

    In TRL a completion starts where the tokens of the prompt and of either half of the pair part. Where that differs
    between the pairs of one completion (a tokenizer may merge across the border), it is a row for each start.
    """
    prompts = prompts_ids([question["prompt"] for question in questions], tokenizer)
    wholes = iter(wholes_ids([(each["prompt"], text) for each in questions for text in each["completions"]], tokenizer))
    return [
        _rows_of(question, prompt, list(islice(wholes, len(question["completions"]))), max_length)
        for question, prompt in zip(questions, prompts, strict=True)
    ]


def _rows_of(
    question: dict[str, Any], prompt: list[int], whole: list[list[int]], max_length: int
) -> dict[str, list[Any]] | None:
    if len(prompt) >= max_length:
        return None
    starts = [common_prefix_length(prompt, ids) for ids in whole]
    rows: dict[tuple[tuple[int, ...], int], int] = {}
    sides: dict[str, list[int]] = {"chosen": [], "rejected": []}
    for pair in zip(question["chosen"], question["rejected"], strict=True):
        start = min(starts[half] for half in pair)
        for side, half in zip(sides.values(), pair, strict=True):
            side.append(rows.setdefault((tuple(whole[half][:max_length]), start), len(rows)))
    return {"rows": [ids for ids, _ in rows], "starts": [start for _, start in rows], **sides}


def prompts_ids(prompts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    if tokenizer.chat_template is None:
        return _in_calls(prompts, lambda some: tokenizer(some)["input_ids"])
    chats = [[_turn("user", prompt)] for prompt in prompts]
    return _in_calls(chats, lambda some: _chats_ids(some, tokenizer, add_generation_prompt=True))


def wholes_ids(pairs: Sequence[tuple[str, str]], tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """Of prompts with completions; a chat template ends the completion itself, elsewhere TRL adds the end token."""
    if tokenizer.chat_template is not None:
        chats = [[_turn("user", prompt), _turn("assistant", text)] for prompt, text in pairs]
        return _in_calls(chats, lambda some: _chats_ids(some, tokenizer))
    end = tokenizer.eos_token
    texts = [prompt + text + ("" if text.endswith(end) else end) for prompt, text in pairs]
    return _in_calls(texts, lambda some: tokenizer(some)["input_ids"])


def _in_calls(texts: Sequence[Text], tokenized: Callable[[list[Text]], list[list[int]]]) -> list[list[int]]:
    """One call a text takes nearly twice as long; one for all would hold what the tokenizer notes of every token."""
    return [ids for at in range(0, len(texts), TEXTS_A_CALL) for ids in tokenized(list(texts[at : at + TEXTS_A_CALL]))]


def _chats_ids(chats: list[list[dict[str, str]]], tokenizer: PreTrainedTokenizerBase, **kwargs: Any) -> list[list[int]]:
    return list(tokenizer.apply_chat_template(chats, tokenize=True, return_dict=True, **kwargs)["input_ids"])


def _turn(role: str, text: str) -> dict[str, str]:
    return {"role": role, "content": text}


def prepare(job: dict[str, Any], args: DPOConfig, tokenizer: PreTrainedTokenizerBase) -> tuple[Any, Any]:
    """The training and validation sets, written once by the first process and read by all.

    From files, not from memory: the reference log-probabilities are kept beside them, for all processes.
    """
    read = read_questions if job["engine"] == "grouped" else read_pairs
    folders = [Path(job["data_dir"]) / name for name in ("train", "validation")]
    with args.main_process_first(local=False, desc="preparing the pairs"):  # of all machines: they share the folder
        if args.process_index == 0 and not folders[0].exists():
            for folder, key in zip(folders, ("train_files", "validation_files"), strict=True):
                if len(found := read(job[key], tokenizer, args.max_length)):
                    found.save_to_disk(folder)
    train, validation = (datasets.load_from_disk(folder) if folder.exists() else None for folder in folders)
    if train is None:
        raise ValueError(f"every prompt is longer than TRL_MAX_LENGTH={args.max_length} tokens")
    return train, validation


def pairs_in(dataset: datasets.Dataset | None) -> int:
    """Preference pairs, of either engine's dataset."""
    if dataset is None or "rows" not in dataset.column_names:
        return len(dataset or ())
    return sum(len(chosen) for chosen in dataset["chosen"])


def questions_in(dataset: datasets.Dataset | None) -> int:
    """Distinct questions, of either engine's dataset."""
    if dataset is None or "rows" in dataset.column_names:
        return len(dataset or ())
    return len({str(prompt) for prompt in dataset["prompt"]})
