"""When which stage was worked at, laid out for drawing: time in which nothing was worked at is cut out. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from prosetting.core.journal_rows import Span
from prosetting.core.state_manager import EVAL_FILES, EVALUATION, ROUND_GATE, WRITING
from prosetting.records import Stage

LANES = (
    Stage.DATA_COLLECTION.value,
    Stage.DATA_GRADING.value,
    WRITING,
    Stage.DPO_CONVERSION.value,
    Stage.TRL_TRAINING.value,
    EVALUATION,
    Stage.NEXT_ROUND_PREP.value,
    ROUND_GATE,
    EVAL_FILES,
)
CUT_S = 5.0
"""Time without any work that is longer is cut out: a run that was stopped, a person who was asked."""
_TICKS_S = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 28800, 86400, 7 * 86400)
_MOST_TICKS = 8


@dataclass(frozen=True, slots=True)
class Bar:
    """One span of work, in seconds of working time."""

    lane: str
    round: int
    begin_s: float
    end_s: float
    outcome: str


@dataclass(frozen=True, slots=True)
class RoundBand:
    """A round from its first work to its last."""

    round: int
    begin_s: float
    end_s: float


@dataclass(frozen=True, slots=True)
class Timeline:
    """`overlap`: stages worked at, on average, while any was. `cuts`: where time without work was left out."""

    lanes: list[str]
    bars: list[Bar]
    rounds: list[RoundBand]
    cuts: list[float]
    ticks: list[float]
    length_s: float
    overlap: float


def timeline_of(spans: Sequence[Span], now: float, last_rounds: int | None = None) -> Timeline:
    """`now`, in seconds since the epoch, is the end of what is running. `last_rounds`: only so many, the latest."""
    shown = [span for span in spans if span.name in LANES]
    if last_rounds is not None and shown:
        first = max(span.round for span in shown) - last_rounds + 1
        shown = [span for span in shown if span.round >= first]
    ends = [span.ended_at or max(now, span.began_at) for span in shown]
    pieces = _pieces([(span.began_at, end) for span, end in zip(shown, ends, strict=True)])
    bars = [
        Bar(span.name, span.round, _worked(span.began_at, pieces), _worked(end, pieces), span.outcome)
        for span, end in zip(shown, ends, strict=True)
    ]
    length_s = max(sum(end - begin for begin, end in pieces), 1e-3)
    bands = []
    for round_ in sorted({bar.round for bar in bars}):
        own = [bar for bar in bars if bar.round == round_]
        bands.append(RoundBand(round_, min(bar.begin_s for bar in own), max(bar.end_s for bar in own)))
    cuts = [_worked(end, pieces) for _, end in pieces[:-1]]
    worked = sum(bar.end_s - bar.begin_s for bar in bars if bar.lane != Stage.NEXT_ROUND_PREP)
    return Timeline(
        [lane for lane in LANES if any(bar.lane == lane for bar in bars)],
        bars,
        bands,
        cuts,
        _ticks(length_s),
        length_s,
        worked / length_s,
    )


def _pieces(intervals: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The times in which something was worked at, in order."""
    pieces: list[tuple[float, float]] = []
    for begin, end in sorted(intervals):
        if pieces and begin - pieces[-1][1] <= CUT_S:
            pieces[-1] = (pieces[-1][0], max(end, pieces[-1][1]))
        else:
            pieces.append((begin, end))
    return pieces


def _worked(moment: float, pieces: Sequence[tuple[float, float]]) -> float:
    """Working time from the beginning until `moment`."""
    return sum(min(moment, end) - begin for begin, end in pieces if begin < moment)


def _ticks(length_s: float) -> list[float]:
    step = next((step for step in _TICKS_S if length_s / step <= _MOST_TICKS), 4 * _TICKS_S[-1])
    return [float(n * step) for n in range(int(length_s // step) + 1)]
