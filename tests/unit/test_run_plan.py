"""`prosetting run --dry-run`: what a run would do and about what it takes; nothing is started, nothing written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from prosetting.cli.main import main
from prosetting.managers.toy_loop import run_toy, toy_settings, write_toy_inputs


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_toy_inputs(tmp_path / "in")
    monkeypatch.chdir(tmp_path)


COMMAND = ["run", "--dry-run", "--solver-model-path", "in/base", "--questions-file", "in/questions.json"]
COMMAND += ["--workspace-dir", "ws", "--trl-num-processes", "1", "--physical-solver-gpu", "", "--physical-grpo-gpu", ""]


def plan(capsys: pytest.CaptureFixture[str], *flags: str) -> dict[str, Any]:
    assert main([*COMMAND, "--json", *flags]) == 0
    return dict(json.loads(capsys.readouterr().out))


def test_it_tells_the_rounds_and_leaves_no_trace(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(tmp_path.rglob("*"))
    assert main([*COMMAND, "--total-rounds", "4"]) == 0
    captured = capsys.readouterr()
    assert sorted(tmp_path.rglob("*")) == before
    assert captured.err == ""
    rows = [line.split() for line in captured.out.splitlines() if line.split()[:1] and line.split()[0].isdigit()]
    assert [row[:2] for row in rows] == [["1", "no"], ["2", "no"], ["3", "yes"], ["4", "yes"]]
    sizes = [int(row[2]) for row in rows]
    assert sizes[0] == 3
    assert sizes == sorted(set(sizes)), "the pool grows"
    assert "SOLVER_MODEL_PATH=in/base" in captured.out
    for word in ("tokens", "time", "disk", "cost", "Assuming that", "Nothing was started and nothing was written."):
        assert word in captured.out


def test_more_questions_attempts_and_prices_are_more_of_everything(capsys: pytest.CaptureFixture[str]) -> None:
    small = plan(capsys)
    more = plan(capsys, "--attempts-per-question", "16")
    assert more["sampled_tokens"] == 2 * small["sampled_tokens"]
    assert more["teacher_calls"] > small["teacher_calls"]
    teacher = ("--teacher-base-url", "http://127.0.0.1:9/v1")
    assert plan(capsys, *teacher)["cost"] is None
    priced = plan(capsys, *teacher, "--teacher-price-prompt", "2", "--teacher-price-completion", "8")
    assert priced["cost"] == pytest.approx(2e-6 * priced["teacher_tokens"], rel=1.5)
    capped = plan(capsys, "--max-pool-questions", "4")
    assert {planned["questions"] for planned in capped["rounds"]} == {3, 4}


def test_a_reward_function_that_cannot_be_had_is_told_before_the_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*COMMAND, "--reward-function", "rewards.py:by_length"]) == 2
    assert "REWARD_FUNCTION=rewards.py:by_length: there is no file" in capsys.readouterr().err


def test_the_generators_drafts_and_the_solvers_trials_of_them_are_sampled_too(
    capsys: pytest.CaptureFixture[str],
) -> None:
    generator = ("--generator-model-path", "in/base", "--generator-share", "0.5", "--generator-trials")
    alone, untried, tried = plan(capsys), plan(capsys, *generator, "0"), plan(capsys, *generator, "4")
    assert alone["sampled_tokens"] < untried["sampled_tokens"] < tried["sampled_tokens"]
    assert alone["seconds"] < untried["seconds"] < tried["seconds"]


def test_no_key_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    flags = ("--teacher-base-url", "http://127.0.0.1:9/v1", "--teacher-api-key", "sk-secret")
    assert "sk-secret" not in json.dumps(plan(capsys, *flags))
    assert main([*COMMAND, *flags]) == 0
    assert "sk-secret" not in capsys.readouterr().out


def test_what_earlier_rounds_measured_is_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_toy(toy_settings(tmp_path / "in", tmp_path / "ws", rounds=2)) == 0
    before = (tmp_path / "ws" / "prosetting.db").read_bytes()
    capsys.readouterr()
    found = plan(capsys, "--total-rounds", "4")
    assert (tmp_path / "ws" / "prosetting.db").read_bytes() == before
    assert (found["rounds_done"], [planned["round"] for planned in found["rounds"]]) == (2, [3, 4])
    assert found["assumptions"] == ["as in round 2, question by question: tokens, calls, cost, time, shares"]
    assert found["seconds"] > 0
    assert found["sampled_tokens"] < 100 * found["rounds"][-1]["attempts"], "not half of SOLVER_MAX_NEW_TOKENS"


@pytest.mark.parametrize(
    ("flags", "what"),
    [
        (("--solver-model-path", "none"), "there is no model at none"),
        (("--questions-file", "none.json"), "none.json"),
        (("--validation-data-file", "in/questions.json"), "would not be held out"),
    ],
)
def test_what_a_run_would_refuse_is_refused(
    flags: tuple[str, ...], what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*COMMAND, *flags]) == 2
    assert what in capsys.readouterr().err
