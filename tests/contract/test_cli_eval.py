"""`prosetting eval` with a real model in a real child process, scored by the cascade of a run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny_model import build_tiny_model

from prosetting.cli.main import main

NO_ANSWER_TOKENS = "12"


def test_eval_scores_each_file_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    model = build_tiny_model(tmp_path / "model")
    files = [tmp_path / "a.json", tmp_path / "b.jsonl"]
    rows = [{"question": f"Max starts with {i} cards. Max buys 4 more. How many?", "answer": "77"} for i in range(3)]
    files[0].write_text(json.dumps(rows))
    files[1].write_text("".join(json.dumps(row) + "\n" for row in rows[:2]))
    limits = ["--attempts", "2", "--solver-max-new-tokens", NO_ANSWER_TOKENS, "--json"]
    assert main(["eval", str(model), *map(str, files), *limits]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["model"], found["attempts"]) == (str(model), 2)
    assert [result["questions"] for result in found["files"]] == [3, 2]
    for result in found["files"]:
        graded = sum(result["decided_by"].values()) + result["unknown"]
        assert graded == 3 * result["questions"]  # two sampled attempts and the greedy one
        if result["heldout"]:
            low, high = result["heldout"]["pass_at_1_ci"]
            assert 0 <= low <= result["heldout"]["pass_at_1"] <= high <= 1
    assert not (tmp_path / "prosetting.db").exists()
