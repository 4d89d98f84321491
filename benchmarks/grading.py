"""How often the grader is right, wrong and silent on labelled attempts, beside plain math-verify on the same rows.

    python benchmarks/grading.py [FOLDER] [--rules-only] [--sets a,b] [--stress]

FOLDER holds `*.jsonl` files with `question`, `reference`, `response`, `label` (1 right, 0 not) and `set`; by
default `../shared/data/grading`, or `$PROSETTING_SHARED_DATA/grading`. With `--rules-only` the rules alone, else
also the cascade: rules, the check for content, then Teacher1, here the embedded teacher. Plain math-verify is
`verify(parse(boxed reference), parse(response))` with its own time-outs, on a sample of each set. `--stress`
prints the seconds that hostile expressions take instead. The last line is one JSON object with the claim.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

from prosetting.processors.answer_extraction import holds_no_answer
from prosetting.processors.answer_verifier import AnswerVerifier
from prosetting.processors.teacher_judge import TeacherJudge
from prosetting.records import Question, Verdict, question_id_of

MATH_VERIFY_ROWS = 150
SPEED_REPEATS = 5
SPEED_BAR = 1_000


class Bars(NamedTuple):
    """The most false accepts, false rejects and unknown verdicts (a share) that a set may have."""

    accepts: int
    rejects: int
    unknown: float


BARS = {
    "gsm8k_": Bars(1, 1, 0.02),
    "math_gold_pos": Bars(0, 1, 0.05),
    "math_gold_neg": Bars(3, 0, 1.0),  # three pairs of its problems have equal values
    "hardverify": Bars(2, 2, 0.65),
    "verifybench_hard": Bars(2, 0, 1.0),
    "adversarial": Bars(0, 0, 1.0),
}


@dataclass(frozen=True, slots=True)
class Row:
    """One labelled attempt."""

    set: str
    question: str
    reference: str
    response: str
    label: int


def default_folder() -> Path:
    """Where the labelled attempts are looked for when no folder is named."""
    shared = os.environ.get("PROSETTING_SHARED_DATA", str(Path(__file__).parents[2] / "shared" / "data"))
    return Path(shared) / "grading"


def read_sets(folder: Path, wanted: list[str]) -> dict[str, list[Row]]:
    """The rows of each set whose name starts with one of `wanted`, or of all."""
    sets: dict[str, list[Row]] = {}
    for path in sorted(folder.glob("*.jsonl")):
        with path.open(encoding="utf-8") as lines:
            for raw in map(json.loads, lines):
                row = Row(raw["set"], raw["question"], raw["reference"], raw["response"], raw["label"])
                if not wanted or row.set.startswith(tuple(wanted)):
                    sets.setdefault(row.set, []).append(row)
    if not sets:
        sys.exit(f"{folder}: no labelled attempts (*.jsonl); name the folder that holds them")
    return sets


@dataclass(frozen=True, slots=True)
class Outcome:
    """Verdicts of one grader on one set, and the seconds they took."""

    name: str
    rows: list[Row]
    verdicts: list[Verdict]
    seconds: float

    def count(self, verdict: Verdict, label: int) -> int:
        """How many rows of a label got a verdict."""
        return Counter((v, row.label) for v, row in zip(self.verdicts, self.rows, strict=True))[verdict, label]

    @property
    def accepts(self) -> int:
        """False accepts."""
        return self.count(Verdict.CORRECT, 0)

    @property
    def rejects(self) -> int:
        """False rejects."""
        return self.count(Verdict.INCORRECT, 1)

    @property
    def unknown(self) -> int:
        """Rows left open."""
        return self.verdicts.count(Verdict.UNKNOWN)

    def line(self, set_name: str) -> str:
        """One line of the table."""
        decided = len(self.rows) - self.unknown
        accuracy = f"{1 - (self.accepts + self.rejects) / decided:.4f}" if decided else "-"
        share = f"{self.unknown} ({self.unknown / len(self.rows):.1%})"
        cells = (len(self.rows), accuracy, self.accepts, self.rejects, share, f"{len(self.rows) / self.seconds:.0f}")
        return f"{set_name:<24}{self.name:<13}" + "".join(f"{cell:>13}" for cell in cells)


HEADER = f"{'set':<24}{'grader':<13}" + "".join(
    f"{title:>13}" for title in ("rows", "accuracy*", "false acc.", "false rej.", "unknown", "items/s")
)


class Grader:
    """The rules, and for the cascade what comes after them."""

    def __init__(self, verifier: AnswerVerifier, judge: TeacherJudge | None, runner: asyncio.Runner | None) -> None:
        self._verifier = verifier
        self._judge = judge
        self._runner = runner

    def grade(self, rows: list[Row]) -> list[Outcome]:
        """The rules on the rows of one set, and the whole cascade, with 32 teacher calls at once."""
        start = time.perf_counter()
        verdicts = [self._verifier.verify(row.question, row.reference, row.response).verdict for row in rows]
        outcomes = [Outcome("rules", rows, list(verdicts), time.perf_counter() - start)]
        if self._judge is not None and self._runner is not None:
            self._runner.run(self._ask(rows, verdicts))
            outcomes.append(Outcome("cascade", rows, verdicts, time.perf_counter() - start))
        return outcomes

    async def _ask(self, rows: list[Row], verdicts: list[Verdict]) -> None:
        judge, at_once = self._judge, asyncio.Semaphore(32)
        assert judge is not None

        async def ask(index: int, row: Row) -> None:
            if holds_no_answer(row.response):
                verdicts[index] = Verdict.INCORRECT
                return
            question = Question(question_id_of(row.question), row.question, row.reference)
            async with at_once:
                verdicts[index] = (await judge.decide(question, row.response)).verdict

        left = [(index, row) for index, row in enumerate(rows) if verdicts[index] is Verdict.UNKNOWN]
        await asyncio.gather(*(ask(index, row) for index, row in left))


@contextlib.contextmanager
def open_grader(rules_only: bool) -> Iterator[Grader]:
    """The rules alone, or with the embedded teacher, which is started and ended here."""
    with contextlib.ExitStack() as stack:
        verifier = stack.enter_context(AnswerVerifier())
        if rules_only:
            yield Grader(verifier, None, None)
            return
        from prosetting.config import Settings  # not above: the rules alone load no teacher
        from prosetting.managers.open_teachers import open_teachers

        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        runner = stack.enter_context(asyncio.Runner())
        settings = Settings(embedded_teacher_port=0)
        teachers = open_teachers(settings, runner, log_file=folder / "teacher.log", commits=None)
        first, _ = stack.enter_context(teachers)
        yield Grader(verifier, TeacherJudge(first, verifier, 0), runner)


def math_verify_verdicts(rows: list[Row], pipe: Connection) -> None:
    """Plain math-verify as its README shows it; runs in a child, for its time-outs are signals."""
    import logging

    from math_verify import parse, verify

    logging.disable(logging.CRITICAL)
    start = time.perf_counter()
    verdicts = []
    for row in rows:
        reference = row.reference.rsplit("####", 1)[-1].strip()
        right = False
        with contextlib.suppress(Exception):
            right = verify(parse(f"\\boxed{{{reference}}}"), parse(row.response))
        verdicts.append(Verdict.CORRECT if right else Verdict.INCORRECT)
    pipe.send((verdicts, time.perf_counter() - start))


def by_math_verify(rows: list[Row]) -> Outcome:
    """A sample of the rows, graded by plain math-verify in a child process."""
    sample = random.Random(0).sample(rows, min(len(rows), MATH_VERIFY_ROWS))
    receiver, sender = multiprocessing.get_context("spawn").Pipe(duplex=False)
    child = multiprocessing.get_context("spawn").Process(target=math_verify_verdicts, args=(sample, sender))
    child.start()
    sender.close()
    verdicts, seconds = receiver.recv()
    child.join()
    return Outcome("math-verify", sample, verdicts, seconds)


def beyond_bars(set_name: str, outcome: Outcome) -> int:
    """Wrong verdicts of the rules beyond the set's bars, and one for too many unknown ones."""
    bars = next((bars for prefix, bars in BARS.items() if set_name.startswith(prefix)), None)
    if bars is None:
        return 0
    too_silent = outcome.unknown > bars.unknown * len(outcome.rows)
    return max(0, outcome.accepts - bars.accepts) + max(0, outcome.rejects - bars.rejects) + too_silent


