"""What a run came to, read from its journal: `auto_training_summary.json` and what the report is drawn from."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import Any

from prosetting.core.journal import Journal
from prosetting.core.state_manager import EVALUATION
from prosetting.processors.reward_calculator import count_grades
from prosetting.records import HeldoutScore, RoundSummary, Stage

LAST_STAGE = Stage.NEXT_ROUND_PREP.value


def heldout_score(journal: Journal, round_: int) -> HeldoutScore | None:
    """The score of the weights after a round: its own, or the carried-over one where it did not train."""
    for r in range(round_, -1, -1):
        if (record := journal.stage(r, EVALUATION)) and record.output.get("heldout"):
            found = record.output["heldout"]
            return HeldoutScore(**{**found, "pass_at_1_ci": tuple(found["pass_at_1_ci"])})
    return None


def round_summary(journal: Journal, round_: int) -> RoundSummary:
    """A finished round's summary. The round's five stages must be done."""
    outputs = {stage: record for stage in Stage if (record := journal.stage(round_, stage))}
    training = outputs[Stage.TRL_TRAINING].output
    grades = count_grades([grade for _, grade in journal.graded_attempts("train", round_)])
    evaluation = journal.stage(round_, EVALUATION)
    return RoundSummary(
        round=round_,
        trained=training["trained"],
        reason=training["reason"],
        pairs=outputs[Stage.DPO_CONVERSION].output["pairs"],
        questions=len(journal.pool(round_)),
        average_reward=grades.average_reward,
        decided_by=grades.decided_by,
        unknown=grades.verdicts["unknown"],
        pool=dict(Counter(entry.reason for entry in journal.pool(round_))),
        heldout=heldout_score(journal, round_),
        duration_seconds=sum(record.seconds for record in outputs.values())
        + (evaluation.seconds if evaluation else 0.0),
    )


def run_summary(journal: Journal, total_rounds: int, final_status: str, duration_seconds: float) -> dict[str, Any]:
    """The content of `auto_training_summary.json`. `final_status`: completed, stopped or failed."""
    done = [r for r in range(1, total_rounds + 1) if LAST_STAGE in journal.stages_done(r)]
    rounds = [asdict(round_summary(journal, r)) for r in done]
    base = heldout_score(journal, 0)
    failures = journal.failures()
    return {
        "final_status": final_status,
        "duration_seconds": round(duration_seconds, 2),
        "total_rounds": total_rounds,
        "rounds_done": len(rounds),
        "rounds_with_failures": sorted({failure["round"] for failure in failures}),
        "questions_processed": sum(r["questions"] for r in rounds),
        "attempts_processed": sum(len(journal.attempted("train", r)) for r in done),
        "seed": journal.fact("fixed_settings")["seed"],
        "base": {"round": 0, "heldout": asdict(base) if base else None},
        "rounds": rounds,
        "teacher": journal.teacher_totals(),
        "errors": failures,
    }
