"""Pairs a second of training on questions against stock TRL, on a GPU: Qwen3-shaped models with random weights, bf16.

Prompts of 200 tokens, completions of 500 to 1,500, 8 attempts with 4 right. Both sides train the same pairs with
gradient checkpointing, as real trainers. Without a GPU it says so; `--tiny` shows on a CPU that it works.

    python benchmarks/training_step_gpu.py [--tiny]
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import statistics
import tempfile
import time
from typing import Any

import torch
from datasets import Dataset
from training_step import pairs_of, tokenizer_of_words
from transformers import Qwen3Config, Qwen3ForCausalLM, TrainerCallback
from trl import DPOConfig, DPOTrainer

from prosetting.trainers.worker_dpo_data import tokenize
from prosetting.trainers.worker_dpo_grouped import GroupedDPOTrainer

BAR = 3.0
ATTEMPTS, RIGHT = 8, 4
WARM_STEPS, STEPS = 2, 6
PAIRS_A_STEP = 4
SHAPES = {
    "Qwen3-0.6B": {"hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28, "num_attention_heads": 16},
    "Qwen3-1.7B": {"hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 28, "num_attention_heads": 16},
}
TINY = {"tiny": {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}}


class Steps(TrainerCallback):  # type: ignore[misc]
    """Seconds of each step, from the end of the one before."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step_end(self, *_: Any, **__: Any) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.ends.append(time.perf_counter())


def questions(count: int, tiny: bool) -> list[dict[str, Any]]:
    draw = random.Random(0)
    prompt, shortest, longest = (10, 5, 20) if tiny else (200, 500, 1500)

    def text(words: int) -> str:
        return " ".join(f"w{draw.randrange(8000)}" for _ in range(words))

    pairs = [(chosen, rejected) for chosen in range(RIGHT) for rejected in range(RIGHT, ATTEMPTS)]
    return [
        {
            "prompt": text(prompt),
            "completions": [f" {text(draw.randint(shortest, longest) - 1)}" for _ in range(ATTEMPTS)],
            "chosen": [chosen for chosen, _ in pairs],
            "rejected": [rejected for _, rejected in pairs],
        }
        for _ in range(count)
    ]


def pairs_a_second(shape: dict[str, int], grouped: bool, tiny: bool) -> list[float]:
    """Of each step after the first ones: one question, or PAIRS_A_STEP pairs of stock TRL, sorted by length."""
    torch.manual_seed(0)
    config = Qwen3Config(**shape, num_key_value_heads=8 if not tiny else 1, head_dim=128 if not tiny else 16)
    config.vocab_size, config.tie_word_embeddings = (8192 if tiny else 151_936), True
    model = Qwen3ForCausalLM(config)
    tokenizer = tokenizer_of_words()
    asked = questions(WARM_STEPS + STEPS, tiny)
    if grouped:
        data = Dataset.from_list([row or {} for row in tokenize(asked, tokenizer, 4096)])
    else:
        pairs = [pair for question in asked for pair in pairs_of(question)]
        pairs.sort(key=lambda pair: max(len(pair["chosen"].split()), len(pair["rejected"].split())))
        steps = [pairs[at : at + PAIRS_A_STEP] for at in range(0, len(pairs), PAIRS_A_STEP)]
        random.Random(0).shuffle(steps)
        data = Dataset.from_list([pair for step in steps[: 4 * (WARM_STEPS + STEPS)] for pair in step])
    with tempfile.TemporaryDirectory() as folder:
        args = DPOConfig(
            output_dir=folder,
            per_device_train_batch_size=1 if grouped else PAIRS_A_STEP,
            num_train_epochs=1,
            precompute_ref_log_probs=True,
            bf16=not tiny,
            use_cpu=tiny,
            max_length=4096,
            train_sampling_strategy="sequential",
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
            logging_steps=1000,
        )
        told = Steps()
        engine = GroupedDPOTrainer if grouped else DPOTrainer
        engine(model=model, args=args, train_dataset=data, processing_class=tokenizer, callbacks=[told]).train()
    pairs_of_step = RIGHT * (ATTEMPTS - RIGHT) if grouped else PAIRS_A_STEP
    seconds = [after - before for before, after in zip(told.ends, told.ends[1:], strict=False)]
    return [pairs_of_step / taken for taken in seconds[WARM_STEPS - 1 :]]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--tiny", action="store_true", help="a tiny model on the CPU: shows that it works, no more")
    tiny = parser.parse_args().tiny
    device = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "no GPU"
    result: dict[str, Any] = {
        "claim": "training on questions makes three times the pairs a second of stock TRL on a GPU",
        "value": None,
        "unit": "pairs a second over those of stock TRL, the lower of both models",
        "bar": BAR,
        "holds": None,
        "machine": f"{device}, {platform.machine()}, Python {platform.python_version()}",
    }
    if device == "no GPU" and not tiny:
        print("no GPU was found; --tiny runs this on a CPU")
        print(json.dumps(result | {"reason": "no GPU was found"}))
        return
    models: dict[str, dict[str, Any]] = {}
    for name, shape in (TINY if tiny else SHAPES).items():
        ours, stock = (pairs_a_second(shape, grouped, tiny) for grouped in (True, False))
        medians = statistics.median(ours), statistics.median(stock)
        models[name] = {
            "ours": round(medians[0], 2),
            "stock": round(medians[1], 2),
            "ratio": round(medians[0] / medians[1], 2),
            "spread": [round(min(ours) / medians[1], 2), round(max(ours) / medians[1], 2)],
        }
        print(name, json.dumps(models[name]), flush=True)
    value = min(model["ratio"] for model in models.values())
    if tiny:
        result["reason"] = "a tiny model on a CPU decides nothing"
    else:
        result["holds"] = value >= BAR
    print(json.dumps(result | {"value": value, "models": models}))


if __name__ == "__main__":
    main()
