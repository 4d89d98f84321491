"""ROUND_GATE: whether a round's new weights are kept, from what the journal holds of them and of those before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from prosetting.config import Settings
from prosetting.core.journal import Journal
from prosetting.core.state_manager import ROUND_GATE
from prosetting.errors import ConfigError, RunPaused
from prosetting.evaluation.benchmark import pass_rates
from prosetting.evaluation.round_gate import FEWEST, AnswerFigures, Decision, Evidence, decide, record_of
from prosetting.processors.answer_extraction import extract
from prosetting.records import GREEDY_ATTEMPT, JudgeHealth, QuestionId, Stage, Trajectory


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


def leaves_kept(gate: Mapping[str, Any] | None) -> bool:
    """Whether the gate's word on a round's new weights leaves them in place; it says nothing where it was not asked."""
    return gate is None or bool(gate["kept"])


def was_kept(journal: Journal, round_: int) -> bool:
    """False for a round whose new weights the gate has turned down."""
    gate = journal.stage(round_, ROUND_GATE)
    return leaves_kept(gate.output if gate else None)


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
    rates_before, answers_before = _heldout(journal, before)
    rates_after, answers_after = _heldout(journal, round_)
    evidence = Evidence(
        rates_before,
        rates_after,
        answers_before,
        answers_after,
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


def worth_telling(output: Mapping[str, Any]) -> bool:
    """Whether what `act_on` gave is more than that all is well."""
    return output["action"] != "passed" or bool(output["alarms"])


def _heldout(journal: Journal, round_: int) -> tuple[dict[QuestionId, float], dict[QuestionId, AnswerFigures]]:
    """A checkpoint's pass rates and what its answers are like, by held-out question, in one reading."""
    rates: dict[QuestionId, float] = {}
    answers: dict[QuestionId, AnswerFigures] = {}
    for question_id, group in groupby(journal.graded_attempts("heldout", round_), lambda found: found[0].question_id):
        graded = list(group)
        rates |= pass_rates(grade for _, grade in graded)
        if sampled := [attempt for attempt, _ in graded if attempt.attempt != GREEDY_ATTEMPT]:
            answers[question_id] = _figures(sampled)
    return rates, answers


def _figures(attempts: Sequence[Trajectory]) -> AnswerFigures:
    n = len(attempts)
    return AnswerFigures(
        sum(attempt.completion_tokens for attempt in attempts) / n,
        len({attempt.response for attempt in attempts}) / n,
        sum(extract(attempt.response).kind != "found" for attempt in attempts) / n,
    )
