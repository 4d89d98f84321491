"""The figures of each round, from the journal: one line a round in `metrics.jsonl`, for reports, dashboards, notebooks.

Round 0 is the untrained base, where it was scored. A line is computed once its round is over and never doubled: the
file is written whole, its lines in the order of the rounds. docs/metrics.md tells every figure.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from prosetting.core.artifacts import replace_atomically
from prosetting.core.journal import Journal
from prosetting.core.journal_rows import CallFigures, QuestionTally, Span, Split
from prosetting.core.state_manager import CONCLUSION, EVALUATION, GENERATOR_TRAINING, ROUND_GATE
from prosetting.core.workspace import Workspace
from prosetting.evaluation.scores import Estimate, mean_with_interval, pass_at_k, share_with_interval
from prosetting.managers.binding import bound_to
from prosetting.managers.resources import ResourceSample, samples_since
from prosetting.managers.round_gate import was_kept
from prosetting.processors.reward_calculator import judge_health
from prosetting.records import JudgeHealth, Stage

SCHEMA_VERSION = 1
MOST_K = 8
log = logging.getLogger("prosetting")


@dataclass(frozen=True, slots=True)
class PassRates:
    """How the sampled attempts at some questions went.

    `average_reward` is over decided attempts; `pass_at_1` is the mean over questions of their share of correct decided
    attempts, `pass_at_k` the unbiased estimator at `k` over the questions with at least k decided attempts.
    `questions_by_correct[c]` counts the questions with c correct attempts: the difficulty as the Solver has it.
    """

    questions: int
    attempts: int
    correct: int
    incorrect: int
    unknown: int
    unknown_share: float
    average_reward: Estimate | None
    pass_at_1: Estimate | None
    k: int
    pass_at_k: Estimate | None
    questions_by_correct: list[int]


@dataclass(frozen=True, slots=True)
class PoolFigures:
    """The round's pool by reason, the next one, and the one's growth into the other (1: the same size)."""

    questions: int
    by_reason: dict[str, int]
    next_questions: int
    growth: float


@dataclass(frozen=True, slots=True)
class TrainingFigures:
    """The trainer's own figures; None where it told none. Log-probabilities are sums over a completion.

    `chosen_logp` is the mean of the same chosen attempts after the training, `chosen_logp_drift` that less the mean
    before: far below 0, the Solver forgets what it is trained to prefer.
    """

    trained: bool
    reason: str
    pairs: int
    supervised_rows: int
    steps: int
    loss: float | None
    grad_norm: float | None
    grad_norm_max: float | None
    reward_margin: float | None
    reward_accuracy: float | None
    chosen_logp: float | None
    chosen_logp_drift: float | None
    rejected_logp_drift: float | None
    validation_loss: float | None
    validation_reward_accuracy: float | None


@dataclass(frozen=True, slots=True)
class TeacherFigures:
    """Calls that were made in the round; `by_task` tells Teacher1's grading from Teacher2's writing."""

    calls: int
    http_attempts: int
    failed: int
    prompt_tokens: int
    completion_tokens: int
    cost: float | None
    by_task: list[CallFigures]


@dataclass(frozen=True, slots=True)
class GpuFigures:
    """One GPU over a round. `utilisation`: 0 to 1."""

    index: int
    mean_utilisation: float
    max_memory_bytes: int
    total_memory_bytes: int


@dataclass(frozen=True, slots=True)
class ResourceFigures:
    """What the machine was seen at over a round, from `samples` looks."""

    samples: int
    max_run_memory_bytes: int
    min_free_memory_bytes: int
    min_free_disk_bytes: int
    gpus: list[GpuFigures]


@dataclass(frozen=True, slots=True)
class RoundMetrics:
    """All figures of one round. `seconds` is its time of work, `began_at` and `ended_at` are seconds since the epoch.

    `spans` say when which stage was worked at, sessions apart: stages overlap (a Gantt chart). Of round 0 only
    `heldout`, `teacher`, `resources` and `spans` are there. `sources`: the round's new questions by who wrote them;
    `measured`: how those of the round before went in this one; `generator`: what its training came to.
    """

    round: int
    began_at: float
    ended_at: float
    seconds: float
    train: PassRates | None
    heldout: PassRates | None
    pool: PoolFigures | None
    mean_completion_tokens: float | None
    pairs: int | None
    supervised_rows: int | None
    training: TrainingFigures | None
    gate: dict[str, Any] | None
    """What ROUND_GATE decided, and on which evidence."""
    new_questions: dict[str, int]
    diversity: dict[str, float]
    sources: dict[str, Any]
    measured: dict[str, Any]
    generator: dict[str, Any] | None
    judge: JudgeHealth | None
    teacher: TeacherFigures
    resources: ResourceFigures | None
    workspace_bytes: int
    spans: list[Span]


# From the journal


def round_metrics(journal: Journal, workspace: Workspace, round_: int) -> RoundMetrics | None:
    """The figures of a round that is over, or of the base (0); None for one that is not, or was never scored."""
    spans = journal.spans(round_)
    over = journal.stage(round_, CONCLUSION) if round_ else journal.stage(0, EVALUATION)
    if over is None or not spans:
        return None
    settings = bound_to(journal, max(round_, 1)) or bound_to(journal) or {}
    seed = int(settings.get("seed", 0))
    began_at, ended_at = spans[0].began_at, max(max(span.ended_at or 0.0 for span in spans), over.finished_at)
    outputs = {stage: record.output if (record := journal.stage(round_, stage)) and round_ else {} for stage in Stage}
    preparation, converted = outputs[Stage.NEXT_ROUND_PREP], outputs[Stage.DPO_CONVERSION]
    # From the first call on; what the next round asks is its own.
    calls = journal.call_figures(0.0 if round_ == 0 else began_at, _next_began_at(journal, round_) or time.time())
    return RoundMetrics(
        round=round_,
        began_at=began_at,
        ended_at=ended_at,
        seconds=round(_seconds(journal, round_), 3),
        train=pass_rates(journal.tallies("train", round_), seed) if round_ else None,
        heldout=_heldout(journal, round_, seed),
        pool=_pool(journal, round_) if round_ else None,
        mean_completion_tokens=journal.mean_completion_tokens("train", round_) if round_ else None,
        pairs=converted.get("pairs"),
        supervised_rows=converted.get("supervised_rows", 0) if converted else None,
        training=_training(outputs[Stage.TRL_TRAINING]) if round_ else None,
        gate=gate.output if (gate := journal.stage(round_, ROUND_GATE)) else None,
        new_questions=preparation.get("new_questions", {}),
        diversity=preparation.get("diversity", {}),
        sources=preparation.get("sources", {}),
        measured=preparation.get("measured", {}),
        generator=generator.output if (generator := journal.stage(round_, GENERATOR_TRAINING)) else None,
        judge=judge_health(journal, round_) if round_ else None,
        teacher=_teacher(calls),
        resources=_resources(samples_since(workspace.resources, began_at), ended_at),
        workspace_bytes=_folder_bytes(workspace.root),
        spans=spans,
    )


def pass_rates(tallies: Iterable[QuestionTally], seed: int) -> PassRates | None:
    """The figures of some questions' sampled attempts; None without any. Pure."""
    tallies = list(tallies)
    if not tallies:
        return None
    decided = [tally for tally in tallies if tally.correct + tally.incorrect]
    totals_Q = [tally.correct + tally.incorrect for tally in decided]
    correct_Q = [tally.correct for tally in decided]
    unknown = sum(tally.unknown for tally in tallies)
    attempts = sum(totals_Q) + unknown
    most = max(tally.correct + tally.incorrect + tally.unknown for tally in tallies)
    k = min(MOST_K, most)
    at_k_Q = [pass_at_k(total, correct, k) for total, correct in zip(totals_Q, correct_Q, strict=True) if total >= k]
    by_correct = [0] * (most + 1)
    for tally in tallies:
        by_correct[tally.correct] += 1
    return PassRates(
        questions=len(tallies),
        attempts=attempts,
        correct=sum(correct_Q),
        incorrect=sum(totals_Q) - sum(correct_Q),
        unknown=unknown,
        unknown_share=unknown / attempts,
        average_reward=share_with_interval(correct_Q, totals_Q),
        pass_at_1=mean_with_interval([c / n for c, n in zip(correct_Q, totals_Q, strict=True)], seed),
        k=k,
        pass_at_k=mean_with_interval(at_k_Q, seed),
        questions_by_correct=by_correct,
    )


