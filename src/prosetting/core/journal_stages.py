"""The stages' part of the journal: which are done and what they came to, when they were worked at, and failures."""

from __future__ import annotations

import json
import time
from typing import Any

from prosetting.core.journal_file import JournalFile
from prosetting.core.journal_rows import Span, StageRecord


class StageBooks(JournalFile):
    """Part of `Journal`; not made by itself."""

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
