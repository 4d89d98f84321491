"""Whether the slowest of Solver, Teacher1 and Teacher2 alone sets the pace from the first attempt to the next pool.

One round through the real start of a run, with engines that wait: a question keeps the Solver busy for 100 ms,
Teacher1 for 80 and Teacher2 for 60, each with one thing at a time. Wall time of the round, less that of a round of
two questions, over the time that the busiest engine was really busy. Bar: at most 1.10. One stage after the other
would take the sum of the three, about 2.4 times as long. Median of 3 rounds.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import platform
import random
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from prosetting.collectors.solver import Sample, SampleRequest, SamplingParams, Solver
from prosetting.config import Settings
from prosetting.managers import open_engines, run
from prosetting.managers.toy_loop import ScriptedTrainer, write_toy_inputs
from prosetting.records import Question, QuestionKind, Verdict
from prosetting.teachers.base import GradeReply, NewQuestion, ShownAttempt

QUESTIONS, FEW, RUNS = 100, 2, 3
ATTEMPTS = 2
SOLVER_S, TEACHER1_S, TEACHER2_S = 0.100, 0.080, 0.060
BAR = 1.10
_WORDS = ["amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "haven", "inlet", "jetty", "knoll", "marsh"]


def story(name: str) -> str:
    """A text of its own for each name: nothing is a near-duplicate, and no rule can decide an answer."""
    rng = random.Random(name)
    words = [f"{rng.choice(_WORDS)}{rng.randint(10, 99)}" for _ in range(16)]
    return f"Which word does not belong: {' '.join(words)}?"


class Busy:
    """How long each engine really worked: waits take a little longer than they are told to."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()

    @contextmanager
    def working(self, who: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.seconds[who] += time.perf_counter() - started  # type: ignore[assignment]


class _Solver(Solver):
    def __init__(self, busy: Busy) -> None:
        self._busy = busy

    def sample(self, requests: Iterable[SampleRequest], params: SamplingParams) -> Iterator[Sample]:
        for request in requests:
            with self._busy.working("solver"):
                time.sleep(SOLVER_S / ATTEMPTS)
            words = request.prompt.split(": ")[1].rstrip("?").split()
            answer = words[0] if request.attempt else words[1]
            yield Sample(request.question_id, request.attempt, f"It is \\boxed{{{answer}}}", "stop", 5)

    def close(self) -> None:
        pass


class _Teacher:
    """Both teachers: two verdicts of a question are Teacher1's share, one new question Teacher2's."""

    def __init__(self, busy: Busy) -> None:
        self._busy = busy

    async def _work(self, who: str, seconds: float) -> None:
        with self._busy.working(who):
            await asyncio.sleep(seconds)

    async def grade(self, question: Question, response: str) -> GradeReply:
        answer = response.split("{")[-1].split("}")[0]
        if ": " not in question.text or not question.text.startswith("Which word"):
            right = answer == question.reference  # a canary
        else:
            await self._work("teacher1", TEACHER1_S / ATTEMPTS)
            right = answer == await self.solve(question.text)
        return GradeReply(Verdict.CORRECT if right else Verdict.INCORRECT, answer, "")

    async def analyse(self, question: Question, attempt: ShownAttempt) -> str:
        await self._work("teacher2", TEACHER2_S / 2)
        return "took the wrong word"

    async def enhance(
        self, question: Question, attempt: ShownAttempt, analysis: str, kind: QuestionKind
    ) -> NewQuestion:
        await self._work("teacher2", TEACHER2_S / 2)
        text = story(f"after {question.question_id}")
        return NewQuestion(text, str(await self.solve(text)), None, kind)

    async def solve(self, question_text: str) -> str | None:
        return question_text.split(": ")[1].split()[0]

    async def close(self) -> None:
        pass


def round_of(questions: int) -> tuple[float, Busy]:
    """Wall seconds of a round, and how long each engine was busy in it."""
    busy = Busy()

    @contextmanager
    def teachers(*args: Any, **kwargs: Any) -> Iterator[tuple[_Teacher, _Teacher]]:
        yield _Teacher(busy), _Teacher(busy)

    open_solver: Callable[..., _Solver] = lambda *_: _Solver(busy)  # noqa: E731
    with tempfile.TemporaryDirectory() as temporary, mock.patch.object(open_engines, "open_teachers", teachers):
        folder = Path(temporary)
        write_toy_inputs(folder)
        file = folder / "questions.jsonl"
        file.write_text("".join(json.dumps({"question": story(str(n))}) + "\n" for n in range(questions)))
        settings = Settings(
            solver_model_path=str(folder / "base"),
            questions_file=file,
            workspace_dir=folder / "run",
            total_rounds=1,
            first_training_round=2,
            attempts_per_question=ATTEMPTS,
            solver_batch_size=1,
            teacher_concurrent_workers=1,
            physical_solver_gpu=(),
            physical_grpo_gpu=(),
        )
        started = time.perf_counter()
        run.start_run(settings, (), "auto", open_solver=open_solver, open_trainer=lambda _: ScriptedTrainer())
        return time.perf_counter() - started, busy


def main() -> None:
    logging.getLogger("prosetting").setLevel(logging.WARNING)
    logging.lastResort = None
    fixed_s = min(round_of(FEW)[0] for _ in range(RUNS)) - FEW * SOLVER_S
    ratios, sums = [], []
    for _ in range(RUNS):
        wall_s, busy = round_of(QUESTIONS)
        longest_s = max(busy.seconds.values())
        ratios.append((wall_s - fixed_s) / longest_s)
        sums.append(sum(busy.seconds.values()) / longest_s)
        told = ", ".join(f"{who} {seconds:.1f} s" for who, seconds in sorted(busy.seconds.items()))
        print(f"{QUESTIONS} questions in {wall_s:.1f} s; busy: {told}; {ratios[-1]:.3f} x the longest", flush=True)
    value = statistics.median(ratios)
    result = {
        "claim": "from the first attempt to the next pool a round takes what its slowest engine takes",
        "value": round(value, 3),
        "unit": "wall time over the busiest engine's; one stage after the other would be `sequential`",
        "bar": BAR,
        "holds": value <= BAR,
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
        "spread": [round(min(ratios), 3), round(max(ratios), 3)],
        "sequential": round(statistics.median(sums), 2),
        "fixed_s": round(fixed_s, 2),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
