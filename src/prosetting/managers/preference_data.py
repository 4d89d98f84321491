"""Stage 3 of a round: its preference data, from its graded attempts: pairs, and supervised rows where they are wished.

verl gets the round's questions instead.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from prosetting.collectors.trajectory_collector import prompt_of
from prosetting.config import Settings
from prosetting.core.journal import Journal
from prosetting.core.workspace import Workspace
from prosetting.datasets.all_correct import ALL_CORRECT, drawn_questions, supervised_row
from prosetting.datasets.data_saver import save_pairs, save_verl_rows
from prosetting.datasets.dpo_data_converter import pairs_of_question
from prosetting.datasets.verl_data import verl_row
from prosetting.managers.binding import bound_to
from prosetting.managers.question_manager import outcomes
from prosetting.managers.round_files import RoundFiles
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


def convert(workspace: Workspace, journal: Journal, round_: int, settings: Settings) -> dict[str, Any]:
    """Write a round's preference data; what the stage came to. `journal` may be a reader of its own."""
    rows = preference_rows(journal, round_, _as_made(settings, journal, round_))
    counts = save_pairs(workspace.dataset_dir(round_), round_, rows)
    RoundFiles(workspace, journal).solver_training(round_, outcomes(journal, round_))
    pairs = {"pairs": counts.pairs, "train": counts.train, "validation": counts.validation}
    supervised = {"supervised_rows": counts.supervised_rows, "supervised_train": counts.supervised_train}
    return {**pairs, **(supervised if counts.supervised_rows else {}), "questions": counts.questions}


def convert_for_verl(
    workspace: Workspace, journal: Journal, round_: int, settings: Settings, name: str
) -> dict[str, Any]:
    """As `convert`, of the questions for verl: `training_data/NAME.json` and `.parquet`.

    A question of which no attempt has a verdict is left out.
    """
    made_with = _as_made(settings, journal, round_)
    rows = (
        verl_row(
            outcome.question,
            [grade for _, grade in outcome.attempts],
            prompt=prompt_of(outcome.question, made_with),
            round_=round_,
            index=index,
        )
        for index, outcome in enumerate(outcomes(journal, round_))
    )
    json_file, parquet_file = (workspace.training_data(f"{name}.{kind}") for kind in ("json", "parquet"))
    questions = save_verl_rows(json_file, parquet_file, filter(None, rows))
    RoundFiles(workspace, journal).solver_training(round_, outcomes(journal, round_))
    return {"pairs": 0, "train": questions, "validation": 0, "questions": questions, "training_data": name}


def _as_made(settings: Settings, journal: Journal, round_: int) -> Settings:
    """The settings that a round's data were made with: a lost file of a round that a fork was given is written
    again as it was."""
    made_with = bound_to(journal, round_) or {}
    return settings.model_copy(update={name: made_with[name] for name in DECIDED_BY if name in made_with})


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
