"""The three kinds of questions, which never mix: trained on, looked at between rounds, and scored at the end."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from prosetting.collectors.data_normalizer import load_questions
from prosetting.config import Settings
from prosetting.errors import DataError
from prosetting.records import Question


@dataclass(frozen=True, slots=True)
class QuestionFiles:
    """What a run's question files hold.

    `pool` is QUESTIONS_FILE, the first round's questions. `heldout` is VALIDATION_DATA_FILE: it scores every
    checkpoint, and the round gate decides by it. `reported` is EVAL_FILES, by file: nothing is decided by them.
    """

    pool: Sequence[Question]
    heldout: Sequence[Question]
    reported: Mapping[str, Sequence[Question]]

    @property
    def all_reported(self) -> list[Question]:
        """The questions of all EVAL_FILES, each once."""
        return list({each.question_id: each for file in self.reported.values() for each in file}.values())

    @property
    def kept_apart(self) -> list[Question]:
        """What no pool may ever hold."""
        return [*self.heldout, *self.all_reported]


def load_question_files(settings: Settings) -> QuestionFiles:
    """Raises DataError where two of the kinds share a question."""
    files = QuestionFiles(
        load_questions(settings.questions_file),
        load_questions(settings.validation_data_file) if settings.validation_data_file else [],
        _load_each(settings.eval_files),
    )
    pool = f"QUESTIONS_FILE ({settings.questions_file})"
    heldout = f"VALIDATION_DATA_FILE ({settings.validation_data_file})"
    _check_apart(heldout, files.heldout, pool, files.pool)
    for file, questions in files.reported.items():
        _check_apart(f"EVAL_FILES ({file})", questions, pool, files.pool)
        _check_apart(f"EVAL_FILES ({file})", questions, heldout, files.heldout)
    return files


def load_reported(settings: Settings) -> list[Question]:
    """The questions of all EVAL_FILES, each once."""
    return QuestionFiles([], [], _load_each(settings.eval_files)).all_reported


def _load_each(files: Sequence[str]) -> dict[str, list[Question]]:
    return {file: load_questions(Path(file)) for file in files}


def _check_apart(name: str, questions: Iterable[Question], other: str, theirs: Iterable[Question]) -> None:
    known = {question.question_id for question in theirs}
    if shared := [question for question in questions if question.question_id in known]:
        raise DataError(
            f"{len(shared)} questions of {name} are also in {other}, such as {shared[0].text[:80]!r}:"
            " scores on them would not be held out",
            next_step="take them out of one of the two files",
        )
