"""What pages show of a run as a whole and of one question, read from the journal in one go.

The report and the dashboard draw the same things from it. Reading costs what the rounds are, not what the attempts are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prosetting.core.journal import Journal
from prosetting.core.journal_rows import Span, TaskTotals, Zone
from prosetting.errors import DataError
from prosetting.managers.learning_curve import CurvePoint, curve_points
from prosetting.managers.lineage import Lineage, RoundPlayed, lineage_of
from prosetting.managers.question_sources import SourceCost, costs_of_sources, side_by_side_rows
from prosetting.managers.run_status import RoundStatus, require_begun, round_status
from prosetting.records import Grade, QuestionId, Trajectory

ZONES: tuple[Zone, ...] = ("mastered", "learning", "too_hard", "undecided")
SAMPLED_QUESTIONS = 5
EVIDENCE = 5


@dataclass(frozen=True, slots=True)
class RunView:
    """`summary` is the content of `auto_training_summary.json`; `current` the round that is open, None without one."""

    settings: dict[str, Any]
    summary: dict[str, Any]
    points: list[CurvePoint]
    zones: list[tuple[int, dict[Zone, int]]]
    current: RoundStatus | None
    tasks: list[TaskTotals]
    spans: list[Span]
    training: dict[int, dict[str, Any]]
    evidence_against_judge: list[tuple[int, str, str]]
    sources: list[dict[str, Any]]
    source_costs: list[SourceCost]

    @property
    def generator_reasons(self) -> list[tuple[int, str]]:
        """Each round's training of the Generator, or why there was none."""
        return [(r["round"], r["generator"]["reason"]) for r in self.summary["rounds"] if r.get("generator")]

    @property
    def interruptions(self) -> list[Span]:
        """Work that did not come to its end."""
        return [span for span in self.spans if span.outcome not in ("done", "running")]


@dataclass(frozen=True, slots=True)
class RoundOfQuestion:
    """One round of a question with its attempts, each with its grade once it has one."""

    played: RoundPlayed
    attempts: list[tuple[Trajectory, Grade | None]]


@dataclass(frozen=True, slots=True)
class QuestionView:
    """A question's lineage up and down, and its own rounds, the latest first."""

    lineage: Lineage
    rounds: list[RoundOfQuestion]


def run_view(journal: Journal, summary: Mapping[str, Any]) -> RunView:
    """`summary` is that of `run_summary`. Raises WorkspaceError where no run has begun."""
    settings = require_begun(journal)
    done, total_rounds = len(summary["rounds"]), summary["total_rounds"]
    current = round_status(journal, done + 1, settings["attempts_per_question"]) if done < total_rounds else None
    zones = [(r, counts) for r in range(1, done + 2) if (counts := journal.zone_counts(r))]
    trained = [r["round"] for r in summary["rounds"] if r["trained"]]
    return RunView(
        settings=settings,
        summary=dict(summary),
        points=curve_points(dict(summary)),
        zones=zones,
        current=current if current and current.questions else None,
        tasks=journal.teacher_tasks(),
        spans=journal.spans(),
        training={r: record.output for r in trained if (record := journal.stage(r, "trl_training"))},
        evidence_against_judge=list(journal.evidence_against_judge(EVIDENCE)),
        sources=side_by_side_rows(summary["rounds"]),
        source_costs=costs_of_sources(journal, summary["rounds"]),
    )


def question_view(journal: Journal, id_or_prefix: str) -> QuestionView:
    """Raises DataError for an id that is not there or a prefix of several."""
    lineage = lineage_of(journal, id_or_prefix)
    question_id = lineage.story.question.question_id
    rounds = [
        RoundOfQuestion(played, journal.attempts_of("train", played.round, question_id))
        for played in reversed(lineage.story.rounds)
    ]
    return QuestionView(lineage, rounds)


def sample_questions(journal: Journal, rounds: Sequence[int]) -> list[QuestionView]:
    """A few questions that show what happened: of the latest rounds one of Teacher2's that was played, and one for
    each way a question can go. The same ones for the same journal."""
    names: list[QuestionId] = []
    for round_ in reversed(rounds):
        new = journal.played(round_, reason="enhanced", most=1)
        found = [*new, *(one for zone in ZONES[:3] for one in journal.played(round_, zone=zone, most=1))]
        names += [one.question_id for one in found if one.question_id not in names]
        if len(names) >= SAMPLED_QUESTIONS:
            break
    views = []
    for name in names[:SAMPLED_QUESTIONS]:
        try:
            views.append(question_view(journal, name))
        except DataError:
            continue
    return views
