"""The teachers' part of the journal: every call with its reply and cost, and how the judge did where that is known."""

from __future__ import annotations

import time
from collections.abc import Sequence

from prosetting.core.journal_file import JournalFile
from prosetting.core.journal_rows import (
    CallFigures,
    JudgeCheckKind,
    JudgeCheckRow,
    Split,
    TaskTotals,
    TeacherCall,
    TeacherTotals,
)
from prosetting.records import Verdict

_COUNTED = ("calls", "attempts", "failed", "prompt_tokens", "completion_tokens")


class TeacherBooks(JournalFile):
    """Part of `Journal`; not made by itself."""

    # Teacher calls: a reply that is here is never bought again (the teacher client's CallLedger)

    def recall(self, request_hashes: Sequence[str]) -> list[str]:
        """The replies that these few requests brought, in their order."""
        found = dict(
            self._db.execute(
                "SELECT request_hash, reply FROM teacher_calls WHERE reply IS NOT NULL"
                f" AND request_hash IN ({', '.join('?' * len(request_hashes))})",
                request_hashes,
            )
        )
        return [found[request_hash] for request_hash in request_hashes if request_hash in found]

    def record(self, call: TeacherCall) -> None:
        """Keep what a request has cost so far and, once it brought one, its reply. Costs of several tries add up."""
        self._db.execute(
            "INSERT INTO teacher_calls VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (request_hash) DO UPDATE SET reply = coalesce(excluded.reply, reply),"
            " failure = excluded.failure, attempts = attempts + excluded.attempts,"
            " prompt_tokens = prompt_tokens + excluded.prompt_tokens,"
            " completion_tokens = completion_tokens + excluded.completion_tokens,"
            " latency_s = latency_s + excluded.latency_s,"
            " cost = CASE WHEN cost IS NULL THEN excluded.cost ELSE cost + coalesce(excluded.cost, 0) END",
            (
                call.request_hash,
                call.task,
                call.endpoint,
                call.model,
                call.reply,
                call.failure,
                call.attempts,
                call.prompt_tokens,
                call.completion_tokens,
                call.latency_s,
                call.cost,
                time.time(),
            ),
        )

    def teacher_totals(self) -> TeacherTotals:
        """What the teachers have cost so far: kept as calls are recorded, so it takes no longer after many."""
        sums = ", ".join(f"coalesce(sum({name}), 0)" for name in _COUNTED)
        return TeacherTotals(*self._db.execute(f"SELECT {sums}, sum(cost) FROM teacher_totals").fetchone())

    def teacher_tasks(self) -> list[TaskTotals]:
        """The same, task by task."""
        rows = self._db.execute(
            f"SELECT task, endpoint, model, {', '.join(_COUNTED)}, cost, latency_s FROM teacher_totals"
            " ORDER BY task, endpoint, model"
        )
        return [TaskTotals(row[0], row[1], row[2], TeacherTotals(*row[3:9]), row[9]) for row in rows]

    def latest_calls(self, most: int) -> list[TeacherCall]:
        """The requests that were made last, the latest first, without their replies' texts."""
        rows = self._db.execute(
            "SELECT request_hash, task, endpoint, model, iif(reply IS NULL, NULL, ''), failure, attempts,"
            " prompt_tokens, completion_tokens, latency_s, cost FROM teacher_calls ORDER BY rowid DESC LIMIT ?",
            (most,),
        )
        return [TeacherCall(*row) for row in rows]

    def call_figures(self, began_at: float, ended_at: float) -> list[CallFigures]:
        """The calls that were first recorded from `began_at` up to `ended_at` (seconds since the epoch), by task."""
        within = "at >= ? AND at < ?"
        rows = self._db.execute(
            "SELECT task, count(*), sum(attempts), sum(reply IS NULL), sum(prompt_tokens), sum(completion_tokens),"
            f" sum(cost) FROM teacher_calls WHERE {within} GROUP BY task ORDER BY task",
            (began_at, ended_at),
        ).fetchall()

        def latency_s(task: str, calls: int, share: float) -> float:
            found = self._db.execute(
                f"SELECT latency_s FROM teacher_calls WHERE {within} AND task = ? ORDER BY latency_s LIMIT 1 OFFSET ?",
                (began_at, ended_at, task, min(calls - 1, int(share * calls))),
            ).fetchone()
            return float(found[0])

        return [CallFigures(*row, *(latency_s(row[0], row[1], share) for share in (0.5, 0.95, 0.99))) for row in rows]

    # Checks of the judge: what Teacher1 said where the right verdict is known

    def add_judge_check(
        self,
        split: Split,
        round_: int,
        kind: JudgeCheckKind,
        name: str,
        expected: Verdict,
        verdict: Verdict,
        evidence: str,
    ) -> None:
        """`name` tells checks of one kind apart; `evidence` is what a person needs to see why it failed."""
        self._db.execute(
            "INSERT OR REPLACE INTO judge_checks VALUES (?, ?, ?, ?, ?, ?, ?)",
            (split, round_, kind, name, expected, verdict, evidence),
        )

    def judge_checks(self, split: Split, round_: int) -> list[JudgeCheckRow]:
        """A round's checks, by kind and name."""
        rows = self._db.execute(
            "SELECT kind, name, expected, verdict FROM judge_checks WHERE split = ? AND round = ? ORDER BY kind, name",
            (split, round_),
        )
        return [JudgeCheckRow(row[0], row[1], Verdict(row[2]), Verdict(row[3])) for row in rows]

    def evidence_against_judge(self, most: int) -> list[tuple[int, JudgeCheckKind, str]]:
        """Round, kind and evidence of checks that the judge failed, latest rounds first."""
        rows = self._db.execute(
            "SELECT round, kind, evidence FROM judge_checks WHERE verdict NOT IN (expected, 'unknown')"
            " ORDER BY round DESC, kind, name LIMIT ?",
            (most,),
        )
        return [(row[0], row[1], row[2]) for row in rows]
