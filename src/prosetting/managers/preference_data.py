"""A round's preference data, from its graded attempts: pairs, and supervised rows where they are wished."""

from __future__ import annotations

from collections.abc import Iterator

from prosetting.collectors.trajectory_collector import prompt_of
from prosetting.config import Settings
from prosetting.core.journal import Journal
from prosetting.datasets.all_correct import ALL_CORRECT, drawn_questions, supervised_row
from prosetting.datasets.dpo_data_converter import pairs_of_question
from prosetting.managers.question_manager import outcomes
from prosetting.records import QuestionId, QuestionPairs

DECIDED_BY = (
    "seed",
    "solver_instruction",
    "attempts_per_question",
    "max_pairs_per_question",
    "shuffle_labels",
    "reference_as_chosen",
    "all_correct_questions",
    "supervised_rows_per_round",
)
"""The settings that decide it."""


def preference_rows(journal: Journal, round_: int, settings: Settings) -> Iterator[QuestionPairs]:
    """The questions of a round that there is something to learn from, in question-id order."""
    pick = ALL_CORRECT[settings.all_correct_questions]
    supervised = _supervised_questions(journal, round_, settings) if pick else set()
    for outcome in outcomes(journal, round_):
        prompt = prompt_of(outcome.question, settings)
        if pick and outcome.question.question_id in supervised:
            yield supervised_row(prompt, pick([attempt for attempt, _ in outcome.attempts], settings.seed))
        elif pairs := pairs_of_question(
            prompt,
            outcome.attempts,
            run_seed=settings.seed,
            most=settings.max_pairs_per_question,
            shuffle_labels=settings.shuffle_labels,
            reference_solution=outcome.question.solution if settings.reference_as_chosen else None,
        ):
            yield pairs


def _supervised_questions(journal: Journal, round_: int, settings: Settings) -> set[QuestionId]:
    """Those that give a supervised row: drawn from those whose attempts were all correct."""
    every = settings.attempts_per_question
    all_correct = (question for question, correct, _ in journal.verdicts_by_question(round_) if correct == every)
    return drawn_questions(all_correct, round_, run_seed=settings.seed, most=settings.supervised_rows_per_round)
