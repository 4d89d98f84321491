"""A workspace with a small run written straight into its journal: no engine has to run for it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from prosetting.config import Settings
from prosetting.core.journal import Journal
from prosetting.core.state_manager import EVALUATION, StateManager
from prosetting.core.workspace import Workspace
from prosetting.records import (
    Grade,
    HeldoutScore,
    JudgeHealth,
    PoolEntry,
    Question,
    Stage,
    Trajectory,
    Verdict,
    question_id_of,
)

TEXTS = ("Ann has 2 and gets 3. How many?", "Bob has 4 and gives 1. How many?")
ATTEMPTS = 2
GRADED = {
    **{"correct": 2, "incorrect": 2, "unknown": 0},
    **{"by_rules": 2, "by_teacher1": 2, "by_reward_function": 0},
    "average_reward": 0.5,
    "judge": asdict(JudgeHealth(0, 0, 0, 0, 0, 0)),
}


def questions() -> list[Question]:
    return [Question(question_id_of(text), text, "5") for text in TEXTS]


def record_run(root: Path, *, rounds_done: int, total_rounds: int = 2, failure: str = "") -> Workspace:
    """A run whose first `rounds_done` rounds are over; the next one has sampled half of its attempts.

    Of each question's two attempts the first is correct (by rules), the second incorrect (by teacher1).
    Round 1 gathers data, later ones train; the base scores .25, the weights after round r score .25 + r/10.
    """
    settings = Settings(solver_model_path="org/model", workspace_dir=root, attempts_per_question=ATTEMPTS)
    workspace = Workspace.of(settings)
    workspace.create()
    with Journal(workspace.journal) as journal:
        journal.set_fact("fixed_settings", settings.fixed_values())
        journal.set_fact("run_seconds", 12.5)
        _score(journal, 0)
        for round_ in range(1, rounds_done + 1):
            _record_round(journal, round_)
        if rounds_done < total_rounds:
            _pool(journal, rounds_done + 1)
            _attempt(journal, rounds_done + 1, attempts=1)
        if failure:
            journal.add_failure(1, Stage.TRL_TRAINING, failure)
        state = StateManager(workspace, journal, total_rounds)
        state.write_state("completed" if rounds_done == total_rounds else "stopped")
    return workspace


def _record_round(journal: Journal, round_: int) -> None:
    trained = round_ > 1
    _pool(journal, round_)
    _attempt(journal, round_, attempts=ATTEMPTS)
    for question in questions():
        graded = [
            Grade(round_, question.question_id, 0, Verdict.CORRECT, "rules"),
            Grade(round_, question.question_id, 1, Verdict.INCORRECT, "teacher1", "slip"),
        ]
        journal.add_grades("train", graded)
    reason = "trained on 2 pairs" if trained else "gathering data: training starts in round 2"
    outputs = {
        Stage.DATA_COLLECTION: {},
        Stage.DATA_GRADING: GRADED,
        Stage.DPO_CONVERSION: {"pairs": 2},
        Stage.TRL_TRAINING: {"trained": trained, "reason": reason},
        Stage.NEXT_ROUND_PREP: {"questions": len(TEXTS), "failed_replay": len(TEXTS)},
    }
    for stage, output in outputs.items():
        journal.finish_stage(round_, stage, {}, output, 1.0)
    if trained:
        _score(journal, round_)


def _pool(journal: Journal, round_: int) -> None:
    reason = "seed" if round_ == 1 else "failed_replay"
    journal.set_pool(round_, [PoolEntry(question, reason) for question in questions()])  # type: ignore[arg-type]


def _attempt(journal: Journal, round_: int, *, attempts: int) -> None:
    drawn = [
        Trajectory(round_, question.question_id, attempt, f"so \\boxed{{{5 + attempt}}}", "stop", 6)
        for question in questions()
        for attempt in range(attempts)
    ]
    journal.add_trajectories("train", drawn)


def _score(journal: Journal, round_: int) -> None:
    value = 0.25 + round_ / 10
    score = HeldoutScore(value, (value - 0.05, value + 0.05), value + 0.2, value + 0.1, questions=4, samples=8)
    journal.finish_stage(round_, EVALUATION, {}, {"heldout": asdict(score)}, 1.0)
