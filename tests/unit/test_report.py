"""What a person reads: the status, the report at the end, the learning curve."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from recorded_run import record_run

from prosetting.core.journal import Journal
from prosetting.core.text import markdown_cell, printable
from prosetting.core.workspace import Workspace
from prosetting.managers import charts
from prosetting.managers.learning_curve import CurvePoint, curve_points, draw_bars
from prosetting.managers.report import terminal_report, write_report
from prosetting.managers.run_summary import run_summary
from prosetting.managers.status_view import status_of_workspace

HOSTILE = "\x1b[2J[bold]x[/bold] <script>alert(1)</script> ![i](http://evil) | `rm` \u202e"


def summary_of(root: Path, *, rounds_done: int = 2, failure: str = "") -> dict[str, Any]:
    workspace = record_run(root, rounds_done=rounds_done, failure=failure)
    with Journal(workspace.journal, read_only=True) as journal:
        return run_summary(journal, 2, "completed", 3725.0)


def test_the_status_tells_configuration_current_round_and_a_line_a_round(tmp_path: Path) -> None:
    workspace = record_run(tmp_path, rounds_done=1)
    with Journal(workspace.journal, read_only=True) as journal:
        text = status_of_workspace(journal, workspace, 2)
    assert "- Total Rounds: 2" in text
    assert "- Current Round: 2 · data_collection" in text
    assert "- Completed Rounds: 1" in text
    assert "- Can Continue: Yes" in text
    assert "Round 1: 5/5 stages · 2 questions (2 seed) · average reward 0.500 · not trained (gathering" in text
    assert "Round 2: 0/5 stages · 2 questions (2 failed replay) · 2/4 attempts sampled" in text


def test_the_report_holds_durations_rounds_verdicts_and_final_status(tmp_path: Path) -> None:
    text = terminal_report(summary_of(tmp_path))
    facts = {line[:20].strip(): line[21:] for line in text.splitlines()[2:11]}
    assert facts["Final status"] == "completed"
    assert facts["Duration"] == "1 h 02 min"
    assert facts["Rounds done"] == "2 of 2"
    assert facts["Rounds with failures"] == "none"
    assert facts["Questions processed"] == "4"
    assert facts["Verdicts"] == "4 by rules, 4 by Teacher1, 0 unknown"


def test_the_curve_has_a_bar_for_the_base_and_each_trained_round(tmp_path: Path) -> None:
    points = curve_points(summary_of(tmp_path))
    assert [(point.round, point.pass_at_1) for point in points] == [(0, 0.25), (2, 0.45)]
    base, second, axis = draw_bars(points)
    assert base.startswith("  base      0.250 [0.200, 0.300]  |██████████▓▓░░░")
    assert second.startswith("  round 2   0.450")
    assert len({len(base), len(second), len(axis)}) == 1


def test_a_report_without_heldout_questions_has_no_curve(tmp_path: Path) -> None:
    summary = summary_of(tmp_path)
    summary["base"]["heldout"] = None
    summary["rounds"] = [{**round_, "heldout": None} for round_ in summary["rounds"]]
    assert curve_points(summary) == []
    assert "Held-out" not in terminal_report(summary)


def test_an_unfinished_run_reports_what_is_done(tmp_path: Path) -> None:
    text = terminal_report(summary_of(tmp_path, rounds_done=0))
    assert "0 of 2" in text
    assert "Rounds\n" not in text


def test_hostile_error_texts_are_shown_and_never_obeyed(tmp_path: Path) -> None:
    summary = summary_of(tmp_path, failure=HOSTILE)
    text = terminal_report(summary)
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "\\x1b[2J[bold]x[/bold]" in text
    workspace = written(tmp_path / "other", summary, rounds_done=0)
    page = (workspace.results / "report.md").read_text(encoding="utf-8")
    assert "<script>" not in page
    assert "![i]" not in page
    assert "http://evil" not in page


def test_long_error_texts_are_cut_and_early_ones_counted(tmp_path: Path) -> None:
    summary = summary_of(tmp_path)
    summary["errors"] = [
        {"round": n, "stage": "trl_training", "message": "x" * 10_000, "decision": ""} for n in range(7)
    ]
    text = terminal_report(summary)
    assert "Errors (7)" in text
    assert "and 2 earlier ones" in text
    assert max(map(len, text.splitlines())) < 500


def written(root: Path, summary: dict[str, Any], *, rounds_done: int = 2, attempt: str = "") -> Workspace:
    """A workspace with its report written. `attempt` stands in for one model's text."""
    workspace = record_run(root, rounds_done=rounds_done)
    if attempt:
        with sqlite3.connect(workspace.journal) as db:
            db.execute("UPDATE trajectories SET response = ?", (attempt,))
            db.execute("UPDATE grades SET diagnosis = ?", (attempt,))
            db.execute("UPDATE questions SET text = text || ?", (attempt,))
        db.close()
    with Journal(workspace.journal, read_only=True) as journal:
        write_report(workspace, journal, summary)
    return workspace


