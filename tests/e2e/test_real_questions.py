"""Questions of real benchmarks run through without a special case; the little solver fails them, which is no error."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from whole_runs import read

SHARED = Path(os.environ.get("PROSETTING_SHARED_DATA", Path(__file__).parents[3] / "shared" / "data"))


def one_round(demo, tmp_path: Path, questions: Path, attempts: int) -> dict:
    done = demo.run(
        tmp_path / "run",
        "--questions-file",
        str(questions),
        "--total-rounds",
        "1",
        "--first-training-round",
        "1",
        "--attempts-per-question",
        str(attempts),
        "--solver-batch-size",
        "128",
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return read(tmp_path / "run" / "auto_training_summary.json")["rounds"][0]


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"the benchmark questions are not at {SHARED}")
def test_one_round_over_64_gsm8k_questions_trains_on_nothing_and_says_so(demo, tmp_path):
    lines = (SHARED / "questions" / "gsm8k_train.jsonl").read_text().splitlines()[:64]
    file = tmp_path / "gsm8k.jsonl"
    file.write_text("\n".join(lines) + "\n")
    found = one_round(demo, tmp_path, file, attempts=2)
    assert found["questions"] == 64
    assert sum(found["decided_by"].values()) + found["unknown"] == 128
    if not found["pairs"]:
        assert not found["trained"]
        assert "no pairs" in found["reason"]
    enhanced = read(tmp_path / "run" / "data" / "round_01_enhanced_questions.json")
    assert all(json.dumps(row["reference"]) for row in enhanced["rows"])


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason=f"the benchmark questions are not at {SHARED}")
def test_one_round_over_math500_trains_on_nothing_and_says_so(demo, tmp_path):
    found = one_round(demo, tmp_path, SHARED / "questions" / "math500.jsonl", attempts=2)
    assert found["questions"] == 500
    assert sum(found["decided_by"].values()) + found["unknown"] == 1000
