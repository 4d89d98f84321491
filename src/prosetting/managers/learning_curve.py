"""The learning curve: held-out pass@1 of each checkpoint, as bars in a terminal and as a picture."""

from __future__ import annotations

import importlib.util
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prosetting.core.artifacts import replace_atomically

log = logging.getLogger("prosetting")
BAR_CELLS = 50
PICTURES = ("learning_curve.png", "learning_curve.svg")


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


def save_pictures(folder: Path, points: list[CurvePoint]) -> list[str]:
    """Draw the curve into `folder`; the names of the files written, none without matplotlib or points."""
    if not points:
        return []
    if importlib.util.find_spec("matplotlib") is None:
        log.info("notice: no picture of the learning curve without matplotlib: pip install 'prosetting[report]'")
        return []
    figure = _figure(points)
    for name in PICTURES:
        with replace_atomically(folder / name) as temporary:
            # Without a date in it the same curve gives the same file.
            metadata = {"Date": None} if name.endswith(".svg") else {}
            figure.savefig(temporary, format=Path(name).suffix[1:], dpi=150, metadata=metadata)
    return list(PICTURES)


def _figure(points: list[CurvePoint]) -> Any:
    import matplotlib
    from matplotlib.figure import Figure

    matplotlib.rcParams["svg.hashsalt"] = "prosetting"
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.add_subplot()
    rounds = [point.round for point in points]
    # Rounding may put an interval of no width a hair beside its value.
    spread = [[max(p.pass_at_1 - p.low, 0) for p in points], [max(p.high - p.pass_at_1, 0) for p in points]]
    values = [point.pass_at_1 for point in points]
    axes.errorbar(rounds, values, yerr=spread, marker="o", capsize=4, linewidth=2, label="pass@1, 95 % interval")
    axes.plot(rounds, [p.greedy for p in points], linestyle="--", marker=".", alpha=0.7, label="greedy")
    axes.plot(rounds, [p.pass_at_k for p in points], linestyle=":", marker=".", alpha=0.7, label="pass@k")
    axes.set_xticks(rounds, ["base" if r == 0 else str(r) for r in rounds])
    axes.set(xlabel="checkpoint after round", ylabel="held-out accuracy", ylim=(0, 1), title="Learning curve")
    axes.grid(axis="y", alpha=0.3)
    axes.legend(loc="lower right")
    return figure
