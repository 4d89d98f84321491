"""Two runs side by side: their weights on questions that both were scored on, what was set otherwise, what it took."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from prosetting.core.journal import Journal
from prosetting.core.journal_rows import Split, TeacherTotals
from prosetting.core.state_manager import CONCLUSION, EVAL_FILES, EVALUATION
from prosetting.core.workspace import Workspace
from prosetting.errors import ConfigError, WorkspaceError
from prosetting.evaluation.benchmark import pass_rates
from prosetting.evaluation.comparison import Comparison, compare_rates
from prosetting.managers.binding import bound_to
from prosetting.managers.round_gate import made_in
from prosetting.managers.run_status import require_begun
from prosetting.managers.run_summary import heldout_score

SEED = 0
"""Of the bootstrap: the comparison of two runs is nobody's run."""


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two runs. `curve` is the held-out pass@1 after round 0 (the base), 1, …; None where it was not scored.

    `made_in` is the round whose training made the weights that `round` ends with.
    """

    workspace: str
    round: int
    made_in: int
    curve: list[float | None]
    seconds: float
    teacher: TeacherTotals


@dataclass(frozen=True, slots=True)
class RunsCompared:
    """`heldout` is on VALIDATION_DATA_FILE, `reported` on EVAL_FILES; None where the runs share none of them.
    `settings`: name → (value of A, value of B) of what they were bound to and differ in."""

    a: Side
    b: Side
    heldout: Comparison | None
    reported: Comparison | None
    settings: dict[str, tuple[Any, Any]]


@dataclass(frozen=True, slots=True)
class Run:
    """A workspace, open to read, and the round that is asked for; None: the last one that is over."""

    workspace: Workspace
    journal: Journal
    round: int | None = None


def compare_runs(run_a: Run, run_b: Run) -> RunsCompared:
    """Raises WorkspaceError where a run has no such round, or the two were never scored on the same question."""
    a, b = _side(run_a), _side(run_b)
    heldout = _compared(run_a, run_b, "heldout", EVALUATION, (a.made_in, b.made_in))
    reported = _compared(run_a, run_b, "reported", EVAL_FILES, (a.round, b.round))
    if heldout is None and reported is None:
        raise WorkspaceError(
            f"{a.workspace} after round {a.round} and {b.workspace} after round {b.round} were not scored on any same"
            " question",
            next_step="run both with the same VALIDATION_DATA_FILE, or score their weights: prosetting eval",
        )
    before, after = (bound_to(run.journal) or {} for run in (run_a, run_b))
    differ = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    return RunsCompared(a, b, heldout, reported, {name: (before.get(name), after.get(name)) for name in differ})


def _side(run: Run) -> Side:
    require_begun(run.journal)
    over = run.journal.rounds_with(CONCLUSION)
    last = max(over, default=0) if run.round is None else run.round
    if last and last not in over:
        raise ConfigError(
            f"round {last} of {run.workspace.root} is not over",
            next_step=f"choose one of these: 0, {', '.join(map(str, over))}" if over else "choose 0, the base",
        )
    scores = [heldout_score(run.journal, round_) for round_ in range(last + 1)]
    return Side(
        str(run.workspace.root),
        last,
        made_in(run.journal, last),
        [score.pass_at_1 if score else None for score in scores],
        run.journal.run_seconds(),
        run.journal.teacher_totals(),
    )


def _compared(run_a: Run, run_b: Run, split: Split, stage: str, rounds: tuple[int, int]) -> Comparison | None:
    if run_a.journal.stage(rounds[0], stage) is None or run_b.journal.stage(rounds[1], stage) is None:
        return None
    rates_a, rates_b = (
        pass_rates(grade for _, grade in run.journal.graded_attempts(split, round_))
        for run, round_ in zip((run_a, run_b), rounds, strict=True)
    )
    return compare_rates(rates_a, rates_b, SEED)
