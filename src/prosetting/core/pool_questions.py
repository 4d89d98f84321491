"""The questions of a round in the order in which they go through it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

from prosetting.core.journal import Journal
from prosetting.records import Question


class PoolQuestions(Sequence[Question]):
    """A round's pool, short questions first, so that prompts of similar length are sampled together.

    Only the ids are in memory (0.1 GB for a million); a question is read from the journal when it is asked for.
    """

    def __init__(self, journal: Journal, round_: int) -> None:
        self._journal = journal
        self.ids = journal.pool_ids(round_)

    def __len__(self) -> int:
        return len(self.ids)

    @overload
    def __getitem__(self, place: int) -> Question: ...
    @overload
    def __getitem__(self, place: slice) -> list[Question]: ...
    def __getitem__(self, place: int | slice) -> Question | list[Question]:
        if isinstance(place, slice):
            return [self[index] for index in range(*place.indices(len(self)))]
        question = self._journal.question(self.ids[place])
        assert question is not None, f"{self.ids[place]} is in a pool but not in the journal"
        return question
