"""A training step on questions, against stock TRL on the same pairs: CPU time, tokens and peak memory.

Both sides are real trainers on the same random model of 15 M parameters, float32, one thread, with reference
log-probabilities computed before. Stock TRL is timed on pairs sorted by length, its best; in the last cell also on
pairs as they come. Each figure is CPU seconds of a child process of its own; a cell's value is the time of stock at its
best over ours. `share_of_limit` is that ratio over the ratio of tokens both sides compute, padding included.

    python benchmarks/training_step.py [--quick]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WORDS = 8192
PAIRS_A_STEP = 16
EPOCHS = 3


@dataclass(frozen=True)
class Cell:
    """Questions of `attempts` distinct attempts, one for each number of right ones in `right`; lengths in tokens."""

    attempts: int
    right: tuple[int, ...]
    prompt: int
    completion: int
    bar: float


CELLS = {
    "n=8, k=1..7, 60/40": Cell(8, (1, 2, 3, 4, 5, 6, 7), 60, 40, 6.0),
    "n=8, k=1..7, 200/40": Cell(8, (1, 2, 3, 4, 5, 6, 7), 200, 40, 10.0),
    "n=8, k=1..7, 60/200": Cell(8, (1, 2, 3, 4, 5, 6, 7), 60, 200, 3.3),
    "n=16, k=8, 60/40": Cell(16, (8,), 60, 40, 12.0),
}
QUICK = {"n=4, k=2, 20/10": Cell(4, (2,), 20, 10, 1.0)}
MEMORY = Cell(8, (4, 4), 60, 40, 0.25)


def questions_of(cell: Cell) -> list[dict[str, Any]]:
    """Random words; completions are of half to one and a half times the length, the end token included."""
    draw = random.Random(0)

    def text(count: int) -> str:
        return " ".join(f"w{draw.randrange(WORDS - 2)}" for _ in range(count))

    questions = []
    for right in cell.right:
        lengths = [draw.randint(cell.completion // 2, cell.completion * 3 // 2) - 1 for _ in range(cell.attempts)]
        pairs = [(chosen, rejected) for chosen in range(right) for rejected in range(right, cell.attempts)]
        questions.append(
            {
                "prompt": text(cell.prompt),
                "completions": [f" {text(length)}" for length in lengths],
                "chosen": [chosen for chosen, _ in pairs],
                "rejected": [rejected for _, rejected in pairs],
            }
        )
    return questions


def pairs_of(question: dict[str, Any]) -> list[dict[str, str]]:
    completions = question["completions"]
    pairs = zip(question["chosen"], question["rejected"], strict=True)
    return [{"prompt": question["prompt"], "chosen": completions[a], "rejected": completions[b]} for a, b in pairs]


def tokenizer_of_words() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {"<pad>": 0, "<end>": 1} | {f"w{number}": number + 2 for number in range(WORDS - 2)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<end>")


def a_model() -> Any:
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=WORDS,
        hidden_size=384,
        intermediate_size=1152,
        num_hidden_layers=7,
        num_attention_heads=6,
        num_key_value_heads=2,
        head_dim=64,
        tie_word_embeddings=True,
        pad_token_id=0,
        eos_token_id=1,
    )
    return Qwen3ForCausalLM(config)


def measure(cell: Cell, side: str, folder: Path, one_step: bool) -> dict[str, Any]:
    """In a child: `side` is grouped, stock or sorted. CPU seconds of the reference pass, and of each epoch."""
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import DPOConfig, DPOTrainer

    from prosetting.trainers.worker_dpo_data import tokenize
    from prosetting.trainers.worker_dpo_grouped import GroupedDPOTrainer

    class Epochs(TrainerCallback):  # type: ignore[misc]
        def __init__(self) -> None:
            self.ends: list[float] = []

        def on_epoch_begin(self, *_: Any, **__: Any) -> None:
            self.ends.append(time.process_time())

        def on_epoch_end(self, *_: Any, **__: Any) -> None:
            self.ends[-1] = time.process_time() - self.ends[-1]

    model, tokenizer = a_model(), tokenizer_of_words()
    questions = questions_of(cell)
    pairs = [pair for question in questions for pair in pairs_of(question)]
    grouped = side == "grouped"
    size = len(questions) if one_step and grouped else len(pairs) if one_step else 2 if grouped else PAIRS_A_STEP
    args = DPOConfig(
        output_dir=str(folder),
        per_device_train_batch_size=size,
        num_train_epochs=EPOCHS if grouped and not one_step else 1,
        precompute_ref_log_probs=True,
        gradient_checkpointing=False,
        bf16=False,
        use_cpu=True,
        max_length=None if not grouped else 10_000,
        train_sampling_strategy="sequential",
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        logging_steps=1000,
    )
    random.Random(1).shuffle(pairs)
    if side == "sorted":
        pairs.sort(key=lambda pair: max(len(pair["chosen"].split()), len(pair["rejected"].split())))
    data = Dataset.from_list([row or {} for row in tokenize(questions, tokenizer, 10_000)] if grouped else pairs)
    epochs = Epochs()
    spent = [0.0]

    def timed(trainer_class: Any) -> Any:
        class Timed(trainer_class):  # type: ignore[misc]
            def _precompute_ref_logps(self, *arguments: Any) -> Any:
                began = time.process_time()
                try:
                    return super()._precompute_ref_logps(*arguments)
                finally:
                    spent[0] = time.process_time() - began

        return Timed

    engine = timed(GroupedDPOTrainer if grouped else DPOTrainer)
    trainer = engine(model=model, args=args, train_dataset=data, processing_class=tokenizer, callbacks=[epochs])
    before = memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak from here on
    trainer.train()
    rows = [trainer.train_dataset[at : at + size] for at in range(0, len(trainer.train_dataset), size)]
    batches = [trainer.data_collator(Dataset.from_dict(batch).to_list()) for batch in rows]
    return {
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "pairs": len(pairs),
        "epochs_s": epochs.ends,
        "reference_s": spent[0],
        "tokens": sum(map(tokens_of, batches)),
        "peak_mb": round(memory("VmHWM") - before),
    }


def tokens_of(batch: dict[str, Any]) -> int:
    if "parts" in batch:
        return sum(part["inputs"]["input_ids"].numel() for part in batch["parts"])
    return int(batch["input_ids"].numel())


def memory(field: str) -> float:
    """MB of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def child(cell: Cell, side: str, one_step: bool = False) -> dict[str, Any]:
    """One measurement in a process of its own, on one thread."""
    with tempfile.TemporaryDirectory() as folder:
        told = json.dumps({"cell": vars(cell), "side": side, "folder": folder, "one_step": one_step})
        quiet = {"OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
        offline = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "TOKENIZERS_PARALLELISM": "false"}
        command = [sys.executable, __file__, "--child", told]
        run = subprocess.run(command, env=os.environ | quiet | offline, capture_output=True, text=True, check=False)
        if run.returncode:
            raise SystemExit(run.stderr)
        found: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
        return found


