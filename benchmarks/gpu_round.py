"""One round on a GPU: sample, train, sample with the new weights, and see the GPU's memory given back in between.

A Qwen3 of about 0.4B parameters with random weights samples the demo's questions; a made-up verifier calls half of its
attempts right, so that there are pairs to train on. The GPU is read every 0.2 s through NVML from outside the run,
which takes turns on it. Without a GPU it says so; `--tiny` shows on a CPU that it works. Further settings are flags of
`prosetting run`, such as `--solver-engine vllm --solver-server-python /envs/vllm/bin/python`.

    python benchmarks/gpu_round.py [--tiny] [--gpu 0] [--keep FOLDER] [FLAGS]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from prosetting.core.artifacts import read_json
from prosetting.core.nvml import read_gpus
from prosetting.demo.prepare import prepare
from prosetting.demo.recipe import Recipe

BAR = 0.01
READ_S = 0.2
SHAPE = Recipe(
    layers=28,
    hidden=1024,
    heads=16,
    head_dim=64,
    mlp=3072,
    steps=1,
    batch=4,
    examples=64,
    seed_questions=64,
    heldout_questions=32,
)
TINY = Recipe(layers=2, steps=1, batch=4, examples=64, seed_questions=12, heldout_questions=8)
VERIFIER = '''import zlib


def verify(question: str, response: str, reference: str | None) -> bool:
    """Half of all texts, whatever they say: random weights are never right."""
    return zlib.crc32(response.encode("utf-8", "replace")) % 2 == 0
'''


class Watch:
    """The memory in use of one GPU over time, in bytes; nothing without one."""

    def __init__(self, index: int | None) -> None:
        self._index = index
        self.moments: list[tuple[float, int]] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)

    def used(self) -> int:
        return next((gpu.used_bytes for gpu in read_gpus() if gpu.index == self._index), 0)

    def __enter__(self) -> Watch:
        self.before = self.used()
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._over.set()
        self._thread.join()

    def _read(self) -> None:
        while not self._over.wait(READ_S):
            self.moments.append((time.time(), self.used()))

    def held_at(self, moment: float) -> int:
        """Beyond what was in use before, at the first reading from then on."""
        return max(0, next((used for at, used in self.moments if at >= moment), self.before) - self.before)

    def most_held(self, start: float, end: float) -> int:
        return max((used - self.before for at, used in self.moments if start <= at <= end), default=0)


def round_on(folder: Path, gpu: int | None, recipe: Recipe, more: list[str]) -> Path:
    """Run one training round in `folder/run`; its workspace. Exits when it fails."""
    env_file = prepare(folder / "demo", 5, workspace=folder / "run", recipe=recipe)
    (folder / "half.py").write_text(VERIFIER, encoding="utf-8")
    gpus = "" if gpu is None else str(gpu)
    flags = {
        "reward-function": f"{folder}/half.py:verify",
        "total-rounds": "1",
        "first-training-round": "1",
        "new-questions-per-round": "8",
        "eval-attempts": "2",
        "physical-solver-gpu": gpus,
        "physical-grpo-gpu": gpus,
        "trl-num-processes": "1",
        "trl-mixed-precision": "no" if gpu is None else "bf16",
        "auto-retry-enabled": "false",
    }
    given = [part for name, value in flags.items() for part in (f"--{name}", value)]
    command = [sys.executable, "-m", "prosetting", "run", "--env-file", str(env_file), *given, *more]
    if subprocess.run(command, env=dict(os.environ), check=False).returncode:
        sys.exit("the round failed: see above")
    return folder / "run"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="a tiny model on the CPU: shows that it works, no more")
    parser.add_argument("--gpu", type=int, default=0, help="the GPU, as nvidia-smi counts")
    parser.add_argument("--keep", type=Path, help="where the workspace stays; else it is temporary")
    given, more = parser.parse_known_args()
    gpus = {gpu.index: gpu for gpu in read_gpus()}
    card = gpus.get(given.gpu)
    result: dict[str, Any] = {
        "claim": "a round gives the GPU back between sampling and training, and at its end",
        "value": None,
        "unit": "of the card's memory still held, the greater of both moments",
        "bar": BAR,
        "holds": None,
        "machine": f"{card.name if card else 'no GPU'}, {platform.machine()}, Python {platform.python_version()}",
    }
    if card is None and not given.tiny:
        print("no GPU was found; --tiny runs this on a CPU")
        print(json.dumps(result | {"reason": "no GPU was found"}))
        return
    index = None if given.tiny else given.gpu
    with tempfile.TemporaryDirectory(prefix="prosetting-gpu-round-") as scratch, Watch(index) as watch:
        started = time.time()
        workspace = round_on(given.keep or Path(scratch), index, TINY if given.tiny else SHAPE, more)
        ended = time.time()
        # Written when sampling has been ended and before the trainer starts.
        between = (workspace / "logs" / "trl_trainer.job.json").stat().st_mtime
        trained = read_json(workspace / "training_results" / "trl_r1_result.json")
    if given.tiny or card is None:
        print(json.dumps(result | {"reason": "a tiny model on a CPU decides nothing", "steps": trained["steps"]}))
        return
    held = [watch.held_at(between) / card.total_bytes, max(0, watch.used() - watch.before) / card.total_bytes]
    details = {
        "held_between": round(held[0], 4),
        "held_after": round(held[1], 4),
        "most_held_GiB": {
            "sampling": round(watch.most_held(started, between) / 2**30, 2),
            "training and after": round(watch.most_held(between, ended) / 2**30, 2),
        },
        "steps": trained["steps"],
        "train_pairs": trained["train_pairs"],
        "seconds": round(ended - started, 1),
    }
    print(json.dumps(result | {"value": round(max(held), 4), "holds": max(held) <= BAR, **details}))


if __name__ == "__main__":
    main()
