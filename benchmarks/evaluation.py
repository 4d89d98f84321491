"""How long `prosetting eval --recorded` takes for 1,000 GSM8K questions × 8 recorded attempts.

    python benchmarks/evaluation.py [FOLDER]

FOLDER holds the GSM8K sets of recorded attempts (`gsm8k_*.jsonl` with `question`, `reference`, `response`); by default
`../shared/data/grading`, or `$PROSETTING_SHARED_DATA/grading`. They are 699 questions with eight attempts each; the
first 301 are played again under a question text of their own, so that nothing is graded once for both. The time is that
of a whole process, from its start to the table: reading, the rules, the estimators and their intervals. What the rules
leave open is unknown. The last line is one JSON object with the claim.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

SETS = ("gsm8k_openai_solutions", "gsm8k_tora", "gsm8k_gold_pm")
QUESTIONS, ATTEMPTS, REPEATS, BAR_S = 1_000, 8, 3, 10.0


def default_folder() -> Path:
    shared = Path(__file__).resolve().parents[2] / "shared" / "data"
    return Path(os.environ.get("PROSETTING_SHARED_DATA", shared)) / "grading"


def recorded(folder: Path) -> list[dict[str, Any]]:
    """QUESTIONS × ATTEMPTS rows."""
    attempts = defaultdict(list)
    for name in SETS:
        for line in (folder / f"{name}.jsonl").read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            attempts[" ".join(row["question"].split())].append(row)
    whole = [(text, rows[:ATTEMPTS]) for text, rows in attempts.items() if len(rows) >= ATTEMPTS]
    again = [(f"Once more: {text}", rows) for text, rows in whole]
    return [
        {"question": text, "reference": row["reference"], "response": row["response"]}
        for text, rows in (whole + again)[:QUESTIONS]
        for row in rows
    ]


def seconds(file: Path, *, show: bool) -> float:
    started = time.monotonic()
    command = [sys.executable, "-m", "prosetting", "eval", "--recorded", str(file), "--rules-only"]
    found = subprocess.run(command, check=True, capture_output=True, text=True, cwd=file.parent)
    taken = time.monotonic() - started
    if show:
        print(found.stdout)
    return taken


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else default_folder()
    if missing := [name for name in SETS if not (folder / f"{name}.jsonl").is_file()]:
        print(f"skipped: no {missing[0]}.jsonl in {folder}; set PROSETTING_SHARED_DATA to a folder with grading/")
        return
    with tempfile.TemporaryDirectory() as temporary:
        file = Path(temporary) / "attempts.jsonl"
        rows = recorded(folder)
        file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        taken = sorted(seconds(file, show=number == 0) for number in range(REPEATS))
    median = taken[REPEATS // 2]
    print(
        json.dumps(
            {
                "claim": f"{len(rows) // ATTEMPTS:,} GSM8K questions x {ATTEMPTS} scored from recorded attempts",
                "value": round(median, 2),
                "unit": "s",
                "bar": BAR_S,
                "holds": median <= BAR_S,
                "least": round(taken[0], 2),
                "greatest": round(taken[-1], 2),
                "machine": f"{platform.machine()}, {os.cpu_count()} cores",
            }
        )
    )


if __name__ == "__main__":
    main()
