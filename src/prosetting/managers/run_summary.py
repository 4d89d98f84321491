"""What a run came to, read from its journal: `auto_training_summary.json` and what the report is drawn from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, get_args

from prosetting.core.journal import Journal
from prosetting.core.state_manager import (
    EVAL_FILES,
    EVALUATION,
    GENERATOR_DRAFTS,
    GENERATOR_TRAINING,
    GENERATOR_TRIALS,
    ROUND_GATE,
)
from prosetting.managers.binding import fork_lines
from prosetting.managers.round_gate import leaves_kept, was_kept
from prosetting.records import HeldoutScore, JudgeHealth, PoolReason, RoundSummary, Stage, Verdict

LAST_STAGE = Stage.NEXT_ROUND_PREP.value


def heldout_score(journal: Journal, round_: int) -> HeldoutScore | None:
    """The score of the weights after a round: its own, or the carried-over one where it made none that were kept."""
    for r in range(round_, -1, -1):
        if (record := journal.stage(r, EVALUATION)) and record.output.get("heldout") and was_kept(journal, r):
            found = record.output["heldout"]
            return HeldoutScore(**{**found, "pass_at_1_ci": tuple(found["pass_at_1_ci"])})
    return None


def round_summary(journal: Journal, round_: int) -> RoundSummary:
    """A finished round's summary, from what its stages came to. The round's five stages must be done."""
    outputs = {stage: record for stage in Stage if (record := journal.stage(round_, stage))}
    graded = outputs[Stage.DATA_GRADING].output
    converted = outputs[Stage.DPO_CONVERSION].output
    training = outputs[Stage.TRL_TRAINING].output
    preparation = outputs[Stage.NEXT_ROUND_PREP].output
    evaluation = journal.stage(round_, EVALUATION)
    generator = journal.stage(round_, GENERATOR_TRAINING)
    of_generator = [generator, *(journal.stage(round_, stage) for stage in (GENERATOR_DRAFTS, GENERATOR_TRIALS))]
    pool = _pool(journal, round_)
    return RoundSummary(
        round=round_,
        trained=training["trained"],
        reason=training["reason"],
        pairs=converted["pairs"],
        supervised_rows=converted.get("supervised_rows", 0),
        questions=sum(pool.values()),
        average_reward=graded["average_reward"],
        decided_by={who: graded[f"by_{who}"] for who in ("rules", "teacher1", "reward_function")},
        unknown=graded[Verdict.UNKNOWN],
        judge=JudgeHealth(**graded["judge"]),
        new_questions=preparation.get("new_questions", {}),
        diversity=preparation.get("diversity", {}),
        pool=pool,
        heldout=heldout_score(journal, round_),
        gate=gate.output if (gate := journal.stage(round_, ROUND_GATE)) else None,
        duration_seconds=sum(record.seconds for record in outputs.values())
        + (evaluation.seconds if evaluation else 0.0)
        + sum(record.seconds for record in of_generator if record),
        sources=preparation.get("sources", {}),
        measured=preparation.get("measured", {}),
        generator=generator.output if generator else None,
    )


def _pool(journal: Journal, round_: int) -> dict[str, int]:
    """A round's questions by reason, as the stage before it told; the first round's are counted."""
    before = journal.stage(round_ - 1, Stage.NEXT_ROUND_PREP)
    if before is None:
        return journal.pool_counts(round_)
    return {reason: before.output[reason] for reason in get_args(PoolReason) if reason in before.output}


def run_summary(
    journal: Journal, total_rounds: int, final_status: str, duration_seconds: float, reason: str = ""
) -> dict[str, Any]:
    """The content of `auto_training_summary.json`. `final_status`: completed, stopped, paused or failed, and why."""
    done = [r for r in range(1, total_rounds + 1) if LAST_STAGE in journal.stages_done(r)]
    rounds = [asdict(round_summary(journal, r)) for r in done]
    verdicts = [record.output for r in done if (record := journal.stage(r, Stage.DATA_GRADING))]
    base = heldout_score(journal, 0)
    failures = journal.failures()
    reported = journal.stage(total_rounds, EVAL_FILES)
    return {
        "final_status": final_status,
        "reason": reason,
        "duration_seconds": round(duration_seconds, 2),
        "total_rounds": total_rounds,
        "rounds_done": len(rounds),
        "rounds_with_failures": sorted({failure["round"] for failure in failures}),
        "questions_processed": sum(r["questions"] for r in rounds),
        "attempts_processed": sum(output[verdict] for output in verdicts for verdict in Verdict),
        "seed": journal.fact("fixed_settings")["seed"],
        "forked_from": fork_lines(journal),
        "base": {"round": 0, "heldout": asdict(base) if base else None},
        "rounds": rounds,
        "eval_files": reported.output["files"] if reported else [],
        "teacher": asdict(journal.teacher_totals()),
        "errors": failures,
    }


def trained_in_words(round_: Mapping[str, Any]) -> str:
    """Whether a round of the summary trained, and whether what it trained was kept."""
    if not round_["trained"]:
        return "no"
    return "yes" if leaves_kept(round_["gate"]) else "rolled back"
