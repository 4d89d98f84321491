"""What a person reads of a run at its end: in a terminal, as `report.html`, as Markdown.

Made from the dict of `auto_training_summary.json` (docs/files.md). Error texts may quote a model: they are
shown as plain text, never obeyed.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from typing import Any

from prosetting.core.artifacts import replace_atomically
from prosetting.core.journal import Journal
from prosetting.core.text import markdown_cell, printable
from prosetting.core.workspace import Workspace
from prosetting.managers import charts, report_page
from prosetting.managers.html import css
from prosetting.managers.learning_curve import CurvePoint, curve_points, draw_bars
from prosetting.managers.reported import score_in_words
from prosetting.managers.round_gate import worth_telling
from prosetting.managers.run_summary import trained_in_words

log = logging.getLogger("prosetting")
SHOWN_ERRORS = 5
CURVE_FILE = "learning_curve.svg"
ERROR_CHARS = 400


def terminal_report(summary: dict[str, Any]) -> str:
    """The report as plain text: final status, rounds, who decided, the learning curve, errors."""
    lines = ["", "========== Training Report ==========", *(f"{name:<20} {value}" for name, value in facts(summary))]
    if summary["rounds"]:
        lines += ["", "Rounds", *_aligned(list(_table(summary)))]
    if points := curve_points(summary):
        lines += ["", _curve_title(points), *draw_bars(points)]
    if summary["errors"]:
        lines += ["", f"Errors ({len(summary['errors'])})", *(f"  {line}" for line in _errors(summary))]
    return printable("\n".join(lines)) + "\n"


def write_report(workspace: Workspace, journal: Journal, summary: dict[str, Any]) -> None:
    """`report.html`, `results/report.md` and `results/learning_curve.svg`. Never fails a run, but says so."""
    try:
        page = report_page.report_html(workspace, journal, summary, list(facts(summary)))
        text = _markdown(summary, report_page.command_to_go_on(workspace))
        texts = {workspace.report: page, workspace.results / "report.md": text}
        if points := curve_points(summary):
            picture = charts.standalone(charts.learning_curve(points), css("base.css"))
            texts[workspace.results / CURVE_FILE] = picture
        for path, text in texts.items():
            with replace_atomically(path) as temporary:
                temporary.write_text(text, encoding="utf-8")
    # Whatever a report stumbles over: the run's results stand without it.
    except Exception as error:
        log.warning("the report in %s could not be written: %s", workspace.results, error)


def _markdown(summary: dict[str, Any], command: str) -> str:
    lines = ["# Training report", "", "| | |", "|---|---|"]
    lines += [f"| {name} | {markdown_cell(value)} |" for name, value in facts(summary)]
    lines += ["", "To go on:", "", *(f"    {line}" for line in printable(command).splitlines())]
    if summary["rounds"]:
        head, *rows = _table(summary)
        lines += ["", "## Rounds", "", _row(head), _row(["---"] * len(head))]
        lines += [_row([markdown_cell(cell) for cell in row]) for row in rows]
        lines += [""] + [f"- Round {r['round']}: {markdown_cell(r['reason'])}" for r in summary["rounds"]]
    if points := curve_points(summary):
        lines += ["", "## Learning curve", "", _curve_title(points), ""]
        lines += [f"![Learning curve]({CURVE_FILE})", "", "```text", *draw_bars(points), "```"]
    if summary["errors"]:
        lines += ["", "## Errors", "", *(f"- {markdown_cell(line)}" for line in _errors(summary))]
    return "\n".join(lines) + "\n"


def facts(summary: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What a report begins with, by name."""
    failed = ", ".join(map(str, summary["rounds_with_failures"]))
    decided = _decided(summary)
    yield "Final status", summary["final_status"]
    if summary["reason"]:
        yield "Because", summary["reason"]
    yield "Duration", _duration(summary["duration_seconds"])
    yield "Rounds done", f"{summary['rounds_done']} of {summary['total_rounds']}"
    yield "Rounds with failures", failed or "none"
    yield "Questions processed", f"{summary['questions_processed']:,}"
    yield "Attempts processed", f"{summary['attempts_processed']:,}"
    own = f"{decided['reward_function']:,} by your function, " if decided["reward_function"] else ""
    yield (
        "Verdicts",
        f"{own}{decided['rules']:,} by rules, {decided['teacher1']:,} by Teacher1, {decided['unknown']:,} unknown",
    )
    yield "Judge", _judge(summary)
    yield "New questions", _new_questions(summary)
    yield "Teacher", _teacher(summary["teacher"])
    yield from _gate(summary)
    yield from ((f"Score on {file['task']}", score_in_words(file)) for file in summary["eval_files"])
    yield "Seed", str(summary["seed"])
    for fork in summary["forked_from"]:
        yield "Forked from", fork


