"""Charts as inline SVG, drawn by pure functions: no library, no script, no style of their own.

Colours are classes (`s1` … `s5`, `templates/charts.css`), so that a page decides on light or dark, and every chart
says in words what it shows. The hues are those of Okabe and Ito, which colour-blind readers can tell apart; lines
differ by dashes and areas by their labels as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape, quoteattr

from markupsafe import Markup

from prosetting.core.text import printable
from prosetting.managers.learning_curve import CurvePoint
from prosetting.managers.timeline import Timeline

WIDTH = 620
_LEFT, _RIGHT = 44, 12
_LANE, _BAR = 26, 16
_SHORTEST_BAR = 1.5
_CHAR = 6.4
"""Width of a character of a chart's text, about."""


@dataclass(frozen=True, slots=True)
class Series:
    """One part of a stacked bar: its key in the rows, its name, its colour's class."""

    key: str
    label: str
    colour: str


def learning_curve(points: Sequence[CurvePoint]) -> Markup:
    """Held-out pass@1 with 95 % intervals, greedy and pass@k, by checkpoint; empty without points."""
    if not points:
        return Markup("")
    height, top, bottom = 270, 30, 226
    inner = WIDTH - _LEFT - _RIGHT
    step = inner / len(points)
    x = [_LEFT + step * (n + 0.5) for n in range(len(points))]

    def y(value: float) -> float:
        return bottom - (bottom - top) * min(max(value, 0.0), 1.0)

    parts = [_axis_y(y), *(_text(px, bottom + 18, _round_name(p), "middle") for px, p in zip(x, points, strict=True))]
    parts.append(_text(_LEFT + inner / 2, height - 6, "checkpoint after round", "middle"))
    for key, colour, dash in (("pass_at_k", "s3", "2 4"), ("greedy", "s2", "7 4")):
        line = [(px, y(getattr(p, key))) for px, p in zip(x, points, strict=True)]
        parts += [_line(line, colour, dash), *(_dot(px, py, colour, 2.5) for px, py in line)]
    parts.append(_line([(px, y(p.pass_at_1)) for px, p in zip(x, points, strict=True)], "s1", "", width=2.5))
    for px, p in zip(x, points, strict=True):
        told = f"{_round_name(p)}: {p.pass_at_1:.3f} [{p.low:.3f}, {p.high:.3f}]"
        parts += [_whisker(px, y(p.low), y(p.high)), _dot(px, y(p.pass_at_1), "s1", 4, told)]
        parts.append(_text(px, y(p.high) - 7, f"{p.pass_at_1:.3f}".lstrip("0"), "middle", "value"))
    legend = [("s1", "pass@1, 95 % interval", ""), ("s2", "greedy", "7 4"), ("s3", "pass@k", "2 4")]
    parts.append(_line_legend(legend, _LEFT + 4, 14))
    first, last = points[0], points[-1]
    words = (
        f"Held-out pass@1 of {len(points)} checkpoints on {last.questions} questions:"
        f" {first.pass_at_1:.3f} for {_round_name(first)}, {last.pass_at_1:.3f}"
        f" [{last.low:.3f}, {last.high:.3f}] for {_round_name(last)}."
    )
    return _svg("Learning curve", words, height, parts)


def stacked_shares(title: str, rows: Sequence[tuple[str, Mapping[str, int]]], series: Sequence[Series]) -> Markup:
    """A bar of 100 % a row, split by `series`, counts inside where they fit; empty without rows."""
    rows = [(name, counts) for name, counts in rows if sum(counts.get(one.key, 0) for one in series)]
    if not rows:
        return Markup("")
    left = 72
    inner = WIDTH - left - 64
    height = 34 + _LANE * len(rows)
    parts = [_area_legend(series, left, 14)]
    for number, (name, counts) in enumerate(rows):
        top = 28 + number * _LANE
        total = sum(counts.get(one.key, 0) for one in series)
        parts.append(_text(left - 8, top + 12, name, "end"))
        begin = float(left)
        for one in series:
            count = counts.get(one.key, 0)
            width = inner * count / total
            if count:
                told = f"{name}: {count:,} {one.label} ({count / total:.0%})"
                parts.append(_rect(begin, top, width, _BAR, one.colour, told))
            if width > _CHAR * len(f"{count:,}") + 8:
                parts.append(_text(begin + width / 2, top + 12, f"{count:,}", "middle", "inside"))
            begin += width
        parts.append(_text(WIDTH - 56, top + 12, f"{total:,}", "start"))
    told = "; ".join(
        f"{name}: " + ", ".join(f"{counts.get(one.key, 0):,} {one.label}" for one in series) for name, counts in rows
    )
    return _svg(title, f"{title}. {told}.", height, parts)


