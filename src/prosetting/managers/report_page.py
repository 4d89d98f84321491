"""`report.html`: one file that opens offline, with charts drawn into it and nothing that runs."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from prosetting import __version__
from prosetting.core.artifacts import read_json
from prosetting.core.journal import Journal
from prosetting.core.state_manager import (
    EVAL_FILES,
    EVALUATION,
    GENERATOR_DRAFTS,
    GENERATOR_TRAINING,
    GENERATOR_TRIALS,
    ROUND_GATE,
    WRITING,
)
from prosetting.core.workspace import Workspace
from prosetting.errors import DataError
from prosetting.managers import charts
from prosetting.managers.charts import Series
from prosetting.managers.html import css, environment
from prosetting.managers.run_view import RunView, run_view, sample_questions
from prosetting.managers.timeline import timeline_of
from prosetting.records import Stage

DRAWN_ROUNDS = 12
ZONE_SERIES = (
    Series("mastered", "mastered", "s3"),
    Series("learning", "learning", "s1"),
    Series("too_hard", "too hard", "s4"),
    Series("undecided", "undecided", "s0"),
)
POOL_SERIES = (
    Series("seed", "seed", "s1"),
    Series("enhanced", "newly written", "s2"),
    Series("failed_replay", "failed, replayed", "s4"),
    Series("other_replay", "others, replayed", "s3"),
)
STAGE_COLOURS = {
    Stage.DATA_COLLECTION.value: "s1",
    Stage.DATA_GRADING.value: "s3",
    WRITING: "s2",
    GENERATOR_TRAINING: "s4",
    GENERATOR_DRAFTS: "s2",
    GENERATOR_TRIALS: "s1",
    Stage.DPO_CONVERSION.value: "s5",
    Stage.TRL_TRAINING.value: "s4",
    EVALUATION: "s1",
    Stage.NEXT_ROUND_PREP.value: "s2",
    ROUND_GATE: "s5",
    EVAL_FILES: "s1",
}


def report_html(
    workspace: Workspace, journal: Journal, summary: Mapping[str, Any], facts: Sequence[tuple[str, str]]
) -> str:
    """The page. `facts` are those that the report begins with in every form."""
    view = run_view(journal, summary)
    rounds = [r for r, _ in view.zones]
    page = environment().get_template("report.html.j2")
    return page.render(
        view=view,
        facts=facts,
        samples=sample_questions(journal, rounds),
        css=Markup(css("base.css")),
        workspace=str(workspace.root),
        workspace_name=workspace.root.name,
        command=command_to_go_on(workspace),
        version=__version__,
        written_at=time.time(),
        drawn_rounds=DRAWN_ROUNDS,
        only_last=len(rounds) > DRAWN_ROUNDS,
        **drawn(view, journal.last_written_at),
    )


def drawn(view: RunView, now: float) -> dict[str, Markup]:
    """The charts of a run by the names that templates use. `now`: the end of what is still running."""
    pools = [(f"round {r['round']}", r["pool"]) for r in view.summary["rounds"]]
    if view.current:
        pools.append((f"round {view.current.round}", view.current.pool))
    zones = [(f"round {r}", {str(zone): n for zone, n in counts.items()}) for r, counts in view.zones]
    return {
        "curve": charts.learning_curve(view.points),
        "zones": charts.stacked_shares("Questions by how they went", zones[-DRAWN_ROUNDS:], ZONE_SERIES),
        "pools": charts.stacked_shares("Questions by source", pools[-DRAWN_ROUNDS:], POOL_SERIES),
        "timeline": charts.gantt(timeline_of(view.spans, now, DRAWN_ROUNDS), STAGE_COLOURS),
    }


def command_to_go_on(workspace: Workspace) -> str:
    """What was typed to start the run last; without a record, the plain command."""
    plain = f"prosetting run --workspace-dir {workspace.root}"
    try:
        return str(read_json(workspace.config).get("command") or plain)
    except DataError:
        return plain
