"""The attempts' part of the journal: what the Solver answered, and the verdicts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from typing import Any

from prosetting.core.journal_file import JournalFile
from prosetting.core.journal_rows import QuestionTally, Split
from prosetting.records import Grade, QuestionId, Trajectory, Verdict

_ATTEMPT = "t.round, question_id, attempt, response, finish_reason, completion_tokens"
_GRADED = "trajectories t JOIN grades g USING (split, round, question_id, attempt)"
_MAYBE_GRADED = "trajectories t LEFT JOIN grades g USING (split, round, question_id, attempt)"


class AttemptBooks(JournalFile):
    """Part of `Journal`; not made by itself."""

    def add_trajectories(self, split: Split, trajectories: Iterable[Trajectory]) -> None:
        with self.transaction():
            self._db.executemany(
                "INSERT OR IGNORE INTO trajectories VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    (
                        split,
                        t.round,
                        t.question_id,
                        t.attempt,
                        t.response,
                        t.finish_reason,
                        t.completion_tokens,
                    )
                    for t in trajectories
                ),
            )

    def has_attempts(self, split: Split, round_: int) -> bool:
        query = "SELECT 1 FROM trajectories WHERE split = ? AND round = ? LIMIT 1"
        return self._db.execute(query, (split, round_)).fetchone() is not None

    def attempted(self, split: Split, round_: int, question_id: QuestionId) -> set[int]:
        """The numbers of one question's attempts that are drawn."""
        rows = self._db.execute(
            "SELECT attempt FROM trajectories WHERE split = ? AND round = ? AND question_id = ?",
            (split, round_, question_id),
        )
        return {row[0] for row in rows}

    def trajectories(self, split: Split, round_: int) -> Iterator[Trajectory]:
        """In order of question id and attempt, read in pages: writes in between are safe."""
        return (Trajectory(*row) for row in self._attempts(_ATTEMPT, "trajectories t", split, round_))

    def _attempts(self, columns: str, tables: str, split: Split, round_: int) -> Iterator[Any]:
        """A round's rows of attempts in their order, in pages. `columns` begin with those of `_ATTEMPT`."""
        statement = (
            f"SELECT {columns} FROM {tables} WHERE split = ? AND round = ? AND (question_id, attempt) > (?, ?)"
            " ORDER BY question_id, attempt LIMIT ?"
        )
        return self._in_pages(statement, (split, round_), ("", 0), slice(1, 3))

    def add_grades(self, split: Split, grades: Iterable[Grade]) -> None:
        """A verdict that is decided stays when `unknown` comes later.

        Raises sqlite3.IntegrityError, and keeps none of them, where an attempt is not in the journal.
        """
        with self.transaction():
            self._db.executemany(
                "INSERT INTO grades VALUES (?, ?, ?, ?, ?, ?, ?)"
                " ON CONFLICT DO UPDATE SET"
                " verdict = excluded.verdict, decided_by = excluded.decided_by, diagnosis = excluded.diagnosis"
                " WHERE verdict = 'unknown' OR excluded.verdict != 'unknown'",
                ((split, g.round, g.question_id, g.attempt, g.verdict, g.decided_by, g.diagnosis) for g in grades),
            )

    def graded_attempts(self, split: Split, round_: int) -> Iterator[tuple[Trajectory, Grade]]:
        """Attempts with their grades, in order of question id and attempt, read in pages."""
        columns = f"{_ATTEMPT}, verdict, decided_by, diagnosis"
        for row in self._attempts(columns, _GRADED, split, round_):
            yield Trajectory(*row[:6]), Grade(round_, row[1], row[2], Verdict(row[6]), row[7], row[8])

    def attempts_of(self, split: Split, round_: int, question_id: QuestionId) -> list[tuple[Trajectory, Grade | None]]:
        """One question's attempts in order, each with its grade once it has one."""
        rows = self._db.execute(
            f"SELECT {_ATTEMPT}, verdict, decided_by, diagnosis FROM {_MAYBE_GRADED}"
            " WHERE split = ? AND round = ? AND question_id = ? ORDER BY attempt",
            (split, round_, question_id),
        )
        return [
            (Trajectory(*row[:6]), Grade(round_, question_id, row[2], Verdict(row[6]), *row[7:]) if row[6] else None)
            for row in rows
        ]

    def verdicts_digest(self, split: Split, round_: int) -> str:
        """Equal for equal verdicts on all attempts of a round."""
        rows = self._db.execute(
            "SELECT question_id, attempt, verdict FROM grades WHERE split = ? AND round = ?"
            " ORDER BY question_id, attempt",
            (split, round_),
        )
        found = hashlib.sha256()
        for row in rows:
            found.update(json.dumps(row).encode())
        return found.hexdigest()[:16]

    def verdicts_by_question(self, round_: int) -> Iterator[tuple[QuestionId, int, int]]:
        """Each question of a round's pool with its numbers of correct and of incorrect attempts, by question id."""
        rows = self._db.execute(
            "SELECT p.question_id, coalesce(sum(verdict = 'correct'), 0), coalesce(sum(verdict = 'incorrect'), 0)"
            " FROM pools p LEFT JOIN grades g"
            " ON g.split = 'train' AND g.round = p.round AND g.question_id = p.question_id"
            " WHERE p.round = ? GROUP BY p.question_id ORDER BY p.question_id",
            (round_,),
        )
        return ((QuestionId(row[0]), row[1], row[2]) for row in rows)

    def verdict_counts(self, split: Split, round_: int) -> dict[tuple[str, str], int]:
        """How many attempts have which verdict, from whom; ("", "") counts those not graded yet."""
        rows = self._db.execute(
            "SELECT verdict, decided_by, attempts FROM attempt_counts WHERE split = ? AND round = ? AND attempts > 0",
            (split, round_),
        )
        return {(row[0], row[1]): row[2] for row in rows}

    def tallies(self, split: Split, round_: int) -> Iterator[QuestionTally]:
        """The graded sampled attempts of each question, counted, in question-id order."""
        rows = self._db.execute(
            "SELECT sum(verdict = 'correct'), sum(verdict = 'incorrect'), sum(verdict = 'unknown') FROM grades"
            " WHERE split = ? AND round = ? AND attempt >= 0 GROUP BY question_id ORDER BY question_id",
            (split, round_),
        )
        return (QuestionTally(*row) for row in rows)

    def mean_completion_tokens(self, split: Split, round_: int) -> float | None:
        row = self._db.execute(
            "SELECT avg(completion_tokens) FROM trajectories WHERE split = ? AND round = ?", (split, round_)
        ).fetchone()
        return None if row[0] is None else float(row[0])

    def completion_tokens(self, split: Split, round_: int) -> int:
        row = self._db.execute(
            "SELECT coalesce(sum(completion_tokens), 0) FROM trajectories WHERE split = ? AND round = ?",
            (split, round_),
        ).fetchone()
        return int(row[0])
