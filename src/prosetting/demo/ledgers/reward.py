"""REWARD_FUNCTION of the experiment (docs/reward_function.md)."""

from __future__ import annotations

from prosetting.teachers import ledger


def whole_ledger(question: str, response: str, reference: str | None) -> bool | None:
    """Whether every entry is right. With totals below ten the last number alone is right by luck in one case of ten."""
    story = ledger.parse(question)
    return None if story is None else ledger.is_whole(story, response)
