"""Drawing attempts: our decoder against plain `generate`, in tokens a second of CPU time.

Both sides draw 8 attempts at each prompt from the same model in this process, one thread, tokenizing left out, at
temperature 1; the tokens up to the end token are counted. `generate` has `num_return_sequences=8`, prompts sorted by
length, and the best of several batch sizes; ours has the best of the same sizes. Runs alternate; the sizes are chosen
in a first pass that is not counted. Two models: the demo's solver, and 15 M random weights whose end token has a
probability of about 1 in MEAN_LENGTH at each step, so that answers are of very unequal lengths. That both draw from
the same distribution is checked by chi-square on middle tokens and by the mean length.

    python benchmarks/collection.py [--model FOLDER] [--only demo|random]

`--model` is the demo's solver if it is there already (`python -m prosetting.demo prepare`); otherwise it is made here.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedModel,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from prosetting.collectors.slot_decoder import SlotDecoder
from prosetting.collectors.token_draw import Row, Warp
from prosetting.demo.prepare import prepare
from prosetting.demo.questions import seed_pool
from prosetting.demo.recipe import Recipe

ATTEMPTS = 8
BAR = 2.0
MEAN_LENGTH = 40
END = 3
CELLS = 64  # of the chi-square test: tokens by their number, modulo this


@dataclass(frozen=True, slots=True)
class Task:
    """What is drawn: attempts at each prompt, of at most `room` tokens, in batches of one of `sizes`."""

    name: str
    model: PreTrainedModel
    prompts: list[tuple[int, ...]]
    end_id: int
    room: int
    sizes: tuple[int, ...]
    repeats: int


@dataclass(frozen=True, slots=True)
class Drawn:
    attempts: list[list[int]]
    cpu_s: float
    wall_s: float

    @property
    def tokens(self) -> int:
        return sum(map(len, self.attempts))


Side = Callable[[Task, int, int], list[list[int]]]


def ours(task: Task, size: int, seed: int) -> list[list[int]]:
    decoder = SlotDecoder(task.model, [task.end_id], size)
    for place, prompt in enumerate(task.prompts):
        for attempt in range(ATTEMPTS):
            key = place * ATTEMPTS + attempt
            decoder.add(Row(key, prompt, seed * 1_000_003 + key, task.room))
    found = []
    while decoder.busy:
        found += [token_ids for _, token_ids in decoder.step(Warp(1.0, 1.0))]
    return found


@torch.inference_mode()
def plain_generate(task: Task, size: int, seed: int) -> list[list[int]]:
    torch.manual_seed(seed)
    config = GenerationConfig(
        do_sample=True,
        max_new_tokens=task.room,
        top_k=0,
        num_return_sequences=ATTEMPTS,
        eos_token_id=task.end_id,
        pad_token_id=0,
    )
    found = []
    for start in range(0, len(task.prompts), size // ATTEMPTS):
        prompts = task.prompts[start : start + size // ATTEMPTS]
        longest = max(map(len, prompts))
        ids = torch.tensor([[*[0] * (longest - len(prompt)), *prompt] for prompt in prompts])
        mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
        sequences = task.model.generate(input_ids=ids, attention_mask=mask, generation_config=config)
        drawn = sequences[:, longest:].tolist()
        found += [row[: row.index(task.end_id) + 1] if task.end_id in row else row for row in drawn]
    return found


def measure(side: Side, task: Task, size: int, seed: int) -> Drawn:
    cpu, wall = time.process_time(), time.perf_counter()
    attempts = side(task, size, seed)
    return Drawn(attempts, time.process_time() - cpu, time.perf_counter() - wall)


def compare(task: Task) -> float:
    """Print both sides' tokens a second; the median ratio of CPU time a token."""
    sides: dict[str, Side] = {"ours": ours, "generate": plain_generate}
    sizes: dict[str, int] = {}
    for name, side in sides.items():
        speeds = {size: speed(measure(side, task, size, 0)) for size in task.sizes}
        sizes[name] = max(speeds, key=lambda size: speeds[size])
        told = ", ".join(f"{size}: {value:,.0f}" for size, value in speeds.items())
        print(f"{task.name:<8}{name:<10}tokens a CPU second by batch size  {told}")
    runs: dict[str, list[Drawn]] = {name: [] for name in sides}
    for repeat in range(1, task.repeats + 1):
        for name, side in sides.items():
            runs[name].append(measure(side, task, sizes[name], repeat))
    for name in sides:
        cpu = sorted(map(speed, runs[name]))
        wall = sorted(run.tokens / run.wall_s for run in runs[name])
        print(
            f"{task.name:<8}{name:<10}batch {sizes[name]:<6}CPU {statistics.median(cpu):9,.0f} tokens/s "
            f"[{cpu[0]:,.0f}, {cpu[-1]:,.0f}]   wall {statistics.median(wall):9,.0f} [{wall[0]:,.0f}, {wall[-1]:,.0f}]"
        )
    ratios = [speed(a) / speed(b) for a, b in zip(runs["ours"], runs["generate"], strict=True)]
    print(f"{task.name:<8}ratio {statistics.median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}]")
    check_same_distribution(*([tokens for run in runs[name] for tokens in run.attempts] for name in sides))
    return statistics.median(ratios)


