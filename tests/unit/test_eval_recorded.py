"""`prosetting eval --recorded`: scores of attempts that were made elsewhere, held to figures derived independently."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from fractions import Fraction
from itertools import combinations
from pathlib import Path

import pytest

from prosetting.cli.main import main
from prosetting.errors import EXIT_USAGE

QUESTIONS, ATTEMPTS = 12, 8


def published_pass_at_k(n: int, c: int, k: int) -> Fraction:
    """The product form of openai/human-eval's `estimate_pass_at_k`, 1 − ∏ (1 − k / i) for i in n−c+1 … n, exactly."""
    if n - c < k:
        return Fraction(1)
    product = Fraction(1)
    for i in range(n - c + 1, n + 1):
        product *= 1 - Fraction(k, i)
    return 1 - product


def recorded(path: Path) -> list[dict[str, str]]:
    draw = random.Random(5)
    rows = []
    for q in range(QUESTIONS):
        for _ in range(ATTEMPTS):
            answer = 10 + q if draw.random() < q / QUESTIONS else draw.choice((3, 5))
            text = f"so it is \\boxed{{{answer}}}"
            rows.append({"question": f"Question number {q}?", "reference": str(10 + q), "response": text})
    draw.shuffle(rows)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return rows


def test_scores_of_recorded_attempts_agree_with_a_published_harness_to_1e_9(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    answers = defaultdict(list)
    for row in recorded(tmp_path / "attempts.jsonl"):
        answers[row["question"], row["reference"]].append(row["response"].split("{")[1].rstrip("}"))
    flags = ["--recorded", "attempts.jsonl", "--rules-only", "--json", "--out", "scores.json"]
    assert main(["eval", *flags]) == 0
    (found,) = json.loads(capsys.readouterr().out)["files"]
    values = {metric["name"]: metric["value"] for metric in found["metrics"]}
    correct = [sum(answer == reference for answer in given) for (_, reference), given in answers.items()]
    for k in (2, 4, 8):
        exact = sum(published_pass_at_k(ATTEMPTS, c, k) for c in correct) / QUESTIONS
        assert values[f"pass@{k}"] == pytest.approx(float(exact), abs=1e-9)
    assert values["mean@8"] == pytest.approx(sum(correct) / QUESTIONS / ATTEMPTS, abs=1e-9)
    exact = sum(majority(given, reference, 4) for (_, reference), given in answers.items()) / QUESTIONS
    assert values["majority@4"] == pytest.approx(float(exact), abs=1e-9)
    assert (found["questions"], found["sampled"], found["unknown"]) == (QUESTIONS, QUESTIONS * ATTEMPTS, 0)
    rows = [json.loads(line) for line in (tmp_path / "scores.questions.jsonl").read_text().splitlines()]
    assert sorted(row["correct"] for row in rows) == sorted(correct)
    assert all(len(row["attempts"]) == ATTEMPTS for row in rows)
    assert json.loads((tmp_path / "scores.json").read_text())["files"] == [found]


def majority(given: list[str], reference: str, k: int) -> Fraction:
    won = Fraction(0)
    subsets = list(combinations(given, k))
    for subset in subsets:
        first = [answer for answer in set(subset) if subset.count(answer) == max(map(subset.count, subset))]
        won += Fraction(reference in first, len(first))
    return won / len(subsets)


def test_a_table_is_printed_for_people(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    recorded(tmp_path / "attempts.jsonl")
    assert main(["eval", "--recorded", "attempts.jsonl", "--rules-only"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("| Task")
    assert "95 % interval" in lines[0]
    assert len({len(line) for line in lines if line.startswith("|")}) == 1


@pytest.mark.parametrize("arguments", [[], ["model", "--recorded", "a.jsonl"], ["model", "q.jsonl", "--rules-only"]])
def test_arguments_that_do_not_go_together_are_refused(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["eval", *arguments]) == EXIT_USAGE
    assert "→" in capsys.readouterr().err


def test_a_model_without_files_to_score_on_says_where_they_come_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["eval", "org/model"]) == EXIT_USAGE
    assert "EVAL_FILES" in capsys.readouterr().err
