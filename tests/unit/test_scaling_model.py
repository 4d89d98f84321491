"""The cost model of docs/scaling.md: the page is what the script says, and the script adds up."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def model() -> ModuleType:
    spec = importlib.util.spec_from_file_location("scaling_model", ROOT / "benchmarks" / "scaling_model.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["scaling_model"] = module  # dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module


def test_the_page_holds_what_the_script_prints(model: ModuleType) -> None:
    page = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")
    assert model.page(model.Assumed(), model.measured()) in page, "python benchmarks/scaling_model.py"


def test_a_round_adds_up(model: ModuleType) -> None:
    a, m = model.Assumed(), model.measured()
    small = model.Round(8e9, 1000, 8, a, m)
    assert small.sampled_tokens == 1000 * 8 * 1000
    assert small.trained_tokens == 500 * (200 + 8 * 1000)
    assert small.calls == 1000 * 8 * 0.1 + 1000 * 0.5 * 4
    assert small.training_gpu_hours == pytest.approx(10 * 8e9 * small.trained_tokens / (989e12 * 0.38) / 3600)
    ten = model.Round(8e9, 10_000, 8, a, m)
    assert ten.sampling_gpu_hours == pytest.approx(10 * small.sampling_gpu_hours)
    assert ten.hours()["controller thread"] == pytest.approx(10 * small.hours()["controller thread"])


def test_an_assumption_that_is_changed_moves_what_hangs_on_it_only(model: ModuleType) -> None:
    a, m = model.Assumed(), model.measured()
    base = model.Round(8e9, 1000, 8, a, m).hours()
    slow = model.Round(8e9, 1000, 8, replace(a, teacher_seconds=2 * a.teacher_seconds), m).hours()
    assert slow.pop("teacher") == pytest.approx(2 * base.pop("teacher"))
    assert slow == base


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0"), (0.0312, "0.031"), (7.04, "7.0"), (31.4, "31"), (5123, "5,100"), (2.2e6, "2.2 M")]
)
def test_numbers_have_two_digits(model: ModuleType, number: float, text: str) -> None:
    assert model.shown(number) == text
