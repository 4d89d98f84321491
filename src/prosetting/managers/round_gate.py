"""ROUND_GATE: whether a round's new weights are kept, from what the journal holds of them and of those before."""

from __future__ import annotations

from collections.abc import Set
from typing import Any

from prosetting.config import Settings
from prosetting.core.journal import Journal
from prosetting.core.state_manager import ROUND_GATE
from prosetting.errors import ConfigError, RunPaused
from prosetting.evaluation.benchmark import pass_rates
from prosetting.evaluation.round_gate import FEWEST, AnswerFigures, Decision, Evidence, decide, record_of
from prosetting.processors.answer_extraction import extract
from prosetting.records import GREEDY_ATTEMPT, JudgeHealth, QuestionId, Stage


def check_round_gate(settings: Settings) -> None:
    """Raises ConfigError for a gate that could never decide."""
    if settings.round_gate in ("rollback", "stop") and not settings.validation_data_file:
        raise ConfigError(
            f"ROUND_GATE={settings.round_gate} compares weights on held-out questions, and there are none",
            next_step="set VALIDATION_DATA_FILE, or ROUND_GATE=off",
        )


def what_it_cannot_do(settings: Settings, heldout_questions: int) -> str:
    """What a person should know of it at the start; empty where it can decide."""
    if settings.round_gate == "off" or heldout_questions >= FEWEST:
        return ""
    return (
        f"ROUND_GATE={settings.round_gate} decides nothing by scores: {heldout_questions} held-out questions,"
        f" it needs {FEWEST} (VALIDATION_DATA_FILE)"
    )


def was_kept(journal: Journal, round_: int) -> bool:
    """False for a round whose new weights the gate has turned down."""
    gate = journal.stage(round_, ROUND_GATE)
    return gate is None or bool(gate.output["kept"])


def made_in(journal: Journal, round_: int) -> int:
    """The round whose training made the weights that a round ends with; 0: those of SOLVER_MODEL_PATH."""
    for r in range(round_, 0, -1):
        training = journal.stage(r, Stage.TRL_TRAINING)
        if training and training.output["trained"] and was_kept(journal, r):
            return r
    return 0


def judge_weights(journal: Journal, round_: int, settings: Settings) -> Decision:
    """The weights of a round's training against those that it started from."""
    training, graded, prepared = (
        record.output if (record := journal.stage(round_, stage)) else {}
        for stage in (Stage.TRL_TRAINING, Stage.DATA_GRADING, Stage.NEXT_ROUND_PREP)
    )
    before = made_in(journal, round_ - 1)
    rates_before, rates_after = _rates(journal, before), _rates(journal, round_)
    both = rates_before.keys() & rates_after.keys()
    evidence = Evidence(
        rates_before,
        rates_after,
        _answers(journal, before, both),
        _answers(journal, round_, both),
        training.get("metrics", {}),
        JudgeHealth(**graded["judge"]) if "judge" in graded else None,
        prepared.get("new_questions", {}).get("written", 0),
        prepared.get("diversity", {}).get("duplicate_share", 0.0),
    )
    return decide(evidence, settings.seed)


def act_on(decision: Decision, round_: int, mode: str) -> dict[str, Any]:
    """What the journal keeps of it. Raises RunPaused where the run is to stop."""
    if not decision.failed:
        return record_of(decision, "passed")
    if mode == "stop":
        raise RunPaused(
            f"round {round_}: the round gate holds the new weights to be worse. {decision.told()}",
            next_step="ROUND_GATE=rollback goes on from the weights before this round, ROUND_GATE=warn with the new"
            " ones; both are in checkpoints/",
        )
    return record_of(decision, "rolled_back" if mode == "rollback" else "warned")


def _rates(journal: Journal, round_: int) -> dict[QuestionId, float]:
    return pass_rates(grade for _, grade in journal.graded_attempts("heldout", round_))


def _answers(journal: Journal, round_: int, questions: Set[QuestionId]) -> AnswerFigures:
    """Of a checkpoint's sampled attempts at these held-out questions."""
    total = tokens = unparseable = 0
    distinct: set[tuple[QuestionId, str]] = set()
    for attempt, _ in journal.graded_attempts("heldout", round_):
        if attempt.attempt == GREEDY_ATTEMPT or attempt.question_id not in questions:
            continue
        total += 1
        tokens += attempt.completion_tokens
        unparseable += extract(attempt.response).kind != "found"
        distinct.add((attempt.question_id, attempt.response))
    return AnswerFigures(*(value / max(total, 1) for value in (tokens, len(distinct), unparseable)))