def _decided(summary: dict[str, Any]) -> dict[str, int]:
    rounds = summary["rounds"]
    by = {who: sum(r["decided_by"].get(who, 0) for r in rounds) for who in ("rules", "teacher1", "reward_function")}
    return {**by, "unknown": sum(r["unknown"] for r in rounds)}


def _judge(summary: dict[str, Any]) -> str:
    """Teacher1's record where the right verdict is known, all rounds."""
    total = Counter[str]()
    for r in summary["rounds"]:
        total.update(r["judge"])
    decided = total["regraded"] - total["regraded_unknown"]
    return (
        f"{total['canaries_right']:,} of {total['canaries']:,} canaries right, {total['canaries_unknown']:,} unknown;"
        f" agrees with the rules on {total['regraded_agree']:,} of {decided:,} attempts"
    )


def _new_questions(summary: dict[str, Any]) -> str:
    total = Counter[str]()
    for r in summary["rounds"]:
        total.update(r["new_questions"])
    asked = sum(total[status] for status in ("written", "declined", "failed"))
    turned_away = total["written"] - total["admitted"]
    return f"{total['admitted']:,} admitted, {turned_away:,} turned away by the gate, of {asked:,} asked for"


def _gate(summary: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What ROUND_GATE found worth telling, a line each."""
    judged = [(r["round"], r["gate"]) for r in summary["rounds"] if r["gate"]]
    told = [(round_, gate) for round_, gate in judged if worth_telling(gate)]
    for round_, gate in told:
        yield "Round gate", f"round {round_} {gate['action'].replace('_', ' ')}: {gate['evidence']}"
    if judged and not told:
        yield "Round gate", f"passed in round {', '.join(str(round_) for round_, _ in judged)}"


def _teacher(totals: dict[str, Any]) -> str:
    tokens = totals["prompt_tokens"] + totals["completion_tokens"]
    cost = "" if totals["cost"] is None else f", cost {totals['cost']:,.2f}"
    failed = f", {totals['failed']:,} without a usable reply" if totals["failed"] else ""
    return f"{totals['calls']:,} requests{failed}, {tokens:,} tokens{cost}"


def _table(summary: dict[str, Any]) -> Iterator[list[str]]:
    # A column only where a strategy makes such rows.
    some = any(r["supervised_rows"] for r in summary["rounds"])
    supervised = ["supervised"] if some else []
    yield [
        *("round", "questions", "reward", "rules", "teacher1", "unknown", "pairs"),
        *supervised,
        *("trained", "pass@1", "time"),
    ]
    for r in summary["rounds"]:
        yield [
            str(r["round"]),
            str(r["questions"]),
            _share(r["average_reward"]),
            str(r["decided_by"].get("rules", 0)),
            str(r["decided_by"].get("teacher1", 0)),
            str(r["unknown"]),
            str(r["pairs"]),
            *([str(r["supervised_rows"])] if some else []),
            trained_in_words(r),
            _share(r["heldout"]["pass_at_1"]) if r["heldout"] else "–",
            _duration(r["duration_seconds"]),
        ]


def _aligned(rows: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  " + "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _curve_title(points: list[CurvePoint]) -> str:
    last = points[-1]
    return f"Held-out pass@1, sampled, with 95 % interval ({last.questions} questions, {last.samples} attempts)"


def _errors(summary: dict[str, Any]) -> Iterator[str]:
    for failure in summary["errors"][-SHOWN_ERRORS:]:
        message = " ".join(failure["message"].split())
        cut = "…" if len(message) > ERROR_CHARS else ""
        done = f" → {failure['decision'].replace('_', ' ')}" if failure["decision"] else ""
        yield f"round {failure['round']} · {failure['stage']}: {message[:ERROR_CHARS]}{cut}{done}"
    if (more := len(summary["errors"]) - SHOWN_ERRORS) > 0:
        yield f"and {more} earlier ones, in auto_training_summary.json"


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{seconds:.1f} s"