def _heldout(journal: Journal, round_: int, seed: int) -> PassRates | None:
    """Of the weights after the round: its own, or those that were carried over."""
    split: Split = "heldout"
    scored = next((r for r in range(round_, -1, -1) if journal.stage(r, EVALUATION) and was_kept(journal, r)), None)
    return None if scored is None else pass_rates(journal.tallies(split, scored), seed)


def _pool(journal: Journal, round_: int) -> PoolFigures:
    by_reason, following = journal.pool_counts(round_), sum(journal.pool_counts(round_ + 1).values())
    questions = sum(by_reason.values())
    return PoolFigures(questions, by_reason, following, following / questions if questions else 0.0)


def _training(output: dict[str, Any]) -> TrainingFigures:
    told = output.get("metrics", {})

    def drift(side: str) -> float | None:
        before, after = told.get(f"logps_before/{side}"), told.get(f"logps_after/{side}")
        return None if before is None or after is None else after - before

    return TrainingFigures(
        trained=output["trained"],
        reason=output["reason"],
        pairs=output.get("train_pairs", 0) if output["trained"] else 0,
        supervised_rows=output.get("supervised_rows", 0) if output["trained"] else 0,
        steps=output.get("steps", 0),
        loss=told.get("train_loss", told.get("loss")),
        grad_norm=told.get("grad_norm"),
        grad_norm_max=told.get("grad_norm_max"),
        reward_margin=told.get("rewards/margins"),
        reward_accuracy=told.get("rewards/accuracies"),
        chosen_logp=told.get("logps_after/chosen"),
        chosen_logp_drift=drift("chosen"),
        rejected_logp_drift=drift("rejected"),
        validation_loss=told.get("eval_loss"),
        validation_reward_accuracy=told.get("eval_rewards/accuracies"),
    )


