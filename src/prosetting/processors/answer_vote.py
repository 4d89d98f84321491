"""Which answer an attempt votes for, so that equal answers can be counted."""

from __future__ import annotations

from prosetting.processors.answer_extraction import extract
from prosetting.processors.answer_forms import parse_number, spelling_key


def vote_of(response: str) -> str | None:
    """The attempt's final answer in one spelling (`1,200` is `1200.0`); None where it states none, or several."""
    found = extract(response)
    if found.kind != "found":
        return None
    number = parse_number(found.answers[0])
    if number is not None:
        return f"{number.value}{'%' if number.percent else ''}"
    return spelling_key(found.answers[0]).casefold()
