"""Where a run stands, read from its journal beside it: what `prosetting status` and the asking gate show."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from prosetting.core.journal import Journal
from prosetting.core.journal_rows import TeacherTotals
from prosetting.core.state_manager import EVAL_FILES, EVALUATION, ROUND_GATE
from prosetting.errors import WorkspaceError
from prosetting.managers.binding import bound_to, fork_lines
from prosetting.managers.run_summary import heldout_score
from prosetting.processors.reward_calculator import judge_health
from prosetting.records import JudgeHealth, Stage


@dataclass(frozen=True, slots=True)
class RoundStatus:
    """One round that has begun. `attempts` of `attempts_planned` are drawn, `graded` of them have a verdict.

    `heldout` is of the weights that it ends with: those before, where the round gate has turned down the new ones.
    """

    round: int
    stages_done: list[str]
    open_stages: list[str]
    questions: int
    pool: dict[str, int]
    attempts: int
    attempts_planned: int
    graded: int
    verdicts: dict[str, int]
    average_reward: float | None
    trained: bool | None
    reason: str
    heldout: dict[str, Any] | None
    gate: dict[str, Any] | None
    judge: JudgeHealth
    seconds: float


@dataclass(frozen=True, slots=True)
class RunStatus:
    """The rounds that have begun, and the round and stage that are open now (None when all is done)."""

    settings: dict[str, Any]
    total_rounds: int
    completed_rounds: list[int]
    current_round: int | None
    current_stage: str | None
    base: dict[str, Any] | None
    rounds: list[RoundStatus]
    failures: int
    eval_files: list[dict[str, Any]]
    """What the last weights came to on EVAL_FILES, once they are scored."""
    teacher: TeacherTotals
    forked_from: list[str]

    @property
    def can_continue(self) -> bool:
        return len(self.completed_rounds) < self.total_rounds


def run_status(journal: Journal, total_rounds: int) -> RunStatus:
    """Raises WorkspaceError when the journal belongs to a run that never came to its first question."""
    settings = require_begun(journal)
    rounds = []
    for round_ in range(1, total_rounds + 1):
        status = round_status(journal, round_, settings["attempts_per_question"])
        if not status.questions:
            break
        rounds.append(status)
    open_rounds = [r for r in rounds if r.open_stages]
    base = heldout_score(journal, 0)
    return RunStatus(
        settings=settings,
        total_rounds=total_rounds,
        completed_rounds=[r.round for r in rounds if not r.open_stages],
        current_round=open_rounds[0].round if open_rounds else None,
        current_stage=open_rounds[0].open_stages[0] if open_rounds else None,
        base=asdict(base) if base else None,
        rounds=rounds,
        failures=len(journal.failures()),
        eval_files=reported.output["files"] if (reported := journal.stage(total_rounds, EVAL_FILES)) else [],
        teacher=journal.teacher_totals(),
        forked_from=fork_lines(journal),
    )


def require_begun(journal: Journal) -> dict[str, Any]:
    """The settings that the run is bound to. Raises WorkspaceError where a run ended before it was bound."""
    settings = bound_to(journal)
    if settings is None:
        raise WorkspaceError("no run has been started in this workspace", next_step="start one: prosetting run")
    return settings


def round_status(journal: Journal, round_: int, attempts_per_question: int) -> RoundStatus:
    """Also of a round in progress; `questions` is 0 for one that has no pool yet."""
    reasons = journal.pool_counts(round_)
    counts = journal.verdict_counts("train", round_)
    verdicts: Counter[str] = Counter()
    for (verdict, _), count in counts.items():
        verdicts[verdict] += count
    decided = verdicts["correct"] + verdicts["incorrect"]
    done = [stage.value for stage in Stage if journal.stage(round_, stage)]
    training = journal.stage(round_, Stage.TRL_TRAINING)
    records = [journal.stage(round_, stage) for stage in (*done, EVALUATION)]
    scored = journal.stage(round_, EVALUATION)
    score = heldout_score(journal, round_) if scored and scored.output.get("heldout") else None
    return RoundStatus(
        round=round_,
        stages_done=done,
        open_stages=[stage.value for stage in Stage if stage.value not in done],
        questions=sum(reasons.values()),
        pool=reasons,
        attempts=sum(counts.values()),
        attempts_planned=sum(reasons.values()) * attempts_per_question,
        graded=sum(counts.values()) - verdicts[""],
        verdicts={name: verdicts[name] for name in ("correct", "incorrect", "unknown")},
        average_reward=verdicts["correct"] / decided if decided else None,
        trained=training.output["trained"] if training else None,
        reason=training.output["reason"] if training else "",
        heldout=asdict(score) if score else None,
        gate=gate.output if (gate := journal.stage(round_, ROUND_GATE)) else None,
        judge=judge_health(journal, round_),
        seconds=round(sum(record.seconds for record in records if record), 2),
    )
