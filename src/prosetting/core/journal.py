"""The one durable store: SQLite, one writer, rows keyed by content.

What is committed here is done and paid for, for ever; every other file of a workspace is written from it.
A row is keyed by what it is of (split, round, question, attempt), so writing it twice changes nothing.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import groupby, islice
from pathlib import Path
from typing import Any

from prosetting.core.crash_points import connection_class
from prosetting.core.journal_books import TeacherBooks
from prosetting.core.journal_pages import PageReads
from prosetting.core.journal_rows import (
    JOURNAL_VERSION,
    SCHEMA,
    AdmittedQuestion,
    QuestionTally,
    Span,
    Split,
    StageRecord,
)
from prosetting.core.question_index import QuestionIndex
from prosetting.core.storage import journal_damaged, pause_for
from prosetting.errors import WorkspaceError
from prosetting.records import Grade, PoolEntry, PoolReason, Question, QuestionId, Trajectory, Verdict

PAGE = 500
"""Rows that are in memory at a time when a round is read."""
_QUESTION = "q.question_id, text, reference, solution, kind, parent_id"
_ATTEMPT = "t.round, question_id, attempt, response, finish_reason, completion_tokens"
_GRADED = "trajectories t JOIN grades g USING (split, round, question_id, attempt)"
_MAYBE_GRADED = "trajectories t LEFT JOIN grades g USING (split, round, question_id, attempt)"
INDEXED_AT_ONCE = 2_000
_INDEXED = "pools_indexed"
# The rounds so far, one by one: what is keyed by (round, question) is then found by its key.
_EACH_ROUND = (
    "WITH RECURSIVE each_round (n) AS"
    " (SELECT 1 UNION ALL SELECT n + 1 FROM each_round WHERE n < (SELECT max(round) FROM pools))"
)


class Journal(TeacherBooks, PageReads):
    """Open with `Journal(path)`; readers beside the run use `read_only=True`."""

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self.path = path
        refuse_other_version(path)
        self.last_written_at = path.stat().st_mtime if path.exists() else time.time()
        """When the journal was written last before it was opened here, in seconds since the epoch."""
        if read_only and not (path.exists() and path.stat().st_size):
            raise WorkspaceError(f"no run has been started in {path.parent}", next_step="start one: prosetting run")
        try:
            target = f"file:{path}?mode=ro" if read_only else f"file:{path}"
            self._db = sqlite3.connect(target, uri=True, isolation_level=None, timeout=30, factory=connection_class())
            self._db.execute("PRAGMA journal_mode" if read_only else f"PRAGMA journal_mode={journal_mode()}")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.execute("PRAGMA foreign_keys=ON")
            if not read_only and not self._db.execute("SELECT 1 FROM sqlite_master").fetchone():
                self._create()
            self.question_index = QuestionIndex(self._db)
        except sqlite3.DatabaseError as error:
            raise pause_for(error, path.parent) or journal_damaged(path, error) from error

    def _create(self) -> None:
        with self.transaction():
            for statement in SCHEMA.split(";\n\n"):
                self._db.execute(statement)
            self.set_fact("journal_version", JOURNAL_VERSION)

    def close(self) -> None:
        self._db.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All writes inside are committed together, or none. One inside another joins it."""
        if self._db.in_transaction:
            yield
            return
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            # A full disk may have rolled back already.
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """All reads inside see one state. A run's commit waits for its end: for a few milliseconds of reading."""
        self._db.execute("BEGIN")
        try:
            yield
        finally:
            self._db.execute("ROLLBACK")

    # Facts of the run as a whole

    def set_fact(self, name: str, value: Any) -> None:
        self._db.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, json.dumps(value, sort_keys=True)))

    def fact(self, name: str) -> Any:
        row = self._db.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return json.loads(row[0]) if row else None

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

    # Attempts and grades

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
        return (Trajectory(*row) for row in self._attempts(_ATTEMPT, "trajectories t", "TRUE", split, round_))

    def _attempts(self, columns: str, tables: str, condition: str, split: Split, round_: int) -> Iterator[Any]:
        """A round's rows of attempts in their order. `columns` begin with those of `_ATTEMPT`.

        A page is whole before it is given away and begins after the last key of the page before, so no cursor
        stands open while a caller writes.
        """
        after: tuple[str, int] | None = ("", 0)
        while after is not None:
            rows = self._db.execute(
                f"SELECT {columns} FROM {tables} WHERE split = ? AND round = ? AND (question_id, attempt) > (?, ?)"
                f" AND {condition} ORDER BY question_id, attempt LIMIT ?",
                (split, round_, *after, PAGE),
            ).fetchall()
            yield from rows
            after = rows[-1][1:3] if len(rows) == PAGE else None

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
        for row in self._attempts(columns, _GRADED, "TRUE", split, round_):
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
        """A round's rows in pages; the statement takes round, the id to go on after, and how many, first column an id.

        A page is whole before it is given away, so no cursor stands open while a caller writes.
        """
        after: str | None = ""
        while after is not None:
            rows = self._db.execute(statement, (round_, after, PAGE)).fetchall()
            yield from rows
            after = rows[-1][0] if len(rows) == PAGE else None

    def origin(self, question_id: QuestionId) -> tuple[int, QuestionId, dict[str, Any]] | None:
        """Where a question of Teacher2 comes from: the round, the parent and the outcome; None for a seed question."""
        row = self._db.execute(
            "SELECT round, question_id, outcome FROM enhancements WHERE admitted_id = ?", (question_id,)
        ).fetchone()
        return (row[0], QuestionId(row[1]), json.loads(row[2])) if row else None

    # Stages and failures

    def finish_stage(
        self, round_: int, stage: str, inputs: dict[str, Any], output: dict[str, Any], seconds: float
    ) -> None:
        texts = [json.dumps(part, ensure_ascii=False) for part in (inputs, output)]
        self._db.execute(
            "INSERT OR REPLACE INTO stages VALUES (?, ?, ?, ?, ?, ?)", (round_, stage, *texts, seconds, time.time())
        )

    def begin_span(self, round_: int, name: str) -> int:
        """A stage is worked at from now; the number to end that by."""
        return self.add_span(Span(round_, name, time.time(), None, "running"))

    def add_span(self, span: Span) -> int:
        cursor = self._db.execute(
            "INSERT INTO spans VALUES (?, ?, ?, ?, ?, ?)",
            (span.round, span.name, span.began_at, span.ended_at, span.outcome, span.note),
        )
        assert cursor.lastrowid is not None
        return cursor.lastrowid

    def end_span(self, number: int, outcome: str, note: str = "") -> None:
        self._db.execute(
            "UPDATE spans SET ended_at = ?, outcome = ?, note = ? WHERE rowid = ?",
            (time.time(), outcome, note, number),
        )

    def end_killed_spans(self) -> None:
        """Whatever seems to run was left so by a run that was killed: it was alive when it wrote last."""
        self._db.execute(
            "UPDATE spans SET outcome = 'killed', ended_at = max(began_at, ?) WHERE outcome = 'running'",
            (self.last_written_at,),
        )

    def spans(self, round_: int | None = None) -> list[Span]:
        """What was worked at and when, in the order of beginning: in one round, or in all."""
        rows = self._db.execute(
            "SELECT round, name, began_at, ended_at, outcome, note FROM spans WHERE coalesce(round = ?, TRUE)"
            " ORDER BY began_at, rowid",
            (round_,),
        )
        return [Span(*row) for row in rows]

    def stage(self, round_: int, stage: str) -> StageRecord | None:
        row = self._db.execute(
            "SELECT inputs, output, seconds, finished_at FROM stages WHERE round = ? AND stage = ?",
            (round_, stage),
        ).fetchone()
        return StageRecord(json.loads(row[0]), json.loads(row[1]), row[2], row[3]) if row else None

    def set_stage_output(self, round_: int, stage: str, output: dict[str, Any]) -> None:
        """Tell otherwise what a stage that is done came to: its files stand somewhere else now."""
        self._db.execute(
            "UPDATE stages SET output = ? WHERE round = ? AND stage = ?",
            (json.dumps(output, ensure_ascii=False), round_, stage),
        )

    def rounds_with(self, stage: str) -> list[int]:
        """The rounds in which a stage is done."""
        rows = self._db.execute("SELECT round FROM stages WHERE stage = ? ORDER BY round", (stage,))
        return [row[0] for row in rows]

    def stages_done(self, round_: int) -> list[str]:
        rows = self._db.execute("SELECT stage FROM stages WHERE round = ? ORDER BY finished_at", (round_,))
        return [row[0] for row in rows]

    def rounds_begun(self) -> int:
        """The last round of which a stage is done, 0 before the first."""
        return int(self._db.execute("SELECT coalesce(max(round), 0) FROM stages").fetchone()[0])

    def run_seconds(self) -> float:
        """How long the run has worked, all sessions; one that was killed counts with the stages it finished."""
        stages = self._db.execute("SELECT coalesce(sum(seconds), 0) FROM stages").fetchone()[0]
        return max(float(self.fact("run_seconds") or 0.0), float(stages))

    def add_failure(self, round_: int, stage: str, message: str) -> None:
        self._db.execute("INSERT INTO failures VALUES (?, ?, ?, ?, '')", (time.time(), round_, stage, message))

    def decide_failure(self, decision: str) -> None:
        """What was done about the latest failure: retry, skip_training, stop."""
        self._db.execute(
            "UPDATE failures SET decision = ? WHERE rowid = (SELECT max(rowid) FROM failures)", (decision,)
        )

    def failures(self) -> list[dict[str, Any]]:
        """Each with its time, round, stage, message, and the decision, empty where a run ended before it."""
        names = ("at", "round", "stage", "message", "decision")
        rows = self._db.execute(f"SELECT {', '.join(names)} FROM failures ORDER BY at")
        return [dict(zip(names, row, strict=True)) for row in rows]


def refuse_other_version(path: Path) -> None:
    """Raises WorkspaceError for a journal of another version; touches neither it nor its folder.

    `immutable` leaves even a commit that was cut short to whoever opens the journal to write.
    """
    if not (path.exists() and path.stat().st_size):
        return
    with closing(sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)) as db:
        try:
            row = db.execute("SELECT value FROM facts WHERE name = 'journal_version'").fetchone()
        except sqlite3.DatabaseError:
            return  # damaged, or not created yet: for `Journal` to tell
    if row and row[0] != str(JOURNAL_VERSION):
        raise WorkspaceError(
            f"{path} is of journal version {row[0]}, this program reads {JOURNAL_VERSION}",
            next_step="use the version that made it, or set another WORKSPACE_DIR",
        )


def journal_mode() -> str:
    """WAL loses data in a race of two connections before SQLite 3.51.3 (fixed also in 3.50.7 and 3.44.6)."""
    version = sqlite3.sqlite_version_info
    sound = version >= (3, 51, 3) or (3, 50, 7) <= version < (3, 51) or (3, 44, 6) <= version < (3, 45)
    return "WAL" if sound else "TRUNCATE"
