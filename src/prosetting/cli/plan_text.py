"""A run's plan as a person reads it."""

from __future__ import annotations

from collections.abc import Iterator

from prosetting.config import Settings, env_name
from prosetting.core.progress import shown_time
from prosetting.core.text import printable
from prosetting.managers.run_plan import RoundPlan, RunPlan

GIB = 2**30
HEAD = ("round", "trains", "questions", "attempts", "new", "sampled tokens", "calls", "teacher tokens", "cost", "time")


def plan_lines(plan: RunPlan) -> Iterator[str]:
    """Settings that differ from their defaults, the rounds, the sums, and what they rest on."""
    yield "Settings that are not the default (all: prosetting settings)"
    for name, value in plan.settings.items():
        default = Settings.model_fields[name].get_default()
        if value not in (default, str(default), list(default) if isinstance(default, tuple) else default):
            yield printable(f"  {env_name(name)}={_shown(value)}")
    yield from (printable(f"  notice: {notice}") for notice in plan.notices)
    yield ""
    done = f", {plan.rounds_done} rounds are done" if plan.rounds_done else ""
    yield f"Rounds to come in {plan.workspace}{done}"
    rows = [HEAD, *(_row(round_) for round_ in plan.rounds)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    yield from ("  " + "  ".join(cell.rjust(w) for cell, w in zip(row, widths, strict=True)) for row in rows)
    yield ""
    yield "About"
    teachers = f"{plan.teacher_tokens:,} of teachers in {plan.teacher_calls:,} calls"
    yield f"  tokens   {plan.sampled_tokens:,} sampled, {teachers}"
    yield f"  time     {_time(plan.seconds)}"
    yield f"  disk     {plan.disk_bytes / GIB:,.2f} GiB of {plan.free_disk_bytes / GIB:,.1f} GiB that are free"
    yield f"  cost     {_cost(plan.cost)}"
    yield "Assuming that"
    yield from (f"  {assumption}" for assumption in plan.assumptions)
    yield "Nothing was started and nothing was written."


def _row(plan: RoundPlan) -> tuple[str, ...]:
    numbers = (plan.questions, plan.attempts, plan.new_questions, plan.sampled_tokens, plan.teacher_calls)
    return (
        str(plan.round),
        "yes" if plan.trains else "no",
        *(f"{number:,}" for number in (*numbers, plan.teacher_tokens)),
        _cost(plan.cost),
        _time(plan.seconds),
    )


def _cost(cost: float | None) -> str:
    return "not known" if cost is None else f"{cost:,.2f}"


def _time(seconds: float | None) -> str:
    return "not known" if seconds is None else shown_time(seconds)


def _shown(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
