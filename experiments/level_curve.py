"""Held-out pass@1 by round as an SVG: the levels of the main arm on the left, the arms at one level on the right."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any
from xml.sax.saxutils import escape

from prosetting.demo.ledgers.recipe import ARMS

PANEL, HEIGHT, TOP, BOTTOM, LEFT, LABELS = 300, 300, 44, 252, 40, 120
# Okabe and Ito's hues, which colour-blind readers can tell apart; the lines are labelled at their ends as well.
HUES = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9")
Point = Sequence[float]  # mean, low, high


def draw(told: dict[str, Any], target_level: int) -> str:
    """`told` is the summary of `easy_to_hard.py`."""
    main = told["main"]["pass_at_1"]
    levels = {f"level {level}": [point[level] for point in main] for level in main[0]}
    arms = {arm: [point[target_level] for point in told[arm]["pass_at_1"]] for arm in ARMS if arm in told}
    seeds = len(told["main"]["seeds"])
    width = 2 * (LEFT + PANEL + LABELS)
    parts = [
        _panel(0, "The loop, by level", levels),
        _panel(LEFT + PANEL + LABELS, f"Level {target_level}, by arm", arms),
    ]
    words = f"Held-out pass@1 after each round, mean over {seeds} seeds with 95 % intervals"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {HEIGHT}" width="{width}" role="img"'
        f' font-family="sans-serif" font-size="12"><title>{escape(words)}</title>'
        f'<rect width="{width}" height="{HEIGHT}" fill="#fff"/>{"".join(parts)}'
        f'<text x="{width / 2}" y="{HEIGHT - 8}" text-anchor="middle">{escape(words)}</text></svg>\n'
    )


def _panel(left: float, title: str, lines: dict[str, list[Point]]) -> str:
    rounds = max(map(len, lines.values()))

    def x(round_: float) -> float:
        return left + LEFT + 8 + (PANEL - 16) * round_ / max(1, rounds - 1)

    parts = [f'<text x="{left + LEFT}" y="22" font-weight="bold">{escape(title)}</text>']
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        parts.append(f'<path d="M{left + LEFT} {_y(share):.1f}h{PANEL}" stroke="#ddd"/>')
        parts.append(f'<text x="{left + LEFT - 6}" y="{_y(share) + 4:.1f}" text-anchor="end">{share:g}</text>')
    for round_ in range(rounds):
        name = str(round_) if round_ else "base"
        parts.append(f'<text x="{x(round_):.1f}" y="{BOTTOM + 18}" text-anchor="middle">{name}</text>')
    places = _apart([_y(points[-1][0]) for points in lines.values()])
    for number, (name, points) in enumerate(lines.items()):
        hue = HUES[number % len(HUES)]
        path = " ".join(f"{x(n):.1f},{_y(point[0]):.1f}" for n, point in enumerate(points))
        parts.append(f'<polyline points="{path}" fill="none" stroke="{hue}" stroke-width="2"/>')
        for n, (mean, low, high) in enumerate(points):
            parts.append(f'<circle cx="{x(n):.1f}" cy="{_y(mean):.1f}" r="3" fill="{hue}"/>')
            if not math.isnan(low):
                parts.append(f'<path d="M{x(n):.1f} {_y(low):.1f}V{_y(high):.1f}" stroke="{hue}" opacity=".6"/>')
        end = left + LEFT + PANEL + 4
        parts.append(f'<text x="{end}" y="{places[number] + 4:.1f}" fill="{hue}">{escape(name)}</text>')
    return "".join(parts)


def _y(share: float) -> float:
    return BOTTOM - (BOTTOM - TOP) * share


def _apart(places: list[float], least: float = 13.0) -> list[float]:
    """The same places from top to bottom, moved down where labels would overlap."""
    moved = list(places)
    above = -math.inf
    for number in sorted(range(len(places)), key=lambda number: places[number]):
        moved[number] = above = max(places[number], above + least)
    return moved
