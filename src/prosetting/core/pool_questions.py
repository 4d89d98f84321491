"""Questions that are read one by one as they are asked for: a pool, in the order in which it goes through a round."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import overload

from prosetting.core.journal import Journal
from prosetting.records import Question, QuestionId


class QuestionsById(Sequence[Question]):
    """A sequence of which only the ids are in memory (0.1 GB for a million); `read` gives the question of one."""

    def __init__(self, ids: list[QuestionId], read: Callable[[QuestionId], Question]) -> None:
        self.ids = ids
        self._read = read

    def __len__(self) -> int:
        return len(self.ids)

    @overload
    def __getitem__(self, place: int) -> Question: ...
    @overload
    def __getitem__(self, place: slice) -> list[Question]: ...
    def __getitem__(self, place: int | slice) -> Question | list[Question]:
        if isinstance(place, slice):
            return [self._read(question_id) for question_id in self.ids[place]]
        return self._read(self.ids[place])


class PoolQuestions(QuestionsById):
    """A round's pool, short questions first, so that prompts of similar length are sampled together."""

    def __init__(self, journal: Journal, round_: int) -> None:
        super().__init__(journal.pool_ids(round_), self._from_journal)
        self._journal = journal

    def _from_journal(self, question_id: QuestionId) -> Question:
        question = self._journal.question(question_id)
        assert question is not None, f"{question_id} is in a pool but not in the journal"
        return question
