"""The journal as people page through it: a round's questions by zone and source, some at a time.

Each read costs what it shows and not what the journal holds: a run that commits meanwhile waits for a reader.
"""

from __future__ import annotations

from prosetting.core.journal_file import JournalFile
from prosetting.core.journal_rows import PlayedQuestion, Zone
from prosetting.records import PoolReason, QuestionId


class PageReads(JournalFile):
    """Part of `Journal`; not made by itself."""

    def has_pool(self, round_: int) -> bool:
        return self._db.execute("SELECT 1 FROM pools WHERE round = ? LIMIT 1", (round_,)).fetchone() is not None

    def zone_counts(self, round_: int) -> dict[Zone, int]:
        """How many questions of a round went how so far; those without a graded attempt are not counted."""
        rows = self._db.execute("SELECT zone, questions FROM zone_counts WHERE round = ? AND questions > 0", (round_,))
        return {row[0]: row[1] for row in rows}

    def played(
        self,
        round_: int,
        *,
        zone: Zone | None = None,
        reason: PoolReason | None = None,
        after: str = "",
        before: str = "",
        most: int,
    ) -> list[PlayedQuestion]:
        """Questions of a round's pool in question-id order: the first ones behind `after`, or the last before `before`.

        Without `zone` also those that have no graded attempt yet.
        """
        # Whichever table the index is on leads; the other is looked up by its key.
        lead, other = ("question_results r", "pools p") if zone else ("pools p", "question_results r")
        key = lead[-1]
        rows = self._db.execute(
            "SELECT p.question_id, text, kind, reason,"
            " coalesce(correct, 0), coalesce(incorrect, 0), coalesce(unknown, 0)"
            f" FROM {lead} {'CROSS' if zone else 'LEFT'} JOIN {other}"
            " ON r.round = p.round AND r.question_id = p.question_id"
            " CROSS JOIN questions q ON q.question_id = p.question_id"
            f" WHERE {key}.round = ?1 AND {key}.question_id {'<' if before else '>'} ?2"
            + (" AND zone = ?3" if zone else "")
            + (" AND reason = ?4" if reason else "")
            + f" ORDER BY {key}.question_id {'DESC' if before else ''} LIMIT ?5",
            (round_, before or after, zone, reason, most),
        ).fetchall()
        found = [PlayedQuestion(QuestionId(row[0]), *row[1:]) for row in rows]
        return found[::-1] if before else found