def gantt(timeline: Timeline, colours: Mapping[str, str]) -> Markup:
    """Which stage was worked at when, a lane a stage. Time without any work is cut out, a dashed line marks the cut."""
    if not timeline.bars:
        return Markup("")
    left = 136
    inner = WIDTH - left - _RIGHT
    bottom = 30 + _LANE * len(timeline.lanes)

    def x(second: float) -> float:
        return left + inner * second / timeline.length_s

    parts = []
    for band in timeline.rounds:
        begin, end = x(band.begin_s), x(band.end_s)
        parts.append(
            f'<rect class="band" x="{begin:.1f}" y="22" width="{max(0, end - begin - 1):.1f}" height="{bottom - 22}"/>'
        )
        name = f"round {band.round}" if end - begin > 60 else str(band.round)
        if end - begin > _CHAR * len(name):
            parts.append(_text((begin + end) / 2, 14, name, "middle"))
    for number, lane in enumerate(timeline.lanes):
        parts.append(_text(left - 8, 30 + number * _LANE + 12, lane.replace("_", " "), "end"))
    for bar in timeline.bars:
        begin, top = x(bar.begin_s), 30 + timeline.lanes.index(bar.lane) * _LANE
        width = max(_SHORTEST_BAR, x(bar.end_s) - begin)
        told = f"round {bar.round} · {bar.lane}: {duration(bar.end_s - bar.begin_s)}, {bar.outcome}"
        colour = colours.get(bar.lane, "s1") if bar.outcome in ("done", "running") else "bad"
        parts.append(_rect(begin, top, width, _BAR, f"{colour} {bar.outcome}", told))
    parts += [_vertical(x(cut), 22, bottom, "cut") for cut in timeline.cuts]
    parts += [_text(x(tick), bottom + 16, _tick(tick), "middle") for tick in timeline.ticks]
    words = (
        f"Stages of {len(timeline.rounds)} rounds over {duration(timeline.length_s)} of work,"
        f" {timeline.overlap:.2f} of them at a time on average."
    )
    return _svg("Stage timeline", words, bottom + 24, parts)


