"""A question's story, read from the journal: where it comes from, how it was played, and what was made of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prosetting.core.journal import Journal
from prosetting.datasets.dpo_data_converter import pairs_of_question
from prosetting.datasets.generator_data import source_of
from prosetting.errors import DataError
from prosetting.managers.binding import bound_to
from prosetting.managers.run_status import require_begun
from prosetting.records import Grade, PoolReason, Question, QuestionId, Trajectory, Verdict

NEARBY_IDS = 5


@dataclass(frozen=True, slots=True)
class RoundPlayed:
    """How a question went in one round: attempt numbers by verdict, and its pairs as (chosen, rejected) attempts.

    `pass_rate` is the share of correct among the decided attempts, None without one.
    """

    round: int
    reason: PoolReason
    correct: list[int]
    incorrect: list[int]
    unknown: list[int]
    ungraded: list[int]
    pass_rate: float | None
    pairs: list[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class ShownAttempt:
    """The attempt that Teacher2 saw. `verdict` is empty for one that is not graded."""

    attempt: int
    response: str
    verdict: str
    decided_by: str
    diagnosis: str


@dataclass(frozen=True, slots=True)
class Writing:
    """What was made of a parent question after a round, and the gate's decision on it.

    `writer` is Teacher2 or the Generator. `status` is written, declined or failed; `gate` is `admitted`, the reason of
    a rejection, or empty before the decision. Texts are empty where there is none.
    """

    round: int
    writer: str
    kind: str
    status: str
    shown: ShownAttempt | None
    analysis: str
    gate: str
    gate_detail: str
    failure: str
    new_text: str
    new_reference: str
    admitted_id: QuestionId | None


@dataclass(frozen=True, slots=True)
class QuestionStory:
    """A question and its rounds. `born_in_round` is the round in which it was written; a seed question's first."""

    question: Question
    born_in_round: int
    rounds: list[RoundPlayed]


@dataclass(frozen=True, slots=True)
class Ancestor:
    """An earlier question of the chain, and how the next one was made from it; None where that is not recorded."""

    story: QuestionStory
    led_to: Writing | None


@dataclass(frozen=True, slots=True)
class Lineage:
    """The chain from the seed question down to `story`, and what Teacher2 made of that one."""

    ancestors: list[Ancestor]
    story: QuestionStory
    children: list[Writing]


def lineage_of(journal: Journal, id_or_prefix: str) -> Lineage:
    """Raises DataError for an id that is not there or a prefix of several, WorkspaceError for a run not begun."""
    settings = require_begun(journal)
    question_id = resolve_id(journal, id_or_prefix)
    ancestors: list[Ancestor] = []
    story = _story(journal, question_id, settings)
    child = story
    seen = {question_id}
    while (parent_id := child.question.parent_id) and parent_id not in seen:
        origin = journal.origin(child.question.question_id)
        led_to = _writing(journal, parent_id, origin[0], origin[2], child.question.question_id) if origin else None
        child = _story(journal, parent_id, settings)
        ancestors.insert(0, Ancestor(child, led_to))
        seen.add(parent_id)
    children = [_writing(journal, question_id, *written) for written in journal.written_from(question_id)]
    return Lineage(ancestors, story, children)


def resolve_id(journal: Journal, id_or_prefix: str) -> QuestionId:
    """The id that begins so. Raises DataError where none or more than one does."""
    wanted = id_or_prefix.strip().lower()
    found = journal.question_ids(wanted, NEARBY_IDS + 1) if wanted else []
    if len(found) == 1 or wanted in found:
        return found[0]
    if not found and journal.origin(QuestionId(wanted)):
        return QuestionId(wanted)  # admitted, but no pool had room for it
    if found:
        listed = ", ".join(found[:NEARBY_IDS]) + (", …" if len(found) > NEARBY_IDS else "")
        raise DataError(f"several questions begin with {wanted!r}: {listed}", next_step="give more of its id")
    near = _nearby(journal, wanted)
    raise DataError(
        f"no question of this workspace has the id {id_or_prefix!r}"
        + (f"; near it: {', '.join(near)}" if near else ""),
        next_step="ids stand beside the texts in WORKSPACE_DIR/data/round_01_questions.json and those of later rounds",
    )


def _nearby(journal: Journal, wanted: str) -> list[QuestionId]:
    """Ids that share the longest beginning, of one character at least."""
    for length in range(len(wanted) - 1, 0, -1):
        if found := journal.question_ids(wanted[:length], NEARBY_IDS):
            return found
    return []


def _story(journal: Journal, question_id: QuestionId, settings: Mapping[str, Any]) -> QuestionStory:
    origin = journal.origin(question_id)
    question = journal.question(question_id)
    if question is None:
        assert origin is not None, f"{question_id} is in no pool and was never admitted"
        question = Question(question_id, **origin[2]["new"], parent_id=origin[1])
    rounds = [
        _round_played(
            question,
            round_,
            reason,
            journal.attempts_of("train", round_, question_id),
            bound_to(journal, round_) or settings,
        )
        for round_, reason in journal.rounds_of(question_id).items()
    ]
    return QuestionStory(question, origin[0] if origin else rounds[0].round if rounds else 1, rounds)


def _round_played(
    question: Question,
    round_: int,
    reason: PoolReason,
    attempts: Sequence[tuple[Trajectory, Grade | None]],
    settings: Mapping[str, Any],
) -> RoundPlayed:
    graded = [(trajectory, grade) for trajectory, grade in attempts if grade]
    numbers = {verdict: [g.attempt for _, g in graded if g.verdict is verdict] for verdict in Verdict}
    correct, incorrect = numbers[Verdict.CORRECT], numbers[Verdict.INCORRECT]
    decided = len(correct) + len(incorrect)
    pairs = pairs_of_question(
        question.text,
        graded,
        run_seed=settings["seed"],
        most=settings["max_pairs_per_question"],
        shuffle_labels=settings["shuffle_labels"],
        reference_solution=question.solution if settings["reference_as_chosen"] else None,
    )
    return RoundPlayed(
        round_,
        reason,
        correct,
        incorrect,
        numbers[Verdict.UNKNOWN],
        [trajectory.attempt for trajectory, grade in attempts if grade is None],
        len(correct) / decided if decided else None,
        pairs.attempt_pairs if pairs else [],
    )


def _writing(
    journal: Journal,
    parent_id: QuestionId,
    round_: int,
    outcome: Mapping[str, Any],
    admitted_id: QuestionId | None,
) -> Writing:
    new = outcome.get("new") or {}
    return Writing(
        round=round_,
        writer="the Generator" if source_of(outcome) == "generator" else "Teacher2",
        kind=outcome.get("kind", ""),
        status=outcome["status"],
        shown=_shown(journal, parent_id, round_, outcome.get("attempt")),
        analysis=outcome.get("analysis", ""),
        gate=outcome.get("gate", ""),
        gate_detail=outcome.get("gate_detail", ""),
        failure=outcome.get("reason", ""),
        new_text=new.get("text", ""),
        new_reference=new.get("reference", ""),
        admitted_id=admitted_id,
    )


def _shown(journal: Journal, question_id: QuestionId, round_: int, attempt: int | None) -> ShownAttempt | None:
    for trajectory, grade in journal.attempts_of("train", round_, question_id):
        if trajectory.attempt == attempt:
            held = (grade.verdict.value, grade.decided_by, grade.diagnosis) if grade else ("", "", "")
            return ShownAttempt(trajectory.attempt, trajectory.response, *held)
    return None
