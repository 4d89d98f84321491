"""The benchmarks that play whole rounds with engines of their own still find where to put them in."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import cost_per_question
import overlap


def test_overlap_plays_a_round_in_which_each_engine_is_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SOLVER_S", "TEACHER1_S", "TEACHER2_S"):
        monkeypatch.setattr(overlap, name, 0.001)
    _, busy = overlap.round_of(2)
    assert all(seconds > 0 for seconds in busy.seconds.values())
    assert set(busy.seconds) == {"solver", "teacher1", "teacher2"}


def test_cost_per_question_plays_a_round() -> None:
    assert cost_per_question.one(16)["cpu_s"] > 0
