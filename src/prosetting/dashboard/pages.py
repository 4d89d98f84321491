"""What each page shows, read from the workspace: plain functions that block, for a thread.

The journal is read in one snapshot of milliseconds, because a commit of the run waits for it; drawing comes after.
"""

from __future__ import annotations

import json
import os
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, get_args

from prosetting.core.control import RunState, control_status
from prosetting.core.journal import Journal
from prosetting.core.journal_rows import PlayedQuestion, TeacherCall, Zone
from prosetting.core.reading import open_journal, state_of, total_rounds_of
from prosetting.core.workspace import Workspace
from prosetting.errors import DataError
from prosetting.managers import charts
from prosetting.managers.charts import Series
from prosetting.managers.html import percent, size
from prosetting.managers.report_page import STAGE_COLOURS, command_to_go_on, drawn
from prosetting.managers.reported import score_in_words
from prosetting.managers.resources import samples_since
from prosetting.managers.round_gate import worth_telling
from prosetting.managers.run_summary import run_summary
from prosetting.managers.run_view import ZONES, RunView, question_view, run_view
from prosetting.managers.timeline import timeline_of
from prosetting.processors.reward_calculator import judge_health
from prosetting.records import PoolReason, Stage

T = TypeVar("T")
Context = dict[str, Any]
QUESTIONS_A_PAGE = 50
LATEST_CALLS = 500
LOG_LINES, LOG_BYTES = 300, 128 * 2**10
DRAWN_ROUNDS_LIVE = 4
WARNINGS = 3
"""Of the round gate on the overview, the latest ones."""
RESOURCES_S = 3600.0
REASONS: tuple[PoolReason, ...] = get_args(PoolReason)
VERDICT_SERIES = (
    Series("correct", "correct", "s3"),
    Series("incorrect", "incorrect", "s4"),
    Series("unknown", "unknown", "s0"),
    Series("", "not graded yet", "s5"),
)


@dataclass(frozen=True, slots=True)
class RunNow:
    """The run at this moment. `word` is what people read, `live` whether a process works on it."""

    word: str
    live: bool
    holder: dict[str, Any] | None
    question: str
    error: str


@dataclass(frozen=True, slots=True)
class Latency:
    """Of the latest requests of one task: percentiles of the seconds of one HTTP call, and how many had no reply."""

    task: str
    calls: int
    failed: int
    p50_s: float
    p95_s: float
    p99_s: float


def read(workspace: Workspace, work: Callable[[Journal], T]) -> T:
    """One consistent, short read. Raises WorkspaceError where no run was started."""
    with open_journal(workspace) as journal, journal.snapshot():
        return work(journal)


def run_now(workspace: Workspace) -> RunNow:
    """From the control files and the state file: no journal is read."""
    status = control_status(workspace)
    state = state_of(workspace)
    written = str(state.get("status", "not started"))
    if status.state is RunState.NONE:
        word = "interrupted" if written == "running" else written
        return RunNow(word, False, None, "", str(state.get("error", "")))
    return RunNow(status.state.value, True, status.holder, status.question, "")


def overview(workspace: Workspace) -> Context:
    now = run_now(workspace)
    view, last_written_at = read(workspace, lambda journal: (_view(workspace, journal, now), journal.last_written_at))
    at = time.time() if now.live else last_written_at
    current = view.current
    running = [span for span in view.spans if span.outcome == "running"] if now.live else []
    verdicts: Sequence[tuple[str, dict[str, int]]] = ()
    if current:
        waiting = current.attempts - current.graded
        verdicts = [(f"round {current.round}", {**current.verdicts, "": waiting})]
    return {
        "now": now,
        "view": view,
        "running": running,
        "at": at,
        "warnings": [r for r in view.summary["rounds"] if r["gate"] and worth_telling(r["gate"])][-WARNINGS:],
        "scores": [(file["task"], score_in_words(file)) for file in view.summary["eval_files"]],
        "training": training_progress(workspace) if any(s.name == Stage.TRL_TRAINING for s in running) else None,
        "verdicts": charts.stacked_shares("Attempts of this round by verdict", verdicts, VERDICT_SERIES),
        "curve": charts.learning_curve(view.points),
        "timeline": charts.gantt(timeline_of(view.spans, at, DRAWN_ROUNDS_LIVE), STAGE_COLOURS),
        "command": command_to_go_on(workspace),
        "log_lines": tail(workspace, main_log(workspace))[-8:],
    }


def rounds(workspace: Workspace) -> Context:
    now = run_now(workspace)
    view = read(workspace, lambda journal: _view(workspace, journal, now))
    return {"now": now, "view": view, **drawn(view, time.time())}


def questions(
    workspace: Workspace, round_: int | None, zone: Zone | None, reason: PoolReason | None, after: str, before: str
) -> Context:
    """A page of the explorer. Without a round: the latest that has been played."""

    def work(journal: Journal) -> Context:
        total = total_rounds_of(workspace, journal)
        pools = [r for r in range(1, total + 2) if journal.has_pool(r)]
        chosen = round_ or next((r for r in reversed(pools) if journal.has_attempts("train", r)), 1)
        most = QUESTIONS_A_PAGE + 1
        found = journal.played(chosen, zone=zone, reason=reason, after=after, before=before, most=most)
        shown, has_previous, has_next = _page(found, after, before)
        return {
            "rounds": pools,
            "round": chosen,
            "zone": zone,
            "reason": reason,
            "questions": shown,
            "zone_counts": journal.zone_counts(chosen),
            "reason_counts": journal.pool_counts(chosen),
            "previous_before": shown[0].question_id if shown and has_previous else "",
            "next_after": shown[-1].question_id if shown and has_next else "",
        }

    found = read(workspace, work)
    return {"now": run_now(workspace), "zones": ZONES, "reasons": REASONS, **found}


