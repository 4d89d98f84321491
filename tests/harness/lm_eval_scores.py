"""Scores recorded attempts by lm-eval's own gsm8k task; runs in lm-eval's environment.

    python lm_eval_scores.py ATTEMPTS.jsonl

A row has `question`, `answer` (as GSM8K's, ending in `#### N`) and `response`, which stands for what a model generated.
Prints one JSON object: the task's metrics, and of each row whether each of its filters took it for right.
"""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import lm_eval
from lm_eval.api.model import LM
from lm_eval.tasks import TaskManager

TASK = """\
include: {own}
task: gsm8k_recorded
dataset_path: json
dataset_name: null
dataset_kwargs:
  data_files:
    train: {rows}
    test: {rows}
num_fewshot: 0
"""


class Recorded(LM):
    """Says what was recorded."""

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        return [request.doc["response"] for request in requests]

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        raise NotImplementedError("gsm8k only generates")

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
        raise NotImplementedError("gsm8k only generates")


def main() -> None:
    rows = Path(sys.argv[1]).resolve()
    own = Path(lm_eval.__file__).parent / "tasks" / "gsm8k" / "gsm8k.yaml"
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        Path(folder, "gsm8k_recorded.yaml").write_text(TASK.format(own=own, rows=rows))
        found = lm_eval.simple_evaluate(
            model=Recorded(),
            tasks=["gsm8k_recorded"],
            task_manager=TaskManager(include_path=folder),
            bootstrap_iters=0,
        )
    assert found is not None
    results, right = found["results"]["gsm8k_recorded"], dict[str, list[bool]]()
    for sample in sorted(found["samples"]["gsm8k_recorded"], key=lambda sample: sample["doc_id"]):
        right.setdefault(sample["filter"], []).append(bool(sample["exact_match"] == 1.0))
    metrics = {name: float(results[name]) for name in results if name.startswith("exact_match,")}
    print(json.dumps({"version": lm_eval.__version__, "metrics": metrics, "right": right}))


if __name__ == "__main__":
    main()
