"""The commands as a user types them, in this process: output, exit codes, nothing half-written."""

from __future__ import annotations

import fcntl
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from recorded_run import record_run

from prosetting.cli.checker import check_and_status
from prosetting.cli.main import main
from prosetting.core.journal import Journal
from prosetting.core.workspace import WorkspaceLock
from prosetting.managers.resources import GpuUse, ResourceSampler


@pytest.fixture(autouse=True)
def _clean_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WORKSPACE_DIR", str(tmp_path / "ws"))
    for name in ("SOLVER_MODEL_PATH", "TEACHER_BASE_URL", "QUESTIONS_FILE", "VALIDATION_DATA_FILE"):
        monkeypatch.delenv(name, raising=False)


def write_rows(path: Path, *rows: dict[str, Any] | str) -> Path:
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
    return path


RIGHT = {"question": "What is 4+5?", "reference": "9", "response": "So \\boxed{9}", "id": 1}
WRONG = {"question": "What is 4+5?", "reference": 9, "response": "So \\boxed{8}", "note": ["kept"]}
OPEN = {"question": "What is 4+5?", "response": "So \\boxed{9} \ud800", "verdict": "old"}


# usage


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("prosetting 0.")


@pytest.mark.parametrize(
    ("args", "hint"),
    [
        (["run", "--total-round", "3"], "--total-rounds"),
        (["stats"], "status"),
        (["run", "--mode", "manual"], "semi"),
        (["grade"], "FILE.jsonl"),
    ],
)
def test_a_mistyped_command_line_is_a_usage_error_with_a_hint(
    args: list[str], hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(args) == 2
    assert hint in capsys.readouterr().err


def test_the_help_of_run_lists_settings_with_their_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--help"]) == 0
    out = capsys.readouterr().out
    assert "--total-rounds VALUE" in out
    assert "default: 5" in out


def test_an_error_is_one_message_with_a_next_step_and_no_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: SOLVER_MODEL_PATH is not set")
    assert "→ put SOLVER_MODEL_PATH=… into .env" in err
    assert "Traceback" not in err


def test_a_flag_is_a_setting_and_wins_over_the_environment(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TRL_NUM_PROCESSES", "1")
    assert main(["run", "--solver-model-path", "none", "--trl-num-processes", "0"]) == 2
    assert "TRL_NUM_PROCESSES='0' (from the flag)" in capsys.readouterr().err


def test_bad_input_of_a_run_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--solver-model-path", str(tmp_path / "no-model")]) == 2
    assert "there is no model at" in capsys.readouterr().err
    assert not (tmp_path / "ws").exists()


def test_hostile_text_in_an_error_is_shown_and_not_obeyed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--solver-model-path", "\x1b[31m[red]x"]) == 2
    err = capsys.readouterr().err
    assert "\\x1b[31m[red]x" in err
    assert "\x1b" not in err


def test_settings_prints_the_reference_page(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["settings"]) == 0
    assert "| `TOTAL_ROUNDS` |" in capsys.readouterr().out


# status and report


def test_status_and_report_say_where_no_run_was_started(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for command in ("status", "report"):
        assert main([command]) == 2
        assert "no run has been started" in capsys.readouterr().err
    assert not (tmp_path / "ws").exists()


def test_status_tells_a_program_what_the_run_is_doing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record_run(tmp_path / "ws", rounds_done=1)
    assert main(["status", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["status"], found["held_by"], found["can_continue"]) == ("stopped", None, True)
    assert (found["total_rounds"], found["completed_rounds"]) == (2, [1])
    assert (found["current_round"], found["current_stage"]) == (2, "data_collection")
    first, second = found["rounds"]
    assert first["verdicts"] == {"correct": 2, "incorrect": 2, "unknown": 0}
    assert (first["average_reward"], first["pool"]) == (0.5, {"seed": 2})
    assert (second["attempts"], second["attempts_planned"], second["graded"]) == (2, 4, 0)


def test_status_tells_a_person_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record_run(tmp_path / "elsewhere", rounds_done=1)
    assert main(["status", "--workspace-dir", str(tmp_path / "elsewhere")]) == 0
    out = capsys.readouterr().out
    assert "elsewhere: stopped" in out
    assert "The same command goes on from here" in out


def test_status_tells_a_live_run_from_one_that_was_killed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    workspace = record_run(tmp_path / "ws", rounds_done=1)
    state = json.loads(workspace.state.read_text())
    workspace.state.write_text(json.dumps(state | {"status": "running"}))
    with WorkspaceLock(workspace):
        assert main(["status", "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["status"] == "running"
        assert found["held_by"]["pid"] > 0
    workspace.lock_file.write_text('{"pid": 1, "host": "h", "since": "then"}')
    assert main(["status", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["status"], found["held_by"]) == ("interrupted", None)


KILLED_WHILE_COMMITTING = """
import os, signal, sys
from pathlib import Path
from prosetting.core.journal import Journal
journal = Journal(Path(sys.argv[1]))
journal._db.execute("PRAGMA cache_size=5")
journal._db.execute("BEGIN IMMEDIATE")
for i in range(500):
    journal._db.execute("INSERT INTO facts VALUES (?, ?)", (f"half done {i}", "1" * 2000))
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_status_reads_a_run_that_was_killed_in_the_middle_of_a_commit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace = record_run(tmp_path / "ws", rounds_done=1)
    subprocess.run([sys.executable, "-c", KILLED_WHILE_COMMITTING, str(workspace.journal)], check=False)
    assert main(["status", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["completed_rounds"] == [1]
    with Journal(workspace.journal, read_only=True) as journal:
        assert journal.fact("half done 0") is None


def test_report_prints_and_writes_an_unfinished_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    workspace = record_run(tmp_path / "ws", rounds_done=1)
    assert main(["report"]) == 0
    out = capsys.readouterr().out
    assert "stopped" in out
    assert "1 of 2" in out
    assert (workspace.results / "report.md").is_file()


def test_report_gives_programs_the_summary(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record_run(tmp_path / "ws", rounds_done=2)
    assert main(["report", "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["final_status"], summary["rounds_done"], summary["duration_seconds"]) == ("completed", 2, 12.5)


# grade


def test_grade_gives_each_row_back_in_order_with_its_verdict(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_rows(tmp_path / "rows.jsonl", RIGHT, "", WRONG, OPEN)
    assert main(["grade", str(file), "--rules-only"]) == 0
    captured = capsys.readouterr()
    rows = [json.loads(line) for line in captured.out.splitlines()]
    assert [row["verdict"] for row in rows] == ["correct", "incorrect", "unknown"]
    assert [row["decided_by"] for row in rows] == ["rules", "rules", "rules"]
    assert rows[0] == RIGHT | {"verdict": "correct", "decided_by": "rules"}
    assert rows[1]["note"] == ["kept"]
    assert "3 rows: 1 correct, 1 incorrect, 1 unknown · 2 by rules\n" in captured.err


def test_grade_asks_the_teacher_what_rules_leave_open(tmp_path: Path) -> None:
    row = {"question": "Max has 5 cards. Max buys 4 more. How many cards does Max have?", "response": "\\boxed{9}"}
    out = tmp_path / "out.jsonl"
    assert main(["grade", str(write_rows(tmp_path / "rows.jsonl", RIGHT, row)), "--out", str(out)]) == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["decided_by"] for row in rows] == ["rules", "teacher1"]


def test_grade_holds_any_number_of_rows_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prosetting.cli.grade.ROWS_AT_A_TIME", 2)
    rows = [(RIGHT if i % 2 else WRONG) | {"id": i} for i in range(7)]
    out = tmp_path / "new" / "out.jsonl"
    assert main(["grade", str(write_rows(tmp_path / "rows.jsonl", *rows)), "--rules-only", "--out", str(out)]) == 0
    graded = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["id"] for row in graded] == list(range(7))
    assert [row["verdict"] == "correct" for row in graded] == [bool(i % 2) for i in range(7)]


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ("{nope", "not JSON"),
        ("[1]", "not an object"),
        ({"question": "q"}, "no field 'response'"),
        ({"question": 3, "response": "r"}, "'question' is not text"),
        ({"question": "q", "response": "r", "reference": ["9"]}, "'reference' is neither"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_grade_names_the_line_of_a_malformed_row_and_writes_nothing(
    row: dict[str, Any] | str, what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = write_rows(tmp_path / "rows.jsonl", RIGHT, "", row), tmp_path / "out.jsonl"
    assert main(["grade", str(file), "--rules-only", "--out", str(out)]) == 2
    err = capsys.readouterr().err
    assert "rows.jsonl, line 3" in err
    assert what in err
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]


def test_grade_refuses_an_empty_file_a_missing_file_and_an_out_that_cannot_be(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", RIGHT)
    empty = write_rows(tmp_path / "empty.jsonl", "")
    assert main(["grade", str(empty), "--rules-only"]) == 2
    assert "no rows" in capsys.readouterr().err
    assert main(["grade", str(tmp_path / "none.jsonl"), "--rules-only"]) == 2
    assert "there is no file" in capsys.readouterr().err
    assert main(["grade", str(rows), "--rules-only", "--out", str(tmp_path)]) == 2
    assert "is a folder" in capsys.readouterr().err
    assert main(["grade", str(rows), "--rules-only", "--out", str(rows / "under" / "a-file")]) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_grade_says_when_the_teacher_is_out_of_reach(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, out = write_rows(tmp_path / "rows.jsonl", RIGHT), tmp_path / "out.jsonl"
    where = ["--teacher-base-url", "http://127.0.0.1:9/v1", "--teacher-max-retries", "0", "--out", str(out)]
    assert main(["grade", str(file), *where]) == 5
    assert "http://127.0.0.1:9/v1" in capsys.readouterr().err
    assert not out.exists()


# eval, doctor


def test_eval_refuses_what_is_no_model_before_it_starts_anything(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "no/such/model", "questions.json"]) == 2
    assert "no/such/model" in capsys.readouterr().err


def test_the_quick_check_of_a_fresh_installation_runs_through_and_says_what_is_to_set(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    example = Path(__file__).resolve().parents[2] / ".env.example"
    (tmp_path / ".env").write_text(example.read_text())
    assert check_and_status(["--quick", "--workspace-dir", str(tmp_path / "ws")]) == 1
    out = capsys.readouterr().out
    assert "❌ Solver model: SOLVER_MODEL_PATH is not set\n      → put SOLVER_MODEL_PATH=…" in out
    for name in ("Python", "Packages", "SQLite", "Machine", "Workspace", "Disk", "Questions", "Teacher1"):
        assert f" {name}: " in out
    assert "Run: no run has been started" in out


def test_the_checker_shows_the_run_of_a_workspace(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record_run(tmp_path / "ws", rounds_done=1)
    check_and_status(["--quick"])
    assert "- Completed Rounds: 1" in capsys.readouterr().out


def test_doctor_is_content_with_warnings_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    questions = tmp_path / "questions.json"
    questions.write_text(json.dumps([{"question": "What is 4+5?", "answer": "9"}, {"question": "What is 1+1?"}]))
    args = ["--solver-model-path", "org/model", "--questions-file", str(questions)]
    assert main(["doctor", "--quick", "--json", *args]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["ready"] is True
    by_name = {check["name"]: check for check in found["checks"]}
    assert by_name["Questions"]["found"].startswith("2 in ")
    assert by_name["Questions"]["found"].endswith("1 without reference")
    assert by_name["Held-out questions"]["level"] == "warning"


def test_doctor_tells_settings_of_training_that_are_wrong_together(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--quick", "--trl-lora-alpha", "8"]) == 1
    out = capsys.readouterr().out
    assert "❌ Training settings: TRL_LORA_ALPHA is set but TRL_LORA_RANK is 0" in out
    main(["doctor", "--quick", "--physical-grpo-gpu", ""])
    assert "✅ Training settings: one process, float32, grouped engine" in capsys.readouterr().out


def test_doctor_tells_a_bad_setting_and_everything_else(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--quick", "--trl-num-processes", "0"]) == 1
    out = capsys.readouterr().out
    assert "❌ Settings: TRL_NUM_PROCESSES='0' (from the flag)" in out
    assert "✅ SQLite" in out


def test_doctor_tells_a_bad_value_of_the_settings_file_and_everything_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / ".env").write_text("TEACHER_TIMEOUT=soon")
    assert main(["doctor", "--quick"]) == 1
    out = capsys.readouterr().out
    assert "❌ Settings: TEACHER_TIMEOUT='soon' (from the file)" in out
    assert "✅ SQLite" in out


@pytest.mark.parametrize("command", [["doctor", "--quick"], ["run", "--questions-file", "nowhere.json"]])
def test_a_settings_file_with_a_key_that_others_can_read_is_warned_of_once(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / ".env").write_text("TEACHER_API_KEY=sk-secret-1\nSOLVER_MODEL_PATH=org/model")
    (tmp_path / ".env").chmod(0o644)
    main(command)
    told = "".join(capsys.readouterr())
    assert told.count("chmod 600 .env") == 1
    assert "sk-secret" not in told


def test_doctor_names_a_workspace_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert main(["doctor", "--quick", "--workspace-dir", str(tmp_path / "file" / "ws")]) == 1
    assert "❌ Workspace: " in capsys.readouterr().out


def test_the_lock_is_free_after_asking_for_its_holder(tmp_path: Path) -> None:
    workspace = record_run(tmp_path / "ws", rounds_done=1)
    workspace.lock_file.write_text("{}")
    assert main(["status"]) == 0
    with workspace.lock_file.open() as stream:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_status_shows_the_judge_the_teachers_and_the_machine(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace = record_run(tmp_path / "ws", rounds_done=1)
    ResourceSampler(workspace, lambda: [GpuUse(3, 0.5, 2**30, 2**31)]).sample()
    assert main(["status"]) == 0
    out = capsys.readouterr().out
    assert "Judge, round 2: 0 of 0 canaries right" in out
    assert "0 requests, 0 tokens" in out
    assert "GPU 3: 50% busy, 1.0 of 2.0 GiB in use" in out
    assert "GiB in use by the run" in out
    assert "Disk: " in out


def test_status_is_shown_again_until_the_run_ends(tmp_path: Path) -> None:
    workspace = record_run(tmp_path / "ws", rounds_done=1)
    command = [sys.executable, "-m", "prosetting", "status", "--watch", "--json"]
    with WorkspaceLock(workspace):
        watching = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert watching.stdout is not None
        looks = [json.loads(watching.stdout.readline()) for _ in range(2)]
    rest, _ = watching.communicate(timeout=30)
    assert watching.returncode == 0
    assert {look["status"] for look in looks} == {"running"}
    assert json.loads(rest.splitlines()[-1])["status"] == "stopped"
