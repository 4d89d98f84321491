"""How much questions read alike: word n-grams, number-masked templates, diversity figures. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from prosetting.core.question_index import TRIGRAM
from prosetting.core.text import ngrams, words

OVERLAP_WORDS = 8
"""A run of this many words that an evaluation question has too counts as contamination."""


def template_of(text: str) -> str:
    """The question with each numeral masked: equal for questions that differ in numbers only."""
    return " ".join("#" if word[0].isdigit() else word for word in words(text))


class SharedRuns:
    """The word 8-grams of evaluation questions; one of fewer words counts as a whole."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._runs: set[str] = set()
        for text in texts:
            self._runs |= ngrams(words(text), OVERLAP_WORDS)

    def first_in(self, text: str) -> str | None:
        """The first run, in alphabetical order, that `text` shares with an evaluation question."""
        return min(self._runs & ngrams(words(text), OVERLAP_WORDS), default=None)


@dataclass(frozen=True, slots=True)
class Diversity:
    """How varied the new questions of a round are.

    `distinct_3gram_ratio` is distinct by all word trigrams of the admitted questions (distinct-n, Li et al. 2016,
    arXiv 1510.03055), `duplicate_share` the share of the written questions turned away as repeating another.
    """

    questions: int
    distinct_templates: int
    distinct_3gram_ratio: float
    duplicate_share: float


def diversity(admitted: Sequence[str], *, duplicates: int, written: int) -> Diversity:
    """The figures for the admitted texts, out of `written` questions of which `duplicates` repeated another."""
    runs = [found[start : start + TRIGRAM] for found in map(words, admitted) for start in range(len(found) - 2)]
    distinct = {" ".join(run) for run in runs}
    return Diversity(
        questions=len(admitted),
        distinct_templates=len({template_of(text) for text in admitted}),
        distinct_3gram_ratio=len(distinct) / len(runs) if runs else 0.0,
        duplicate_share=duplicates / written if written else 0.0,
    )
