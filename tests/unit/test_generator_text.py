"""What the Generator reads and writes, as text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prosetting.datasets.generator_text import Draft, generator_completion, generator_prompt, read_draft
from prosetting.records import Verdict


def test_what_is_taught_reads_back() -> None:
    assert read_draft(generator_completion("How many?", "1+1=2\nso 2", "2")) == Draft("How many?", "1+1=2\nso 2", "2")


@pytest.mark.parametrize(
    ("text", "draft"),
    [
        ("How many?\nAnswer: 2", Draft("How many?", None, "2")),
        ("How many?", Draft("How many?", None, "")),
        ("Question: How many?\nSolution: 2", Draft("How many?", "2", "")),
        ("How many?\nSolution: 2\nAnswer: 3\nAnswer: 4", Draft("How many?", "2\nAnswer: 3", "4")),
        ("  ", None),
        ("\nAnswer: 2", None),
    ],
)
def test_a_draft_gives_what_there_is_of_it(text: str, draft: Draft | None) -> None:
    assert read_draft(text) == draft


@given(st.text())
def test_any_text_reads_as_a_draft_or_as_none(text: str) -> None:
    draft = read_draft(text)
    assert draft is None or (draft.text and len(draft.text) <= len(text))


def test_a_long_attempt_is_shown_by_its_ends() -> None:
    prompt = generator_prompt("How many?", "a" * 5_000 + "so 7", Verdict.INCORRECT, "easier")
    assert len(prompt) < 2_500
    assert prompt.endswith("so 7")
    assert "easier" in prompt
    assert "incorrect" in prompt
