"""Each wrong input: one clear message, a non-zero exit, nothing half-written."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from prosetting.errors import EXIT_TEACHER_UNAVAILABLE


def refused(demo, workspace: Path, *flags: str, code: int = 2) -> str:
    done = demo.run(workspace, *flags)
    assert done.returncode == code, done.stderr[-2000:]
    assert "Traceback" not in done.stderr
    assert "→" in done.stderr, "the message says what to do"
    assert not workspace.exists() or not any(workspace.iterdir()), "nothing is half-written"
    return done.stderr


QUESTION_FILES = {
    "empty": ("", "the file is empty"),
    "not_json": ("{oops", "line 1"),
    "wrong_fields": ('{"question": 5, "answer": "1"}\n{"q": "b?"}', "line 2"),
    "two_answers": ('{"question": "a?", "answer": "1"}\n{"question": " a? ", "answer": "2"}', "line 2"),
}


def test_a_bad_row_among_good_ones_is_told_and_left_out(demo, tmp_path):
    file = tmp_path / "some_bad.jsonl"
    file.write_text('{"question": "a?", "answer": "1"}\n{"q": "b?"}\n')
    # A teacher that is not there ends the run right after the questions were read.
    nowhere = ("--teacher-base-url", "http://127.0.0.1:9/v1", "--teacher-max-retries", "0")
    done = demo.run(tmp_path / "run", "--questions-file", str(file), *nowhere)
    assert done.returncode == EXIT_TEACHER_UNAVAILABLE
    assert "some_bad.jsonl, line 2" in done.stderr


@pytest.mark.parametrize("name", QUESTION_FILES)
def test_a_bad_question_file_is_named_with_its_line(demo, tmp_path, name):
    text, expected = QUESTION_FILES[name]
    file = tmp_path / f"{name}.jsonl"
    file.write_text(text)
    message = refused(demo, tmp_path / "run", "--questions-file", str(file))
    assert file.name in message
    assert expected in message


def test_a_missing_question_file(demo, tmp_path):
    assert "nowhere.json" in refused(demo, tmp_path / "run", "--questions-file", str(tmp_path / "nowhere.json"))


def test_a_missing_model(demo, tmp_path):
    message = refused(demo, tmp_path / "run", "--solver-model-path", str(tmp_path / "nowhere"))
    assert "there is no model at" in message
    assert "SOLVER_MODEL_PATH" in message


def test_a_folder_that_is_no_model(demo, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "not a model folder" in refused(demo, tmp_path / "run", "--solver-model-path", str(tmp_path / "empty"))


def test_held_out_questions_that_are_in_the_pool(demo, tmp_path):
    message = refused(demo, tmp_path / "run", "--validation-data-file", str(demo.folder / "questions.json"))
    assert "would not be held out" in message


def test_a_teacher_that_does_not_answer_exits_5(demo, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    flags = ("--teacher-base-url", f"http://127.0.0.1:{port}/v1", "--teacher-max-retries", "0")
    assert "TEACHER_BASE_URL" in refused(demo, tmp_path / "run", *flags, code=5)


def test_a_taken_port(demo, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        message = refused(demo, tmp_path / "run", "--embedded-teacher-port", str(taken.getsockname()[1]))
    assert "EMBEDDED_TEACHER_PORT" in message


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--trl-num-processes", "0"),
        ("--training-framework", "PPO"),
        ("--trl-loss-type", "no_such_loss"),
        ("--trl-sharding", "fsdp"),
        ("--trl-mixed-precision", "fp16"),
        ("--accelerate-config-file", "nowhere.yaml"),
    ],
)
def test_a_value_that_cannot_hold_names_its_setting(demo, tmp_path, flag, value):
    message = refused(demo, tmp_path / "run", flag, value)
    assert flag.strip("-").replace("-", "_").upper() in message


def test_a_workspace_that_cannot_be_made(demo, tmp_path):
    (tmp_path / "file").write_text("")
    done = demo.run(tmp_path / "file" / "run")
    assert done.returncode == 2
    assert "WORKSPACE_DIR" in done.stderr