def speed(run: Drawn) -> float:
    return run.tokens / run.cpu_s


def check_same_distribution(a: list[list[int]], b: list[list[int]]) -> None:
    """Fails when middle tokens (chi-square) or mean lengths differ by more than 4.5 standard deviations."""
    assert len(a) == len(b)
    middle_a, middle_b = (Counter(tokens[len(tokens) // 2] % CELLS for tokens in side) for side in (a, b))
    cells = [
        (middle_a[token], middle_b[token]) for token in middle_a | middle_b if middle_a[token] + middle_b[token] >= 10
    ]
    degrees = max(1, len(cells) - 1)
    statistic = sum((x - y) ** 2 / (x + y) for x, y in cells)
    lengths_a, lengths_b = ([float(len(tokens)) for tokens in side] for side in (a, b))
    error = math.sqrt((statistics.variance(lengths_a) + statistics.variance(lengths_b)) / len(a))
    apart = (statistics.mean(lengths_a) - statistics.mean(lengths_b)) / error
    print(
        f"{'':<8}middle tokens: chi-square {statistic:.1f} of {degrees} degrees; mean lengths {apart:+.1f} errors apart"
    )
    assert statistic < degrees + 4.5 * math.sqrt(2 * degrees), "middle tokens are of two distributions"
    assert abs(apart) < 4.5, "lengths are of two distributions"


def demo_task(folder: Path) -> Task:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    prompts = []
    for row in seed_pool(2, Recipe(seed_questions=240)):
        turns = [{"role": "user", "content": row["question"]}]
        text = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
        prompts.append(tuple(tokenizer(text, add_special_tokens=False)["input_ids"]))
    return Task("demo", model, sorted(prompts, key=len), tokenizer.eos_token_id, 48, (64, 128, 256, 512), 5)


def random_task() -> Task:
    torch.manual_seed(0)
    sizes = {"vocab_size": 8192, "hidden_size": 384, "intermediate_size": 1024, "num_hidden_layers": 7}
    heads = {"num_attention_heads": 6, "num_key_value_heads": 3, "head_dim": 64}
    model = Qwen3ForCausalLM(Qwen3Config(**sizes, **heads, max_position_embeddings=1024, tie_word_embeddings=True))
    model = model.eval()
    # Random weights give every token about the same probability: a row that adds log(vocabulary / MEAN_LENGTH) to
    # the end token's logit makes its probability about 1 / MEAN_LENGTH.
    bias = torch.zeros(8192)
    bias[END] = math.log(8192 / MEAN_LENGTH)
    model.lm_head.bias = torch.nn.Parameter(bias)
    generator = torch.Generator().manual_seed(1)
    lengths = torch.randint(32, 96, (16,), generator=generator).sort().values.tolist()
    prompts = [tuple(torch.randint(4, 8192, (length,), generator=generator).tolist()) for length in lengths]
    return Task("random", model.requires_grad_(False), prompts, END, 320, (8, 32, 64), 3)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path)
    parser.add_argument("--only", choices=("demo", "random"))
    arguments = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(1)
    ratios: dict[str, float] = {}
    if arguments.only != "random":
        with tempfile.TemporaryDirectory() as scratch:
            if arguments.model is None:
                prepare(Path(scratch), 1, workspace=Path(scratch) / "workspace")
            ratios["demo"] = round(compare(demo_task(arguments.model or Path(scratch) / "solver")), 2)
    if arguments.only != "demo":
        ratios["random"] = round(compare(random_task()), 2)
    result = {
        "claim": "attempts are drawn at least twice as fast as with generate at its best batch size",
        "value": ratios,
        "unit": "tokens a CPU second against generate, median ratio of alternating runs",
        "bar": dict.fromkeys(ratios, BAR),
        "holds": all(ratio >= BAR for ratio in ratios.values()),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
