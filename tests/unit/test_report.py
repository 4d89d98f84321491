"""What a person reads: the status, the report at the end, the learning curve."""

from __future__ import annotations

import builtins
import importlib.util
import logging
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from recorded_run import record_run

from prosetting.core.journal import Journal
from prosetting.core.text import markdown_cell, printable
from prosetting.managers import learning_curve
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
    workspace = record_run(tmp_path / "other", rounds_done=0)
    write_report(workspace, summary)
    page = (workspace.results / "report.md").read_text(encoding="utf-8")
    assert "<script>" not in page
    assert "![i]" not in page
    assert "http://evil" not in page


def test_long_error_texts_are_cut_and_early_ones_counted(tmp_path: Path) -> None:
    summary = summary_of(tmp_path)
    summary["errors"] = [{"round": n, "stage": "trl_training", "message": "x" * 10_000} for n in range(7)]
    text = terminal_report(summary)
    assert "Errors (7)" in text
    assert "and 2 earlier ones" in text
    assert max(map(len, text.splitlines())) < 500


def test_the_report_is_written_with_its_pictures(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    workspace = record_run(tmp_path, rounds_done=2)
    write_report(workspace, summary_of(tmp_path / "other"))
    names = {path.name for path in workspace.results.iterdir()}
    assert names == {"report.md", "learning_curve.png", "learning_curve.svg"}
    assert (workspace.results / "learning_curve.png").read_bytes().startswith(b"\x89PNG")
    assert "![Learning curve](learning_curve.png)" in (workspace.results / "report.md").read_text(encoding="utf-8")


def test_the_same_curve_gives_the_same_picture(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    # An interval of no width, its ends a rounding error off: no reason to fail.
    points = [CurvePoint(0, 0.3, 0.3 + 1e-17, 0.3 - 1e-16, 0.4, 0.3, 4, 8), CurvePoint(1, 1, 1, 1, 1, 1, 4, 8)]
    for name in ("a", "b"):
        assert learning_curve.save_pictures(tmp_path / name, points) == list(learning_curve.PICTURES)
    for name in learning_curve.PICTURES:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_without_matplotlib_a_notice_takes_the_place_of_the_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    workspace = record_run(tmp_path, rounds_done=2)
    with caplog.at_level(logging.INFO, logger="prosetting"):
        write_report(workspace, summary_of(tmp_path / "other"))
    assert "pip install 'prosetting[report]'" in caplog.text
    assert [path.name for path in workspace.results.iterdir()] == ["report.md"]


def test_a_picture_that_cannot_be_drawn_never_fails_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real_import = builtins.__import__

    def broken(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("matplotlib"):
            raise RuntimeError("a broken installation")
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", broken)
    workspace = record_run(tmp_path, rounds_done=2)
    write_report(workspace, summary_of(tmp_path / "other"))
    assert "a broken installation" in caplog.text


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
