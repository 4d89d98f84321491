"""What the easy-to-hard experiment tells of its results file."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from prosetting.demo.ledgers.recipe import RECIPE_VERSION

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


@pytest.fixture
def experiment(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(EXPERIMENTS)
    yield importlib.import_module("easy_to_hard")
    for name in ("easy_to_hard", "level_curve"):
        sys.modules.pop(name, None)


def run(seed: int, arm: str, *at_level_5: int | None) -> dict[str, Any]:
    """Of 10 attempts at level 5, so many were right after each round; None: that round did not train."""
    rounds = [
        {"round": n, "heldout": {} if right is None else {"4": [10, 10], "5": [right, 10]}, "pool": {"3": 5}}
        | ({"pairs": 7, "supervised_rows": 2} if n else {})
        for n, right in enumerate(at_level_5)
    ]
    return {"recipe_version": RECIPE_VERSION, "seed": seed, "arm": arm, "rounds": rounds, "seconds": 1}


def test_a_mean_over_seeds_has_an_interval_and_is_held_against_the_bars(experiment: Any, tmp_path: Path) -> None:
    rows = [run(1, "main", 0, None, 5, 8), run(2, "main", 1, None, 4, 6), run(1, "no hardening", 0, None, 1, 3)]
    told = experiment.summary(rows)
    assert told["main"]["pass_at_1"][0][5][0] == 0.05
    assert told["main"]["pass_at_1"][1] == told["main"]["pass_at_1"][0], "no training, the weights of before"
    mean, low, high = told["main"]["pass_at_1"][3][5]
    assert low < mean == 0.7 < high
    assert told["main"]["rows"] == 18, "of the rounds that trained"
    bars = experiment.verdict(told)
    assert [bars[bar]["holds"] for bar in ("base", "end", "no hardening")] == [True, True, False]
    assert bars["fixed easy pool"] is None
    assert "| no hardening | 1 | 18 | 0.000 | 0.000 | 0.100 | 0.300 |" in experiment.table(told)
    ElementTree.fromstring(experiment.draw(told, 5))


def test_runs_of_another_recipe_or_seed_are_left_out(experiment: Any, tmp_path: Path) -> None:
    rows = [run(1, "main", 0), run(2, "main", 0), run(1, "main", 0) | {"recipe_version": -1}]
    (tmp_path / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert [row["seed"] for row in experiment.load(tmp_path / "results.jsonl", [2])] == [2]
    assert [row["seed"] for row in experiment.load(tmp_path / "results.jsonl", [])] == [1, 2]
