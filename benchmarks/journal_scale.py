"""Whether a long run stays quick: how soon one with 1,000,000 attempts goes on, and what an attempt costs by then.

A workspace of 1,000,000 attempts (25,000 questions × 8, five rounds) is resumed through the real start of a run
(scripted Solver and Trainer, embedded teacher) until the first new attempt is asked for, then until the first new
verdict is stored: in the middle of sampling and of grading the fifth round. Bar: 3 s, median of 3. Beside the bar: the
same attempts as one single round of 125,000 questions, whose plan and question files take longer.
Then attempts and grades written in batches as a run does, each committed to disk, into a journal of 10,000 and one of
1,000,000 attempts in turn. Bar: at most 1.3 times as long. `--attempts N` tries it smaller. Takes about 2 GB of disk.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any
from unittest import mock

from prosetting.collectors.solver import Sample, SampleRequest, SamplingParams, Solver
from prosetting.config import Settings
from prosetting.core.artifacts import write_json
from prosetting.core.journal import Journal
from prosetting.core.state_manager import CONCLUSION
from prosetting.core.workspace import Workspace
from prosetting.datasets.data_saver import save_pairs
from prosetting.errors import RunStopped
from prosetting.managers.binding import bind
from prosetting.managers.question_files import load_question_files
from prosetting.managers.run import start_run
from prosetting.managers.toy_loop import ScriptedTrainer, write_toy_inputs
from prosetting.records import Grade, JudgeHealth, PoolEntry, Question, Stage, Trajectory, Verdict, question_id_of

ATTEMPTS = 1_000_000
SMALL = 10_000
PER_QUESTION = 8
RUNS = 3
BATCH = 64
RESUME_BAR_S = 3.0
RATIO_BAR = 1.3
BLOCKS, BATCHES_A_BLOCK = 15, 60
ROUND_FILES = (
    "questions",
    "trajectories",
    "rewards",
    "solver_training",
    "enhanced_questions",
    "generator_training",
    "results",
)
NO_CHECKS = JudgeHealth(0, 0, 0, 0, 0, 0)
RESPONSE = "First I add the apples that she buys, then I take away those that she gives to her neighbour. " * 4


class Reached(RunStopped):
    """The run has come to new work."""

    def __init__(self) -> None:
        super().__init__("new work is reached", next_step="")
        self.at = time.perf_counter()


class _Solver(Solver):
    def sample(self, requests: Iterable[SampleRequest], params: SamplingParams) -> Iterator[Sample]:
        raise Reached

    def close(self) -> None:
        pass


def questions(count: int) -> list[Question]:
    texts = (f"Ann has {n} apples and buys {n % 97} more. How many apples does Ann have now?" for n in range(count))
    return [Question(question_id_of(text), text, "5") for text in texts]


def draw(pool: Sequence[Question], round_: int) -> list[Trajectory]:
    return [
        Trajectory(round_, question.question_id, attempt, f"{RESPONSE}\\boxed{{{4 + attempt % 2}}}", "stop", 90)
        for question in pool
        for attempt in range(PER_QUESTION)
    ]


def grade(drawn: Sequence[Trajectory]) -> list[Grade]:
    verdicts = (Verdict.INCORRECT, Verdict.CORRECT)
    return [Grade(t.round, t.question_id, t.attempt, verdicts[t.attempt % 2], "rules") for t in drawn]


def fill(folder: Path, attempts: int, *, rounds: int) -> tuple[Settings, list[Trajectory]]:
    """A workspace whose last round has yet to draw one batch, and that batch's attempts."""
    write_toy_inputs(folder / "inputs")
    pool = questions(attempts // PER_QUESTION // rounds)
    file = folder / "inputs" / "many.json"
    file.write_text(json.dumps([{"question": question.text, "answer": question.reference} for question in pool]))
    settings = Settings(
        solver_model_path=str(folder / "inputs" / "base"),
        questions_file=file,
        workspace_dir=folder / "run",
        total_rounds=rounds,
        first_training_round=rounds,
        attempts_per_question=PER_QUESTION,
        solver_batch_size=BATCH,
        physical_solver_gpu=(),
        physical_grpo_gpu=(),
    )
    workspace = Workspace.of(settings)
    workspace.create()
    with Journal(workspace.journal) as journal:
        bind(journal, settings, load_question_files(settings))
        # In the order in which a run draws them: the last batch is that of the last questions.
        pool.sort(key=lambda question: (len(question.text), question.question_id))
        for round_ in range(1, rounds):
            with journal.transaction():
                play(journal, pool, round_, graded=True)
                conclude(journal, round_, pool)
            write_files(workspace, round_)
        with journal.transaction():
            play(journal, pool[: -BATCH // PER_QUESTION], rounds, graded=False)
    return settings, draw(pool[-BATCH // PER_QUESTION :], rounds)


def play(journal: Journal, pool: Sequence[Question], round_: int, *, graded: bool) -> None:
    for start in range(0, len(pool), 1_000):
        drawn = draw(pool[start : start + 1_000], round_)
        journal.add_trajectories("train", drawn)
        if graded:
            journal.add_grades("train", grade(drawn))


def conclude(journal: Journal, round_: int, pool: Sequence[Question]) -> None:
    training = {"trained": False, "reason": "", "rounds_used": [], "checkpoint": "", "pairs": 0}
    half = len(pool) * PER_QUESTION // 2
    grading: dict[str, Any] = {"correct": half, "incorrect": half, "unknown": 0, "average_reward": 0.5}
    grading |= {"by_rules": 2 * half, "by_teacher1": 0, "by_reward_function": 0, "judge": asdict(NO_CHECKS)}
    for stage in (*Stage, CONCLUSION):
        journal.finish_stage(round_, stage, {}, training | grading | {"failed_replay": len(pool)}, 1.0)
    journal.set_pool(round_ + 1, [PoolEntry(question, "failed_replay") for question in pool])


def write_files(workspace: Workspace, round_: int) -> None:
    """The files of a round that is over, without their rows: of large ones a start reads only the ends."""
    for what in ROUND_FILES:
        write_json(workspace.round_data(round_, what), {"round": round_, "rows": []})
    write_json(workspace.training_result(round_), {"round": round_})
    save_pairs(workspace.dataset_dir(round_), round_, [])


def seconds_to_new_work(settings: Settings) -> float:
    started = time.perf_counter()
    try:
        start_run(settings, (), "auto", open_solver=lambda *_: _Solver(), open_trainer=lambda _: ScriptedTrainer())
    except Reached as reached:
        return reached.at - started
    raise AssertionError("the run ended without new work")


def seconds_to_new_verdict(settings: Settings) -> float:
    def store(*args: object) -> None:
        raise Reached

    with mock.patch.object(Journal, "add_grades", store):
        return seconds_to_new_work(settings)


def median_of(measure: Callable[[], float]) -> float:
    return statistics.median(measure() for _ in range(RUNS))


def resume_times(folder: Path, attempts: int) -> dict[str, float]:
    settings, rest = fill(folder / "five", attempts, rounds=5)
    found = {"in the fifth round, sampling": median_of(lambda: seconds_to_new_work(settings))}
    with Journal(Workspace.of(settings).journal) as journal:
        journal.add_trajectories("train", rest)
        every_other = [t for n, t in enumerate(journal.trajectories("train", 5)) if n % 2]
        journal.add_grades("train", grade(every_other))
    seconds_to_new_verdict(settings)  # writes the round's file of attempts on its way, which is work
    found["in the fifth round, grading"] = median_of(lambda: seconds_to_new_verdict(settings))
    return found


def seconds_an_attempt(journal: Journal, block: Sequence[Trajectory]) -> float:
    """Write and commit a block as a run does: attempts batch by batch, verdicts likewise."""
    batches = [block[start : start + BATCH] for start in range(0, len(block), BATCH)]
    started = time.perf_counter()
    for batch in batches:
        journal.add_trajectories("train", batch)
        journal.add_grades("train", grade(batch))
    return (time.perf_counter() - started) / len(block)


def attempt_costs(small: Path, large: Path, round_: int) -> tuple[float, float]:
    """Medians over blocks, the two journals in turn."""
    size = BATCHES_A_BLOCK * BATCH // PER_QUESTION
    pool = questions(size * BLOCKS)
    taken: dict[Path, list[float]] = {small: [], large: []}
    with Journal(small) as one, Journal(large) as other:
        for number in range(BLOCKS):
            block = draw(pool[number * size : (number + 1) * size], round_)
            for path, journal in ((small, one), (large, other)):
                taken[path].append(seconds_an_attempt(journal, block))
    return statistics.median(taken[small]), statistics.median(taken[large])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--attempts", type=int, default=ATTEMPTS)
    attempts = parser.parse_args().attempts
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        resumes = resume_times(folder, attempts)
        single = seconds_to_new_work(fill(folder / "one", attempts, rounds=1)[0])
        for name, seconds in {**resumes, "in a single round, sampling": single}.items():
            print(f"resume {name:<30} {seconds:6.2f} s")
        fill(folder / "small", SMALL, rounds=5)
        # Round 9 is new to both.
        costs = attempt_costs(folder / "small/run/prosetting.db", folder / "five/run/prosetting.db", 9)
    ratio = costs[1] / costs[0]
    print(f"an attempt and its verdict: {costs[0] * 1e3:.3f} ms at {SMALL:,}, {costs[1] * 1e3:.3f} ms at {attempts:,}")
    slowest = max(resumes.values())
    result = {
        "claim": f"a run of {attempts:,} attempts goes on within seconds, and an attempt costs what it did at first",
        "value": [round(slowest, 2), round(ratio, 2)],
        "unit": "s until new work; cost of an attempt over that at 10,000",
        "bar": [RESUME_BAR_S, RATIO_BAR],
        "holds": slowest <= RESUME_BAR_S and ratio <= RATIO_BAR,
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
        "resume_s": {name: round(seconds, 2) for name, seconds in resumes.items()},
        "single_round_s": round(single, 2),
        "cost_ms": [round(cost * 1e3, 4) for cost in costs],
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
