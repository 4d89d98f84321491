"""What a run is doing as a person reads it: `prosetting status`, and `s` at the semi-automatic prompt."""

from __future__ import annotations

import time
from collections.abc import Iterator

from prosetting.core.journal import Journal
from prosetting.core.text import printable
from prosetting.core.workspace import Workspace
from prosetting.managers.reported import score_in_words
from prosetting.managers.resources import ResourceSample, latest_sample, read_resources
from prosetting.managers.run_status import RoundStatus, RunStatus, run_status
from prosetting.records import JudgeHealth

GIB = 2**30


def status_text(journal: Journal, workspace: Workspace, total_rounds: int) -> str:
    """Of the run in this very process: its machine is looked at now."""
    return render_status(run_status(journal, total_rounds), read_resources(workspace.root))


def status_of_workspace(journal: Journal, workspace: Workspace, total_rounds: int) -> str:
    """Of a run elsewhere: its machine as it was seen last."""
    return render_status(run_status(journal, total_rounds), latest_sample(workspace.resources))


def render_status(status: RunStatus, resources: ResourceSample | None) -> str:
    """Configuration, current status, a line for each round that has begun, judge, teachers and machine."""
    settings = status.settings
    current = f"{status.current_round} · {status.current_stage}" if status.current_round else "none, all are done"
    lines = [
        "📊 Configuration Info:",
        f"   - Total Rounds: {status.total_rounds}, training from round {settings['first_training_round']}",
        f"   - Attempts per Question: {settings['attempts_per_question']}",
        f"   - Solver: {settings['solver_model_path']}",
        f"   - Seed: {settings['seed']}",
        "",
        "📊 Current Status:",
        f"   - Current Round: {current}",
        f"   - Completed Rounds: {len(status.completed_rounds)}",
        f"   - Total Rounds: {status.total_rounds}",
        f"   - Can Continue: {'Yes' if status.can_continue else 'No'}",
    ]
    lines += [f"   - Forked from {fork}" for fork in status.forked_from]
    if status.failures:
        lines.append(f"   - Failures so far: {status.failures}")
    if status.base:
        lines.append(f"   - Held-out pass@1 of the untrained base: {_share(status.base['pass_at_1'])}")
    lines += ["", "📊 Rounds:"] + [f"   {_round_line(round_)}" for round_ in status.rounds]
    lines += [f"   Score on {file['task']}: {score_in_words(file)}" for file in status.eval_files]
    lines += ["", "📊 Teachers:", f"   - {_teachers(status)}"]
    lines += [f"   - Judge, round {round_.round}: {_judge(round_.judge)}" for round_ in status.rounds[-1:]]
    if resources:
        seen = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(resources.at))
        lines += ["", f"📊 Machine, as seen {seen}:", *(f"   - {line}" for line in _machine(resources))]
    return printable("\n".join(lines))


def _round_line(status: RoundStatus) -> str:
    pool = ", ".join(f"{count} {reason.replace('_', ' ')}" for reason, count in sorted(status.pool.items()))
    parts = [f"Round {status.round}: {len(status.stages_done)}/5 stages", f"{status.questions} questions ({pool})"]
    if status.attempts < status.attempts_planned:
        parts.append(f"{status.attempts}/{status.attempts_planned} attempts sampled")
    if 0 < status.graded < status.attempts:
        parts.append(f"{status.graded}/{status.attempts} graded")
    if status.average_reward is not None:
        parts.append(f"average reward {_share(status.average_reward)}")
    if status.trained is not None:
        parts.append("trained" if status.trained else f"not trained ({status.reason})")
    if status.gate and status.gate["action"] != "passed":
        parts.append(f"{status.gate['action'].replace('_', ' ')} by the round gate")
    if status.heldout:
        parts.append(f"held-out pass@1 {_share(status.heldout['pass_at_1'])}")
    return " · ".join(parts)


def _teachers(status: RunStatus) -> str:
    totals = status.teacher
    tokens = totals.prompt_tokens + totals.completion_tokens
    cost = "" if totals.cost is None else f", cost {totals.cost:,.2f}"
    failed = f", {totals.failed:,} without a usable reply" if totals.failed else ""
    return f"{totals.calls:,} requests{failed}, {tokens:,} tokens{cost}"


def _judge(judge: JudgeHealth) -> str:
    decided = judge.regraded - judge.regraded_unknown
    return (
        f"{judge.canaries_right} of {judge.canaries} canaries right, {judge.canaries_unknown} unknown;"
        f" agrees with the rules on {judge.regraded_agree} of {decided} attempts"
    )


def _machine(seen: ResourceSample) -> Iterator[str]:
    for gpu in seen.gpus:
        held, total = gpu.memory_used_bytes / GIB, gpu.memory_total_bytes / GIB
        yield f"GPU {gpu.index}: {gpu.utilisation:.0%} busy, {held:.1f} of {total:.1f} GiB in use"
    used, free = seen.run_memory_bytes / GIB, seen.free_memory_bytes / GIB
    yield f"Memory: {used:.2f} GiB in use by the run, {free:.1f} GiB free"
    yield f"Disk: {seen.free_disk_bytes / GIB:.1f} GiB free"


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