def _page(found: list[PlayedQuestion], after: str, before: str) -> tuple[list[PlayedQuestion], bool, bool]:
    """The rows of a page, and whether there is one before and one behind it: one row more than a page was read."""
    more = len(found) > QUESTIONS_A_PAGE
    if before:
        return found[-QUESTIONS_A_PAGE:], more, True
    return found[:QUESTIONS_A_PAGE], bool(after), more


def question(workspace: Workspace, id_or_prefix: str) -> Context:
    """Raises DataError for an id that is not there."""
    return {
        "now": run_now(workspace),
        "question": read(workspace, lambda journal: question_view(journal, id_or_prefix)),
    }


def teachers(workspace: Workspace) -> Context:
    now = run_now(workspace)

    def work(journal: Journal) -> Context:
        view = _view(workspace, journal, now)
        judge = [(r["round"], r["judge"]) for r in view.summary["rounds"]]
        live = judge_health(journal, view.current.round) if view.current else None
        return {"view": view, "judge": judge, "judge_now": live, "calls": journal.latest_calls(LATEST_CALLS)}

    found = read(workspace, work)
    calls: list[TeacherCall] = found.pop("calls")
    failures = [call for call in calls if call.failure][:10]
    return {"now": now, "latencies": latencies(calls), "failures": failures, "latest": len(calls), **found}


def latencies(calls: Sequence[TeacherCall]) -> list[Latency]:
    by_task: dict[str, list[TeacherCall]] = defaultdict(list)
    for call in calls:
        by_task[call.task].append(call)
    found = []
    for task, own in sorted(by_task.items()):
        seconds = sorted(call.latency_s / max(1, call.attempts) for call in own)
        at = [seconds[min(len(seconds) - 1, int(share * len(seconds)))] for share in (0.5, 0.95, 0.99)]
        found.append(Latency(task, len(own), sum(call.reply is None for call in own), *at))
    return found


def machine(workspace: Workspace) -> Context:
    samples = samples_since(workspace.resources, time.time() - RESOURCES_S)
    at = [sample.at for sample in samples]
    gpus = sorted({gpu.index for sample in samples for gpu in sample.gpus})
    memory = {
        "of the run": [sample.run_memory_bytes for sample in samples],
        "free": [sample.free_memory_bytes for sample in samples],
    }
    use = {
        f"GPU {index}": [next((g.utilisation for g in s.gpus if g.index == index), 0.0) for s in samples]
        for index in gpus[:5]
    }
    return {
        "now": run_now(workspace),
        "latest": samples[-1] if samples else None,
        "cores": os.cpu_count(),
        "load": os.getloadavg(),
        "memory": charts.over_time("Memory in the last hour", at, memory, size),
        "gpu_use": charts.over_time("GPU utilisation in the last hour", at, use, percent),
    }


def log(workspace: Workspace, name: str) -> Context:
    """Raises DataError for a file that is none of the run's logs."""
    names = log_names(workspace)
    chosen = name or main_log(workspace)
    if name and name not in names:
        raise DataError(f"{name!r} is no log file of this run", next_step=f"there are {', '.join(names) or 'none yet'}")
    return {"now": run_now(workspace), "names": names, "name": chosen, "lines": tail(workspace, chosen)}


def log_names(workspace: Workspace) -> list[str]:
    return sorted(path.name for path in workspace.logs.glob("*.log") if path.is_file() and not path.is_symlink())


def main_log(workspace: Workspace) -> str:
    """The log of the mode that ran last."""
    own = [workspace.logs / name for name in ("auto_trainer.log", "semi_auto_trainer.log")]
    there = [path for path in own if path.exists()]
    return max(there, key=lambda path: path.stat().st_mtime).name if there else ""


def tail(workspace: Workspace, name: str) -> list[str]:
    """The last whole lines of a log."""
    if not name:
        return []
    with (workspace.logs / name).open("rb") as stream:
        length = stream.seek(0, os.SEEK_END)
        stream.seek(max(0, length - LOG_BYTES))
        lines = stream.read(LOG_BYTES).decode("utf-8", "replace").splitlines()
    return lines[-LOG_LINES:] if length <= LOG_BYTES else lines[1:][-LOG_LINES:]


def training_progress(workspace: Workspace) -> dict[str, Any] | None:
    """The trainer's last step: `step`, `total`, `loss`."""
    try:
        with (workspace.logs / "trl_trainer.progress.jsonl").open("rb") as stream:
            stream.seek(max(0, stream.seek(0, os.SEEK_END) - 4096))
            lines = stream.read().splitlines()
    except OSError:
        return None
    for line in reversed(lines):
        try:
            found: dict[str, Any] = json.loads(line)
        except ValueError:
            continue
        if "step" in found:
            return found
    return None


def _view(workspace: Workspace, journal: Journal, now: RunNow) -> RunView:
    summary = run_summary(journal, total_rounds_of(workspace, journal), now.word, journal.run_seconds())
    return run_view(journal, summary)
