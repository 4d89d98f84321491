"""Words, n-grams, templates, near-duplicates and diversity figures."""

from __future__ import annotations

import random

import pytest

from prosetting.core.text import NEAR_DUPLICATE, jaccard, likeness, ngrams, words
from prosetting.processors.question_similarity import (
    Diversity,
    NearDuplicates,
    SharedRuns,
    diversity,
    template_of,
)
from prosetting.records import QuestionId


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


def test_near_duplicates_are_those_of_the_exact_similarity() -> None:
    """Whatever the hashes estimate, the answer equals that of comparing with every text."""
    rng = random.Random(0)
    base = [[str(rng.randrange(10**6)) for _ in range(40)] for _ in range(40)]
    known = {QuestionId(f"q{i}"): " ".join(text) for i, text in enumerate(base)}
    index = NearDuplicates(known.items())
    found = 0
    for i, text in enumerate(base * 5):
        changed = list(text)
        for place in rng.sample(range(40), i % 6):
            changed[place] = "x"
        new = " ".join(changed)
        best = max((likeness(new, old), name) for name, old in known.items())
        expected = (best[1], best[0]) if best[0] >= NEAR_DUPLICATE else None
        assert index.nearest(new) == expected
        found += expected is not None
    assert 40 < found < 200, "both sides of the threshold were met"


def test_an_added_question_is_found_and_adding_it_again_changes_nothing() -> None:
    index = NearDuplicates([])
    text = "one two three four five six"
    assert index.nearest(text) is None
    index.add(QuestionId("a"), text)
    index.add(QuestionId("a"), "something else entirely different")
    assert index.nearest(text) == ("a", 1.0)


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