def test_the_report_is_written_as_a_page_as_markdown_and_with_its_curve(tmp_path: Path) -> None:
    workspace = written(tmp_path, summary_of(tmp_path / "other"))
    assert {path.name for path in workspace.results.iterdir()} == {"report.md", "learning_curve.svg"}
    assert "![Learning curve](learning_curve.svg)" in (workspace.results / "report.md").read_text(encoding="utf-8")
    ElementTree.parse(workspace.results / "learning_curve.svg")
    page = workspace.report.read_text(encoding="utf-8")
    for part in ("Does it get better?", "Stage timeline", "Failures, and what was done", "Samples: questions", "<svg"):
        assert part in page
    assert f"prosetting run --workspace-dir {tmp_path}" in page


def test_the_page_opens_offline_and_runs_nothing(tmp_path: Path) -> None:
    page = written(tmp_path, summary_of(tmp_path / "other")).report.read_text(encoding="utf-8")
    assert "default-src 'none'" in page
    assert not re.findall(r"""(?:src|href)=["'](?!#)|<script|<link|<iframe|url\(|@import""", page)


def test_hostile_text_of_a_model_is_shown_on_the_page_and_never_obeyed(tmp_path: Path) -> None:
    hostile = HOSTILE + ' <img src=x onerror="alert(1)"> </pre></style>{{ 7*7 }}'
    page = written(tmp_path, summary_of(tmp_path / "other"), attempt=hostile).report.read_text(encoding="utf-8")
    assert "\x1b" not in page
    assert "\u202e" not in page
    assert "<script" not in page
    assert "<img" not in page
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 4
    assert "{{ 7*7 }}" in page
    assert page.count("</style>") == 1


def test_a_report_of_a_run_without_a_round_says_so(tmp_path: Path) -> None:
    summary = summary_of(tmp_path / "other", rounds_done=0)
    page = written(tmp_path, summary, rounds_done=0).report.read_text(encoding="utf-8")
    assert "No round is over yet." in page
    assert "Nothing is graded yet." in page


def test_a_failure_is_told_with_what_was_done_about_it(tmp_path: Path) -> None:
    summary = summary_of(tmp_path / "other", failure="lost its GPU")
    summary["errors"][0]["decision"] = "skip_training"
    assert "lost its GPU → skip training" in terminal_report(summary)
    page = written(tmp_path, summary).report.read_text(encoding="utf-8")
    assert "lost its GPU" in page
    assert "went on with the old weights" in page


def test_the_same_curve_gives_the_same_picture() -> None:
    # An interval of no width, its ends a rounding error off: no reason to fail.
    points = [CurvePoint(0, 0.3, 0.3 + 1e-17, 0.3 - 1e-16, 0.4, 0.3, 4, 8), CurvePoint(1, 1, 1, 1, 1, 1, 4, 8)]
    assert charts.learning_curve(points) == charts.learning_curve(points)
    assert charts.learning_curve([]) == ""


def test_a_report_that_cannot_be_written_never_fails_the_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    workspace = record_run(tmp_path, rounds_done=2)
    workspace.report.mkdir()
    with Journal(workspace.journal, read_only=True) as journal:
        write_report(workspace, journal, summary_of(tmp_path / "other"))
    assert "could not be written" in caplog.text


def test_printable_keeps_text_and_shows_what_a_terminal_would_obey() -> None:
    assert printable("é ✅ 数\n\tend") == "é ✅ 数\n\tend"
    assert printable("a\x1b\x07\u202e\ud800b\u00a0c") == "a\\x1b\\x07\\u202e\\ud800b c"


def test_a_markdown_cell_is_one_plain_line() -> None:
    assert markdown_cell("a|b\n# c <b> & http://x") == r"a\|b \# c &lt;b&gt; &amp; http\://x"


def test_the_summary_of_finished_rounds_comes_from_what_their_stages_came_to(tmp_path: Path) -> None:
    """Attempts and calls are not read again: after a thousand rounds a summary takes no longer than its rounds."""
    before = summary_of(tmp_path)
    with sqlite3.connect(tmp_path / "prosetting.db") as db:
        for table in ("grades", "trajectories", "judge_checks"):
            db.execute(f"DELETE FROM {table}")
    db.close()
    with Journal(tmp_path / "prosetting.db", read_only=True) as journal:
        assert run_summary(journal, 2, "completed", 3725.0) == before
    assert before["attempts_processed"] == 8
    assert [r["pool"] for r in before["rounds"]] == [{"seed": 2}, {"failed_replay": 2}]
