"""Words, n-grams, templates, near-duplicates and diversity figures."""

from __future__ import annotations

import pytest

from prosetting.core.text import jaccard, likeness, ngrams, words
from prosetting.processors.question_similarity import (
    Diversity,
    SharedRuns,
    diversity,
    template_of,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Ana's cat, DON'T stop!", ["anas", "cat", "dont", "stop"]),
        ("Ana’s ＡＢ: 1,200.50 + 3rd", ["anas", "ab", "1200.50", "3", "rd"]),
        ("有 12 个苹果", ["有", "12", "个", "苹", "果"]),
        ("… — !", []),
    ],
)
def test_words(text: str, expected: list[str]) -> None:
    assert words(text) == expected


def test_a_text_shorter_than_a_run_is_one_run() -> None:
    assert ngrams(["a", "b"], 3) == {"a b"}
    assert ngrams([], 3) == frozenset()
    assert ngrams(list("abcd"), 3) == {"a b c", "b c d"}


def test_jaccard_and_likeness() -> None:
    assert jaccard(frozenset(), frozenset()) == 0.0
    assert jaccard({"a", "b"}, {"b", "c"}) == pytest.approx(1 / 3)
    assert likeness("one two three four", "ONE two three, four!") == 1.0


def test_a_template_masks_numerals_only() -> None:
    assert template_of("Max has 5 cards, 1,200 pens.") == template_of("max has 12 cards 7.5 pens")
    assert template_of("Max has 5 cards") != template_of("Eva has 5 cards")


def test_a_shared_run_of_eight_words_is_found() -> None:
    runs = SharedRuns(["a b c d e f g h i", "Too short?"])
    assert runs.first_in("x a b c d e f g h y") == "a b c d e f g h"
    assert runs.first_in("a b c d e f g x h i") is None
    assert runs.first_in("too SHORT") == "too short"
    assert runs.first_in("this is too short") is None


def test_diversity_figures() -> None:
    admitted = ["Max has 5 cards", "Max has 7 cards", "Where is the cat"]
    assert diversity(admitted, duplicates=1, written=4) == Diversity(
        questions=3, distinct_templates=2, distinct_3gram_ratio=1.0, duplicate_share=0.25
    )
    assert diversity(["a b c d", "a b c e"], duplicates=0, written=2).distinct_3gram_ratio == 0.75
    assert diversity([], duplicates=0, written=0) == Diversity(0, 0, 0.0, 0.0)
