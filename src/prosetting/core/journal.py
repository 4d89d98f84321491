"""The one durable store: SQLite, one writer, rows keyed by content.

What is committed here is done and paid for, for ever; every other file of a workspace is written from it.
A row is keyed by what it is of (split, round, question, attempt), so writing it twice changes nothing.
Each kind of row has a part of its own; the tables are in `journal_rows.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from prosetting.core.journal_attempts import AttemptBooks
from prosetting.core.journal_pages import PageReads
from prosetting.core.journal_questions import QuestionBooks
from prosetting.core.journal_stages import StageBooks
from prosetting.core.journal_teachers import TeacherBooks
from prosetting.records import Grade, PoolEntry, Trajectory


class Journal(QuestionBooks, AttemptBooks, StageBooks, TeacherBooks, PageReads):
    """Open with `Journal(path)`; readers beside the run use `read_only=True`."""

    def pool_with_attempts(self, round_: int) -> Iterator[tuple[PoolEntry, list[tuple[Trajectory, Grade]]]]:
        """A round's pool in question-id order, each question with its graded attempts in attempt order.

        Read in pages, as `pool` and `graded_attempts` are: a question without graded attempts has an empty list.
        """
        groups = groupby(self.graded_attempts("train", round_), key=lambda graded: graded[0].question_id)
        group = next(groups, None)
        for entry in self.pool(round_):
            while group and group[0] < entry.question.question_id:
                group = next(groups, None)
            attempted = group is not None and group[0] == entry.question.question_id
            yield entry, list(group[1]) if group and attempted else []
