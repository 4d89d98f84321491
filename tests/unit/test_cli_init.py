"""`prosetting init`: by flags, by a pipe, by a person; readable by its owner alone; nothing is overwritten unasked."""

from __future__ import annotations

import io
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from dotenv import dotenv_values

from prosetting.cli.main import main
from prosetting.managers.toy_loop import write_toy_inputs


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_toy_inputs(tmp_path / "in")
    monkeypatch.chdir(tmp_path)


def typed(*lines: str) -> io.StringIO:
    return io.StringIO("".join(f"{line}\n" for line in lines))


LINES = ("in/base", "in/questions.json", "in/heldout.json", "ws", "http://h:1/v1", "judge", "it's a $key # \\ 'x'")


def test_answers_from_a_pipe_are_written_as_they_are_and_for_the_owner_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", typed(*LINES))
    os.umask(0o022)
    assert main(["init"]) == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "it's a $key" not in captured.err
    assert stat.S_IMODE(os.stat(".env").st_mode) == 0o600
    assert dotenv_values(".env", interpolate=False) == {
        "SOLVER_MODEL_PATH": "in/base",
        "QUESTIONS_FILE": "in/questions.json",
        "VALIDATION_DATA_FILE": "in/heldout.json",
        "WORKSPACE_DIR": "ws",
        "TEACHER_BASE_URL": "http://h:1/v1",
        "TEACHER_MODEL_NAME": "judge",
        "TEACHER_API_KEY": LINES[-1],
    }
    assert main(["doctor", "--quick"]) in (0, 1)
    assert "✅ Questions: 3 in in/questions.json" in capsys.readouterr().out


def test_flags_are_not_asked_and_an_empty_input_means_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", typed())
    flags = ["--solver-model-path", "org/model", "--questions-file", "in/questions.json", "--total-rounds", "2"]
    assert main(["init", "--env-file", "other.env", *flags]) == 0
    written = dotenv_values("other.env")
    assert (written["SOLVER_MODEL_PATH"], written["TOTAL_ROUNDS"]) == ("org/model", "2")
    assert written["TEACHER_BASE_URL"] == ""
    assert not Path(".env").exists()


def test_a_file_that_is_there_is_changed_only_when_asked_for_and_keeps_its_other_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = "# mine\nSEED=5\nSOLVER_MODEL_PATH=old\nexport QUESTIONS_FILE = old.json\n"
    Path(".env").write_text(before)
    monkeypatch.setattr("sys.stdin", typed("n"))
    assert main(["init"]) == 2
    assert ".env is left as it is" in capsys.readouterr().err
    assert Path(".env").read_text() == before
    monkeypatch.setattr("sys.stdin", typed("y", *LINES[:4], ""))
    assert main(["init"]) == 0
    assert Path(".env").read_text().startswith("# mine\nSEED=5\nSOLVER_MODEL_PATH=in/base\n")
    assert "old" not in Path(".env").read_text()
    assert main(["init", "--overwrite", "--solver-model-path", "a/b", "--questions-file", "in/questions.json"]) == 0
    assert "SOLVER_MODEL_PATH=a/b" in Path(".env").read_text()


@pytest.mark.parametrize(
    ("lines", "what"),
    [
        (("nowhere",), "there is no model at nowhere"),
        ((), "a run needs a Solver"),
        (("in/base", "nothing.json"), "nothing.json"),
        (("in/base", "in/questions.json", "in/questions.json", ""), "wrote"),
    ],
)
def test_a_wrong_answer_from_a_pipe_is_one_error_and_writes_nothing(
    lines: tuple[str, ...], what: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", typed(*lines))
    code = main(["init"])
    assert what in capsys.readouterr().err
    assert (code == 0) == Path(".env").exists() == (what == "wrote")


def test_a_person_is_asked_again_and_types_the_key_unseen(tmp_path: Path) -> None:
    import pty
    import time

    master, slave = pty.openpty()
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("SOLVER_", "TEACHER_"))}
    run = subprocess.Popen(
        [sys.executable, "-m", "prosetting", "init"], stdin=slave, stdout=slave, stderr=slave, env=environment
    )
    os.close(slave)
    text = ""

    def wait_for(said: str) -> None:
        nonlocal text
        until = time.monotonic() + 30
        while said not in text:
            assert time.monotonic() < until, text
            text += os.read(master, 4096).decode()

    for asked, answer in (
        ("Solver to train", "nowhere"),
        ("there is no model at nowhere", "in/base"),
        ("File of questions", "in/questions.json"),
        ("held-out", ""),
        ("Folder where", "ws"),
        ("Teacher, an", "http://h/v1"),
        ("Model asked for", "judge"),
        ("Its key", "sk-unseen"),
    ):
        wait_for(asked)
        os.write(master, f"{answer}\n".encode())
    assert run.wait(30) == 0, text
    assert "sk-unseen" not in text
    assert dotenv_values(".env")["TEACHER_API_KEY"] == "sk-unseen"
    os.close(master)
