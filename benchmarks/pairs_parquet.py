"""Graded attempts → preference pairs → parquet: pairs a CPU second, and memory that does not grow with the round.

100,000 questions × 8 attempts (four of them correct, 200 to 400 characters each, all different) come to 1.6 M pairs.
Converter and writer run in a fresh child process over attempts that are made up as they are asked for; what making
them up takes is measured by itself and taken off. Bars: 200,000 pairs a CPU second, 600 MB at the peak, and the same
peak within 10 % with ten times as many questions. Beside it, on 10,000 questions and in turns, what one would write
otherwise: a list of all pairs → DataFrame → to_parquet, and the list → pyarrow's Table.from_pylist. The product's
files have more in them: each question as a row besides. `--questions N` tries it smaller.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

from prosetting.datasets.data_saver import PAIR_SCHEMA, save_pairs
from prosetting.datasets.dpo_data_converter import pairs_of_question
from prosetting.records import Grade, QuestionId, Trajectory, Verdict

QUESTIONS, TIMES_AS_MANY, COMPARED = 100_000, 10, 10_000
ATTEMPTS = 8
PAIRS_A_QUESTION = (ATTEMPTS // 2) ** 2
RUNS = 3
SPEED_BAR, MEMORY_BAR_MB, GROWTH_BAR = 200_000, 600, 1.10
TALE = (
    "first we add the apples that she buys each week then take away half of those which her two neighbours eat and so "
    "there are still many left for price number total multiply by divide share equal groups minutes hours distance"
)
Attempts = list[tuple[Trajectory, Grade]]


def questions(count: int) -> Iterator[tuple[str, Attempts]]:
    """Prompts of about 180 characters with their graded attempts, by question."""
    rng = random.Random(7)
    sentences = [" ".join(rng.choices(TALE.split(), k=8)) for _ in range(4_096)]
    for number in range(count):
        id_ = QuestionId(f"{number * 2_654_435_761 % 2**32:08x}{number:08x}")
        prompt = f"{number}: {sentences[number % 4_093]} {sentences[number % 4_079]} {sentences[number % 4_073]}?"
        attempts = []
        for attempt in range(ATTEMPTS):
            # 4 to 8 sentences with numbers between them, as in worked solutions.
            parts = rng.sample(sentences, rng.randint(4, 7))
            text = f"{rng.getrandbits(20)} ".join(parts) + f" \\boxed{{{rng.getrandbits(20)}}}"
            verdict = Verdict.CORRECT if (number + attempt) % 2 else Verdict.INCORRECT
            trajectory = Trajectory(1, id_, attempt, text, "stop", 80)
            attempts.append((trajectory, Grade(1, id_, attempt, verdict, "rules")))
        yield prompt, attempts


def only_draw(count: int, folder: Path) -> int:
    for _ in questions(count):
        pass
    return count * PAIRS_A_QUESTION


def prosetting(count: int, folder: Path) -> int:
    found = (
        pairs_of_question(prompt, attempts, run_seed=7, most=None, shuffle_labels=False)
        for prompt, attempts in questions(count)
    )
    return save_pairs(folder, 1, filter(None, found)).pairs


def rows(count: int) -> list[dict[str, Any]]:
    """All pairs as a list of dicts: what the other writers start from."""
    found = []
    for prompt, attempts in questions(count):
        sides = [[t for t, g in attempts if g.verdict is verdict] for verdict in (Verdict.CORRECT, Verdict.INCORRECT)]
        for good, bad in product(*sides):
            values = (prompt, good.response, bad.response, good.question_id, good.attempt, bad.attempt, good.round)
            found.append(dict(zip(PAIR_SCHEMA.names, values, strict=True)))
    return found


def pandas_writer(count: int, folder: Path) -> int:
    import pandas

    frame = pandas.DataFrame(rows(count))
    frame.to_parquet(folder / "train.parquet", compression="zstd")
    return len(frame)


def pylist_writer(count: int, folder: Path) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.Table.from_pylist(rows(count), PAIR_SCHEMA)
    pq.write_table(table, folder / "train.parquet", compression="zstd")
    return int(table.num_rows)


WRITERS: dict[str, Callable[[int, Path], int]] = {
    "drawing": only_draw,
    "ProSetting": prosetting,
    "list, pandas": pandas_writer,
    "list, pyarrow": pylist_writer,
}


def in_this_process(name: str, count: int) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        started = time.process_time()
        pairs = WRITERS[name](count, Path(temporary))
        cpu_s = time.process_time() - started
        size = sum(path.stat().st_size for path in Path(temporary).glob("*.parquet"))
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3  # KiB on Linux
    print(json.dumps({"pairs": pairs, "cpu_s": cpu_s, "peak_mb": peak_mb * 1.024, "size_mb": size / 1e6}))


def measured(name: str, count: int) -> dict[str, float]:
    command = [sys.executable, __file__, "--one", name, "--questions", str(count)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def rounds_of(names: tuple[str, ...], count: int) -> dict[str, dict[str, list[float]]]:
    """Figures of RUNS runs of each writer, in turns; pairs a CPU second without the time of drawing."""
    found: dict[str, dict[str, list[float]]] = {name: {} for name in names}
    for _ in range(RUNS):
        drawing_s = measured("drawing", count)["cpu_s"]
        for name in names:
            run = measured(name, count)
            run["pairs_a_s"] = run["pairs"] / (run["cpu_s"] - drawing_s)
            for key, value in run.items():
                found[name].setdefault(key, []).append(value)
    for name, figures in found.items():
        rates, peak, size = figures["pairs_a_s"], max(figures["peak_mb"]), figures["size_mb"][0]
        print(
            f"{count:>9,} questions  {name:<14}{statistics.median(rates):>10,.0f} pairs a CPU second "
            f"[{min(rates):,.0f}, {max(rates):,.0f}]{peak:>8,.0f} MB at the peak{size:>8,.0f} MB of parquet",
            flush=True,
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--questions", type=int, default=QUESTIONS)
    parser.add_argument("--one", choices=list(WRITERS), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    count: int = arguments.questions
    if arguments.one:
        in_this_process(arguments.one, count)
        return
    compared = rounds_of(("ProSetting", "list, pandas", "list, pyarrow"), min(count, COMPARED))
    ours = rounds_of(("ProSetting",), count)["ProSetting"]
    speed, peak = statistics.median(ours["pairs_a_s"]), max(ours["peak_mb"])
    more = measured("ProSetting", count * TIMES_AS_MANY)["peak_mb"]
    print(f"{count * TIMES_AS_MANY:>9,} questions  ProSetting    {more:,.0f} MB at the peak")
    ratios = {
        name: round(statistics.median(compared["ProSetting"]["pairs_a_s"]) / statistics.median(figures["pairs_a_s"]), 2)
        for name, figures in compared.items()
        if name != "ProSetting"
    }
    result = {
        "claim": f"{count * PAIRS_A_QUESTION:,} pairs are written as a stream, in memory that does not grow",
        "value": [round(speed), round(peak), round(more / peak, 2)],
        "unit": f"pairs a CPU second; MB at the peak; that peak at {TIMES_AS_MANY} × the questions over it",
        "bar": [SPEED_BAR, MEMORY_BAR_MB, GROWTH_BAR],
        "holds": speed >= SPEED_BAR and peak <= MEMORY_BAR_MB and more / peak <= GROWTH_BAR,
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
        "spread": [round(min(ours["pairs_a_s"])), round(max(ours["pairs_a_s"]))],
        "times_as_fast_as": ratios,
        "peak_mb_of_smaller": {name: round(max(figures["peak_mb"])) for name, figures in compared.items()},
        "size_mb": round(ours["size_mb"][0]),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
