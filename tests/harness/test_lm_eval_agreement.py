"""The same numbers as lm-eval's own gsm8k task on the same recorded attempts, attempt by attempt.

Needs lm-eval in an environment of its own: `make test-harness` builds it. LM_EVAL_PYTHON names another one.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PYTHON = Path(os.environ.get("LM_EVAL_PYTHON", ROOT / ".venv-lm-eval" / "bin" / "python"))
SHARED = Path(os.environ.get("PROSETTING_SHARED_DATA", ROOT.parent / "shared" / "data"))
ATTEMPTS = 4
pytestmark = pytest.mark.skipif(not PYTHON.exists(), reason="lm-eval is not installed: make test-harness")


def made() -> list[dict[str, Any]]:
    """Questions with four attempts each, right and wrong, that end in the ways in which models end GSM8K's."""
    rng = random.Random(5)
    endings = (
        "\n#### {}",
        "\nA: {}",
        "The answer is {}.",
        "So she pays ${} in all.\n#### {}",
        "= <<{}={}>>{}\n#### {}",
    )
    rows = []
    for number in range(40):
        price, count = rng.randrange(2, 60), rng.randrange(2, 90)
        right = price * count
        for _ in range(ATTEMPTS):
            said = right if rng.random() < 0.5 else right + rng.choice((-10, -1, 1, 100))
            shown = f"{said:,}" if rng.random() < 0.3 else str(said)
            ending = rng.choice(endings)
            rows.append(
                {
                    "question": f"Tickets are ${price}. What do {count} tickets cost, order {number}?",
                    "reference": str(right),
                    "response": f"{count} tickets at ${price} are {count} times {price}. {ending.replace('{}', shown)}",
                }
            )
    return rows


def recorded() -> list[dict[str, Any]]:
    """Real attempts of several models at GSM8K's test questions."""
    file = SHARED / "grading" / "gsm8k_openai_solutions.jsonl"
    if not file.exists():
        pytest.skip(f"no {file}; PROSETTING_SHARED_DATA names the folder")
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return [{key: row[key] for key in ("question", "reference", "response")} for row in rows]


def of_lm_eval(rows: list[dict[str, Any]], folder: Path) -> dict[str, Any]:
    file = folder / "for_lm_eval.jsonl"
    with file.open("w", encoding="utf-8") as stream:
        for row in rows:
            answer = f"Worked out.\n#### {row['reference']}"
            told = {"question": row["question"], "answer": answer, "response": row["response"]}
            stream.write(json.dumps(told) + "\n")
    command = [str(PYTHON), str(Path(__file__).with_name("lm_eval_scores.py")), str(file)]
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "hf")}
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=280)
    assert done.returncode == 0, done.stderr[-2000:]
    return dict(json.loads(done.stdout))


def of_prosetting(rows: list[dict[str, Any]], folder: Path) -> tuple[dict[str, float], list[bool]]:
    """The metrics of `prosetting eval --recorded`, and the verdict on each row."""
    file, out = folder / "attempts.jsonl", folder / "scores.json"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    command = [sys.executable, "-m", "prosetting", "eval", "--recorded", str(file), "--rules-only", "--out", str(out)]
    subprocess.run(command, check=True, capture_output=True, cwd=folder, timeout=280)
    (result,) = json.loads(out.read_text())["files"]
    verdicts: dict[str, list[bool]] = {}
    for line in out.with_suffix(".questions.jsonl").read_text().splitlines():
        question = json.loads(line)
        verdicts[question["question"]] = [one["verdict"] == "correct" for one in question["attempts"]]
    taken = {text: iter(found) for text, found in verdicts.items()}
    return {one["name"]: one["value"] for one in result["metrics"]}, [next(taken[row["question"]]) for row in rows]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("attempts", [made, recorded])
def test_every_attempt_gets_the_verdict_that_lm_evals_flexible_extract_gives_it(attempts: Any, tmp_path: Path) -> None:
    rows = attempts()
    theirs = of_lm_eval(rows, tmp_path)
    metrics, ours = of_prosetting(rows, tmp_path)
    assert ours == theirs["right"]["flexible-extract"]
    assert sum(ours) / len(ours) == pytest.approx(theirs["metrics"]["exact_match,flexible-extract"], abs=1e-9)
    if attempts is made:
        assert metrics[f"mean@{ATTEMPTS}"] == pytest.approx(sum(ours) / len(ours), abs=1e-9)
