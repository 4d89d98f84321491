"""A whole round over recorded attempts of real models at real questions, served by the replay server as the Solver.

The embedded teacher writes the new questions. Verdicts are held against the labels that came with the attempts,
pairs and references are computed again here.
"""

from __future__ import annotations

import ast
import json
import operator
import os
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from whole_runs import clean_env, read

SHARED = Path(os.environ.get("PROSETTING_SHARED_DATA", Path(__file__).parents[3] / "shared" / "data"))
RECORDED = SHARED / "grading" / "gsm8k_openai_solutions.jsonl"
QUESTIONS, ATTEMPTS = 120, 4
pytestmark = pytest.mark.skipif(not RECORDED.is_file(), reason=f"the recorded attempts are not at {RECORDED}")

_OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}


def rows_of(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n") if line]


@pytest.fixture(scope="module")
def recorded() -> dict[str, list[dict]]:
    """Recorded attempts by question: of the first questions that have exactly ATTEMPTS of them."""
    by_question = defaultdict(list)
    for row in rows_of(RECORDED):
        by_question[row["question"]].append(row)
    whole = [question for question, rows in by_question.items() if len(rows) == ATTEMPTS]
    return {question: by_question[question] for question in whole[:QUESTIONS]}


@pytest.fixture(scope="module")
def workspace(recorded: dict[str, list[dict]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workspace of one round that gathers data and does not train."""
    folder = tmp_path_factory.mktemp("recorded")
    attempts, questions = folder / "attempts.jsonl", folder / "questions.jsonl"
    _write(attempts, [row for rows in recorded.values() for row in rows])
    _write(
        questions, [row for row in rows_of(SHARED / "questions" / "gsm8k_test.jsonl") if row["question"] in recorded]
    )
    (folder / "empty.env").touch()
    settings = {
        "env-file": folder / "empty.env",
        "workspace-dir": folder / "run",
        "questions-file": questions,
        "solver-model-path": "recorded/models",
        "solver-model-name": "prosetting-replay",
        "total-rounds": 1,
        "first-training-round": 2,
        "attempts-per-question": ATTEMPTS,
        "auto-retry-enabled": "false",
    }
    serve = [sys.executable, "-m", "prosetting", "replay", str(attempts)]
    with subprocess.Popen(serve, stdout=subprocess.PIPE, text=True, env=clean_env()) as server:
        try:
            assert server.stdout is not None
            settings["solver-base-urls"] = f"http://127.0.0.1:{json.loads(server.stdout.readline())['port']}/v1"
            flags = [part for name, value in settings.items() for part in (f"--{name}", str(value))]
            command = [sys.executable, "-m", "prosetting", "run", *flags]
            done = subprocess.run(command, capture_output=True, text=True, timeout=280, env=clean_env())
        finally:
            server.terminate()
    assert done.returncode == 0, done.stderr[-4000:]
    return folder / "run"


def _write(file: Path, rows: list[dict]) -> None:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def rows_in(workspace: Path, name: str) -> list[dict]:
    return read(workspace / "data" / f"round_01_{name}.json")["rows"]


def test_every_recorded_attempt_was_drawn_once(workspace: Path, recorded: dict[str, list[dict]]) -> None:
    texts = {row["question_id"]: row["text"] for row in rows_in(workspace, "questions")}
    drawn = sorted((texts[row["question_id"]], row["response"]) for row in rows_in(workspace, "trajectories"))
    assert len(texts) == QUESTIONS
    assert drawn == sorted((question, row["response"]) for question, rows in recorded.items() for row in rows)


def test_verdicts_agree_with_the_labels(workspace: Path, recorded: dict[str, list[dict]]) -> None:
    labels = {(row["question"], row["response"]): int(row["label"]) for rows in recorded.values() for row in rows}
    texts = {row["question_id"]: row["text"] for row in rows_in(workspace, "questions")}
    graded = [
        (row["verdict"], labels[texts[row["question_id"]], row["response"]]) for row in rows_in(workspace, "rewards")
    ]
    decided = [(verdict == "correct", label == 1) for verdict, label in graded if verdict != "unknown"]
    assert len(graded) == QUESTIONS * ATTEMPTS
    assert len(graded) - len(decided) <= 0.02 * len(graded)
    assert sum(verdict == label for verdict, label in decided) >= 0.999 * len(decided)


def test_pairs_are_exactly_the_correct_times_the_incorrect_attempts(workspace: Path) -> None:
    texts = defaultdict(lambda: defaultdict(set))  # equal texts count once
    for row in rows_in(workspace, "rewards"):
        texts[row["question_id"]][row["verdict"]].add(row["response"])
    wanted = sorted(
        (question_id, chosen, rejected)
        for question_id, by_verdict in texts.items()
        for chosen in by_verdict["correct"]
        for rejected in by_verdict["incorrect"]
    )
    folder = workspace / "datasets" / "round_01"
    pairs = [row for side in ("train", "validation") for row in pq.read_table(folder / f"{side}.parquet").to_pylist()]
    assert len(wanted) > QUESTIONS
    assert sorted((pair["question_id"], pair["chosen"], pair["rejected"]) for pair in pairs) == wanted


def test_sixty_new_questions_and_more_carry_references_that_their_calculations_give(workspace: Path) -> None:
    admitted = rows_in(workspace, "enhanced_questions")
    seeds = {row["text"] for row in rows_in(workspace, "questions")}
    assert len(admitted) >= 60
    assert len({row["text"] for row in admitted} | seeds) == len(admitted) + len(seeds)
    for row in admitted:
        results = list(calculations(row["solution"]))
        assert results, row
        assert Fraction(row["reference"].replace(",", "")) == results[-1], row


def calculations(solution: str) -> Iterator[Fraction]:
    """The recomputed result of each <<a*b=c>>, checked against what the solution says it is."""
    for left, right in re.findall(r"<<([^<>=]+)=([^<>=]+)>>", solution):
        result = value(left)
        assert result == value(right), (left, right)
        yield result


def value(text: str) -> Fraction:
    """The exact value of numbers with + - * / and brackets; `5%` is 5/100."""
    text = re.sub(r"([\d.]+)%", r"(\1/100)", text.replace(",", "").replace("$", "").strip())
    return _evaluated(ast.parse(text, mode="eval").body, text)


def _evaluated(node: ast.expr, text: str) -> Fraction:
    match node:
        case ast.Constant(value=int() | float()):
            return Fraction(ast.get_source_segment(text, node) or "")
        case ast.UnaryOp(op=ast.USub()):
            return -_evaluated(node.operand, text)
        case ast.BinOp() if type(node.op) in _OPERATORS:
            return _OPERATORS[type(node.op)](_evaluated(node.left, text), _evaluated(node.right, text))
    raise AssertionError(f"not a plain calculation: {text}")
