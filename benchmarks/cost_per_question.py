"""What a question costs the controller itself, in a round of 1,000 and in one of 100,000.

A whole round through the real start of a run: sampling, grading, pairs, files, new questions, the next pool. The Solver
and both teachers are scripted and in the process, so that what is counted is the controller. CPU time of the process
and its children, less that of a round of ten questions, by question. Bar: 100,000 cost at most 1.1 times what 1,000 do.

The questions are no copies of a template: each is 25 to 50 words drawn from 20,000 made-up ones, the frequent ones more
often (as 1/rank), around three numbers whose sum is asked for. One in eight has no reference, so that Teacher1 decides.
Two attempts at each, half of them right; Teacher2 writes a question for one in ten. `--most N` ends at N questions.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import random
import re
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import Any
from unittest import mock

from prosetting.collectors.solver import Sample, SampleRequest, SamplingParams, Solver
from prosetting.config import Settings
from prosetting.managers import open_engines, run
from prosetting.managers.toy_loop import ScriptedTrainer, write_toy_inputs
from prosetting.records import Question, QuestionKind, Verdict
from prosetting.teachers.base import GradeReply, NewQuestion, ShownAttempt

SIZES = (1_000, 10_000, 100_000)
FIXED = 10
BAR = 1.1
_SYLLABLES = [c + v for c in "bdfgklmnprstvz" for v in ("a", "e", "i", "o", "u")]
_WORDS = ["".join(random.Random(n).choices(_SYLLABLES, k=3)) + str(_SYLLABLES[n % 70]) for n in range(20_000)]
_WEIGHTS = list(accumulate(1 / rank for rank in range(1, len(_WORDS) + 1)))


def story(name: str) -> tuple[str, int]:
    """A text of its own for each name, and the sum of its numbers."""
    rng = random.Random(name)
    found = rng.choices(_WORDS, cum_weights=_WEIGHTS, k=rng.randint(25, 50))
    numbers = [rng.randint(2, 999) for _ in range(3)]
    for number in numbers:
        found.insert(rng.randrange(len(found)), str(number))
    return f"{' '.join(found)}. What is their sum?", sum(numbers)


def total(text: str) -> int:
    return sum(map(int, re.findall("[0-9]+", text)))


class _Solver(Solver):
    """Right in half of its attempts."""

    def sample(self, requests: Iterable[SampleRequest], params: SamplingParams) -> Iterator[Sample]:
        for request in requests:
            right = random.Random(f"{request.seed}").random() < 0.5
            numbers = re.findall("[0-9]+", request.prompt)
            response = f"I add {', '.join(numbers)} one after the other, the first two before the last of them. " * 3
            response += f"\\boxed{{{total(request.prompt) + (0 if right else 1)}}}"
            yield Sample(request.question_id, request.attempt, response, "stop", len(response.split()))

    def close(self) -> None:
        pass


class _Teacher:
    """Both teachers. Reads the numbers, as the Solver does."""

    async def grade(self, question: Question, response: str) -> GradeReply:
        answer = re.findall(r"\\boxed\{([0-9]+)\}", response)[-1]
        right = int(answer) == total(question.text)
        return GradeReply(Verdict.CORRECT if right else Verdict.INCORRECT, answer, "" if right else "added wrongly")

    async def analyse(self, question: Question, attempt: ShownAttempt) -> str:
        return "added wrongly"

    async def enhance(
        self, question: Question, attempt: ShownAttempt, analysis: str, kind: QuestionKind
    ) -> NewQuestion:
        text, answer = story(f"after {question.question_id}")
        return NewQuestion(text, str(answer), None, kind)

    async def solve(self, question_text: str) -> str | None:
        return str(total(question_text))

    async def close(self) -> None:
        pass


@contextmanager
def _teachers(*args: Any, **kwargs: Any) -> Iterator[tuple[_Teacher, _Teacher]]:
    yield _Teacher(), _Teacher()


def play(folder: Path, size: int) -> None:
    write_toy_inputs(folder / "inputs")
    rows: list[dict[str, str]] = []
    for number in range(size):
        text, answer = story(str(number))
        rows.append({"question": text} | ({"answer": str(answer)} if number % 8 else {}))
    file = folder / "inputs" / "many.json"
    file.write_text(json.dumps(rows))
    settings = Settings(
        solver_model_path=str(folder / "inputs" / "base"),
        questions_file=file,
        workspace_dir=folder / "run",
        total_rounds=1,
        first_training_round=2,
        attempts_per_question=2,
        new_questions_per_round=max(1, size // 10),
        max_pool_questions=size,
        solver_batch_size=64,
        teacher_concurrent_workers=32,
        physical_solver_gpu=(),
        physical_grpo_gpu=(),
    )
    with mock.patch.object(open_engines, "open_teachers", _teachers):
        run.start_run(settings, (), "auto", open_solver=lambda *_: _Solver(), open_trainer=lambda _: ScriptedTrainer())


def measured(size: int) -> dict[str, float]:
    """CPU seconds and peak resident memory of a round in a process of its own."""
    command = [sys.executable, __file__, "--one", str(size)]
    output = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True).stdout
    found: dict[str, float] = json.loads(output.splitlines()[-1])
    return found


def one(size: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as temporary:
        play(Path(temporary), size)
    uses = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return {"cpu_s": sum(use.ru_utime + use.ru_stime for use in uses), "peak_mb": uses[0].ru_maxrss / 1024}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--most", type=int, default=SIZES[-1])
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    logging.getLogger("prosetting").setLevel(logging.WARNING)
    if arguments.one:
        print(json.dumps(one(arguments.one)))
        return
    sizes = [*(size for size in SIZES if size < arguments.most), arguments.most]
    fixed = measured(FIXED)["cpu_s"]
    costs_ms, peaks = {}, {}
    for size in sizes:
        found = measured(size)
        costs_ms[size] = (found["cpu_s"] - fixed) / (size - FIXED) * 1e3
        peaks[size] = found["peak_mb"]
        print(f"{size:>7,} questions: {costs_ms[size]:.3f} ms CPU each, at most {peaks[size]:.0f} MB", flush=True)
    ratio = costs_ms[sizes[-1]] / costs_ms[sizes[0]]
    result = {
        "claim": f"a question costs the controller the same in a round of {sizes[0]:,} and of {sizes[-1]:,}",
        "value": round(ratio, 3),
        "unit": "CPU time of a question over that in the smallest round",
        "bar": BAR,
        "holds": ratio <= BAR,
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
        "cost_ms": {size: round(cost, 3) for size, cost in costs_ms.items()},
        "peak_mb": {size: round(peak) for size, peak in peaks.items()},
        "fixed_cpu_s": round(fixed, 2),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
