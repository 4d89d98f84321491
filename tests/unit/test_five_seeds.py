"""How the five-seeds experiment takes time, and what it tells of its results file."""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
BURN = "import time; t = time.process_time()\nwhile time.process_time() - t < 0.6: pass"
# Two folders of weights, the second after a child of its own has burnt CPU; then it would go on for ever.
TRAINING = f"""
import pathlib, subprocess, sys, time
for number in (1, 2):
    pathlib.Path(f"checkpoints/merged_solver_r{{number}}").mkdir(parents=True)
    if number == 1:
        time.sleep(0.6)
        subprocess.run([sys.executable, "-c", {BURN!r}])
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
pathlib.Path("child").write_text(str(child.pid))
time.sleep(600)
"""


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(EXPERIMENTS)
    yield importlib.import_module
    for name in ("five_seeds", "five_seeds_table", "served_teacher", "timed_training"):
        sys.modules.pop(name, None)


def test_weights_are_timed_with_the_cpu_of_all_children_and_nothing_stays_behind(load: Any, tmp_path: Path) -> None:
    watch = load("timed_training").watch
    command = [sys.executable, "-c", TRAINING]
    made = watch(command, os.environ, tmp_path, tmp_path / "log", lambda made, *_: (tmp_path / "child").exists())
    assert [weights.number for weights in made] == [1, 2]
    assert made[1].cpu_s - made[0].cpu_s > 0.5
    assert made[1].wall_s > made[0].wall_s + 0.5
    child = int((tmp_path / "child").read_text())
    assert not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE


def test_a_training_that_fails_ends_the_experiment_with_its_last_words(load: Any, tmp_path: Path) -> None:
    command = [sys.executable, "-c", "raise ValueError('no such model')"]
    with pytest.raises(SystemExit, match="no such model"):
        load("timed_training").watch(command, os.environ, tmp_path, tmp_path / "log", lambda *_: False)


def weights(number: int, cpu_s: float, *rates: float) -> dict[str, Any]:
    return {"number": number, "cpu_s": cpu_s, "wall_s": 2 * cpu_s, "pass_rates": list(rates)}


def line(seed: int, arm: str, at_budget: int, *made: dict[str, Any]) -> dict[str, Any]:
    return {
        "seed": seed,
        "arm": arm,
        "measure": "cpu",
        "settings": {},
        "machine": "a machine",
        "at_budget": at_budget,
        "weights": made,
    }


def test_an_arm_counts_with_its_weights_of_the_budget_and_time_with_its_last(
    load: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [
        line(seed, arm, at_budget, *made)
        for seed in (31, 32)
        for arm, at_budget, made in (
            ("loop", 5, (weights(4, 20, 0.5, 0.75), weights(5, 30, 1, 0.75))),
            ("stock", 4, (weights(4, 28, 0.25, 0.25), weights(5, 60, 0.5, 0.75))),
        )
    ]
    load("five_seeds_table").tell(lines)
    out = capsys.readouterr().out
    assert "| 31 | stock | 28 | 56 | 4 | 0.250 [0.250, 0.250] | +0.625 [+0.500, +0.750] |" in out
    found = json.loads(out.splitlines()[-1])
    assert found["arms"]["stock"] == {"seeds": 2, "pass_at_1": 0.25, "loop_minus_arm": [0.625, 0.625, 0.625]}
    assert found["time_ratio"] == {"31": 0.333, "32": 0.333}


@pytest.mark.parametrize("seed", ["31", "41"])
def test_other_settings_are_tried_on_other_seeds_than_those_reported_on(
    load: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], seed: str
) -> None:
    monkeypatch.setattr(sys, "argv", ["five_seeds.py", "--seeds", seed, "--set", "grpo:beta=1"])
    with pytest.raises(SystemExit):
        load("five_seeds").main()
    assert "tuning" in capsys.readouterr().err
