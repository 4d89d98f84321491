"""A live run is paused, gone on with and stopped from another process, and a person answers by key, line or ctl."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from pseudo_terminal import Terminal
from whole_runs import clean_env

from prosetting.core.control import RunState, Wish, ask_run, control_status, wait_for
from prosetting.core.journal import Journal
from prosetting.core.workspace import Workspace
from prosetting.errors import (
    EXIT_DONE,
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_STOPPED,
    EXIT_USAGE,
    ProSettingError,
    WorkspaceError,
)
from prosetting.managers.run_content import content_of, differences_in
from prosetting.managers.toy_loop import write_toy_inputs

SESSION = str(Path(__file__).with_name("toy_session.py"))
MANY = 200
CTRL_C, CTRL_D = b"\x03", b"\x04"
PROMPT = "Please select operation [c]continue [s]status [q]quit: "


def command(folder: Path, rounds: int = MANY, mode: str = "auto") -> list[str]:
    return [sys.executable, SESSION, str(folder), str(rounds), mode]


def workspace_in(folder: Path) -> Workspace:
    return Workspace(folder / "run", folder / "run" / "logs")


def ctl(folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    told = [sys.executable, "-m", "prosetting", "ctl", *args, "--workspace-dir", str(folder / "run")]
    return subprocess.run(told, capture_output=True, text=True, timeout=60, env=clean_env())


@contextmanager
def background(folder: Path, rounds: int = MANY) -> Iterator[subprocess.Popen[str]]:
    """Started as `nohup … &` starts it: no terminal, no input, deaf to the end of its session."""
    with (folder / "nohup.out").open("w") as output:
        run = subprocess.Popen(
            ["nohup", *command(folder, rounds)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
            env=clean_env(),
            start_new_session=True,
        )
    try:
        wait_until(lambda: attempts_in(folder) > 0)
        yield run
    finally:
        run.kill()
        run.wait()


def wait_until(holds, deadline_s: float = 60.0) -> None:
    until = time.monotonic() + deadline_s
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.05)


def attempts_in(folder: Path) -> int:
    try:
        with Journal(folder / "run" / "prosetting.db", read_only=True) as journal:
            return sum(sum(journal.verdict_counts("train", r).values()) for r in range(1, journal.rounds_begun() + 2))
    except WorkspaceError:
        return 0


def test_a_run_in_the_background_is_paused_gone_on_with_and_stopped(tmp_path):
    with background(tmp_path) as run:
        assert ctl(tmp_path, "status").stdout.startswith("running (process ")
        paused = ctl(tmp_path, "pause", "--wait", "30")
        assert (paused.returncode, paused.stdout.split()[0]) == (0, "paused"), paused.stderr
        before = attempts_in(tmp_path)
        time.sleep(1.0)
        assert attempts_in(tmp_path) == before, "nothing new is begun"
        assert json.loads(ctl(tmp_path, "status", "--json").stdout)["state"] == "paused"
        resumed = ctl(tmp_path, "resume", "--wait", "30")
        assert (resumed.returncode, resumed.stdout.split()[0]) == (0, "running")
        wait_until(lambda: attempts_in(tmp_path) > before)
        stopped = ctl(tmp_path, "stop", "--wait", "30")
        assert (stopped.returncode, stopped.stdout.strip()) == (0, "no live run")
        assert run.wait(10) == EXIT_INTERRUPTED
    assert json.loads((tmp_path / "run" / "training_state.json").read_text())["status"] == "stopped"
    assert not list((tmp_path / "run" / "control").iterdir())
    said = (tmp_path / "run" / "logs" / "auto_trainer.log").read_text()
    assert "asked by another program to pause" in said
    assert "paused: nothing is in flight" in said


def test_a_paused_run_is_stopped_and_the_next_one_is_not_paused(tmp_path):
    with background(tmp_path) as run:
        workspace = workspace_in(tmp_path)
        ask_run(workspace, Wish.PAUSE)
        assert wait_for(workspace, Wish.PAUSE, 30).state is RunState.PAUSED
        ask_run(workspace, Wish.STOP)
        assert run.wait(30) == EXIT_INTERRUPTED
    done = subprocess.run(command(tmp_path, rounds=2), capture_output=True, text=True, timeout=60, env=clean_env())
    assert done.returncode == EXIT_DONE, done.stderr


def test_a_pause_changes_nothing_of_what_a_run_comes_to(tmp_path):
    rounds = 3
    write_toy_inputs(tmp_path / "inputs")
    for name in ("whole", "paused"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "inputs").symlink_to(tmp_path / "inputs")
    done = subprocess.run(command(tmp_path / "whole", rounds), capture_output=True, timeout=60, env=clean_env())
    assert done.returncode == EXIT_DONE
    with background(tmp_path / "paused", rounds) as run:
        workspace = workspace_in(tmp_path / "paused")
        with suppress(WorkspaceError):  # it has ended
            while True:
                ask_run(workspace, Wish.PAUSE)
                wait_for(workspace, Wish.PAUSE, 30)
                ask_run(workspace, Wish.RESUME)
        assert run.wait(30) == EXIT_DONE
    differences = list(differences_in(content_of(tmp_path / "whole" / "run"), content_of(tmp_path / "paused" / "run")))
    assert [each for each in differences if "training_config" not in each] == []


def test_what_a_killed_run_left_says_nothing_to_the_next_one(tmp_path):
    with background(tmp_path) as run:
        workspace = workspace_in(tmp_path)
        ask_run(workspace, Wish.PAUSE)
        wait_for(workspace, Wish.PAUSE, 30)
        run.send_signal(signal.SIGKILL)
        run.wait()
    assert workspace.control_wish.exists()
    assert control_status(workspace).state is RunState.NONE
    told = ctl(tmp_path, "resume")
    assert told.returncode == EXIT_USAGE
    assert "no run is live" in told.stderr
    with background(tmp_path):
        before = attempts_in(tmp_path)
        wait_until(lambda: attempts_in(tmp_path) > before)
        assert control_status(workspace).state is RunState.RUNNING


def test_a_run_that_cannot_answer_is_told_as_such(tmp_path):
    with background(tmp_path) as run:
        run.send_signal(signal.SIGSTOP)
        with pytest.raises(ProSettingError, match=f"process {run.pid} on .* has not answered within 1 s"):
            ask_run(workspace_in(tmp_path), Wish.PAUSE, deadline_s=1)
        run.send_signal(signal.SIGCONT)


# A person at a terminal, or a pipe


@contextmanager
def person(folder: Path, rounds: int = 2) -> Iterator[Terminal]:
    at = Terminal(command(folder, rounds, "semi"))
    try:
        at.wait_for(PROMPT)
        yield at
    finally:
        at.close()


def asked_again(at: Terminal, prompt: str = PROMPT) -> None:
    """Forget what was shown and wait for the next question."""
    at.wait_for(prompt)
    at.text = ""


def test_before_a_round_each_key_does_what_it_says_without_enter(tmp_path):
    with person(tmp_path) as at:
        at.text = ""
        at.press(b"x")
        at.wait_for("Please type one of: c, s, q")
        asked_again(at)
        at.press(b"s")
        at.wait_for("Completed Rounds: 0")
        asked_again(at)
        at.press(b"r")
        at.wait_for("Please type one of")
        asked_again(at)
        at.press(b"Cqqq")  # what is pressed while a round runs answers no later question
        at.wait_for("Preparing to execute Round 2")
        at.wait_for(PROMPT)
        time.sleep(0.5)
        assert at.process.poll() is None
        at.press(b"q")
        assert at.end() == EXIT_STOPPED
        assert "stopped before round 2" in at.text


def test_before_a_round_a_line_does_as_well_and_so_do_ctrl_c_and_ctrl_d(tmp_path):
    for keys, code in ((CTRL_D, EXIT_STOPPED), (CTRL_C, EXIT_INTERRUPTED)):
        with person(tmp_path) as at:
            at.text = ""
            at.press(b"\n")
            at.press(b"s\n")
            at.wait_for("Completed Rounds: 0")
            at.text = at.text.rpartition("Completed Rounds: 0")[2]  # the question may have come with it
            at.wait_for(PROMPT)
            at.press(keys)
            assert at.end() == code, keys
            assert "Traceback" not in at.text


def test_after_a_failure_each_key_does_what_it_says(tmp_path):
    failed = "Please select operation [r]retry [c]continue without training [q]quit: "
    (tmp_path / "fail").touch()
    with person(tmp_path) as at:
        at.press(b"c")
        at.wait_for("Preparing to execute Round 2")
        at.wait_for(PROMPT)
        at.text = ""
        at.press(b"c")
        at.wait_for("training failed on order")
        asked_again(at, failed)
        at.press(b"s")
        at.wait_for("Please type one of: r, c, q")
        asked_again(at, failed)
        at.press(b"r")
        at.wait_for("training failed on order")
        asked_again(at, failed)
        at.press(b"q")
        assert at.end() == EXIT_FAILED
    with person(tmp_path) as at:
        at.press(b"c")
        at.wait_for(failed)
        at.press(b"c")
        assert at.end() == EXIT_DONE
    with Journal(tmp_path / "run" / "prosetting.db", read_only=True) as journal:
        assert "given up" in journal.stage(2, "trl_training").output["reason"]


def test_in_a_pipe_lines_answer_and_the_end_of_input_quits(tmp_path):
    done = subprocess.run(
        command(tmp_path, 3, "semi"), input="what?\ns\nc\n", capture_output=True, text=True, timeout=60, env=clean_env()
    )
    assert done.returncode == EXIT_STOPPED, done.stderr
    assert "Please type one of: c, s, q" in done.stdout
    assert done.stdout.count(PROMPT) == 4
    assert "\x1b" not in done.stdout + done.stderr
    assert "stopped before round 2" in done.stderr


def test_a_question_to_a_person_is_answered_by_ctl_as_well(tmp_path):
    with person(tmp_path, rounds=3) as at:
        workspace = workspace_in(tmp_path)
        wait_until(lambda: control_status(workspace).state is RunState.WAITING)
        assert control_status(workspace).question == "before round 1"
        assert ask_run(workspace, Wish.PAUSE).state is RunState.WAITING
        at.text = ""
        assert ctl(tmp_path, "resume").returncode == 0
        at.wait_for("Preparing to execute Round 2")
        at.wait_for(PROMPT)
        wait_until(lambda: control_status(workspace).question == "before round 2")
        assert ctl(tmp_path, "stop", "--wait", "30").returncode == 0
        assert at.end() == EXIT_STOPPED


def test_the_terminal_is_left_as_it_was(tmp_path):
    import termios

    with person(tmp_path) as at:
        asking = termios.tcgetattr(at.descriptor)[3]
        assert not asking & termios.ICANON
        os.kill(at.process.pid, signal.SIGTERM)
        assert at.end() == EXIT_INTERRUPTED
        assert termios.tcgetattr(at.descriptor)[3] & termios.ICANON
