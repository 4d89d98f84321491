"""The JSON files of a round, written row by row from the journal."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from prosetting.core import journal_file
from prosetting.core.artifacts import read_json
from prosetting.core.journal import Journal
from prosetting.core.workspace import Workspace
from prosetting.managers.question_manager import QuestionOutcome
from prosetting.managers.round_files import RoundFiles
from prosetting.records import Grade, PoolEntry, Question, Stage, Trajectory, Verdict, question_id_of

QUESTIONS = 7
YES, NO, OPEN = Verdict.CORRECT, Verdict.INCORRECT, Verdict.UNKNOWN
VERDICTS = ((YES, NO), (YES, YES), (OPEN, NO))


def question(text: str, parent: Question | None = None) -> Question:
    kind = "variant" if parent else "seed"
    return Question(question_id_of(text), text, "1", None, kind, parent.question_id if parent else None)


class Round:
    """Round 1 of seven questions with two attempts each; four of them got a successor, played in round 2."""

    def __init__(self, root: Path) -> None:
        self.workspace = Workspace(root, root / "logs")
        self.journal = Journal(root / "j.db")
        self.files = RoundFiles(self.workspace, self.journal)
        self.pool = sorted((question(f"old {n}") for n in range(QUESTIONS)), key=lambda q: q.question_id)
        self.verdicts = {q.question_id: VERDICTS[n % 3] for n, q in enumerate(self.pool)}
        self.play(1, self.pool)
        self.new = [question(f"new {n}", parent) for n, parent in enumerate(self.pool[:4])]
        for new in self.new:
            assert new.parent_id is not None
            outcome = {"pass_rate": 0.5, "attempt": 1, "verdict": "incorrect", "analysis": f"slip {new.text}"}
            self.journal.add_questions([new])
            self.journal.add_enhancement(1, new.parent_id, outcome, new.question_id)
        self.journal.add_enhancement(1, self.pool[5].question_id, {"status": "declined"})
        self.play(2, self.new)

    def play(self, round_: int, pool: list[Question]) -> None:
        self.journal.set_pool(round_, [PoolEntry(q, "seed") for q in pool])
        for number, q in enumerate(pool):
            drawn = [Trajectory(round_, q.question_id, n, f"{q.text}, try {n}\n", "stop", 3) for n in (0, 1)]
            self.journal.add_trajectories("train", drawn)
            verdicts = VERDICTS[number % 3]
            grades = [Grade(round_, q.question_id, n, verdict, "rules") for n, verdict in enumerate(verdicts)]
            self.journal.add_grades("train", grades)

    def rows(self, what: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = read_json(self.workspace.round_data(1, what))["rows"]
        return rows


@pytest.fixture(params=[1, 3, 500])
def played(tmp_path, monkeypatch, request):
    monkeypatch.setattr(journal_file, "PAGE", request.param)
    found = Round(tmp_path)
    yield found
    found.journal.close()


def test_pool_attempts_and_rewards_are_all_there_in_order(played):
    played.files.questions(1)
    played.files.trajectories(1)
    played.files.rewards(1)
    assert played.rows("questions") == [asdict(q) | {"reason": "seed"} for q in played.pool]
    attempts = [(q.question_id, n) for q in played.pool for n in (0, 1)]
    assert [(row["question_id"], row["attempt"]) for row in played.rows("trajectories")] == attempts
    rewards = {(row["question_id"], row["attempt"]): row["reward"] for row in played.rows("rewards")}
    assert rewards == {(q, n): {YES: 1.0, NO: 0.0, OPEN: None}[played.verdicts[q][n]] for q, n in attempts}


def test_questions_with_both_verdicts_train_the_solver(played):
    outcomes = (QuestionOutcome(entry.question, tried) for entry, tried in played.journal.pool_with_attempts(1))
    played.files.solver_training(1, outcomes)
    found = [
        (row["question_id"], row["correct_attempts"], row["incorrect_attempts"])
        for row in played.rows("solver_training")
    ]
    assert found == [(q.question_id, [0], [1]) for q in played.pool if set(played.verdicts[q.question_id]) == {YES, NO}]


def test_new_questions_stand_beside_what_became_of_each_parent(played):
    played.files.enhanced_questions(1)
    assert [row["question_id"] for row in played.rows("enhanced_questions")] == sorted(
        q.question_id for q in played.new
    )
    outcomes = read_json(played.workspace.round_data(1, "enhanced_questions"))["outcomes"]
    assert [outcome["question_id"] for outcome in outcomes] == [played.pool[n].question_id for n in (0, 1, 2, 3, 5)]


def test_the_generators_rows_name_parent_and_attempt_and_are_measured_by_the_next_round(played):
    played.files.generator_training(1)
    unmeasured = played.rows("generator_training")
    assert [row["pass_rate"] for row in unmeasured] == [None] * 4
    played.journal.finish_stage(2, Stage.DATA_GRADING, {}, {}, 1.0)
    played.files.generator_training(1)
    rows = {row["new_question"]: row for row in played.rows("generator_training")}
    assert sorted(rows) == [f"new {n}" for n in range(4)]
    assert [row["question_id"] for row in rows.values()] == sorted(q.question_id for q in played.new)
    for number, parent in enumerate(played.pool[:4]):
        row = rows[f"new {number}"]
        assert (row["parent_id"], row["parent_question"]) == (parent.question_id, parent.text)
        assert (row["attempt"], row["analysis"]) == (f"{parent.text}, try 1\n", f"slip new {number}")
        assert row["pass_rate"] == (0.5, 1.0, 0.0)[number % 3]


def test_the_file_of_a_pool_is_not_written_again_by_a_resumed_run(played):
    played.files.questions(1)
    before = played.workspace.round_data(1, "questions").stat()
    played.files.questions(1)
    after = played.workspace.round_data(1, "questions").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
