"""How much questions read alike: word n-grams, number-masked templates, MinHash, diversity figures. Pure.

Near-duplicates are found as by Broder 1997 ("On the resemblance and containment of documents"): MinHash over word
trigrams and locality-sensitive hashing propose candidates, the exact Jaccard similarity decides.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from datasketch import MinHash, MinHashLSH

from prosetting.core.text import NEAR_DUPLICATE, jaccard, ngrams, words
from prosetting.records import QuestionId

TRIGRAM = 3
OVERLAP_WORDS = 8
"""A run of this many words that an evaluation question has too counts as contamination."""

# 42 bands of 3 rows: a pair of Jaccard similarity 0.7 is missed with probability (1 - 0.7³)^42 = 2e-8.
_BANDS, _ROWS = 42, 3
_PERMUTATIONS = _BANDS * _ROWS
_SEED = 1


def template_of(text: str) -> str:
    """The question with each numeral masked: equal for questions that differ in numbers only."""
    return " ".join("#" if word[0].isdigit() else word for word in words(text))


class NearDuplicates:
    """The questions so far, asked for one that reads almost like a new text."""

    def __init__(self, known: Iterable[tuple[QuestionId, str]]) -> None:
        self._lsh = MinHashLSH(num_perm=_PERMUTATIONS, params=(_BANDS, _ROWS))
        self._texts: dict[QuestionId, str] = {}
        for question_id, text in known:
            self.add(question_id, text)

    def add(self, question_id: QuestionId, text: str) -> None:
        """A question that is there already stays as it is."""
        if question_id not in self._texts:
            self._texts[question_id] = text
            self._lsh.insert(question_id, _signature(ngrams(words(text), TRIGRAM)), check_duplication=False)

    def nearest(self, text: str) -> tuple[QuestionId, float] | None:
        """The most similar known question and its similarity (0.7 … 1), None where none is that close."""
        grams = ngrams(words(text), TRIGRAM)
        candidates = sorted(self._lsh.query(_signature(grams)))
        found = [(jaccard(grams, ngrams(words(self._texts[name]), TRIGRAM)), name) for name in candidates]
        similarity, name = max(found, default=(0.0, QuestionId("")))
        return (name, similarity) if similarity >= NEAR_DUPLICATE else None


def _signature(grams: Iterable[str]) -> MinHash:
    signature = MinHash(num_perm=_PERMUTATIONS, seed=_SEED)
    signature.update_batch(sorted(gram.encode("utf-8", "surrogatepass") for gram in grams))
    return signature


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
