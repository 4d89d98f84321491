"""The questions' part of the journal: the pools of each round, and what was made of each question."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

from prosetting.core.journal_file import JournalFile
from prosetting.core.journal_rows import AdmittedQuestion
from prosetting.records import PoolEntry, PoolReason, Question, QuestionId

INDEXED_AT_ONCE = 2_000
_INDEXED = "pools_indexed"
_QUESTION = "q.question_id, text, reference, solution, kind, parent_id"
# The rounds so far, one by one: what is keyed by (round, question) is then found by its key.
_EACH_ROUND = (
    "WITH RECURSIVE each_round (n) AS"
    " (SELECT 1 UNION ALL SELECT n + 1 FROM each_round WHERE n < (SELECT max(round) FROM pools))"
)


class QuestionBooks(JournalFile):
    """Part of `Journal`; not made by itself."""

    # Questions and pools

    def set_pool(self, round_: int, entries: Sequence[PoolEntry]) -> None:
        """Store a round's pool and its questions, all at once."""
        with self.transaction():
            self.add_questions(entry.question for entry in entries)
            self._db.execute("DELETE FROM pools WHERE round = ?", (round_,))
            self._db.executemany(
                "INSERT INTO pools VALUES (?, ?, ?)",
                ((round_, entry.question.question_id, entry.reason) for entry in entries),
            )

    def add_questions(self, questions: Iterable[Question]) -> None:
        self._db.executemany(
            "INSERT OR IGNORE INTO questions VALUES (?, ?, ?, ?, ?, ?)",
            ((q.question_id, q.text, q.reference, q.solution, q.kind, q.parent_id) for q in questions),
        )

    def pool(self, round_: int) -> Iterator[PoolEntry]:
        """A round's pool in question-id order, read in pages: writes in between are safe."""
        rows = self._by_id(
            f"SELECT {_QUESTION}, reason FROM pools p JOIN questions q USING (question_id)"
            " WHERE p.round = ? AND p.question_id > ? ORDER BY p.question_id LIMIT ?",
            round_,
        )
        return (PoolEntry(Question(*row[:6]), row[6]) for row in rows)

    def pool_counts(self, round_: int) -> dict[str, int]:
        """How many questions a round's pool holds for which reason; empty for a round that has no pool yet."""
        rows = self._db.execute(
            "SELECT reason, questions FROM pool_counts WHERE round = ? AND questions > 0 ORDER BY reason", (round_,)
        )
        return {row[0]: row[1] for row in rows}

    def pool_ids(self, round_: int) -> list[QuestionId]:
        """The questions of a round's pool, short ones first."""
        rows = self._db.execute(
            "SELECT question_id FROM pools JOIN questions USING (question_id) WHERE round = ?"
            " ORDER BY length(text), question_id",
            (round_,),
        )
        return [QuestionId(row[0]) for row in rows]

    def fill_pool(self, round_: int, entries: Iterable[tuple[QuestionId, PoolReason]]) -> None:
        """As `set_pool`, for questions that are in the journal."""
        with self.transaction():
            self._db.execute("DELETE FROM pools WHERE round = ?", (round_,))
            self._db.executemany(
                "INSERT INTO pools VALUES (?, ?, ?)", ((round_, question_id, why) for question_id, why in entries)
            )

    def index_pools(self, round_: int) -> None:
        """Bring `question_index` to the pools up to this round; costs what was not indexed before.

        A question that was admitted to a pool and found no room in it is not known.
        """
        for r in range((self.fact(_INDEXED) or 0) + 1, round_ + 1):
            self._db.execute(
                "DELETE FROM question_index WHERE round = ?1"
                " AND question_id NOT IN (SELECT question_id FROM pools WHERE round = ?1)",
                (r,),
            )
            new = (
                entry.question for entry in self.pool(r) if not self.question_index.holds(entry.question.question_id)
            )
            while piece := list(islice(new, INDEXED_AT_ONCE)):
                with self.transaction():
                    self.question_index.add(r, piece)
            self.set_fact(_INDEXED, r)

    def in_pools(self, question_id: QuestionId, last_round: int) -> bool:
        """Whether a pool up to this round holds the question."""
        return any(round_ <= last_round for round_ in self.rounds_of(question_id))

    def question(self, question_id: QuestionId) -> Question | None:
        row = self._db.execute(
            f"SELECT {_QUESTION} FROM questions q WHERE question_id = ?",
            (question_id,),
        ).fetchone()
        return Question(*row) if row else None

    def question_ids(self, prefix: str, most: int) -> list[QuestionId]:
        """The first `most` ids that begin so, in order."""
        rows = self._db.execute(
            "SELECT question_id FROM questions WHERE question_id >= ?1 AND question_id < ?1 || char(0x10ffff)"
            " ORDER BY question_id LIMIT ?2",
            (prefix, most),
        )
        return [QuestionId(row[0]) for row in rows]

    def rounds_of(self, question_id: QuestionId) -> dict[int, PoolReason]:
        """The rounds whose pools hold a question, and why."""
        rows = self._db.execute(
            f"{_EACH_ROUND} SELECT p.round, reason FROM each_round CROSS JOIN pools p"
            " ON p.round = n AND p.question_id = ? ORDER BY p.round",
            (question_id,),
        )
        return {row[0]: row[1] for row in rows}

    def written_from(self, question_id: QuestionId) -> list[tuple[int, dict[str, Any], QuestionId | None]]:
        """What Teacher2 made of a question: the round, the outcome, and the new question's id where it was admitted."""
        rows = self._db.execute(
            f"{_EACH_ROUND} SELECT e.round, outcome, admitted_id FROM each_round CROSS JOIN enhancements e"
            " ON e.round = n AND e.question_id = ? ORDER BY e.round",
            (question_id,),
        )
        return [(row[0], json.loads(row[1]), row[2]) for row in rows]

    # What came of each question that was built on in a round

    def add_enhancement(
        self, round_: int, question_id: QuestionId, outcome: dict[str, Any], admitted_id: QuestionId | None = None
    ) -> None:
        """`question_id` is the parent; `admitted_id` the question made from it, once it is in a pool."""
        self._db.execute(
            "INSERT OR REPLACE INTO enhancements VALUES (?, ?, ?, ?)",
            (round_, question_id, json.dumps(outcome, ensure_ascii=False), admitted_id),
        )

    def enhancement(self, round_: int, question_id: QuestionId) -> dict[str, Any] | None:
        """What became of one parent, None while Teacher2 has not been asked."""
        row = self._db.execute(
            "SELECT outcome FROM enhancements WHERE round = ? AND question_id = ?", (round_, question_id)
        ).fetchone()
        return json.loads(row[0]) if row else None

    def enhancements(self, round_: int) -> Iterator[tuple[QuestionId, dict[str, Any]]]:
        """Each parent that Teacher2 was asked about and what became of it, in question-id order, read in pages."""
        rows = self._by_id(
            "SELECT question_id, outcome FROM enhancements WHERE round = ? AND question_id > ?"
            " ORDER BY question_id LIMIT ?",
            round_,
        )
        return ((QuestionId(row[0]), json.loads(row[1])) for row in rows)

    def admitted(self, round_: int) -> Iterator[Question]:
        """The questions that Teacher2 wrote in a round and the gate let in, in question-id order, read in pages."""
        rows = self._by_id(
            f"SELECT {_QUESTION} FROM enhancements e JOIN questions q ON q.question_id = e.admitted_id"
            " WHERE e.round = ? AND e.admitted_id > ? ORDER BY e.admitted_id LIMIT ?",
            round_,
        )
        return (Question(*row) for row in rows)

    def admitted_with_parents(self, round_: int) -> Iterator[AdmittedQuestion]:
        """Each of `admitted`, with what it was made from and how it went where the next round has played it."""
        rows = self._by_id(
            "SELECT q.question_id, text, reference, solution, kind, e.question_id, outcome,"
            " (SELECT text FROM questions p WHERE p.question_id = e.question_id),"
            " (SELECT response FROM trajectories t WHERE t.split = 'train' AND t.round = e.round"
            " AND t.question_id = e.question_id AND t.attempt = json_extract(outcome, '$.attempt')),"
            " (SELECT avg(verdict = 'correct') FROM grades g WHERE g.split = 'train' AND g.round = e.round + 1"
            " AND g.question_id = e.admitted_id AND verdict != 'unknown')"
            " FROM enhancements e JOIN questions q ON q.question_id = e.admitted_id"
            " WHERE e.round = ? AND e.admitted_id > ? ORDER BY e.admitted_id LIMIT ?",
            round_,
        )
        return (AdmittedQuestion(Question(*row[:6]), row[7], row[8], json.loads(row[6]), row[9]) for row in rows)

    def _by_id(self, statement: str, round_: int) -> Iterator[Any]:
        """A round's rows in pages: the statement takes round, the id to go on after, how many; first column an id."""
        return self._in_pages(statement, (round_,), ("",), slice(1))

    def origin(self, question_id: QuestionId) -> tuple[int, QuestionId, dict[str, Any]] | None:
        """Where a question of Teacher2 comes from: the round, the parent and the outcome; None for a seed question."""
        row = self._db.execute(
            "SELECT round, question_id, outcome FROM enhancements WHERE admitted_id = ?", (question_id,)
        ).fetchone()
        return (row[0], QuestionId(row[1]), json.loads(row[2])) if row else None