def figures_of(name: str, cell: Cell) -> dict[str, Any]:
    """One cell: ours, stock with its pairs sorted, ours again."""
    first, best, again = (child(cell, side) for side in ("grouped", "sorted", "grouped"))
    ours = first["epochs_s"] + again["epochs_s"]
    mine, theirs = statistics.median(ours), best["epochs_s"][0]
    reference = statistics.median([first["reference_s"], again["reference_s"]])
    limit = best["tokens"] / first["tokens"]
    figures = {
        "pairs": first["pairs"],
        "speedup": round(theirs / mine, 2),
        "spread": [round(theirs / max(ours), 2), round(theirs / min(ours), 2)],
        "bar": cell.bar,
        "reference_speedup": round(best["reference_s"] / reference, 2),
        "limit_in_tokens": round(limit, 2),
        "share_of_limit": round(theirs / mine / limit, 3),
        "parameters": first["parameters"],
    }
    print(name, json.dumps(figures), flush=True)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="a smoke test of seconds; its figures mean nothing")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        told = json.loads(asked.child)
        print(json.dumps(measure(Cell(**told["cell"]), told["side"], Path(told["folder"]), told["one_step"])))
        return
    cells = {name: figures_of(name, cell) for name, cell in (QUICK if asked.quick else CELLS).items()}
    last = list((QUICK if asked.quick else CELLS).items())[-1]
    unsorted = child(last[1], "stock")["epochs_s"][0] / child(last[1], "sorted")["epochs_s"][0]
    peaks = {side: child(MEMORY, side, one_step=True)["peak_mb"] for side in ("grouped", "sorted")}
    share = round(peaks["grouped"] / peaks["sorted"], 3)
    print(f"peak of one step on 32 pairs: {peaks['grouped']} MB, stock {peaks['sorted']} MB", flush=True)
    fast = all(cell["speedup"] >= cell["bar"] and cell["reference_speedup"] >= cell["bar"] for cell in cells.values())
    near = all(cell["share_of_limit"] >= 0.9 for cell in cells.values())
    worst = min(cells.values(), key=lambda cell: cell["speedup"] / cell["bar"])
    result = {
        "claim": "a training step on questions is several times faster than stock TRL on the same pairs",
        "value": worst["speedup"],
        "unit": "CPU time of stock TRL at its best over ours, in the cell nearest to its bar",
        "bar": worst["bar"],
        "holds": fast and near and share <= MEMORY.bar,
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}, one thread",
        "cells": cells,
        "stock_unsorted_over_sorted": round(unsorted, 2),
        "bar_share_of_limit": 0.9,
        "step_peak_mb": peaks,
        "memory_share": share,
        "bar_memory_share": MEMORY.bar,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