def _teacher(calls: list[CallFigures]) -> TeacherFigures:
    costs = [figures.cost for figures in calls if figures.cost is not None]
    return TeacherFigures(
        calls=sum(figures.calls for figures in calls),
        http_attempts=sum(figures.attempts for figures in calls),
        failed=sum(figures.failed for figures in calls),
        prompt_tokens=sum(figures.prompt_tokens for figures in calls),
        completion_tokens=sum(figures.completion_tokens for figures in calls),
        cost=sum(costs) if costs else None,
        by_task=calls,
    )


def _resources(samples: Sequence[ResourceSample], ended_at: float) -> ResourceFigures | None:
    samples = [sample for sample in samples if sample.at <= ended_at]
    if not samples:
        return None
    gpus = []
    for index in sorted({gpu.index for sample in samples for gpu in sample.gpus}):
        seen = [gpu for sample in samples for gpu in sample.gpus if gpu.index == index]
        gpus.append(
            GpuFigures(
                index,
                sum(gpu.utilisation for gpu in seen) / len(seen),
                max(gpu.memory_used_bytes for gpu in seen),
                seen[-1].memory_total_bytes,
            )
        )
    return ResourceFigures(
        samples=len(samples),
        max_run_memory_bytes=max(sample.run_memory_bytes for sample in samples),
        min_free_memory_bytes=min(sample.free_memory_bytes for sample in samples),
        min_free_disk_bytes=min(sample.free_disk_bytes for sample in samples),
        gpus=gpus,
    )


def _next_began_at(journal: Journal, round_: int) -> float | None:
    following = journal.spans(round_ + 1)
    return following[0].began_at if following else None


def _seconds(journal: Journal, round_: int) -> float:
    records = [journal.stage(round_, stage) for stage in journal.stages_done(round_)]
    return sum(record.seconds for record in records if record)


def _folder_bytes(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except OSError:
            continue  # it went while it was looked at
    return total


# metrics.jsonl


def write_metrics(workspace: Workspace, journal: Journal) -> None:
    """Bring `metrics.jsonl` up to the journal: lines that are there stay, those that are missing are computed.

    Never fails a run: it says what is missing.
    """
    try:
        last, lines = journal.rounds_begun(), read_metrics(workspace.metrics)
        missing = [round_ for round_ in range(last + 1) if round_ not in lines]
        new = {round_: found for round_ in missing if (found := round_metrics(journal, workspace, round_))}
        if not new:
            return
        lines |= {round_: {"schema_version": SCHEMA_VERSION, **asdict(found)} for round_, found in new.items()}
        with replace_atomically(workspace.metrics) as temporary, temporary.open("w", encoding="utf-8") as stream:
            stream.writelines(json.dumps(lines[round_], ensure_ascii=False) + "\n" for round_ in sorted(lines))
    # A round's results stand without its figures.
    except Exception as error:
        log.warning("%s could not be written: %s", workspace.metrics, error)


def read_metrics(file: Path) -> dict[int, dict[str, Any]]:
    """The lines of `metrics.jsonl` by round; without those that do not read as ours."""
    found: dict[int, dict[str, Any]] = {}
    if file.exists():
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                row = json.loads(line)
                if row["schema_version"] == SCHEMA_VERSION:
                    found[int(row["round"])] = row
            except (ValueError, TypeError, KeyError):
                continue
    return found