def speed(folder: Path) -> float:
    """GSM8K verdicts/s on distinct rows: one core, a fresh process and so cold caches, the start included."""
    command = [sys.executable, str(Path(__file__)), str(folder), "--one-speed-run"]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def one_speed_run(folder: Path) -> None:
    """Print verdicts/s of this process on one core."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    rows = list({(r.reference, r.response): r for rs in read_sets(folder, ["gsm8k_"]).values() for r in rs}.values())
    start = time.perf_counter()
    with AnswerVerifier() as verifier:
        for row in rows:
            verifier.verify(row.question, row.reference, row.response)
    print(len(rows) / (time.perf_counter() - start))


HOSTILE = {
    "9^9^9": "9^9^9",
    "9^{9^{9^9}}": "9^{9^{9^9}}",
    "x^{x^{x^{x^x}}}": "x^{x^{x^{x^x}}}",
    "100000!": "100000!",
    "(10^6)!": "(10^6)!",
    "sum to 10^9": r"\sum_{k=1}^{10^9} \frac{1}{k^2}",
    "(x+1)^{10000}": "(x+1)^{10000}",
    "(x+y+1)^{999}": "(x+y+1)^{999}",
    "500 braces": "{" * 500 + "18" + "}" * 500,
    "300 fractions": r"\frac{1}{" * 300 + "2" + "}" * 300,
    "300 roots": r"\sqrt{" * 300 + "2" + "}" * 300,
    r"300 \left(": r"\left(" * 300 + "2" + r"\right)" * 300,
    "1 MB of digits": "1" * 10**6,
    "1 MB of spaces": " " * 10**6,
    "1 MB of backslashes": "\\" * 10**6,
    "1 MB of {": "{" * 10**6,
    r"10^5 \boxed{": "\\boxed{" * 10**5,
    "28,000 ####": "#### 1\n" * 28_000,
    "14,000 closing phrases": "the answer is " * 14_000,
    "190,000 newlines": "1" + "\n" * 190_000 + "8",
    "Arabic digits": "١٨",
    "null byte": "1\x008",
    "lone surrogate": "1\ud8008",
    "cos(sin(tan(x^50)))^50": r"\cos(\sin(\tan(x^{50})))^{50}",
    "roots of roots": r"\sqrt[99]{x^{99}+\sqrt[98]{x^{98}+\sqrt[97]{x^{97}}}}",
    "matrix of 40 roots": ",".join(rf"\sqrt{{{k}}}" for k in range(2, 42)),
}


def stress_table() -> float:
    """Prints the seconds of hostile expressions in the response, the reference and both; returns the worst."""
    print(f"{'expression':<26}{'in the response':>22}{'in the reference':>22}{'in both':>22}   (seconds, verdict)")
    worst = 0.0
    with AnswerVerifier() as verifier:
        verifier.verify("", "2x", r"\boxed{x+x}")  # starts the worker
        for name, hostile in HOSTILE.items():
            cells = []
            for reference, response in (("3x", hostile), (hostile, "3x"), (hostile, f"{hostile}+0")):
                times = []
                for _ in range(3):
                    start = time.perf_counter()
                    verdict = verifier.verify("", reference, rf"\boxed{{{response}}}").verdict
                    times.append(time.perf_counter() - start)
                worst = max(worst, statistics.median(times))
                cells.append(f"{statistics.median(times):.3f} {verdict}")
            print(f"{name:<26}" + "".join(f"{cell:>22}" for cell in cells))
    return worst


def claim(text: str, value: float, unit: str, bar: float, holds: bool) -> None:
    """Print one claim as a line of JSON."""
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    print(json.dumps({"claim": text, "value": value, "unit": unit, "bar": bar, "holds": holds, "machine": machine}))


def run_sets(folder: Path, rules_only: bool, wanted: list[str]) -> None:
    """The table of all sets, the speed line and the two claims."""
    sets = read_sets(folder, wanted)
    beyond = 0
    print(HEADER)
    with open_grader(rules_only) as grader:
        for name, rows in sets.items():
            outcomes = grader.grade(rows)
            beyond += beyond_bars(name, outcomes[0])
            for outcome in outcomes:
                print(outcome.line(name))
            print(by_math_verify(rows).line(name), flush=True)
    print(f"* of what is decided; math-verify on at most {MATH_VERIFY_ROWS} rows of each set, it has no unknown")
    if any(name.startswith("gsm8k_") for name in sets):
        rates = [speed(folder) for _ in range(SPEED_REPEATS)]
        median = statistics.median(rates)
        print(f"GSM8K verdicts/s, distinct rows, cold caches, one core: median {median:.0f}, {min(rates):.0f} to "
              f"{max(rates):.0f} in {SPEED_REPEATS} fresh processes")  # fmt: skip
        claim("GSM8K verdicts of the rules on one core, cold caches", round(median), "verdicts/s", SPEED_BAR,
              median >= SPEED_BAR)  # fmt: skip
    claim(
        "wrong or too many unknown verdicts of the rules beyond the bars of the sets",
        beyond,
        "verdicts",
        0,
        beyond == 0,
    )


def main() -> None:
    """Read the command line and run what it asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=default_folder())
    parser.add_argument("--rules-only", action="store_true", help="leave Teacher1 out")
    parser.add_argument("--stress", action="store_true", help="time hostile expressions instead")
    parser.add_argument("--sets", default="", help="names of sets or their beginnings, separated by commas")
    parser.add_argument("--one-speed-run", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one_speed_run:
        one_speed_run(arguments.folder)
    elif arguments.stress:
        worst = stress_table()
        claim("the slowest hostile expression, worker running", round(worst, 2), "s", 1, worst <= 1)
    else:
        run_sets(arguments.folder, arguments.rules_only, [name for name in arguments.sets.split(",") if name])


if __name__ == "__main__":
    main()
