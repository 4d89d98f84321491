"""The learning curve: held-out pass@1 of each checkpoint, as bars in a terminal. `charts` draws it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

BAR_CELLS = 50


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """The held-out score of one checkpoint. `round` 0 is the untrained base."""

    round: int
    pass_at_1: float
    low: float
    high: float
    pass_at_k: float
    greedy: float
    questions: int
    samples: int


def curve_points(summary: dict[str, Any]) -> list[CurvePoint]:
    """One point a checkpoint: the base, and each round that trained. Empty without held-out questions."""
    scored = [summary["base"], *(r for r in summary["rounds"] if r["trained"])]
    return [_point(entry["round"], entry["heldout"]) for entry in scored if entry["heldout"]]


def _point(round_: int, heldout: dict[str, Any]) -> CurvePoint:
    low, high = heldout["pass_at_1_ci"]
    return CurvePoint(
        round_,
        heldout["pass_at_1"],
        low,
        high,
        heldout["pass_at_k"],
        heldout["greedy"],
        heldout["questions"],
        heldout["samples"],
    )


def draw_bars(points: list[CurvePoint]) -> list[str]:
    """A bar a checkpoint, 0 to 1: solid up to the interval's low end, then ▓ to the value and ░ to its high end."""
    lines = []
    for point in points:
        name = "base" if point.round == 0 else f"round {point.round}"
        figures = f"{point.pass_at_1:.3f} [{point.low:.3f}, {point.high:.3f}]"
        lines.append(f"  {name:<9} {figures}  |{_bar(point):<{BAR_CELLS}}|")
    return [*lines, f"  {'':<9} {'':<20}  |0{'1':>{BAR_CELLS - 1}}|"]


def _bar(point: CurvePoint) -> str:
    low, middle, high = (round(value * BAR_CELLS) for value in (point.low, point.pass_at_1, point.high))
    return "█" * low + "▓" * (middle - low) + "░" * (high - middle)
