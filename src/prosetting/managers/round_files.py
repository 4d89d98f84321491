"""A round's JSON files under `data/`, written from the journal for people and other tools (docs/files.md)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import fields
from typing import Any

from prosetting.core.artifacts import write_json
from prosetting.core.journal import Journal
from prosetting.core.workspace import Workspace
from prosetting.datasets.generator_data import generator_row
from prosetting.managers.question_manager import QuestionOutcome
from prosetting.records import Question, Stage, Trajectory, Verdict


class RoundFiles:
    """Writes the `round_XX_*.json` files of one workspace."""

    def __init__(self, workspace: Workspace, journal: Journal) -> None:
        self._workspace = workspace
        self._journal = journal

    def _write(self, round_: int, what: str, rows: Iterator[dict[str, Any]], **content: Any) -> None:
        write_json(self._workspace.round_data(round_, what), {"round": round_, **content, "rows": rows})

    def questions(self, round_: int) -> None:
        """The round's pool. It is decided before the round begins, so a file that is there stays."""
        if not self._workspace.round_data(round_, "questions").exists():
            pool = self._journal.pool(round_)
            self._write(round_, "questions", ({**_fields(entry.question), "reason": entry.reason} for entry in pool))

    def trajectories(self, round_: int) -> None:
        self._write(round_, "trajectories", (_fields(t) for t in self._journal.trajectories("train", round_)))

    def rewards(self, round_: int) -> None:
        """One row an attempt, with its verdict; `reward` is null where the verdict is unknown."""
        rows = (
            {
                "question_id": trajectory.question_id,
                "attempt": trajectory.attempt,
                "response": trajectory.response,
                "verdict": grade.verdict.value,
                "decided_by": grade.decided_by,
                "reward": grade.reward,
                "diagnosis": grade.diagnosis,
            }
            for trajectory, grade in self._journal.graded_attempts("train", round_)
        )
        self._write(round_, "rewards", rows)

    def solver_training(self, round_: int, outcomes: Iterable[QuestionOutcome]) -> None:
        """What the Solver can learn from: one row a question that has both correct and incorrect attempts."""
        self._write(round_, "solver_training", (row for outcome in outcomes if (row := _solver_row(outcome))))

    def enhanced_questions(self, round_: int) -> None:
        """Teacher2's questions that enter the next pool, and what became of each question it was asked about."""
        found = self._journal.enhancements(round_)
        outcomes = ({"question_id": question_id, **outcome} for question_id, outcome in found)
        rows = (_fields(question) for question in self._journal.admitted(round_))
        self._write(round_, "enhanced_questions", rows, outcomes=outcomes)

    def generator_training(self, round_: int) -> None:
        """Examples for the Generator. To be written again once the next round is graded, for its pass rates."""
        measured = self._journal.stage(round_ + 1, Stage.DATA_GRADING) is not None
        made = self._journal.admitted_with_parents(round_)
        self._write(round_, "generator_training", (generator_row(one, measured=measured) for one in made))

    def results(self, round_: int, summary: dict[str, Any], seconds: dict[str, float]) -> None:
        write_json(self._workspace.round_data(round_, "results"), {"round": round_, **summary}, seconds=seconds)


def _fields(noun: Question | Trajectory) -> dict[str, Any]:
    """As `asdict`, which copies each value for safety and takes ten times as long."""
    return {field.name: getattr(noun, field.name) for field in fields(noun)}


def _solver_row(outcome: QuestionOutcome) -> dict[str, Any] | None:
    by_verdict: dict[Verdict, list[int]] = {verdict: [] for verdict in Verdict}
    for trajectory, grade in outcome.attempts:
        by_verdict[grade.verdict].append(trajectory.attempt)
    if not (by_verdict[Verdict.CORRECT] and by_verdict[Verdict.INCORRECT]):
        return None
    return {
        "question_id": outcome.question.question_id,
        "question": outcome.question.text,
        "pass_rate": outcome.pass_rate,
        "correct_attempts": by_verdict[Verdict.CORRECT],
        "incorrect_attempts": by_verdict[Verdict.INCORRECT],
    }
