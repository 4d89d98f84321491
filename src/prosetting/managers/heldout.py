"""Scoring a checkpoint on held-out questions: the one way, for rounds of a run and for `prosetting eval`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from prosetting.collectors.solver import Solver
from prosetting.collectors.trajectory_collector import TrajectoryCollector
from prosetting.config import Settings
from prosetting.core.concurrency import Frontier, side_by_side
from prosetting.core.journal import Journal
from prosetting.core.journal_rows import Split
from prosetting.evaluation.benchmark import QuestionScores, score_of_grades
from prosetting.processors.answer_vote import vote_of
from prosetting.processors.reward_calculator import RewardCalculator
from prosetting.records import GREEDY_ATTEMPT, HeldoutScore, Question


async def score_heldout(
    journal: Journal,
    collector: TrajectoryCollector,
    rewards: RewardCalculator,
    settings: Settings,
    round_: int,
    questions: Sequence[Question],
    open_solver: Callable[[], Solver],
) -> HeldoutScore | None:
    """Draw and grade EVAL_ATTEMPTS sampled attempts and the greedy one at each question, then score them.

    What the journal holds already is neither drawn nor graded again. None when none could be graded.
    """
    await draw_and_grade(collector, rewards, settings, "heldout", round_, questions, open_solver)
    return score_of_grades((found for _, found in journal.graded_attempts("heldout", round_)), settings.seed)


async def draw_and_grade(
    collector: TrajectoryCollector,
    rewards: RewardCalculator,
    settings: Settings,
    split: Split,
    round_: int,
    questions: Sequence[Question],
    open_solver: Callable[[], Solver],
) -> None:
    """The sampled attempts and the greedy one at each question, where the journal does not hold them."""
    attempts = [GREEDY_ATTEMPT, *range(settings.eval_attempts)]
    sampled = Frontier()
    await side_by_side(
        collector.collect(split, round_, questions, attempts, open_solver, sampled),
        rewards.grade(split, round_, questions, attempts_a_question=len(attempts), sampled=sampled),
    )


def question_scores(journal: Journal, split: Split, round_: int, questions: Iterable[Question]) -> QuestionScores:
    """What the graded attempts at these questions come to, question by question."""
    asked = {question.question_id: question for question in questions}
    scores = QuestionScores(vote_of)
    for attempt, grade in journal.graded_attempts(split, round_):
        if question := asked.get(attempt.question_id):
            scores.add(question, attempt, grade)
    return scores
