"""Jobs of a second or two for the trainer: settings, a round's dataset folder and a job around a model folder."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from prosetting.config import Settings
from prosetting.trainers.base import TrainingJob

BETA = 0.5
BY_QUESTION = pa.schema(
    [
        ("question_id", pa.string()),
        ("round", pa.int32()),
        ("prompt", pa.string()),
        ("completions", pa.list_(pa.string())),
        ("attempts", pa.list_(pa.int32())),
        ("chosen", pa.list_(pa.int32())),
        ("rejected", pa.list_(pa.int32())),
    ]
)


def settings(**changes: Any) -> Settings:
    values: dict[str, Any] = {
        "solver_model_path": "unused",
        "physical_grpo_gpu": (),
        "trl_num_processes": 1,
        "trl_mixed_precision": "no",
        "trl_learning_rate": 5e-3,
        "dpo_batch_questions": 4,
        "trl_batch_size": 4,
        "trl_gradient_accumulation": 2,
        "trl_beta": BETA,
        "trl_loss_type": ("sigmoid", "sft"),
        "trl_loss_weights": (1.0, 5.0),
        "trl_max_length": 128,
    }
    return Settings(**values | changes)


def a_question(prompt: str, right: list[str], wrong: list[str]) -> dict[str, Any]:
    """All pairs of right and wrong completions, as a row of a `…_by_question.parquet`."""
    pairs = [(chosen, len(right) + rejected) for chosen in range(len(right)) for rejected in range(len(wrong))]
    return {
        "question_id": prompt,
        "round": 3,
        "prompt": prompt,
        "completions": right + wrong,
        "attempts": list(range(len(right) + len(wrong))),
        "chosen": [chosen for chosen, _ in pairs],
        "rejected": [rejected for _, rejected in pairs],
    }


def pairs_of(question: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of a question in a `train.parquet`."""
    completions = question["completions"]
    return [
        {"prompt": question["prompt"], "chosen": completions[chosen], "rejected": completions[rejected]}
        for chosen, rejected in zip(question["chosen"], question["rejected"], strict=True)
    ]


def write_dataset(folder: Path, train: Iterable[dict[str, Any]], validation: Iterable[dict[str, Any]] = ()) -> Path:
    """Both forms of both sides, as a round leaves them."""
    folder.mkdir()
    texts = pa.schema([(name, pa.string()) for name in ("prompt", "chosen", "rejected")])
    for side, questions in (("train", list(train)), ("validation", list(validation))):
        pairs = [pair for question in questions for pair in pairs_of(question)]
        pq.write_table(pa.Table.from_pylist(questions, BY_QUESTION), folder / f"{side}_by_question.parquet")
        pq.write_table(pa.Table.from_pylist(pairs, texts), folder / f"{side}.parquet")
    return folder


def sums(numbers: range, prompt: str = "Max has {} cards and buys 4 more?") -> list[dict[str, Any]]:
    """A question a number, with one pair."""
    return [
        a_question(prompt.format(n), [f"{n}+4={n + 4} \\boxed{{{n + 4}}}"], [f"{n}-4={n - 4} \\boxed{{{n - 4}}}"])
        for n in numbers
    ]


def a_job(folder: Path, model: Path, **changes: Any) -> TrainingJob:
    values: dict[str, Any] = {
        "round": 3,
        "model_path": str(model),
        "output_dir": folder / "checkpoint",
        "log_file": folder / "logs" / "trl_r3.log",
        "seed": 5,
    }
    if "dataset_dirs" not in changes:
        first = write_dataset(folder / "round_2", sums(range(24)), sums(range(40, 43)))
        values["dataset_dirs"] = [first, write_dataset(folder / "round_3", sums(range(24, 40)))]
    return TrainingJob(**values | changes)
