"""How often the rule-based grader is right, wrong and silent on labelled attempts.

    python benchmarks/grading_rules.py [FOLDER]

FOLDER holds `*.jsonl` files with `question`, `reference`, `response`, `label` (1 right, 0 not) and `set`;
by default `../shared/data/grading`, or `$PROSETTING_SHARED_DATA/grading`. Prints a table for each set and, as
the last line, one JSON object: the claim is that no adversarial and no GSM8K attempt is graded wrongly.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections import Counter
from pathlib import Path

from prosetting.processors.answer_verifier import AnswerVerifier
from prosetting.records import Verdict

# mr_gsm8k is left out of the claim: its annotators also judged the reasoning.
CLAIMED = ("gsm8k_", "adversarial")
COLUMNS = ("set", "n", "accepted right", "accepted wrong", "rejected right", "rejected wrong", "abstained")


def default_folder() -> Path:
    """Where the labelled attempts are looked for when no folder is named."""
    shared = os.environ.get("PROSETTING_SHARED_DATA", str(Path(__file__).parents[2] / "shared" / "data"))
    return Path(shared) / "grading"


def grade_file(verifier: AnswerVerifier, path: Path) -> dict[str, Counter[tuple[Verdict, int]]]:
    """Counts of (verdict, label) for each set of one file."""
    counts: dict[str, Counter[tuple[Verdict, int]]] = {}
    with path.open(encoding="utf-8") as lines:
        for row in map(json.loads, lines):
            verdict = verifier.verify(row["question"], row["reference"], row["response"]).verdict
            counts.setdefault(row["set"], Counter())[verdict, row["label"]] += 1
    return counts


def main() -> None:
    """Grade every file, print the table and the claim."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else default_folder()
    paths = sorted(folder.glob("*.jsonl"))
    if not paths:
        sys.exit(f"{folder}: no *.jsonl files; name the folder with the labelled attempts")
    start = time.perf_counter()
    with AnswerVerifier() as verifier:
        sets = {name: counts for path in paths for name, counts in grade_file(verifier, path).items()}
    seconds = time.perf_counter() - start
    print(("{:<26}" + "{:>16}" * 6).format(*COLUMNS))
    for name, counts in sets.items():
        cells = [counts[verdict, label] for verdict, label in (
            (Verdict.CORRECT, 1), (Verdict.CORRECT, 0), (Verdict.INCORRECT, 0), (Verdict.INCORRECT, 1)
        )]  # fmt: skip
        silent = counts[Verdict.UNKNOWN, 0] + counts[Verdict.UNKNOWN, 1]
        share = f"{silent} ({silent / counts.total():.2%})"
        print(("{:<26}" + "{:>16}" * 6).format(name, counts.total(), *cells, share))
    total = sum(counts.total() for counts in sets.values())
    print(f"{total} rows in {seconds:.1f} s, {total / seconds:.0f} rows/s")
    wrong = sum(
        counts[Verdict.CORRECT, 0] + counts[Verdict.INCORRECT, 1]
        for name, counts in sets.items()
        if name.startswith(CLAIMED)
    )
    claim = "wrong verdicts of the rules on GSM8K and adversarial attempts"
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    print(
        json.dumps(
            {"claim": claim, "value": wrong, "unit": "attempts", "bar": 0, "holds": wrong == 0, "machine": machine}
        )
    )


if __name__ == "__main__":
    main()
