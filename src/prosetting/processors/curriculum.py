"""Which kind of question Teacher2 is to write next, by how a question went. Pure functions, one dict."""

from __future__ import annotations

from collections.abc import Callable

from prosetting.config import Settings
from prosetting.records import QuestionKind

Band = tuple[float, float]
"""Shares of attempts: at or below the first a question counts as out of reach, at or above the second as mastered."""
Curriculum = Callable[[float, Band], QuestionKind | None]
"""From the share of a question's decided attempts that were correct (0 … 1) and CURRICULUM_BAND to the kind; None asks
for nothing."""


def zones(pass_rate: float, band: Band) -> QuestionKind | None:
    """As in Socratic-Zero (arXiv 2509.24726): mastered by every attempt → harder; in learning → another one aimed at
    the mistake; by none → nothing there, here an easier one: a pool of nothing else would stand still."""
    return in_band(pass_rate, (0.0, 1.0))


def in_band(pass_rate: float, band: Band) -> QuestionKind | None:
    """Harder before every last attempt is right: a Solver that samples seldom reaches 8 of 8, and would stay."""
    easier, harder = band
    if pass_rate >= harder:
        return "harder"
    return "variant" if pass_rate > easier else "easier"


def same_kind(pass_rate: float, band: Band) -> QuestionKind | None:
    """Other questions of the same difficulty, however this one went."""
    return "variant"


CURRICULA: dict[str, Curriculum] = {"zones": zones, "band": in_band, "all": same_kind}
"""By CURRICULUM. When to use which: docs/strategies.md."""


def curriculum_of(settings: Settings) -> Callable[[float], QuestionKind | None]:
    """The curriculum that is set, as a function of the pass rate alone."""
    curriculum = CURRICULA[settings.curriculum]
    easier, harder = settings.curriculum_band

    def kind_for(pass_rate: float) -> QuestionKind | None:
        kind = curriculum(pass_rate, (easier, harder))
        return None if kind == "easier" and settings.enhance_too_hard == "none" else kind

    return kind_for