def over_time(
    title: str, at: Sequence[float], values: Mapping[str, Sequence[float]], shown: Callable[[float], str]
) -> Markup:
    """Lines over clock time from 0 to the greatest value; empty with fewer than two moments. `at` in seconds."""
    if len(at) < 2 or not values:
        return Markup("")
    height, top, bottom, left = 180, 30, 148, 64
    most = max(max(series) for series in values.values()) or 1.0
    span = max(at[-1] - at[0], 1.0)

    def place(moment: float, value: float) -> tuple[float, float]:
        return left + (WIDTH - left - _RIGHT) * (moment - at[0]) / span, bottom - (bottom - top) * value / most

    parts = []
    for part in (0.0, 0.5, 1.0):
        y = place(at[0], part * most)[1]
        parts.append(f'<line class="grid" x1="{left}" y1="{y:.1f}" x2="{WIDTH - _RIGHT}" y2="{y:.1f}"/>')
        parts.append(_text(left - 8, y + 4, shown(part * most), "end"))
    styles = [(f"s{n + 1}", name, ("", "7 4", "2 4", "9 3 2 3", "1 3")[n % 5]) for n, name in enumerate(values)]
    for (colour, _, dash), series in zip(styles, values.values(), strict=True):
        step = max(1, len(at) // 360)
        parts.append(_line([place(m, v) for m, v in zip(at[::step], series[::step], strict=True)], colour, dash, 2))
    parts += [
        _text(left, bottom + 20, f"{duration(span)} ago", "start"),
        _text(WIDTH - _RIGHT, bottom + 20, "now", "end"),
    ]
    parts.append(_line_legend(styles, left, 14))
    words = ", ".join(
        f"{name} {shown(series[-1])} now, {shown(max(series))} at most" for name, series in values.items()
    )
    return _svg(title, f"{words}.", height, parts)


def duration(seconds: float) -> str:
    """`3 h 05 min`, `2 min 09 s`, `4.2 s`."""
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s" if seconds % 1 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def _tick(seconds: float) -> str:
    """A round time as short as it can be said."""
    for unit, length_s in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= length_s:
            return f"{seconds / length_s:g} {unit}"
    return f"{seconds:g} s"


def standalone(chart: Markup, css: str) -> str:
    """A chart as a file of its own."""
    head, _, rest = chart.partition(">")
    return f'{head} xmlns="http://www.w3.org/2000/svg"><style>{css}</style>{rest}\n'


# Marks


def _svg(title: str, words: str, height: float, parts: Iterable[str]) -> Markup:
    named = f"<title>{_safe(title)}</title><desc>{_safe(words)}</desc>"
    label = quoteattr(printable(f"{title}. {words}"))
    opening = f'<svg class="chart" role="img" aria-label={label} viewBox="0 0 {WIDTH} {height:.0f}" width="{WIDTH}">'
    return Markup(opening + named + "".join(parts) + "</svg>")


def _safe(text: str) -> str:
    return escape(printable(text))


def _text(x: float, y: float, text: str, anchor: str, kind: str = "") -> str:
    named = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{named}>{_safe(text)}</text>'


def _rect(x: float, y: float, width: float, height: float, colour: str, told: str) -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"'
    return f'<rect class="{colour}" {place} fill="currentColor"><title>{_safe(told)}</title></rect>'


def _line(points: Sequence[tuple[float, float]], colour: str, dash: str, width: float = 1.5) -> str:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    return (
        f'<polyline class="{colour}" points="{path}" fill="none" stroke="currentColor" stroke-width="{width}"{dashed}/>'
    )


def _dot(x: float, y: float, colour: str, radius: float, told: str = "") -> str:
    title = f"<title>{_safe(told)}</title>" if told else ""
    return f'<circle class="{colour}" cx="{x:.1f}" cy="{y:.1f}" r="{radius}" fill="currentColor">{title}</circle>'


def _whisker(x: float, low: float, high: float) -> str:
    path = f"M{x - 5:.1f} {low:.1f}h10M{x:.1f} {low:.1f}V{high:.1f}M{x - 5:.1f} {high:.1f}h10"
    return f'<path class="s1" d="{path}" fill="none" stroke="currentColor" stroke-width="1.5"/>'


def _vertical(x: float, top: float, bottom: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x:.1f}" y1="{top}" x2="{x:.1f}" y2="{bottom}"/>'


def _axis_y(y: object) -> str:
    assert callable(y)
    ticks = (0.0, 0.25, 0.5, 0.75, 1.0)
    lines = [f'<line class="grid" x1="{_LEFT}" y1="{y(t):.1f}" x2="{WIDTH - _RIGHT}" y2="{y(t):.1f}"/>' for t in ticks]
    return "".join([*lines, *(_text(_LEFT - 8, y(t) + 4, f"{t:g}", "end") for t in ticks)])


def _line_legend(entries: Sequence[tuple[str, str, str]], x: float, y: float) -> str:
    parts = []
    for colour, label, dash in entries:
        parts += [_line([(x, y - 4), (x + 22, y - 4)], colour, dash, 2), _text(x + 28, y, label, "start")]
        x += 44 + _CHAR * len(label)
    return "".join(parts)


def _area_legend(series: Sequence[Series], x: float, y: float) -> str:
    parts = []
    for one in series:
        parts += [
            f'<rect class="{one.colour}" x="{x:.1f}" y="{y - 9}" width="10" height="10" fill="currentColor"/>',
            _text(x + 15, y, one.label, "start"),
        ]
        x += 32 + _CHAR * len(one.label)
    return "".join(parts)


def _round_name(point: CurvePoint) -> str:
    return "base" if point.round == 0 else f"round {point.round}"
