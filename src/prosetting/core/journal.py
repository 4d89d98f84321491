"""The one durable store: SQLite, one writer, rows keyed by content.

What is committed here is done and paid for, for ever; every other file of a workspace is written from it.
A row is keyed by what it is of (split, round, question, attempt), so writing it twice changes nothing.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from prosetting.errors import WorkspaceError
from prosetting.records import Grade, PoolEntry, Question, QuestionId, Trajectory, Verdict

JOURNAL_VERSION = 1
Split = Literal["train", "heldout"]

_SCHEMA = """
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE questions (
    question_id TEXT PRIMARY KEY, text TEXT NOT NULL, reference TEXT, solution TEXT,
    kind TEXT NOT NULL, parent_id TEXT
) STRICT;
CREATE TABLE pools (
    round INTEGER NOT NULL, question_id TEXT NOT NULL, reason TEXT NOT NULL, PRIMARY KEY (round, question_id)
) STRICT, WITHOUT ROWID;
CREATE TABLE trajectories (
    split TEXT NOT NULL, round INTEGER NOT NULL, question_id TEXT NOT NULL, attempt INTEGER NOT NULL,
    response TEXT NOT NULL, finish_reason TEXT NOT NULL, completion_tokens INTEGER NOT NULL,
    PRIMARY KEY (split, round, question_id, attempt)
) STRICT, WITHOUT ROWID;
CREATE TABLE grades (
    split TEXT NOT NULL, round INTEGER NOT NULL, question_id TEXT NOT NULL, attempt INTEGER NOT NULL,
    verdict TEXT NOT NULL, decided_by TEXT NOT NULL, diagnosis TEXT NOT NULL,
    PRIMARY KEY (split, round, question_id, attempt)
) STRICT, WITHOUT ROWID;
CREATE TABLE teacher_calls (
    request_hash TEXT PRIMARY KEY, task TEXT NOT NULL, model TEXT NOT NULL, reply TEXT NOT NULL,
    attempts INTEGER NOT NULL, prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL,
    latency_s REAL NOT NULL
) STRICT;
CREATE TABLE enhancements (
    round INTEGER NOT NULL, question_id TEXT NOT NULL, outcome TEXT NOT NULL, PRIMARY KEY (round, question_id)
) STRICT, WITHOUT ROWID;
CREATE TABLE stages (
    round INTEGER NOT NULL, stage TEXT NOT NULL, input_hash TEXT NOT NULL, output TEXT NOT NULL,
    seconds REAL NOT NULL, finished_at REAL NOT NULL, PRIMARY KEY (round, stage)
) STRICT;
CREATE TABLE failures (
    at REAL NOT NULL, round INTEGER NOT NULL, stage TEXT NOT NULL, message TEXT NOT NULL
) STRICT;
"""


@dataclass(frozen=True, slots=True)
class StageRecord:
    """A stage that is done: the hash of what went in, what came out, how long it took."""

    input_hash: str
    output: dict[str, Any]
    seconds: float
    finished_at: float


class Journal:
    """Open with `Journal(path)`; readers beside the run use `read_only=True`."""

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self._path = path
        new = not path.exists()
        if new and read_only:
            raise WorkspaceError(f"no run has been started in {path.parent}", next_step="start one: prosetting run")
        try:
            target = f"file:{path}?mode=ro" if read_only else f"file:{path}"
            self._db = sqlite3.connect(target, uri=True, isolation_level=None, timeout=30)
            self._db.execute("PRAGMA journal_mode" if read_only else f"PRAGMA journal_mode={journal_mode()}")
            self._db.execute("PRAGMA synchronous=FULL")
            if new:
                self._create()
            self._check_version()
        except sqlite3.DatabaseError as error:
            raise WorkspaceError(
                f"the journal {path} cannot be read: {error}",
                next_step="set another WORKSPACE_DIR, or restore it",
            ) from error

    def _create(self) -> None:
        with self.transaction():
            for statement in _SCHEMA.split(";"):
                self._db.execute(statement)
            self.set_fact("journal_version", JOURNAL_VERSION)

    def _check_version(self) -> None:
        if (found := self.fact("journal_version")) != JOURNAL_VERSION:
            raise WorkspaceError(
                f"{self._path} is of journal version {found}, this program reads {JOURNAL_VERSION}",
                next_step="use the version that made it, or set another WORKSPACE_DIR",
            )

    def close(self) -> None:
        self._db.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All writes inside are committed together, or none."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

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

    def pool(self, round_: int) -> list[PoolEntry]:
        """A round's pool in question-id order."""
        rows = self._db.execute(
            "SELECT q.question_id, text, reference, solution, kind, parent_id, reason"
            " FROM pools p JOIN questions q USING (question_id) WHERE p.round = ? ORDER BY q.question_id",
            (round_,),
        )
        return [PoolEntry(Question(*row[:6]), row[6]) for row in rows]

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

    def attempted(self, split: Split, round_: int) -> set[tuple[QuestionId, int]]:
        rows = self._db.execute(
            "SELECT question_id, attempt FROM trajectories WHERE split = ? AND round = ?", (split, round_)
        )
        return {(QuestionId(row[0]), row[1]) for row in rows}

    def trajectories(self, split: Split, round_: int) -> Iterator[Trajectory]:
        """In order of question id and attempt."""
        rows = self._db.execute(
            "SELECT round, question_id, attempt, response, finish_reason, completion_tokens FROM trajectories"
            " WHERE split = ? AND round = ? ORDER BY question_id, attempt",
            (split, round_),
        )
        return (Trajectory(*row) for row in rows)

    def ungraded(self, split: Split, round_: int) -> list[Trajectory]:
        """Attempts without a verdict, and those whose verdict is unknown: they are tried again."""
        rows = self._db.execute(
            "SELECT t.round, question_id, attempt, response, finish_reason, completion_tokens"
            " FROM trajectories t LEFT JOIN grades g USING (split, round, question_id, attempt)"
            " WHERE split = ? AND round = ? AND coalesce(g.verdict, 'unknown') = 'unknown'"
            " ORDER BY question_id, attempt",
            (split, round_),
        )
        return [Trajectory(*row) for row in rows]

    def add_grades(self, split: Split, grades: Iterable[Grade]) -> None:
        with self.transaction():
            self._db.executemany(
                "INSERT OR REPLACE INTO grades VALUES (?, ?, ?, ?, ?, ?, ?)",
                ((split, g.round, g.question_id, g.attempt, g.verdict, g.decided_by, g.diagnosis) for g in grades),
            )

    def graded_attempts(self, split: Split, round_: int) -> Iterator[tuple[Trajectory, Grade]]:
        """Attempts with their grades, in order of question id and attempt."""
        rows = self._db.execute(
            "SELECT t.round, question_id, attempt, response, finish_reason, completion_tokens,"
            " verdict, decided_by, diagnosis"
            " FROM trajectories t JOIN grades g USING (split, round, question_id, attempt)"
            " WHERE split = ? AND round = ? ORDER BY question_id, attempt",
            (split, round_),
        )
        for row in rows:
            trajectory = Trajectory(*row[:6])
            yield (
                trajectory,
                Grade(round_, trajectory.question_id, trajectory.attempt, Verdict(row[6]), row[7], row[8]),
            )

    def verdict_counts(self, split: Split, round_: int) -> dict[tuple[str, str], int]:
        """How many attempts have which verdict, from whom; ("", "") counts those not graded yet."""
        rows = self._db.execute(
            "SELECT coalesce(g.verdict, ''), coalesce(g.decided_by, ''), count(*)"
            " FROM trajectories t LEFT JOIN grades g USING (split, round, question_id, attempt)"
            " WHERE split = ? AND round = ? GROUP BY 1, 2",
            (split, round_),
        )
        return {(row[0], row[1]): row[2] for row in rows}

    # Teacher calls: a reply that is here is never bought again (the teacher client's CallLedger)

    def recall(self, request_hash: str) -> str | None:
        row = self._db.execute("SELECT reply FROM teacher_calls WHERE request_hash = ?", (request_hash,)).fetchone()
        return str(row[0]) if row else None

    def record(
        self,
        request_hash: str,
        task: str,
        model: str,
        reply: str,
        attempts: int,
        prompt_tokens: int,
        completion_tokens: int,
        latency_s: float,
    ) -> None:
        self._db.execute(
            "INSERT OR IGNORE INTO teacher_calls VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (request_hash, task, model, reply, attempts, prompt_tokens, completion_tokens, latency_s),
        )

    def teacher_totals(self) -> dict[str, int]:
        """Calls and tokens so far."""
        row = self._db.execute(
            "SELECT count(*), coalesce(sum(prompt_tokens), 0), coalesce(sum(completion_tokens), 0) FROM teacher_calls"
        ).fetchone()
        return dict(zip(("calls", "prompt_tokens", "completion_tokens"), row, strict=True))

    # Teacher2's outcome for each failed question of a round

    def add_enhancement(self, round_: int, question_id: QuestionId, outcome: dict[str, Any]) -> None:
        self._db.execute(
            "INSERT OR REPLACE INTO enhancements VALUES (?, ?, ?)",
            (round_, question_id, json.dumps(outcome, ensure_ascii=False)),
        )

    def enhancements(self, round_: int) -> dict[QuestionId, dict[str, Any]]:
        rows = self._db.execute(
            "SELECT question_id, outcome FROM enhancements WHERE round = ? ORDER BY question_id", (round_,)
        )
        return {QuestionId(row[0]): json.loads(row[1]) for row in rows}

    # Stages and failures

    def finish_stage(self, round_: int, stage: str, input_hash: str, output: dict[str, Any], seconds: float) -> None:
        self._db.execute(
            "INSERT OR REPLACE INTO stages VALUES (?, ?, ?, ?, ?, ?)",
            (round_, stage, input_hash, json.dumps(output, ensure_ascii=False), seconds, time.time()),
        )

    def stage(self, round_: int, stage: str) -> StageRecord | None:
        row = self._db.execute(
            "SELECT input_hash, output, seconds, finished_at FROM stages WHERE round = ? AND stage = ?",
            (round_, stage),
        ).fetchone()
        return StageRecord(row[0], json.loads(row[1]), row[2], row[3]) if row else None

    def stages_done(self, round_: int) -> list[str]:
        rows = self._db.execute("SELECT stage FROM stages WHERE round = ? ORDER BY finished_at", (round_,))
        return [row[0] for row in rows]

    def run_seconds(self) -> float:
        """How long the run has worked, all sessions; one that was killed counts with the stages it finished."""
        stages = self._db.execute("SELECT coalesce(sum(seconds), 0) FROM stages").fetchone()[0]
        return max(float(self.fact("run_seconds") or 0.0), float(stages))

    def add_failure(self, round_: int, stage: str, message: str) -> None:
        self._db.execute("INSERT INTO failures VALUES (?, ?, ?, ?)", (time.time(), round_, stage, message))

    def failures(self) -> list[dict[str, Any]]:
        rows = self._db.execute("SELECT round, stage, message FROM failures ORDER BY at")
        return [dict(zip(("round", "stage", "message"), row, strict=True)) for row in rows]


def journal_mode() -> str:
    """WAL loses data in a race of two connections before SQLite 3.51.3 (fixed also in 3.50.7 and 3.44.6)."""
    version = sqlite3.sqlite_version_info
    sound = version >= (3, 51, 3) or (3, 50, 7) <= version < (3, 51) or (3, 44, 6) <= version < (3, 45)
    return "WAL" if sound else "TRUNCATE"
