"""A person at the keys, Ctrl+C, and failures on the way."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
from pathlib import Path

import pytest
from whole_runs import clean_env, read

REPOSITORY = Path(__file__).parents[2]


def test_semi_automatic_mode_shows_its_status_runs_a_round_and_quits_resumably(demo, tmp_path):
    launcher = (str(REPOSITORY / "semi_auto_trainer_trl.py"),)
    command = demo.command(tmp_path / "run", launcher=launcher)
    done = subprocess.run(command, input="s\nc\nq\n", capture_output=True, text=True, timeout=200, env=clean_env())
    assert done.returncode == 3, done.stderr[-2000:]
    assert "Please select operation [c]continue [s]status [q]quit: " in done.stdout
    assert done.stderr.rstrip().splitlines()[-2].startswith("stopped before round 2")
    assert "Semi-Automated Training System Initialization" in done.stdout
    assert "Current Round: 1" in done.stdout
    assert "Total Rounds: 5" in done.stdout
    summary = read(tmp_path / "run" / "auto_training_summary.json")
    assert (summary["final_status"], summary["rounds_done"]) == ("stopped", 1)
    assert read(tmp_path / "run" / "training_state.json")["can_continue"] is True
    assert (tmp_path / "run" / "logs" / "semi_auto_trainer.log").stat().st_size > 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_exits_130_and_goes_on_later(demo, tmp_path, number):
    workspace = tmp_path / "run"
    flags = ("--total-rounds", "1", "--first-training-round", "3")
    run = subprocess.Popen(
        demo.command(workspace, *flags), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=clean_env()
    )
    assert run.stdout is not None
    for line in run.stdout:
        if "sampling" in line or "data_collection" in line:
            break
    run.send_signal(number)
    output, _ = run.communicate(timeout=60)
    assert run.returncode == 130, output
    assert "Traceback" not in output
    assert read(workspace / "training_state.json")["status"] == "stopped"
    again = demo.run(workspace, *flags)
    assert again.returncode == 0, again.stderr[-2000:]
    assert read(workspace / "auto_training_summary.json")["final_status"] == "completed"


def test_a_second_run_in_the_workspace_exits_4_and_names_the_first(demo, tmp_path):
    workspace = tmp_path / "run"
    first = subprocess.Popen(
        demo.command(workspace), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=clean_env()
    )
    try:
        assert first.stdout is not None
        for line in first.stdout:
            if "data_collection" in line or "evaluation" in line:
                break
        second = demo.run(workspace)
        assert second.returncode == 4
        assert f'"pid": {first.pid}' in second.stderr
    finally:
        first.send_signal(signal.SIGINT)
        first.communicate(timeout=60)


def test_training_that_fails_for_good_stops_the_run_or_is_skipped_as_set(demo, tmp_path):
    """The sampling child can load the folder; the trainer cannot, once the loss is one it refuses at run time."""
    workspace = tmp_path / "run"
    broken = (
        "--total-rounds",
        "1",
        "--first-training-round",
        "1",
        "--attempts-per-question",
        "16",
        "--auto-retry-enabled",
        "false",
        "--trl-lr-scheduler",
        "no_such_schedule",
    )
    failed = demo.run(workspace, *broken)
    assert failed.returncode == 1, failed.stderr[-2000:]
    summary = read(workspace / "auto_training_summary.json")
    assert (summary["final_status"], summary["rounds_done"]) == ("failed", 0)
    assert summary["errors"][0]["stage"] == "trl_training"
    assert not (workspace / "checkpoints" / "merged_solver_r1").exists()
    skipped = demo.run(workspace, *broken, "--auto-continue-on-failure", "true")
    assert skipped.returncode == 0, skipped.stderr[-2000:]
    summary = read(workspace / "auto_training_summary.json")
    assert summary["rounds"][0]["trained"] is False
    assert "given up" in summary["rounds"][0]["reason"]


def test_a_teacher_that_goes_away_leaves_unknown_or_stops_but_never_a_zero(demo, tmp_path):
    """The embedded teacher, run by itself, is killed while the run is under way."""
    import json
    import sys

    server = subprocess.Popen(
        [sys.executable, "-m", "prosetting.teachers.embedded_teacher", "--port", "0"],
        stdout=subprocess.PIPE,
        stdin=subprocess.PIPE,
        text=True,
        env=clean_env(),
    )
    assert server.stdout is not None
    port = json.loads(server.stdout.readline())["port"]
    workspace = tmp_path / "run"
    run = subprocess.Popen(
        demo.command(
            workspace,
            "--total-rounds",
            "1",
            "--teacher-base-url",
            f"http://127.0.0.1:{port}/v1",
            "--teacher-max-retries",
            "1",
            "--teacher-retry-delay",
            "0",
            "--auto-retry-enabled",
            "false",
        ),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=clean_env(),
    )
    assert run.stdout is not None
    for line in run.stdout:
        if "evaluation" in line or "data_collection" in line:
            server.kill()
            break
    output, _ = run.communicate(timeout=120)
    assert run.returncode == 5, output
    db = sqlite3.connect(workspace / "prosetting.db")
    by_teacher = db.execute("SELECT DISTINCT verdict FROM grades WHERE decided_by = 'teacher1'").fetchall()
    db.close()
    assert {verdict for (verdict,) in by_teacher} <= {"unknown"}
